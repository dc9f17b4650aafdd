"""Uploads that come at the wrong moment, or are none: none is lost, none is learned twice."""

from pathlib import Path

import pytest

from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.line.run_journal import Failure
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from l2dm.doors import Concept
from l2dm.errors import BadUpload
from l2dm.spec import IntakeSpec
from pipelines.commands.lines.status import status_of
from pipelines.commands.uploads.submit import submit_pictures
from pipelines.dispatcher.dispatcher import Dispatcher, DispatchPolicy, RunSettings
from pipelines.dispatcher.end_upload import end_badly
from pipelines.dispatcher.metrics import Measured
from pipelines.places.runs import LocalRuns
from tests.worlds.dispatch_world import World
from tests.worlds.uploads import pictures

REX = Concept("rex", "dog")


@pytest.mark.parametrize("failure", [Failure("intake", "BadUpload", ("too dark",)), None])
def test_pictures_put_over_those_that_are_tried_for_the_last_time_are_tried_next(
    tmp_path: Path, failure: Failure | None
) -> None:
    world = World(tmp_path, DispatchPolicy(attempts=1))
    world.upload("pets", "rex")
    first = Uploads(world.home.store, "pets").digest("rex")
    look = world.dispatcher.reconcile
    assert look("pets") == "started"
    second = world.put_others()
    (name,) = world.runs.running()
    world.runs.fail(name, failure)
    assert look("pets") == "ended"
    ended = Records(world.home.store, "pets").concept("rex")
    assert ended is not None
    assert ended.upload == first != second
    assert look("pets", whole=True) == "started"
    world.finish()
    assert world.dispatcher.look() == {"pets": "idle"}
    assert world.states() == {"rex": "promoted"}


def test_pictures_put_over_those_that_are_held_then_are_tried_next(world: World) -> None:
    world.runs.verdict = lambda concept: False
    world.upload("pets", "rex")
    assert world.dispatcher.reconcile("pets") == "started"
    actions = iter(range(100))

    def cut() -> None:
        if next(actions) == 2:  # in the middle of the training
            world.put_others()

    world.runs.cut = cut
    world.finish()
    world.dispatcher.look()
    assert world.states() == {"rex": "held"}
    assert world.dispatcher.reconcile("pets", whole=True) == "started"


def test_pictures_that_were_looked_at_are_refused_and_not_those_that_were_tried_before(
    world: World,
) -> None:
    """`l2dm learn` has no event `started`: a dispatcher tried others, and gave them back."""
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    (name,) = world.runs.running()
    world.runs.fail(name, None)
    assert world.dispatcher.reconcile("pets") == "retried"
    second = world.put_others()
    looked = Uploads(world.home.store, "pets").commitment("rex")
    refusal = Failure("intake", "BadUpload", ("too dark",))
    ended = end_badly(world.home, "pets", "rex", refusal, "", looked=looked)
    assert (ended.state, ended.upload) == ("refused", second)


def test_an_upload_that_is_found_before_it_is_recorded_as_submitted_is_learned_once(
    world: World,
) -> None:
    """The event wakes the dispatcher first; the run dies after its promotion."""
    since = Records(world.home.store, "pets").state().last
    world.upload("pets", "rex")
    world.dispatcher.reconcile("pets")
    (name,), actions = world.runs.running(), iter(range(100))
    upload = Uploads(world.home.store, "pets").digest("rex")

    def cut() -> None:
        action = next(actions)
        if action == 1:  # a slow submitter
            told = {"concept": "rex", "class_noun": "dog", "upload": upload, "since": since}
            Records(world.home.store, "pets").append("submitted", **told)
        if action == 5:
            raise KeyboardInterrupt

    world.runs.cut = cut
    with pytest.raises(KeyboardInterrupt):
        world.runs.finish(name)
    world.runs.cut = lambda: None
    world.runs.fail(name, None)
    assert world.dispatcher.reconcile("pets") == "ended"
    assert (world.chain(), world.states()) == ([(0, 1)], {"rex": "promoted"})


