"""`l2dm dispatch`: learn the uploads of all lines as they come, until stopped."""

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from l2dm.errors import BadStore
from pipelines.commands.options import (
    BASE,
    HOME,
    BaseOption,
    ConfigOption,
    HomeOption,
    JsonOption,
    RunnerOption,
    SetOption,
)
from pipelines.commands.output import tell, tell_json_line
from pipelines.commands.target import Target, require_base

if TYPE_CHECKING:
    from components.services.store.home import Home
    from components.services.wakeups.sources import Wakeups
    from components.services.wakeups.webhook import Pages
    from pipelines.places.open import Runner


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
    # of a pod that is replaced; as a container's first process we would not hear it otherwise
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service = Service(every, parallel, once, queue, listen, token, runner, config)
    for line, moved in serve(Target(home, "", base, tuple(settings or ())), service):
        if json:
            tell_json_line({"line": line, "moved": moved})
        else:
            tell(f"{line}: {moved}")


@dataclass(frozen=True)
class Service:
    """How a dispatcher runs: seconds between scans, lines at once, and what wakes it sooner.

    queue: URL of an SQS queue. listen: HOST:PORT for events over HTTP, token: what they must bear.
    runner: where runs execute, with the settings in config (an l2dm.toml).
    """

    every: float = 2.0
    parallel: int = 1
    once: bool = False
    queue: str | None = None
    listen: str | None = None
    token: str | None = None
    runner: "Runner" = "local"
    config: Path | None = None


def serve(target: Target, service: Service) -> Iterator[tuple[str, str]]:
    """Reconcile all lines until stopped, or until nothing waits or runs; every move of a line.

    target: no line in particular. Raises BadSpec, BadBase, BadStore, BadSettings, PlatformError
    before anything starts. When it ends, its runs on this machine end with it.
    """
    from components.services.store.open import probe
    from l2dm.spec import to_json
    from pipelines.dispatcher.dispatcher import Dispatcher, DispatchPolicy, RunSettings
    from pipelines.dispatcher.loop import follow
    from pipelines.dispatcher.metrics import PATH, Measured
    from pipelines.dispatcher.recurring_checks import Repeats, renew
    from pipelines.places.open import open_runs, read_settings, sees

    home, base, spec = target.home, target.base_name, target.spec
    where = read_settings(service.config)
    if sees(service.runner, base):
        require_base(base)
    probe(home.store)
    with closing(open_runs(service.runner, where, home, base)) as runs:
        given = RunSettings(base, to_json(spec), target.asked)
        policy = DispatchPolicy(parallel=service.parallel)
        dispatcher = Dispatcher(home, runs, target.registry, given, policy)
        measured = Measured(dispatcher)
        with closing(_wakeups(home, service, {PATH: measured.text})) as wakeups:
            if isinstance(runs, Repeats):  # after an upgrade it would go on with the former image
                renew(home, base, spec, lambda line: dispatcher.kept(line)[0], runs)
            with dispatcher:
                watched = measured if service.listen else dispatcher
                yield from follow(watched, wakeups, service.every, once=service.once)


def _wakeups(home: "Home", service: Service, pages: "Pages") -> "Wakeups":
    """What wakes the dispatcher. Raises BadStore: only a bucket sends events.

    The port comes first, for it is closed at once when the queue cannot be opened; a queue is not.
    """
    from components.services.store.s3 import S3Objects
    from components.services.wakeups.events import Inbox
    from components.services.wakeups.sources import HttpWakeups, NoWakeups, Several, SqsWakeups

    if not service.queue and not service.listen:
        return NoWakeups()
    store = home.store
    if not isinstance(store, S3Objects):
        raise BadStore(
            f"expected the state in s3://bucket/prefix, since a folder sends no events, found "
            f"{home.place}; leave out --queue and --listen, the scan finds every upload"
        )
    inbox, sources = Inbox(store.bucket, store.prefix), list["Wakeups"]()
    with ExitStack() as opened:
        if service.listen:
            host, _, port = service.listen.rpartition(":")
            if not (port.isascii() and port.isdigit() and len(port) <= len("65535")):
                raise BadStore(f"--listen: expected HOST:PORT, found {service.listen!r}")
            http = HttpWakeups(host, int(port), inbox, service.token, pages)
            sources.append(opened.enter_context(closing(http)))
        if service.queue:
            sources.append(SqsWakeups(service.queue, inbox))
        opened.pop_all()
    return sources[0] if len(sources) == 1 else Several(*sources)
