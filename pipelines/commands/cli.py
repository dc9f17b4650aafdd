"""The `l2dm` command: every page of this package as one app. `l2dm --help` answers at once.

Pages import typer and little else; what a command works with is imported when it is called.
"""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from l2dm.errors import BadInput, L2dmError, system_words
from pipelines.commands.bases.add import add
from pipelines.commands.bases.list import list_
from pipelines.commands.bases.show import show
from pipelines.commands.checks.check import check
from pipelines.commands.checks.schedule import schedule
from pipelines.commands.compile import compile_
from pipelines.commands.demo import demo
from pipelines.commands.dispatch import dispatch
from pipelines.commands.learn import MethodsTold, learn
from pipelines.commands.lines.forget import forget
from pipelines.commands.lines.history import history
from pipelines.commands.lines.repair import repair
from pipelines.commands.lines.status import status
from pipelines.commands.options import BAD_INPUT, FAILED
from pipelines.commands.output import guard_streams, note
from pipelines.commands.settings import settings
from pipelines.commands.uploads.cancel import cancel
from pipelines.commands.uploads.presign import presign
from pipelines.commands.uploads.submit import submit
from pipelines.commands.versions.evaluate import evaluate
from pipelines.commands.versions.export import export
from pipelines.commands.versions.generate import generate
from pipelines.commands.versions.rollback import rollback


class Commands(TyperGroup):
    """The command group: an error that we raise on purpose is one message, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; bad input exits with 2, any other refusal or a full disk with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read our output has seen enough
            raise typer.Exit(FAILED) from None
        except OSError as error:
            words = system_words(error)
            note(f"error: the file system refused: {words}; nothing is half written, run it again")
            raise typer.Exit(FAILED) from error
        except L2dmError as error:
            note(f"error: {error}")
            raise typer.Exit(BAD_INPUT if isinstance(error, BadInput) else FAILED) from error


app = typer.Typer(
    cls=Commands,
    help="Text-to-image models that keep learning concepts and are checked for forgetting.",
    epilog="Exit codes: 0 done, 1 something failed, 2 bad input, 3 a champion has regressed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
PAGES: tuple[tuple[str, Callable[..., None]], ...] = (
    ("demo", demo),
    ("submit", submit),
    ("presign", presign),
    ("learn", learn),
    ("status", status),
    ("generate", generate),
    ("evaluate", evaluate),
    ("check", check),
    ("schedule", schedule),
    ("rollback", rollback),
    ("cancel", cancel),
    ("forget", forget),
    ("repair", repair),
    ("export", export),
    ("dispatch", dispatch),
    ("history", history),
    ("compile", compile_),
    ("settings", settings),
)
for name, page in PAGES:
    app.command(name, cls=MethodsTold if page is learn else TyperCommand)(page)

bases = typer.Typer(
    help="Base models: check and store one, list them, show one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for name, page in (("add", add), ("list", list_), ("show", show)):
    bases.command(name)(page)
app.add_typer(bases, name="base")


def main() -> None:
    """Entry point of the console script."""
    guard_streams()
    app()