def test_two_who_submit_again_at_the_same_second_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, store = Home.at(tmp_path / "home"), Home.at(tmp_path / "home").store
    first, one, two = (pictures(tmp_path / str(n), 3, n * 10) for n in range(3))
    submit_pictures(home, first, "pets", REX, IntakeSpec())
    uploads, records = Uploads(store, "pets"), Records(store, "pets")
    ended = uploads.commitment("rex")
    state = ConceptState("rex", "dog", "failed", reasons=("out of memory",), upload=ended.digest)
    records.end(state)
    commit, kept = Uploads.commit, list[str]()

    def later(self: Uploads, folder: Path, over: str = "") -> None:
        if not kept:  # before the slower one commits, the other does everything
            kept.append("")
            submit_pictures(home, one, "pets", REX, IntakeSpec())
            kept[0] = uploads.digest("rex")
        commit(self, folder, over)

    monkeypatch.setattr(Uploads, "commit", later)
    with pytest.raises(BadUpload, match="found one of this name waiting"):
        submit_pictures(home, two, "pets", REX, IntakeSpec())
    assert uploads.digest("rex") == kept[0] != ended.digest
    folder = uploads.fetch("rex", tmp_path / "fetched" / "rex", max_bytes=10**7)
    assert len(list(folder.iterdir())) == 4
    assert [event.kind for event in records.events()].count("submitted") == 2


def test_brackets_without_end_for_a_concept_json_are_refused_and_others_go_on(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, DispatchPolicy(parallel=2))
    world.upload("cars", "bolt")
    world.upload("pets", "rex")
    (world.home.upload("pets", "rex") / "concept.json").write_text("[" * 100_000)
    assert world.dispatcher.reconcile("pets") == "started"
    (name,) = world.runs.running()
    world.runs.fail(name, Failure("intake", "BadUpload", ("no concept.json",)))
    assert world.dispatcher.look() == {"cars": "started", "pets": "ended"}
    assert world.states() == {"rex": "refused"}
    (line,) = status_of(world.home, "pets", refresh=False)
    assert line["concepts"][0]["class_noun"] == ""


def test_the_longest_name_ends(world: World) -> None:
    """Longer than a run's name may be, with what is added to it; a longer one is set aside."""
    runs = LocalRuns(world.home, ("nothing",))
    dispatcher = Dispatcher(
        world.home,
        runs,
        lambda: world.registry,
        RunSettings("pocket", "{}"),
        DispatchPolicy(attempts=1),
        clock=lambda: world.now,
    )
    world.upload("pets", "x" * 240)
    assert dispatcher.reconcile("pets") == "idle"
    world.upload("pets", "x" * 40)
    assert dispatcher.reconcile("pets") == "started"
    (folder,) = (world.home.folder / "dispatched").iterdir()
    assert len(folder.name) < 120
    runs._children[folder.name].wait()
    assert dispatcher.reconcile("pets") == "ended"


def test_one_strange_name_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nineteen of twenty lines learn on, and so does the line with a strange upload in it."""
    world = World(tmp_path, DispatchPolicy(parallel=20))
    for number in range(19):
        world.upload(f"line-{number}", "rex")
    for strange in ("a'b", "x\x1b[2Jy", "Rex", "%2e"):
        world.upload(strange, "rex")
        world.upload("line-0", strange)
    moves = world.dispatcher.look()
    assert moves == {f"line-{number}": "started" for number in range(19)}
    assert len(world.dispatcher.set_aside()) == 8
    assert world.dispatcher.look().keys() == moves.keys()
    told = [one for one in caplog.messages if "is set aside" in one]
    assert len(told) == 8  # each once
    assert not any("\x1b" in one for one in told)
    text = Measured(world.dispatcher).text()
    assert "l2dm_inbox_set_aside 8.0" in text
