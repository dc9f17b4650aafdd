"""`l2dm generate`: draw prompts with a version of a line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.commands.options import (
    BASE,
    HOME,
    BaseOption,
    HomeOption,
    JsonOption,
    LineOption,
    SetOption,
)
from pipelines.commands.output import note, tell_json, tell_paths
from pipelines.commands.target import Target, require_line
from pipelines.commands.versions import picture_files
from pipelines.commands.versions.picture_files import PATTERN

if TYPE_CHECKING:
    from l2dm.releases.painter import Painter
    from l2dm.releases.picture_text import Origin
    from l2dm.releases.request import DrawPlan, Wish
    from pipelines.places.run_here import Listener

MAX_COUNT, MAX_SEED, MAX_BATCH = 10_000, 2**63 - 1, 1024


@dataclass(frozen=True)
class Order:
    """What is to be drawn: every prompt with every seed, into files in a folder.

    strengths: by concept, "" for all. name: pattern of a file's name. batch: pictures at once.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    out: Path
    negative: str = ""
    strengths: Mapping[str, float] = field(default_factory=dict)
    name: str = PATTERN
    batch: int = 1

    def wishes(self) -> "Iterator[Wish]":
        """One a picture, prompt by prompt."""
        from l2dm.releases.request import Wish

        for prompt in self.prompts:
            for seed in self.seeds:
                yield Wish(prompt, seed, self.negative, self.strengths)


@dataclass(frozen=True)
class Drawn:
    """Files that were drawn, with what was asked for each, and what the writer should know."""

    files: Sequence[Path]
    plans: "Sequence[DrawPlan]"
    notes: Sequence[str]


def generate(  # noqa: PLR0913 - one parameter per option
    line: LineOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for the PNG files.")],
    prompt: Annotated[
        list[str] | None, typer.Argument(help='e.g. "a photo of <rex> dog"; several are drawn all.')
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="A text file: a prompt a line, # is left out.")
    ] = None,
    negative: Annotated[str, typer.Option("--negative", help="What not to show.")] = "",
    scale: Annotated[
        list[str] | None,
        typer.Option(
            "--scale", help="Strength: rex=0.7, or 0.7 for all; 0: none. May be repeated."
        ),
    ] = None,
    version: Annotated[str, typer.Option("--version", help="Alias or number.")] = "champion",
    count: Annotated[
        int, typer.Option("-n", min=1, max=MAX_COUNT, help="Pictures of each prompt.")
    ] = 4,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of a prompt's first picture.")
    ] = 0,
    name: Annotated[
        str,
        typer.Option(
            "--name",
            help="File names: {line}, {version}, {prompt}, {digest} of what was asked, {seed}, "
            "{number}.",
        ),
    ] = PATTERN,
    batch: Annotated[
        int,
        typer.Option(
            "--batch", min=1, max=MAX_BATCH, help="Pictures at once: faster, equal up to rounding."
        ),
    ] = 1,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Draw prompts with a version of a line; the same seed gives the same bytes.

    No file is replaced. A PNG says in its text how it was made.
    """
    from l2dm.releases.request import read_strengths
    from pipelines.commands.progress import watching

    asked = [*(prompt or ()), *(picture_files.read_prompts(prompts) if prompts else ())]
    seeds = range(seed, seed + count)
    order = Order(asked, seeds, out, negative, read_strengths(scale or ()), name, batch)
    target = Target(home, line, base, tuple(settings or ()))
    with watching(line) as listener:
        drawn = draw(target, version, order, listener)
    if json:
        tell_json(_told(drawn))
    else:
        tell_paths(str(path) for path in drawn.files)


def draw(target: Target, version: str, order: Order, listener: "Listener") -> Drawn:
    """Draw an order's pictures; each is a file as soon as it is drawn, and none is replaced.

    Raises UnknownLine, BadInput, BadPrompt, BadBase, DoesNotFit; nothing was drawn then.
    """
    from l2dm.releases.folder import adapter_of
    from l2dm.releases.painter import open_release
    from l2dm.releases.request import plan, require_used

    _require_sane(order)
    require_line(target.home, target.line)
    sampling = target.spec.sampling
    with target.fetched(version) as (number, release):
        known = adapter_of(release).record.concepts
        plans = plan(list(order.wishes()), known)  # before the model is loaded
        require_used(order.strengths, plans)
        painter = open_release(release, target.local_base())
    painter.require_steps(sampling)
    notes = painter.notes(plans)
    for one in notes:
        note(f"note: {one}")
    origin = painter.origin(sampling, number)
    names = _names(order, origin, plans)
    files = list[Path]()
    for path in _drawn(painter, origin, order, plans, names, sampling):
        files.append(path)
        listener(_progress(len(files), len(plans)))
    return Drawn(files, plans, notes)


def _drawn(
    painter: "Painter",
    origin: "Origin",
    order: Order,
    plans: "Sequence[DrawPlan]",
    names: Sequence[str],
    sampling: Any,
) -> Iterator[Path]:
    from l2dm.files.images import png_bytes
    from l2dm.releases.picture_text import texts

    order.out.mkdir(parents=True, exist_ok=True)
    pictures = painter.draw(plans, sampling, order.batch)
    for picture, one, name in zip(pictures, plans, names, strict=True):
        yield picture_files.write_new(order.out / name, png_bytes(picture, texts(origin, one)))


def _require_sane(order: Order) -> None:
    """Raises BadInput for an order that is none, whatever the line knows."""
    from l2dm.errors import BadInput
    from l2dm.releases.request import MAX_PICTURES

    picture_files.require_pattern(order.name)
    if not order.prompts:
        raise BadInput('expected a prompt, found none; e.g. l2dm generate "a photo of a <rex> dog"')
    if (count := len(order.prompts) * len(order.seeds)) > MAX_PICTURES:
        raise BadInput(
            f"expected at most {MAX_PICTURES:,} pictures at once, found {count:,}: "
            f"{len(order.prompts):,} prompts, {len(order.seeds):,} of each; ask for fewer"
        )
    if order.seeds[-1] > MAX_SEED:
        raise BadInput(
            f"expected seeds up to {MAX_SEED}, found {order.seeds[-1]}; begin with a smaller --seed"
        )


def _names(order: Order, origin: "Origin", plans: "Sequence[DrawPlan]") -> list[str]:
    from l2dm.releases.picture_text import digest

    names = [
        picture_files.name(
            order.name,
            {
                "line": origin.line,
                "version": origin.version or 0,
                "prompt": one.wish.prompt,
                "digest": digest(origin, one),
                "seed": one.wish.seed,
                "number": number,
            },
        )
        for number, one in enumerate(plans, start=1)
    ]
    if order.name != PATTERN:  # there, equal names are equal wishes
        picture_files.require_distinct(names, order.name)
    return names


def _progress(done: int, total: int) -> Any:
    from components.services.line.run_journal import StepProgress

    return StepProgress("generate", "pictures", done, total)


def _told(drawn: Drawn) -> dict[str, Any]:
    pictures = [
        {"file": str(path), "prompt": one.wish.prompt, "seed": one.wish.seed}
        for path, one in zip(drawn.files, drawn.plans, strict=True)
    ]
    files = [str(path) for path in drawn.files]
    return {"files": files, "pictures": pictures, "notes": list(drawn.notes)}
