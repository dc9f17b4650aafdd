"""Options that several commands share, and how an error leaves the program."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from l2dm.errors import BadInput, L2dmError

FAILED, BAD_INPUT, REGRESSED = 1, 2, 3

HomeOption = Annotated[
    str,
    typer.Option("--home", envvar="L2DM_HOME", help="State: a folder, or s3://bucket/prefix."),
]
BaseOption = Annotated[
    str,
    typer.Option(
        "--base", envvar="L2DM_BASE", help='Base model: "pocket", a folder, "org/name", s3://…'
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
HOME, BASE = ".l2dm", "pocket"


class Commands(TyperGroup):
    """The command group: an error that we raise on purpose is one message, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; bad input exits with 2, any other refusal or a full disk with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read our output has seen enough
            raise typer.Exit(FAILED) from None
        except OSError as error:
            where = f" at {error.filename}" if error.filename else ""
            sys.stderr.write(
                f"error: the file system refused{where}: {error.strerror or error}; nothing is "
                "half written: free some space or mend the permissions and run it again\n"
            )
            raise typer.Exit(FAILED) from error
        except L2dmError as error:
            sys.stderr.write(f"error: {error}\n")
            raise typer.Exit(BAD_INPUT if isinstance(error, BadInput) else FAILED) from error
