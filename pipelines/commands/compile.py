"""`l2dm compile`: the pipelines as YAML for Kubeflow Pipelines."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.options import ConfigOption, JsonOption
from pipelines.commands.output import tell_json, tell_paths


def compile_(
    out: Annotated[Path, typer.Option("--out", help="Folder for the YAML.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write the pipelines as YAML for Kubeflow Pipelines."""
    from pipelines.places.compilation import compile_pipelines
    from pipelines.places.settings import load

    files = [str(path) for path in compile_pipelines(out, load(config) if config else None)]
    if json:
        tell_json({"files": files})
    else:
        tell_paths(files)
