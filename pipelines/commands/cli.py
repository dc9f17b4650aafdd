"""The `l2dm` command. `--help`, `status` and `submit` answer at once: heavy imports are inside.

Exit codes: 0 done (a version that the gate holds back is a result, too), 1 something failed,
2 bad input: every problem is listed and nothing was written, 3 a check found a regression.
"""

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.commands.options import (
    BASE,
    HOME,
    REGRESSED,
    BaseOption,
    Commands,
    ConfigOption,
    HomeOption,
    JsonOption,
    LineOption,
    RunnerOption,
    SetOption,
)

app = typer.Typer(
    cls=Commands,
    help="Text-to-image models that keep learning concepts and are checked for forgetting.",
    epilog="Exit codes: 0 done, 1 something failed, 2 bad input, 3 a champion has regressed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command()
def demo(
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Learn three pocket concepts with gated adapters, then print the report's path."""
    from pipelines.commands.demo import LINE, METHOD, write_uploads
    from pipelines.commands.learn import learn_all

    write_uploads(home)
    learn_all(home, LINE, base, [METHOD, *(settings or [])], json)


@app.command()
def submit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of pictures.")],
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="Name of the concept, a slug.")],
    class_noun: Annotated[str, typer.Option("--class-noun", help='What it is, e.g. "dog".')],
    home: HomeOption = HOME,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the pictures and write the upload, concept.json last."""
    from l2dm.doors import Concept
    from l2dm.spec import Spec, override
    from pipelines.commands import console, operations

    spec = override(Spec(), settings or []).intake
    upload = operations.submit(home, folder, line, Concept(concept, class_noun), spec)
    if json:
        console.out_json(upload)
    else:
        console.out(f"{line}/{concept}: {len(upload['pictures'])} pictures wait to be learned")


@app.command()
def presign(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of pictures.")],
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="Name of the concept, a slug.")],
    class_noun: Annotated[str, typer.Option("--class-noun", help='What it is, e.g. "dog".')],
    seconds: Annotated[
        int, typer.Option("--seconds", min=1, max=604800, help="How long they may be sent.")
    ] = 3600,
    home: HomeOption = HOME,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the pictures and print requests that upload them, for somebody without credentials.

    A shell script with curl; --json prints method, URL, headers and file or body of each. They are
    sent in that order. Whoever has them may send these pictures until they expire.
    """
    from l2dm.doors import Concept
    from l2dm.spec import Spec, override
    from pipelines.commands import console
    from pipelines.commands.operations import Place
    from pipelines.commands.presign import presign as sign
    from pipelines.commands.presign import script

    spec = override(Spec(), settings or []).intake
    requests = sign(Place(home, line, BASE), folder, Concept(concept, class_noun), spec, seconds)
    if json:
        told = [request.data for request in requests]
        console.out_json({"line": line, "concept": concept, "seconds": seconds, "requests": told})
    else:
        console.out(script(requests, seconds))


