"""What `l2dm learn` and `l2dm demo` print, and how they end."""

from contextlib import AbstractContextManager

import typer

from pipelines.commands import console, operations
from pipelines.commands.options import BAD_INPUT, FAILED
from pipelines.places.run_here import Listener


def learn_all(home: str, line: str, base: str, settings: list[str], json: bool) -> None:
    """Learn what waits and print each as it ends, then the report. Exits as `l2dm --help` says."""
    ended = []
    place = operations.Place(home, line, base, tuple(settings))

    def watch(concept: str) -> AbstractContextManager[Listener]:
        return console.watching(f"{line}/{concept}")

    for learned in operations.learn(place, watch):
        ended.append(learned)
        if not json:
            console.tell_learned(line, learned)
    report = operations.report(home, line)
    if json:
        data = [console.learned_data(learned) for learned in ended]
        console.out_json({"line": line, "concepts": data, "report": report})
    elif not ended:
        console.out(f"{line}: nothing waits to be learned")
    elif report:
        console.out(f"report: {report}")
    states = {learned.concept.state for learned in ended}
    if "failed" in states:
        raise typer.Exit(FAILED)
    if "refused" in states:
        raise typer.Exit(BAD_INPUT)
