"""The loop over uploads: every upload ends in one state, unless the user has to mend the rest."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from components.services.line.leases import Leases
from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.line.run_journal import Cost, Failure, StepProgress
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry, Registry
from l2dm.errors import L2dmError, LineBusy
from pipelines.dispatcher.learn_line import EndedUpload, Learner
from pipelines.places.compilation import STEPS
from pipelines.places.run_here import Job, Listener, Outcome, RunFailed

Run = Callable[[Job, Listener], Outcome]


def upload(home: Home, name: str) -> Path:
    folder = home.upload("pets", name)
    folder.mkdir(parents=True)
    (folder / "concept.json").write_text(json.dumps({"name": name}))
    return folder


def promoted(job: Job, listener: Listener) -> Outcome:
    """A run that does what the last step does: it records the end."""
    listener(StepProgress("train", "loss", 1, 2))
    name = job.concept
    number = 1 + len([s for s in Records(job.home.store, job.line).concepts() if s.version])
    Records(job.home.store, job.line).end(
        ConceptState(
            name, "dog", "promoted", version=number, task=f"t{number:04d}",
            upload=Uploads(job.home.store, job.line).digest(name),
        )
    )  # fmt: skip
    return Outcome(10.0, {step: Cost(1.0, 100.0) for step in STEPS}, job.folder)


def failing(*failures: Failure | None) -> Run:
    left = list(failures)

    def run(job: Job, listener: Listener) -> Outcome:
        if left:
            raise RunFailed(left.pop(0), job.folder / "log.txt")
        return promoted(job, listener)

    return run


def learn(home: Home, run: Run) -> list[EndedUpload]:
    def registry() -> Registry:
        return FolderRegistry(home.folder / "registry")

    learner = Learner(home, "pets", "pocket", "{}", registry, run)
    return list(learner.learn(lambda upload: nullcontext(lambda progress: None)))


@pytest.fixture
def place(tmp_path: Path) -> Home:
    return Home.at(tmp_path)


def test_uploads_are_learned_oldest_first_and_once(place: Home) -> None:
    import os

    for age, name in enumerate(("newest", "middle", "oldest")):
        path = upload(place, name) / "concept.json"
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    ended = learn(place, promoted)
    assert [one.concept.name for one in ended] == ["oldest", "middle", "newest"]
    assert [one.concept.version for one in ended] == [1, 2, 3]
    assert ended[0].overhead == 4.0  # ten seconds on the wall, six steps of one
    assert learn(place, promoted) == []


def test_a_refused_upload_ends_with_every_reason_and_the_next_is_learned(place: Home) -> None:
    for name in ("bad", "good"):
        upload(place, name)
    reasons = ("00.png is too small", "only 2 pictures")
    first, second = learn(place, failing(Failure("intake", "BadUpload", reasons)))
    assert (first.concept.state, first.concept.reasons) == ("refused", reasons)
    assert second.concept.state == "promoted"


def test_a_failed_step_is_recorded_with_step_and_error(place: Home) -> None:
    upload(place, "rex")
    (one,) = learn(place, failing(Failure("train", "DoesNotFit", ("loss is not finite",))))
    assert one.concept.state == "failed"
    assert one.concept.reasons == ("step train: DoesNotFit: loss is not finite",)
    assert learn(place, promoted) == []


def test_a_step_that_was_killed_is_tried_once_more(place: Home) -> None:
    upload(place, "rex")
    (one,) = learn(place, failing(None))
    assert one.concept.state == "promoted"


def test_a_step_that_is_killed_twice_failed(place: Home) -> None:
    upload(place, "rex")
    (one,) = learn(place, failing(None, None))
    assert one.concept.state == "failed"
    assert "ended from outside" in one.concept.reasons[0]


def test_a_wrong_base_is_the_users_to_mend_and_the_upload_still_waits(place: Home) -> None:
    upload(place, "rex")
    with pytest.raises(L2dmError, match="no such folder"):
        learn(place, failing(Failure("intake", "BadBase", ("no such folder",))))
    (one,) = learn(place, promoted)
    assert one.concept.state == "promoted"


@pytest.mark.parametrize("kind", ["BadDoor", "Corrupt", "TrackingFailed", "OSError", "MemoryError"])
def test_for_trouble_of_the_house_every_upload_waits_and_status_says_why(
    place: Home, kind: str
) -> None:
    """A damaged champion, a lost file, a full disk, a server that is away."""
    upload(place, "rex")
    upload(place, "mimi")
    damaged = Failure("generate_prior", kind, ("the champion's adapter is not as it was written",))
    with pytest.raises(L2dmError, match="no upload is to blame, 'rex' waits"):
        learn(place, failing(damaged))
    state = Records(place.store, "pets").concept("rex")
    assert state is not None
    assert (state.state, state.reasons) == ("waiting", damaged.problems)
    assert [one.concept.state for one in learn(place, promoted)] == ["promoted"] * 2


def test_a_failure_after_the_promotion_does_not_unsay_it(place: Home) -> None:
    upload(place, "rex")

    def run(job: Job, listener: Listener) -> Outcome:
        promoted(job, listener)
        raise RunFailed(Failure("promote", "OSError", ("disk full",)), job.folder / "log.txt")

    with pytest.raises(L2dmError, match=r"'rex' was promoted as version 1, but .*disk full"):
        learn(place, run)
    assert Records(place.store, "pets").concepts()[0].state == "promoted"


def test_a_run_without_an_end_is_not_believed(place: Home) -> None:
    upload(place, "rex")

    def silent(job: Job, listener: Listener) -> Outcome:
        return Outcome(1.0, {}, job.folder)

    with pytest.raises(L2dmError, match=r"expected concept 'rex' .* to be promoted or held"):
        learn(place, silent)


def test_a_busy_line_is_refused(place: Home) -> None:
    upload(place, "rex")
    with Leases(place.store).held("pets"), pytest.raises(LineBusy, match="'pets'"):
        learn(place, promoted)


def test_checkpoints_are_swept_when_an_upload_has_ended(place: Home) -> None:
    upload(place, "rex")
    work = place.work("pets", "rex") / "key"

    def run(job: Job, listener: Listener) -> Outcome:
        work.mkdir(parents=True)
        return promoted(job, listener)

    learn(place, run)
    assert not work.exists()


def test_arguments_are_the_pipelines_parameters(place: Home) -> None:
    job = Job("pets", "rex", "pocket", "{}", place, 7)
    found: dict[str, Any] = dict(job.arguments)
    assert found == {
        "line": "pets",
        "upload": "rex",
        "base": "pocket",
        "spec": "{}",
        "home": str(place.folder),
        "fence": 7,
    }