@app.command()
def learn(
    line: LineOption,
    method: Annotated[
        Literal["l2dm", "gated", "sequential"] | None,
        typer.Option("--method", help="Short for --set train.method=..."),
    ] = None,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Learn every waiting upload of a line, oldest first."""
    from pipelines.commands.learn import learn_all

    chosen = [f"train.method={method}"] if method else []
    learn_all(home, line, base, [*chosen, *(settings or [])], json)


@app.command()
def status(
    line: Annotated[str | None, typer.Option("--line", help="Only this line.")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the registry again.")] = False,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Show lines, versions, aliases and concepts with state and reasons."""
    from pipelines.commands import checks, console, operations

    lines = operations.status(home, line, refresh=refresh)
    if json:
        console.out_json({"lines": lines})
    else:
        console.tell_status(lines, operations.busy(home), checks.last_checks(home))


@app.command()
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
    from pipelines.commands import console, operations

    where = operations.Place(home, line, base, tuple(settings or ()))
    seeds = range(seed, seed + count)
    with console.watching(line) as listener:
        files = operations.generate(where, version, prompt, seeds, out, listener)
    if json:
        console.out_json({"files": [str(path) for path in files]})
    else:
        console.out("\n".join(str(path) for path in files))


@app.command()
def evaluate(
    line: LineOption,
    seed: Annotated[int | None, typer.Option("--seed", help="Default: a fresh one.")] = None,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate the champion again, with fresh seeds."""
    from pipelines.commands import console, operations

    where = operations.Place(home, line, base, tuple(settings or ()))
    found = operations.evaluate(where, seed)
    if json:
        console.out_json(found)
    else:
        console.tell_evaluation(found)


@app.command()
def check(
    line: LineOption,
    seed: Annotated[int, typer.Option("--seed", min=0, help="0: a fresh one.")] = 0,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Does the champion still draw what it drew? Recorded; exit code 3 when it has regressed."""
    from pipelines.commands import checks, console, operations

    where = operations.Place(home, line, base, tuple(settings or ()))
    with console.watching(line) as listener:
        found = checks.check_now(where, seed, listener)
    if json:
        console.out_json(found)
    else:
        console.tell_check(found)
    if found["health"] == "regressed":
        raise typer.Exit(REGRESSED)


@app.command()
def schedule(  # noqa: PLR0913 - one parameter per option
    line: LineOption,
    cron: Annotated[
        str | None, typer.Option("--cron", help="Five fields, UTC, e.g. '0 3 * * *'.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="End the line's checks.")] = False,
    runner: RunnerOption = "local",
    config: ConfigOption = None,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the champion on a clock; without --cron, tell the clock.

    `l2dm dispatch` keeps it; with --runner cluster, a recurring run of Kubeflow Pipelines does.
    """
    from pipelines.commands import checks, console, operations

    where = operations.Place(home, line, base, tuple(settings or ()))
    now = checks.set_clock(where, "" if off else cron, checks.Timekeeper(runner, config))
    if json:
        console.out_json(now)
    elif now["cron"]:
        kept = f"by the {now['keeper']}, next {now['next']}"
        console.out(f"{line}: checked at {now['cron']} (UTC) {kept}")
    else:
        console.out(f"{line}: not checked on a clock; set one with --cron '0 3 * * *'")


@app.command()
def rollback(
    line: LineOption,
    to: Annotated[str, typer.Option("--to", help="Alias or number.")] = "previous",
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    json: JsonOption = False,
) -> None:
    """Make an older version the champion again, after loading it once."""
    from pipelines.commands import console, operations

    before, now = operations.rollback(operations.Place(home, line, base), to)
    if json:
        console.out_json({"line": line, "champion": now, "previous": before})
    else:
        console.out(f"{line}: version {now} is the champion again, version {before} is previous")


@app.command()
def cancel(
    line: LineOption,
    concept: Annotated[str, typer.Option("--concept", help="Name of the upload's concept.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")] = "",
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """End an upload that waits or is being learned; submitting it again opens it again."""
    from pipelines.commands import console, operations

    ended = operations.cancel(home, line, concept, reason)
    if json:
        console.out_json({"line": line, "concept": concept, "ended": ended})
    else:
        when = "has ended as failed" if ended else "ends at the next look of its dispatcher"
        console.out(f"{line}/{concept}: cancelled, {when}")


@app.command()
def repair(
    line: Annotated[str | None, typer.Option("--line", help="Only this line.")] = None,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """After a restore from backups: make records and registry agree, say what is dropped."""
    from pipelines.commands import console, operations

    found = operations.repair(home, line)
    if json:
        console.out_json({"lines": found})
    for name, dropped in () if json else found.items():
        console.out(f"{name}: {dropped or 'records and registry agree'}")


@app.command()
def export(
    line: LineOption,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    version: Annotated[str, typer.Option("--version", help="Alias or number.")] = "champion",
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    json: JsonOption = False,
) -> None:
    """Write a version as plain diffusers / ComfyUI-readable files."""
    from pipelines.commands import console, operations

    operations.export(operations.Place(home, line, base), version, out)
    files = sorted(str(path) for path in out.rglob("*") if path.is_file())
    if json:
        console.out_json({"files": files})
    else:
        console.out("\n".join(files))


@app.command()
def dispatch(  # noqa: PLR0913 - one parameter per option
    once: Annotated[bool, typer.Option("--once", help="Stop when nothing waits or runs.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between scans.")] = 2.0,
    parallel: Annotated[int, typer.Option("--parallel", min=1, help="Lines at once.")] = 1,
    queue: Annotated[
        str | None, typer.Option("--queue", help="SQS queue of the bucket's events.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="HOST:PORT for events over HTTP.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="L2DM_WEBHOOK_TOKEN", help="Bearer token of --listen.")
    ] = None,
    runner: RunnerOption = "local",
    config: ConfigOption = None,
    home: HomeOption = HOME,
    base: BaseOption = BASE,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Learn the uploads of all lines as they come, until stopped."""
    from pipelines.commands import console, operations

    # of a pod that is replaced; as a container's first process we would not hear it otherwise
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service = operations.Service(every, parallel, once, queue, listen, token, runner, config)
    for line, moved in operations.dispatch(home, base, settings or [], service):
        if json:
            console.out_json_line({"line": line, "moved": moved})
        else:
            console.out(f"{line}: {moved}")


@app.command()
def history(line: LineOption, home: HomeOption = HOME, json: JsonOption = False) -> None:
    """Show everything that was recorded of a line: what, when, by whom and why."""
    from pipelines.commands import console, operations

    events = operations.history(home, line)
    if json:
        console.out_json({"line": line, "events": events})
    else:
        console.tell_history(events)


@app.command("compile")
def compile_(
    out: Annotated[Path, typer.Option("--out", help="Folder for the YAML.")],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write the pipelines as YAML for Kubeflow Pipelines."""
    from pipelines.commands import console
    from pipelines.places.compilation import compile_pipelines
    from pipelines.places.settings import load

    files = [str(path) for path in compile_pipelines(out, load(config) if config else None)]
    if json:
        console.out_json({"files": files})
    else:
        console.out("\n".join(files))


def main() -> None:
    """Entry point of the console script."""
    app()
