"""`l2dm generate`: draw a prompt with a version of a line."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from pipelines.commands.output import tell, tell_json
from pipelines.commands.target import Target, require_line

if TYPE_CHECKING:
    from pipelines.places.run_here import Listener


def generate(  # noqa: PLR0913 - one parameter per option
    prompt: Annotated[str, typer.Argument(help='e.g. "a photo of <rex> dog"')],
    line: LineOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for the PNG files.")],
    version: Annotated[str, typer.Option("--version", help="Alias or number.")] = "champion",
    count: Annotated[int, typer.Option("-n", min=1, help="How many pictures.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first.")] = 0,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Draw a prompt with a version of a line; the same seed gives the same bytes."""
    from pipelines.commands.progress import watching

    target = Target(home, line, base, tuple(settings or ()))
    with watching(line) as listener:
        files = draw(target, version, prompt, range(seed, seed + count), out, listener)
    if json:
        tell_json({"files": [str(path) for path in files]})
    else:
        tell("\n".join(str(path) for path in files))


def draw(
    target: Target,
    version: str,
    prompt: str,
    seeds: Sequence[int],
    out: Path,
    listener: "Listener",
) -> list[Path]:
    """Draw one picture per seed into `out`. Raises UnknownLine, BadPrompt, BadBase, DoesNotFit."""
    from components.services.line.run_journal import StepProgress
    from l2dm.bases.prompts import require_known
    from l2dm.files.images import save_png
    from l2dm.releases.folder import adapter_of
    from l2dm.releases.painter import open_release

    require_line(target.home, target.line)
    with target.fetched(version) as (_, release):
        known = adapter_of(release).record.concepts
        require_known(prompt, [concept.name for concept in known])  # before the model is loaded
        painter = open_release(release, target.local_base())

    def on_progress(done: int, total: int) -> None:
        listener(StepProgress("generate", "pictures", done, total))

    pictures = painter.paint(prompt, seeds, target.spec.sampling, on_progress=on_progress)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{target.line}-{seed:05d}.png" for seed in seeds]
    for picture, path in zip(pictures, paths, strict=True):
        save_png(picture, path)
    return paths
