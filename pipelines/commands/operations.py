"""What the commands do, without how they look: each returns plain data or raises L2dmError."""

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.runtime.base_cache import local_base, require_listed
from components.services.line import status_cache, submitted
from components.services.line.leases import Leases
from components.services.line.promotion import roll_back
from components.services.line.records import Records
from components.services.line.run_journal import Progress
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.store.open import SCHEME
from components.services.tracking.registry import Registry, resolve
from l2dm.doors import Concept
from l2dm.errors import BadStore, UnknownLine
from l2dm.files import manifest
from l2dm.spec import IntakeSpec, Spec, override, to_json
from l2dm.uploads import check as concepts
from pipelines.dispatcher.learn_line import Learned, Learner, Watch
from pipelines.places.open import Runner, open_runs, read_settings, sees
from pipelines.places.run_here import Listener

if TYPE_CHECKING:
    from components.services.wakeups.sources import Wakeups
    from components.services.wakeups.webhook import Pages


@dataclass(frozen=True)
class Place:
    """A line in a state folder, the base it is loaded on, and settings of the spec."""

    folder: str | Path
    line: str
    base: str
    settings: tuple[str, ...] = ()

    @property
    def home(self) -> Home:
        """The state folder."""
        return Home.at(self.folder)

    @property
    def base_name(self) -> str:
        """Load name of the base that means the same in every process."""
        return str(Path(self.base).resolve()) if Path(self.base).is_dir() else self.base

    def local_base(self) -> str:
        """What the library loads the base by on this machine; one in a bucket is fetched."""
        return local_base(self.base_name, self.home)

    @property
    def spec(self) -> Spec:
        """The spec with its settings applied. Raises BadSpec."""
        return override(Spec(), self.settings)

    def registry(self) -> Registry:
        """The registry of this state folder; imports mlflow."""
        return _registry(self.home, self.base_name)


def submit(
    place: str | Path, pictures: Path, line: str, concept: Concept, spec: IntakeSpec
) -> dict[str, Any]:
    """Check and commit an upload; an upload of this name that has ended is replaced.

    Raises BadUpload with every problem; nothing was written then.
    """
    home = Home.at(place)
    index = status_cache.read(home, line, lambda: _registry(home, ""))
    records, uploads = Records(home.store, line), Uploads(home.store, line)
    since, known = records.state().last, records.concept(concept.name)
    taken = status_cache.taken(home, line, index)
    over = "" if concept.name in taken else uploads.digest(concept.name)
    if over and (known is None or known.upload != over):
        taken[concept.name] = "somebody submits it at this moment"
    if over or home.bucket:
        with tempfile.TemporaryDirectory() as scratch:
            upload = concepts.submit(pictures, Path(scratch), line, concept, spec, taken)
            uploads.commit(Path(scratch) / line / concept.name, over)
    else:
        upload = concepts.submit(pictures, home.inbox, line, concept, spec, taken)
    submitted.record(records, concept, known, upload=uploads.digest(concept.name), since=since)
    data: dict[str, Any] = manifest.to_data(upload)
    return data


def learn(place: Place, watch: Watch) -> Iterator[Learned]:
    """Learn every waiting upload of a line. Raises UnknownLine, LineBusy, BadSpec, BadBase."""
    spec, base = to_json(place.spec), place.base_name
    require_line(place.home, place.line)
    require_base(base)
    learner = Learner(place.home, place.line, base, spec, place.registry)
    yield from learner.learn(watch)


def status(folder: str | Path, line: str | None, *, refresh: bool) -> list[dict[str, Any]]:
    """Every line, or one, as `l2dm status --json` prints it. Raises UnknownLine."""
    home = Home.at(folder)
    if line is not None:
        require_line(home, line)
    lines = home.lines() if line is None else (line,)
    if refresh:
        for name in lines:
            status_cache.forget(home, name)
    return [
        status_cache.status(home, name, status_cache.read(home, name, lambda: _registry(home, "")))
        for name in lines
    ]


