"""What a registered version calls when it is served. What stands here never changes.

MLflow keeps a copy of `components/runtime/pyfunc.py` with every version. It runs that copy in a
fresh interpreter, perhaps years later, with the release of this project that is installed there.
The copy imports this module and nothing else of ours. So this is a promise, of version 1:

* `open_release(folder, base)` opens the Release door in a folder on a base model: a folder, a name
  on a hub, or an address such as `s3://bucket/prefix`;
* `png(prompt, seed=, steps=)` of what it returns gives the bytes of one PNG.

Everything behind it may move. These names, parameters and meanings stay: what is to mean something
else is added beside them, under another name.
"""

from pathlib import Path

from l2dm import installed
from l2dm.errors import BadBase
from l2dm.files.images import png_bytes
from l2dm.releases import painter
from l2dm.spec import SamplingSpec

FETCHERS = "l2dm.base_fetchers"  # entry points by scheme: what brings a base to this machine


class ServedRelease:
    """A release on its base, loaded once."""

    def __init__(self, loaded: painter.Painter) -> None:
        self._painter = loaded

    def png(self, prompt: str, *, seed: int = 0, steps: int = 0) -> bytes:
        """One picture; the same arguments give the same bytes on one machine.

        steps: of the sampler; 0 takes what the base recommends. Raises BadPrompt when the prompt
        names a concept that this release does not know.
        """
        sampling = SamplingSpec(steps=steps)
        return png_bytes(self._painter.paint(prompt, [seed], sampling)[0])


def open_release(folder: str | Path, base: str) -> ServedRelease:
    """The release in a folder on its base.

    Raises BadDoor for a release that was changed, or of a format that this project does not read;
    BadBase, DoesNotFit.
    """
    return ServedRelease(painter.open_release(Path(folder), _on_this_machine(base)))


def _on_this_machine(base: str) -> str:
    """What the library loads the base by: one behind a scheme is fetched. Raises BadBase."""
    scheme, sign, _ = base.partition("://")
    if not sign:
        return base
    for fetcher in installed.entry_points(FETCHERS):
        if fetcher.name == scheme:
            fetched: str = fetcher.load()(base)
            return fetched
    raise BadBase(
        f"base model {base}: expected an installed package that fetches {scheme}://, found none; "
        "install this project from its checkout (pip install .), which brings what fetches s3://, "
        "or name a folder"
    )
