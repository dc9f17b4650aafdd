"""Options that several commands share, and the exit codes.

0: done (a version that the gate holds back is a result, too). FAILED: something failed. BAD_INPUT:
every problem is listed and nothing was written. REGRESSED: a check found a regression.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

FAILED, BAD_INPUT, REGRESSED = 1, 2, 3

HomeOption = Annotated[
    str,
    typer.Option("--home", envvar="L2DM_HOME", help="State: a folder, or s3://bucket/prefix."),
]
BaseOption = Annotated[
    str,
    typer.Option(
        "--base",
        envvar="L2DM_BASE",
        help='Base model: "pocket", a folder, "org/name", s3://… By default the one that the line '
        "keeps; pocket for a new line.",
        show_default=False,
    ),
]
LineOption = Annotated[str, typer.Option("--line", help="Name of the line.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting of the spec, section.key=value; may be repeated."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="L2DM_CONFIG", help="l2dm.toml: where and on what steps run."),
]
RunnerOption = Annotated[
    Literal["local", "docker", "cluster"], typer.Option("--runner", help="Where runs execute.")
]
HOME, BASE = ".l2dm", ""  # no base: the line's own