def busy(folder: str | Path) -> dict[str, str]:
    """Who learns which line now."""
    home = Home.at(folder)
    leases = Leases(home.store)
    holders = {line: leases.holder(line) for line in home.lines()}
    return {line: holder for line, holder in holders.items() if holder}


def generate(
    place: Place,
    version: str,
    prompt: str,
    seeds: Sequence[int],
    out: Path,
    listener: Listener,
) -> list[Path]:
    """Draw one picture per seed into `out`. Raises UnknownLine, BadPrompt, BadBase, DoesNotFit."""
    from l2dm.bases.prompts import require_known
    from l2dm.files.images import save_png
    from l2dm.releases.folder import adapter_of
    from l2dm.releases.painter import open_release

    require_line(place.home, place.line)
    with _fetched(place, version) as release:
        known = adapter_of(release).record.concepts
        require_known(prompt, [concept.name for concept in known])  # before the model is loaded
        painter = open_release(release, place.local_base())

    def on_progress(done: int, total: int) -> None:
        listener(Progress("generate", "pictures", done, total))

    pictures = painter.paint(prompt, seeds, place.spec.sampling, on_progress=on_progress)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{place.line}-{seed:05d}.png" for seed in seeds]
    for picture, path in zip(pictures, paths, strict=True):
        save_png(picture, path)
    return paths


def evaluate(place: Place, seed: int | None) -> dict[str, Any]:
    """The champion's scores with fresh seeds. Raises UnknownLine, BadBase, DoesNotFit."""
    from l2dm.steps import Context, check_champion

    require_line(place.home, place.line)
    fresh = secrets.randbelow(2**31) if seed is None else seed
    number = resolve(place.registry(), place.line, "champion")
    context = Context(place.local_base(), place.line, "", number, place.spec)
    with _fetched(place, str(number)) as release:
        row = check_champion(release, context, seed=fresh)
    return {"line": place.line, "version": number, "seed": fresh, "row": manifest.to_data(row)}


def rollback(place: Place, to: str) -> tuple[int, int]:
    """Make another version the champion; returns the one before and the one now."""
    from l2dm.releases.painter import open_release

    require_line(place.home, place.line)
    home, line, registry = place.home, place.line, place.registry()
    version, base = resolve(registry, line, to), place.local_base()

    def check(number: int, release: Path) -> None:
        open_release(release, base)

    with Leases(home.store).held(line), tempfile.TemporaryDirectory() as scratch:
        status_cache.forget(home, line)
        records = Records(home.store, line)
        try:
            before = roll_back(registry, records, line, version, check, Path(scratch) / "release")
        finally:
            status_cache.refresh(home, registry, line)
    return before, version


def cancel(folder: str | Path, line: str, concept: str, reason: str) -> bool:
    """See `end_upload.cancel`. Raises UnknownLine, L2dmError."""
    from pipelines.dispatcher import end_upload

    home = Home.at(folder)
    require_line(home, line)
    return end_upload.cancel(home, line, concept, reason)


def repair(folder: str | Path, line: str | None) -> dict[str, str]:
    """Make every line, or one, agree with the registry; what was dropped of each, "" if nothing."""
    from pipelines.dispatcher.repair import repair_line

    home = Home.at(folder)
    if line is not None:
        require_line(home, line)
    registry, found = _registry(home, ""), {}
    for name in home.lines() if line is None else (line,):
        status_cache.forget(home, name)
        found[name] = str(repair_line(home, registry, name) or "")
    return found


def export(place: Place, version: str, out: Path) -> None:
    """Write a version as plain files that diffusers and ComfyUI read."""
    from l2dm.export.write import export as write

    require_line(place.home, place.line)
    with _fetched(place, version) as release:
        write(release, place.local_base(), out)


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
    runner: Runner = "local"
    config: Path | None = None


