"""The loop behind `l2dm learn`: every waiting upload of a line, oldest first, under its lease."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from components.services.line import status_cache
from components.services.line.leases import Leases
from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.line.run_journal import Cost, Failure
from components.services.line.uploads import Commitment, Uploads
from components.services.store.home import Home
from components.services.tracking.registry import Registry
from l2dm.errors import L2dmError, words
from pipelines.dispatcher.end_upload import cancelled, end_badly, end_cancelled, give_back, sweep
from pipelines.places.run_here import Job, Listener, Outcome, RunFailed, run_local

log = logging.getLogger(__name__)
RunOne = Callable[[Job, Listener], Outcome]
Watch = Callable[[str], AbstractContextManager[Listener]]
ATTEMPTS = 2  # a step whose process was ended from outside is tried once more
USERS_OWN = ("BadBase", "BadSpec", "BadPrompt")  # the upload is not to blame: it stays waiting


@dataclass(frozen=True)
class EndedUpload:
    """How one upload ended, and what it cost; no costs when it did not become a version."""

    concept: ConceptState
    wall: float = 0.0
    overhead: float = 0.0
    costs: Mapping[str, Cost] | None = None


@dataclass(frozen=True)
class Learner:
    """One line on one machine. `registry` is opened when the loop begins: it imports mlflow."""

    home: Home
    line: str
    base: str
    spec: str
    registry: Callable[[], Registry]
    run: RunOne = run_local

    def waiting(self) -> tuple[str, ...]:
        """Concepts whose upload has no terminal state, oldest first."""
        states = Records(self.home.store, self.line).concepts()
        return Uploads(self.home.store, self.line).waiting(states)

    def learn(self, watch: Watch) -> Iterator[EndedUpload]:
        """Learn every waiting upload; `watch(concept)` listens to its progress.

        Raises LineBusy when another learner holds the line, and what the user has to mend (base,
        spec) as L2dmError, with the upload still waiting.
        """
        with Leases(self.home.store).held(self.line) as keeper:
            if self.home.database.exists():
                status_cache.forget(self.home, self.line)
                status_cache.refresh(self.home, self.registry(), self.line)
            while waits := self.waiting():
                if self._ends_cancelled(waits):
                    continue
                with watch(waits[0]) as listener:
                    fence = keeper.lease(self.line).fence
                    learned = self._learn_one(waits[0], fence, listener)
                yield learned

    def _ends_cancelled(self, waits: Sequence[str]) -> bool:
        store = self.home.store
        ledger = Records(store, self.line).state()
        unwanted = cancelled(Uploads(store, self.line), ledger, waits)
        end_cancelled(self.home, self.line, unwanted, ledger.last)
        return bool(unwanted)

    def _learn_one(self, concept: str, fence: int, listener: Listener) -> EndedUpload:
        job = Job(self.line, concept, self.base, self.spec, self.home, fence)
        looked = Uploads(self.home.store, self.line).commitment(concept)
        for attempt in range(ATTEMPTS):
            try:
                outcome = self.run(job, listener)
            except RunFailed as error:
                if error.failure is None and attempt + 1 < ATTEMPTS:
                    continue
                return EndedUpload(self._end_badly(concept, error, looked))
            state = self._require_end(concept)
            sweep(self.home, self.line, concept)
            return EndedUpload(state, outcome.wall, outcome.overhead, outcome.costs)
        raise AssertionError("unreachable")

    def _end_badly(self, concept: str, error: RunFailed, looked: Commitment) -> ConceptState:
        """Record how it ended, unless something else has to be mended: then it waits.

        Raises L2dmError with what that is.
        """
        if error.failure and error.failure.kind in USERS_OWN:
            raise L2dmError("\n".join(error.failure.problems)) from error
        if error.failure and error.failure.of_the_house and concept in self.waiting():
            self._give_back(concept, error.failure)
            raise L2dmError(
                f"step {error.failure.step}: {'; '.join(error.failure.problems)}; no upload is to "
                f"blame, {concept!r} waits: mend that and run `l2dm learn` again"
            ) from error
        end = (self.home, self.line, concept, error.failure, str(error))
        return end_badly(*end, looked=looked)

    def _give_back(self, concept: str, failure: Failure) -> None:
        """Record why it waits again, where anything can be recorded."""
        records = Records(self.home.store, self.line)
        try:
            give_back(records, concept, failure.problems, failure.step)
        except (L2dmError, OSError) as error:  # the same disk, the same store
            log.warning(
                "line %s: why %s waits is not recorded: %s", self.line, concept, words(error)
            )

    def _require_end(self, concept: str) -> ConceptState:
        state = Records(self.home.store, self.line).concept(concept)
        if state is None or state.version is None:
            raise L2dmError(
                f"expected concept {concept!r} of line {self.line!r} to be promoted or held after "
                f"its run, found {state}; run `l2dm learn` again"
            )
        return state
