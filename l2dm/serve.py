"""What a registered version calls when it is served. What stands here never changes.

MLflow keeps a copy of `components/runtime/pyfunc.py` with every version. It runs that copy in a
fresh interpreter, perhaps years later, with the release of this project that is installed there,
or with the one that the version carries. The copy imports this module and nothing else of ours. So
this is a promise, of version 2:

* `open_release(folder, base)` opens the Release door in a folder on a base model: a folder, a name
  on a hub, or an address such as `s3://bucket/prefix`;
* `png(prompt, seed=, steps=)` of what it returns gives the bytes of one PNG (version 1);
* `pngs(rows)` of what it returns gives the bytes of a PNG a picture, with what was asked in its
  text; a row's keys are those of `ROW`;
* `Refused` is what both raise for what cannot be drawn: the sentence says why.

Everything behind it may move. These names, parameters and meanings stay: what is to mean something
else is added beside them, under another name.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from l2dm import installed
from l2dm.errors import BadBase, BadInput, BadPrompt
from l2dm.files.images import png_bytes
from l2dm.releases import painter
from l2dm.releases.picture_text import texts
from l2dm.releases.request import DrawPlan, Wish, plan, read_strengths, require_used
from l2dm.spec import SamplingSpec

FETCHERS = "l2dm.base_fetchers"  # entry points by scheme: what brings a base to this machine
MAX_PICTURES = 256  # of one call
ROW: Mapping[str, Any] = {
    "prompt": "",
    "negative_prompt": "",
    "seed": 0,  # of the first picture; the next has the next
    "count": 1,
    "steps": 0,  # 0: what the base recommends, here and below
    "guidance": 0.0,
    "scale": "",  # strengths of concepts: "rex=0.7 tom=0", or one number for all
}
Refused = BadInput
log = logging.getLogger(__name__)


class ServedRelease:
    """A release on its base, loaded once."""

    def __init__(self, loaded: painter.Painter) -> None:
        self._painter = loaded

    def png(self, prompt: str, *, seed: int = 0, steps: int = 0) -> bytes:
        """One picture; the same arguments give the same bytes on one machine.

        steps: of the sampler; 0 takes what the base recommends. Raises BadPrompt when the prompt
        names a concept that this release does not know, BadSpec for a number out of range.
        """
        sampling = SamplingSpec(steps=steps)
        return png_bytes(self._painter.paint(prompt, [seed], sampling)[0])

    def pngs(self, rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """Pictures row by row; each is the same whatever is asked beside it.

        rows: keys of `ROW`; one that is missing, None or not a number (NaN) is its default. Raises
        Refused with every problem; nothing was drawn then.
        """
        asked = [_planned(row, self._painter) for row in _checked(rows)]
        for note in self._painter.notes([one for plans, _ in asked for one in plans]):
            log.warning("%s", note)
        pictures = []
        for plans, sampling in asked:
            origin = self._painter.origin(sampling)
            for picture, one in zip(self._painter.draw(plans, sampling), plans, strict=True):
                pictures.append(png_bytes(picture, texts(origin, one)))
        return pictures


def open_release(folder: str | Path, base: str) -> ServedRelease:
    """The release in a folder on its base.

    Raises BadDoor for a release that was changed, or of a format that this project does not read;
    BadBase, DoesNotFit.
    """
    return ServedRelease(painter.open_release(Path(folder), _on_this_machine(base)))


def _checked(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with every key and of the right types. Raises BadPrompt."""
    found, problems = [], []
    for number, row in enumerate(rows):
        problems += [f"row {number}: {each}" for each in _problems(row)]
        found.append({**ROW, **{key: row[key] for key in ROW if not _absent(row.get(key))}})
    if not problems and (count := sum(int(row["count"]) for row in found)) > MAX_PICTURES:
        problems = [f"expected at most {MAX_PICTURES} pictures in one call, found {count}"]
    if problems:
        raise BadPrompt(problems[:20])
    return found


def _problems(row: Mapping[str, Any]) -> list[str]:
    problems = []
    if unknown := sorted(str(key)[:40] for key in set(row) - set(ROW)):
        problems.append(f"expected keys of {', '.join(ROW)}, found {', '.join(unknown)}")
    if _absent(row.get("prompt")):
        problems.append("prompt: expected a text, found none")
    for key, default in ROW.items():
        value = row.get(key)
        if not _absent(value) and not _fits(value, default):
            kind = {str: "a text", int: "a whole number", float: "a number"}[type(default)]
            problems.append(f"{key}: expected {kind}, found a {type(value).__name__}")
    count = row.get("count")
    if not problems and not _absent(count) and not 1 <= int(count) <= MAX_PICTURES:  # type: ignore[arg-type]
        problems.append(f"count: expected 1 to {MAX_PICTURES}")
    return problems


def _planned(
    row: Mapping[str, Any], release: painter.Painter
) -> tuple[list[DrawPlan], SamplingSpec]:
    """One row's pictures. Raises BadPrompt, BadSpec."""
    sampling = SamplingSpec(steps=int(row["steps"]), guidance=float(row["guidance"]))
    release.require_steps(sampling)
    strengths = read_strengths(row["scale"].replace(",", " ").split())
    seeds = range(int(row["seed"]), int(row["seed"]) + int(row["count"]))
    wishes = [Wish(row["prompt"], seed, row["negative_prompt"], strengths) for seed in seeds]
    plans = plan(wishes, release.concepts)
    require_used(strengths, plans)
    return plans, sampling


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of its default's type, as Python or numpy has it."""
    if isinstance(default, str):
        return isinstance(value, str)
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return False
    return isinstance(default, float) or hasattr(value, "__index__") or float(value).is_integer()


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _on_this_machine(base: str) -> str:
    """What the library loads the base by: one behind a scheme is fetched. Raises BadBase."""
    scheme, sign, _ = base.partition("://")
    if not sign:
        return base
    for fetcher in installed.entry_points(FETCHERS):
        if fetcher.name == scheme:
            return _fetched(fetcher, base)
    raise BadBase(
        f"base model {base}: expected an installed package that fetches {scheme}://, found none; "
        "install this project from its checkout (pip install .), which brings what fetches s3://, "
        "or name a folder"
    )


def _fetched(fetcher: EntryPoint, base: str) -> str:
    """What an installed package makes of a base behind a scheme; its own errors are passed on."""
    try:
        fetch = fetcher.load()
    except (Exception, SystemExit) as error:
        raise BadBase(f"base model {base}: {installed.left_out(fetcher, error)}") from error
    fetched: str = fetch(base)
    return fetched