def dispatch(
    folder: str | Path, base: str, settings: Sequence[str], service: Service
) -> Iterator[tuple[str, str]]:
    """Reconcile all lines until stopped, or until nothing waits or runs; every move of a line.

    Raises BadSpec, BadBase, BadStore, BadSettings, PlatformError before anything starts. When it
    ends, its runs on this machine end with it.
    """
    from components.services.store.open import probe
    from pipelines.dispatcher.dispatcher import Dispatcher, Policy, Settings
    from pipelines.dispatcher.loop import follow
    from pipelines.dispatcher.metrics import PATH, Measured
    from pipelines.dispatcher.recurring_checks import Repeats, renew

    place = Place(folder, "", base, tuple(settings))
    home, chosen = place.home, Settings(place.base_name, to_json(place.spec))
    where = read_settings(service.config)
    if sees(service.runner, chosen.base):
        require_base(chosen.base)
    probe(home.store)
    runs = open_runs(service.runner, where, home, chosen.base)
    policy = Policy(parallel=service.parallel)
    dispatcher = Dispatcher(home, runs, place.registry, chosen, policy)
    measured = Measured(dispatcher)
    wakeups = _wakeups(home, service, {PATH: measured.text})
    watched = measured if service.listen else dispatcher
    try:
        if isinstance(runs, Repeats):  # after an upgrade it would go on with the image of before

            def records(line: str) -> Records:
                return dispatcher.kept(line)[0]

            renew(place, records, runs)
        with dispatcher:
            yield from follow(watched, wakeups, service.every, once=service.once)
    finally:
        wakeups.close()
        runs.close()


def _wakeups(home: Home, service: Service, pages: "Pages") -> "Wakeups":
    """What wakes the dispatcher. Raises BadStore: only a bucket sends events."""
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
    if service.queue:
        sources.append(SqsWakeups(service.queue, inbox))
    if service.listen:
        host, _, port = service.listen.rpartition(":")
        if not port.isdigit():
            raise BadStore(f"--listen: expected HOST:PORT, found {service.listen!r}")
        sources.append(HttpWakeups(host, int(port), inbox, service.token, pages))
    return sources[0] if len(sources) == 1 else Several(*sources)


def history(folder: str | Path, line: str) -> list[dict[str, Any]]:
    """Every event of a line, oldest first. Raises UnknownLine."""
    home = Home.at(folder)
    require_line(home, line)
    return [{"number": event.number, **event.facts} for event in Records(home.store, line).events()]


def report(folder: str | Path, line: str) -> str | None:
    """Path of the latest report of a line."""
    home = Home.at(folder)
    if not any(home.store.list(home.report(line))):
        return None
    return f"{home.place}/{home.report(line)}"


def _registry(home: Home, base: str) -> Registry:
    from components.runtime.outcomes import MODEL_CODE
    from components.services.tracking.mlflow_registry import MlflowRegistry

    return MlflowRegistry(home, base, MODEL_CODE)


class _fetched:
    """A version's Release folder for as long as the `with` lasts."""

    def __init__(self, place: Place, version: str) -> None:
        self._place, self._version = place, version
        self._scratch = tempfile.TemporaryDirectory()

    def __enter__(self) -> Path:
        registry = self._place.registry()
        number = resolve(registry, self._place.line, self._version)
        return registry.fetch(self._place.line, number, Path(self._scratch.name) / "release")

    def __exit__(self, *error: object) -> None:
        self._scratch.cleanup()


def require_line(home: Home, line: str) -> None:
    """Raise UnknownLine, naming what there is."""
    known = home.lines()
    if line not in known:
        raise UnknownLine(
            f"expected a line of {home.place}, found {line!r}; there are {list(known) or 'none'}, "
            "begin one with `l2dm submit DIR --line LINE --concept NAME --class-noun NOUN`"
        )


def require_base(base: str) -> None:
    """Refuse a wrong base before a step is started.

    Hub names are looked up by the steps; buckets are listed here and fetched there.
    """
    from l2dm.bases import folder as base_folder

    if base.startswith(SCHEME):
        require_listed(base)
        return
    on_hub = base.count("/") == 1 and not base.startswith((".", "/")) and not Path(base).is_dir()
    if not on_hub:
        base_folder.locate(base)
