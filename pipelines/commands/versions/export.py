"""`l2dm export`: write a version as plain files that diffusers and ComfyUI read."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import BASE, HOME, BaseOption, HomeOption, JsonOption, LineOption
from pipelines.commands.output import tell_json, tell_paths
from pipelines.commands.target import Target, require_line


def export(
    line: LineOption,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    version: Annotated[str, typer.Option("--version", help="Alias or number.")] = "champion",
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    json: JsonOption = False,
) -> None:
    """Write a version as plain diffusers / ComfyUI-readable files."""
    export_version(Target(home, line, base), version, out)
    files = sorted(str(path) for path in out.rglob("*") if path.is_file())
    if json:
        tell_json({"files": files})
    else:
        tell_paths(files)


def export_version(target: Target, version: str, out: Path) -> None:
    """Write a version's files into `out`. Raises UnknownLine, BadBase, DoesNotFit."""
    from l2dm.export.write import export as write

    require_line(target.home, target.line)
    with target.fetched(version) as (_, release):
        write(release, target.local_base(), out)
