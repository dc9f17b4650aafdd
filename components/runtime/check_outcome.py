"""What follows from a check: a record, points of a time line, the report, perhaps a rollback."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise, takewhile
from pathlib import Path

from components.runtime.line_report import tell_champion, write_report
from components.runtime.outcomes import MODEL_CODE
from components.runtime.step import Step
from components.services.line import checks, status_cache
from components.services.line.promotion import roll_back
from components.services.line.records import Records
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import Version, fetch_unchecked, require_whole
from l2dm import doors, escape
from l2dm.errors import BadDoor, DoesNotFit, FilesGone, StaleParent
from l2dm.files import door_files
from l2dm.files.manifest import Door

log = logging.getLogger(__name__)
CANDIDATES = 2**32  # seeds under which former champions are recorded: not the check's own
OURS = ("model", "release")  # causes that another version does not have; the others hit all


class ChampionCheck:
    """One check of a line's champion, and of former ones when a healthy one is looked for."""

    def __init__(self, step: Step, run: Callable[..., Door[doors.Check]], seed: int) -> None:
        self._step, self._run, self._line = step, run, step.subject.line
        self._seed = seed or checks.seed_of(self._line, _this_minute())
        self._records = Records(step.home.store, self._line)
        self._registry = MlflowRegistry(step.home, step.settings.base, MODEL_CODE)

    def check(self, out: str) -> tuple[Door[doors.Check], int]:
        """Draw with the champion; what was found, and its version. Raises UnknownLine."""
        champion = self._records.state().standing.champion
        version = checks.require_champion(self._line, champion)
        return self._check(version, Path(out)), version

    def conclude(self, door: Door[doors.Check], version: int, report: str, summary: str) -> None:
        """Record what was found, roll back if that is the policy, tell everybody."""
        check = door.record
        # The record comes last: it ends the run for the dispatcher, which tries again until then.
        target = self._roll_back(check, version)
        at = self._record(door, version, self._seed)
        self._measure(check, at)
        self._step.tell({"version": version, "regressed": float(check.health == "regressed")})
        self._step.tracking.tags({"l2dm.health": check.health, "l2dm.checked": str(version)})
        if check.health != "healthy":  # what it draws now, for whoever has to look at it
            for sheet in door_files.check_sheets(door):
                self._step.tracking.file(sheet, f"checks/{at:04d}")
        lost = self._unlearned(version, target)
        Path(summary).write_text(told(check, version, target, lost), encoding="utf-8")
        write_report(self._step, self._registry, Path(report), "")
        self._step.tracking.finish("FINISHED")

    def _check(self, version: int, out: Path) -> Door[doors.Check]:
        context = self._step.context_for("", version)
        with tempfile.TemporaryDirectory() as scratch:
            into = Path(scratch) / "release"
            release = fetch_unchecked(self._registry, self._line, version, into)
            return self._step.run(
                self._run,
                release,
                out,
                context,
                seed=self._seed,
                on_progress=self._step.on_progress,
            )

    def _record(self, door: Door[doors.Check], version: int, seed: int) -> int:
        """Record a check, once: a step that is tried again finds it. Its number in the line."""
        known = self._records.state().checks.found.get(version)
        if known is not None and (known.seed, known.digest) == (seed, door.digest):
            return known.number
        check = door.record
        self._records.append(
            "checked",
            line=self._line,
            version=version,
            seed=seed,
            health=check.health,
            cause=check.cause,
            digest=door.digest,
            scores={one.concept: one.fresh for one in check.findings},
            drops={one.concept: one.drop for one in check.findings},
            reasons=list(check.reasons),
        )
        return self._records.state().checks.found[version].number

    def _measure(self, check: doors.Check, at: int) -> None:
        """Points of the line's time line; `at` counts its checks."""
        for one in check.findings:
            self._step.measure({f"check/{one.concept}/identity_similarity": one.fresh}, at)
            self._step.measure({f"check/{one.concept}/moved": one.moved}, at)
        bad = float(check.health == "regressed")  # of what no concept is to blame for, too
        self._step.measure({"check/regressed": bad, "check/control": check.control}, at)

    def _roll_back(self, check: doors.Check, version: int) -> int | None:
        """To the last healthy version, if that is the policy and can help; its number."""
        policy = self._step.spec.check.policy
        if policy != "roll_back" or check.health != "regressed" or check.cause not in OURS:
            return None
        for candidate in self._former(version):
            try:
                if self._health(candidate) != "healthy":
                    continue
            except (BadDoor, DoesNotFit, FilesGone) as error:  # an older one may be checked
                log.warning("version %d is passed over: %s", candidate, error)
                continue
            return candidate if self._moved_back(candidate, version, check.reasons) else None
        return None

    def _moved_back(self, candidate: int, version: int, reasons: Sequence[str]) -> bool:
        """Roll back; False where there is another champion by now: it has not been checked."""
        home = self._step.home
        try:
            with (
                status_cache.changing(home, self._registry, self._line),
                tempfile.TemporaryDirectory() as scratch,
            ):
                roll_back(
                    self._registry,
                    self._records,
                    self._line,
                    candidate,
                    self._load,
                    Path(scratch) / "release",
                    expected=version,
                    reasons=reasons,
                )
        except StaleParent:
            return False
        index = status_cache.refresh(home, self._registry, self._line)
        tell_champion(self._registry, self._line, index)
        return True

    def _health(self, version: int) -> str:
        """What a former champion is now: a check of long ago was of another image, or driver.

        It is drawn with once, also when the step is tried again.
        """
        seed = self._seed + CANDIDATES + version
        known = self._records.state().checks.found.get(version)
        if known is not None and known.seed == seed:
            return known.health
        with tempfile.TemporaryDirectory() as scratch:
            door = self._check(version, Path(scratch) / "check")
            self._record(door, version, seed)
        return door.record.health

    def _former(self, version: int) -> Iterator[int]:
        """Those it was learned from, newest first; none of before a concept was taken out.

        Whoever took it out must not find it back because the version without it fell ill.
        """
        older = self._descent(version)
        for one, parent in pairwise(older):
            if one.facts.knows is not None:
                return
            yield parent.number

    def _descent(self, version: int) -> tuple[Version, ...]:
        return status_cache.descent(self._registry.versions(self._line), version)

    def _unlearned(self, version: int, target: int | None) -> tuple[str, ...]:
        """Concepts that the champion knows no more after going back from one version to another."""
        line = self._descent(version) if target is not None else ()
        return tuple(one.facts.concept for one in takewhile(lambda v: v.number != target, line))

    def _load(self, version: int, release: Path) -> None:
        from l2dm.releases.load import load_release

        require_whole(release, self._line, version)
        load_release(release, self._step.base)


def told(check: doors.Check, version: int, target: int | None, lost: Sequence[str] = ()) -> str:
    """What was found and done, in Markdown. lost: concepts that a rollback took away."""
    cause = f" (cause: {check.cause})" if check.cause else ""
    lines = [f"**Version {version} is {check.health}**{cause}.", ""]
    lines += [f"* {escape.markdown(reason)}" for reason in check.reasons]
    if target is not None:
        lines += ["", f"Version {target} is the champion again; it does not know "]
        lines[-1] += f"{', '.join(map(escape.markdown, lost))}: submit them again."
    lines += ["", *(f"* {escape.markdown(one.sentence)}" for one in check.findings)]
    return "\n".join(lines) + "\n"


def _this_minute() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)
