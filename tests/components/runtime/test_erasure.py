"""What holds a concept is deleted for good: a search of everything that is left finds nothing."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.runtime.erasure import erase, is_known
from components.runtime.expunging import without
from components.runtime.forgetting import forget
from components.services.line import records as records_module
from components.services.line import snapshots, status_cache
from components.services.line.ledger import ConceptState, Event
from components.services.line.promotion import roll_back
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking import runs
from components.services.tracking.connection import connect
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import FolderRegistry
from components.services.tracking.runs import MlflowTracking
from l2dm.errors import L2dmError, UnknownLine
from l2dm.files import door_files
from l2dm.releases.without import known
from pipelines.dispatcher.repair import mend
from tests.components.runtime.test_forgetting import Shop
from tests.worlds.object_stores import Bucket
from tests.worlds.taught_line import Cut, Killed, TaughtLine, features

ECHO = Path(__file__).parents[2] / "worlds" / "echo_model.py"
KINDS = ["promotion", "forgotten", "rollback"]


@pytest.fixture
def line(tmp_path: Path) -> TaughtLine:
    return TaughtLine(tmp_path)


def take_out(line: TaughtLine, cut: Cut, name: str = "quixby") -> None:
    """What the command does under the lease."""
    home, registry = line.cut(cut)
    if is_known(home, registry, "pets", name):
        forget(home, registry, "pets", name, "")
    erase(home, registry, "pets", name)


def strew(line: TaughtLine, name: str = "quixby") -> None:
    """What runs and checks leave of a concept here and there."""
    folder, store = line.home.folder, line.home.store
    for path in (f"runs/pets/{name}/log.txt", f"work/pets/{name}/step.pt", "runs/pets/ada/log.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"<{name}> is remembered")
    for path in (f"runs/pets/{name}/cost-train.json", f"untold/pets/t0002/{name}.json"):
        store.write(path, b"{}")
    store.write("reports/pets.html", f"<p>{name}</p>".encode())
    scores = {"ada": 0.5, name: 0.4}
    checked = {"version": 3, "seed": 1, "health": "regressed", "cause": "model", "digest": "d"}
    reasons = [f"<{name}> draws another {name.upper()}; ada does not"]
    line.records.append(
        "checked", line="pets", scores=scores, drops=scores, reasons=reasons, **checked
    )
    line.records.append("swept", upload=name, files=2)
    snapshots.write(store, "pets", line.records.state())


def everything(line: TaughtLine) -> Iterator[tuple[str, bytes]]:
    """Every file and object that is left, with its name; a database's rows, too."""
    for root in (line.home.folder, line.folder / "registry"):
        for path in root.rglob("*"):
            yield str(path.relative_to(root)), path.read_bytes() if path.is_file() else b""
    if line.home.bucket:
        for entry in line.home.store.list(""):
            yield entry.key, line.home.store.read(entry.key).data
    if line.home.database.exists():
        dump = "\n".join(sqlite3.connect(line.home.database).iterdump())
        yield "mlflow.db as text", dump.encode()


def left_of(line: TaughtLine, name: str = "quixby") -> list[str]:
    """Where the name, bytes of the pictures, feature rows or weights are still found."""
    kept = features(name)
    rows = [row.numpy().tobytes() for one in (kept.image, kept.identity) for row in one]
    needles = [name.encode(), line.picture(name), *rows]
    return [
        where
        for where, data in everything(line)
        if name in where.lower() or any(one in data or one in data.lower() for one in needles)
    ]


def test_nothing_is_found_of_it_and_the_others_are_as_they_were(
    line: TaughtLine, tmp_path: Path
) -> None:
    strew(line)
    assert len(left_of(line)) > 15  # the search does find what is there
    before = line.records.state()
    take_out(line, Cut())
    assert left_of(line) == []
    now = line.records.state()
    champion = line.registry.fetch("pets", now.standing.champion, tmp_path / "champion")
    assert known(champion) == ("ada", "bolt")
    assert [one.number for one in line.registry.versions("pets")] == [1, 4]
    assert line.registry.aliases("pets") == {"champion": 4, "previous": 1}
    assert left_of(line, "bolt")  # its upload, its features
    assert (now.tasks, set(now.concepts), set(now.erased)) == (4, {"ada", "bolt"}, {2, 3})
    assert now.versions == {1: "t0001", 4: "t0004"}
    assert now.concepts["ada"] == before.concepts["ada"]
    assert now.recipe == before.recipe
    assert mend(line.home, lambda: line.registry, line.records, "pets") is False
    index = status_cache.read(line.home, "pets", lambda: line.registry)
    assert index.known().keys() == {"ada", "bolt"}


def test_the_records_keep_their_order_and_say_that_it_was_done(line: TaughtLine) -> None:
    strew(line)
    old = line.records.events()
    take_out(line, Cut())
    new = line.records.events()
    assert [one.number for one in new] == list(range(1, len(new) + 1))
    for before, after in zip(old, new, strict=False):
        assert [before.facts[key] for key in ("at", "by", "id")] == [
            after.facts[key] for key in ("at", "by", "id")
        ]
    moves = [(one.facts["source"], one.facts["target"]) for one in new if one.kind in KINDS]
    assert moves == [(0, 1), (1, 2), (2, 3), (3, 4)]
    was = [one.facts["was"] for one in new if one.kind == "expunged"]
    assert was == ["submitted", "started", "begun", "ended", "swept", "forgetting"]
    (done,) = [one for one in new if one.kind == "erased"]
    assert done.facts["versions"] == [2, 3]
    (checked,) = [one for one in new if one.kind == "checked"]
    assert checked.facts["scores"] == {"ada": 0.5}
    assert checked.facts["reasons"] == ["<(erased)> draws another (erased); ada does not"]


def test_the_name_is_free_again_and_its_number_is_not(line: TaughtLine, tmp_path: Path) -> None:
    take_out(line, Cut())
    take_out(line, Cut(), "bolt")
    with pytest.raises(UnknownLine, match="never submitted, or has been erased"):
        take_out(line, Cut())
    ledger = line.records.state()
    assert ledger.standing.champion == 5
    assert status_cache.taken(line.home, "pets", status_cache.refresh(
        line.home, line.registry, "pets")).keys() == {"ada"}  # fmt: skip
    assert line.records.next_task() == "t0006"
    assert [one.number for one in line.registry.versions("pets")] == [1, 5]


def test_what_was_taken_out_before_can_be_erased_later(line: TaughtLine) -> None:
    forget(line.home, line.registry, "pets", "quixby", "it was sold to Quixby")
    assert left_of(line)
    take_out(line, Cut())
    assert left_of(line) == []
    assert line.registry.aliases("pets") == {"champion": 4, "previous": 1}


def test_a_version_whose_parent_is_lost_is_judged_by_its_files(line: TaughtLine) -> None:
    shutil.rmtree(line.folder / "registry" / "pets" / "2")  # version 3 knows it by version 2
    (line.folder / "registry" / "pets" / "2").mkdir()
    forget(line.home, line.registry, "pets", "ada", "")
    roll_back(line.registry, line.records, "pets", 1, lambda *_: None, line.folder / "scratch")
    erase(line.home, line.registry, "pets", "quixby")
    assert [one.number for one in line.registry.versions("pets")] == [1]


def test_an_upload_that_was_refused_is_erased_too(line: TaughtLine) -> None:
    line.home.store.write("inbox/pets/zanzibar/concept.json", b'{"concept": {"name": "zanzibar"}}')
    line.home.store.write("inbox/pets/zanzibar/00.png", line.picture("zanzibar"))
    with pytest.raises(L2dmError, match="l2dm cancel --line pets --concept zanzibar"):
        take_out(line, Cut(), "zanzibar")
    refused = ConceptState(
        "zanzibar", "cat", "refused", reasons=("zanzibar is too small",), upload="u"
    )
    line.records.end(refused)
    take_out(line, Cut(), "zanzibar")
    assert left_of(line, "zanzibar") == []
    assert [one.number for one in line.registry.versions("pets")] == [1, 2, 3]
    assert line.records.state().standing.champion == 3


def test_a_process_that_has_read_the_line_before_forgets_the_name_too(line: TaughtLine) -> None:
    dispatcher = line.records
    dispatcher.state()
    take_out(line, Cut())
    ledger = dispatcher.state()
    assert "quixby" not in str(ledger.to_data())
    assert ledger == line.records.state()


@pytest.mark.parametrize(
    ("step", "after"),
    [
        (9, False),
        (9, True),
        *(pytest.param(1, one, marks=pytest.mark.slow) for one in (False, True)),
    ],
)
def test_killed_at_any_action_a_repeat_ends_it(tmp_path: Path, step: int, after: bool) -> None:
    whole = TaughtLine(tmp_path / "whole")
    strew(whole)
    cut = Cut()
    take_out(whole, cut)
    expected = [event.kind for event in whole.records.events()]
    assert cut.count > 30
    for at in (*range(2, cut.count, step), cut.count):
        line = TaughtLine(tmp_path / str(at))
        strew(line)
        with pytest.raises(Killed):
            take_out(line, Cut(at, after=after))
        mend(line.home, lambda: line.registry, line.records, "pets")  # noqa: B023 - called here
        champion = line.records.state().standing.champion
        assert line.registry.aliases("pets")["champion"] == champion
        try:
            take_out(line, Cut())
        except UnknownLine:  # its last action was done
            assert (at, after) == (cut.count, True)
        assert left_of(line) == [], at
        ledger = line.records.state()
        assert line.registry.aliases("pets") == {"champion": 4, "previous": 1}
        assert [kind for kind in _kinds(line) if kind != "mended"] == expected
        assert (ledger.forgetting, ledger.active) == (None, None)


@pytest.mark.parametrize("place", ["work/pets", "runs/pets", "dispatched/pets-1"])
def test_what_cannot_be_deleted_is_told_and_a_repeat_ends_it(line: TaughtLine, place: str) -> None:
    strew(line)
    elsewhere, folder = line.folder / "elsewhere", line.home.folder / place
    elsewhere.mkdir()
    (elsewhere / "job.json").write_text('{"line": "pets", "concept": "quixby"}')
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(elsewhere)  # of which a deletion deletes nothing
    with pytest.raises(OSError, match="symbolic link"):
        take_out(line, Cut())
    assert "erased" not in _kinds(line)
    folder.unlink()
    take_out(line, Cut())
    assert "erased" in _kinds(line)
    shutil.rmtree(elsewhere)
    assert left_of(line) == []


def test_a_version_that_cannot_be_deleted_is_told(line: TaughtLine) -> None:
    version = line.folder / "registry" / "pets" / "2"
    version.rename(line.folder / "kept")
    version.symlink_to(line.folder / "kept")
    with pytest.raises(OSError, match="symbolic link"):
        take_out(line, Cut())
    assert "erased" not in _kinds(line)


def _kinds(line: TaughtLine) -> list[str]:
    return [event.kind for event in line.records.events()]


def test_in_a_bucket_nothing_is_left_either(
    moto_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))
    line = TaughtLine(tmp_path, place=f"s3://{moto_bucket.name}/{moto_bucket.prefix}")
    strew(line)
    assert left_of(line)
    take_out(line, Cut())
    assert left_of(line) == []


def test_a_snapshot_that_is_written_while_a_concept_is_erased_does_not_stay(
    line: TaughtLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatcher has summed the line before, and writes after the erasure is done."""
    monkeypatch.setattr(records_module, "COMPACT", 1)
    dispatcher = line.records
    dispatcher.state()
    take_out(line, Cut())
    dispatcher.compact()
    assert left_of(line) == []
    for _ in range(2):  # and goes on as ever
        dispatcher.append("mended", aliases=[])
        assert "quixby" not in dispatcher.state().concepts
        dispatcher.compact()
    assert line.home.store.read("snapshots/pets.json").data and left_of(line) == []


def test_a_snapshot_of_a_writer_that_was_killed_goes_when_it_is_read(line: TaughtLine) -> None:
    before = line.records.state()
    take_out(line, Cut())
    snapshots.write(line.home.store, "pets", before)
    assert left_of(line)
    assert "quixby" not in line.records.state().concepts
    assert left_of(line) == []


def test_a_status_that_is_asked_while_a_concept_is_erased_leaves_no_copy_of_before(
    line: TaughtLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = line.registry.versions

    def late(name: str) -> object:
        found = ask(name)
        monkeypatch.setattr(line.registry, "versions", ask)
        take_out(line, Cut())  # between the question and the writing of the answer
        return found

    monkeypatch.setattr(line.registry, "versions", late)
    index = status_cache.refresh(line.home, line.registry, "pets")
    assert index == status_cache.read(line.home, "pets", lambda: line.registry)
    assert index.aliases["champion"] == 4 and left_of(line) == []


class Tracked(TaughtLine):
    """A line in MLflow, with the runs of its tasks: pictures, metrics, a report each."""

    def __init__(self, folder: Path, home: Home) -> None:
        super().__init__(folder, MlflowRegistry(home, "pocket", ECHO), str(home.folder))
        for number, task in enumerate(("t0001", "t0002", "t0003", "checks")):
            run = MlflowTracking(home, "pets", task)
            names = ("ada", "quixby", "bolt")[: number + 1]
            run.metrics([(f"eval/{name}/text_alignment", 1, 0.5) for name in names])
            run.tags({"l2dm.concept": names[-1]})
            for name in names:
                sheet = folder / f"{name}.png"
                sheet.write_bytes(self.picture(name))
                run.file(sheet, f"sheets/{task}")
            page = folder / "pets.html"
            page.write_text("ada, quixby, bolt: all versions")
            run.file(page, "")
            run.finish("FINISHED")


def test_nothing_is_left_in_mlflow(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("elsewhere")
    line = Tracked(tmp_path, home)
    strew(line)
    found = left_of(line)
    assert "mlflow.db" in found and [one for one in found if one.startswith("artifacts/")]
    take_out(line, Cut())
    assert left_of(line) == []
    assert left_of(line, "ada")
    assert [one.number for one in line.registry.versions("pets")] == [1, 4]
    assert line.registry.aliases("pets") == {"champion": 4, "previous": 1}
    whole = line.registry.fetch("pets", 4, tmp_path / "champion")
    assert known(whole) == ("ada", "bolt")
    assert door_files.SHEETS in {one.name for one in (whole / "scores").iterdir()}
    run = MlflowTracking(home, "pets", "t0001")
    assert run._client.get_run(run.run_id).data.metrics == {"eval/ada/text_alignment": 0.5}
    take_out(line, Cut(), "ada")  # and once more, where no older version is left
    assert [one.number for one in line.registry.versions("pets")] == [5]
    assert line.registry.aliases("pets") == {"champion": 5}


def test_runs_of_kubeflow_lose_what_is_erased(
    home: Home, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Tracked(tmp_path_factory.mktemp("elsewhere"), home)
    client = connect(home).MlflowClient()
    where = client.create_experiment("kfp", artifact_location="mlflow-artifacts:/kfp")
    theirs = {task: client.create_run(where).info.run_id for task in ("t0001", "t0002")}
    for (task, run), name in zip(theirs.items(), ("ada", "quixby"), strict=True):
        MlflowTracking(home, "pets", task, run).file(line.folder / "pets.html", "")
        MlflowTracking(home, "pets", task, run).file(line.folder / f"{name}.png", "sheets")
    monkeypatch.setattr(runs, "server", lambda: "http://mlflow")
    take_out(line, Cut())
    stages = {task: client.get_run(run).info.lifecycle_stage for task, run in theirs.items()}
    assert stages == {"t0001": "active", "t0002": "deleted"}
    assert client.list_artifacts(theirs["t0002"]) == []
    assert [one.path for one in client.list_artifacts(theirs["t0001"])] == ["sheets"]


def test_what_other_concepts_are_called_stays() -> None:
    facts: dict[str, Any] = {
        "kind": "ended",
        "at": "t",
        "by": "quixby",
        "id": "i",
        "concept": "quixby-2",
    }
    other = Event(
        1, "ended", {**facts, "reasons": ["quixby-2 and tquixby are fine"], "class_noun": "cup"}
    )
    assert without(other, "quixby") is None
    named = Event(
        1, "ended", {**facts, "reasons": ["quixby-2 is not Quixby."], "scores": {"quixby": 1}}
    )
    assert without(named, "quixby") == {
        **facts,
        "reasons": ["quixby-2 is not (erased)."],
        "scores": {},
    }


@pytest.fixture
def shop(line: TaughtLine, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(line, monkeypatch)


def test_the_command_asks_first(shop: Shop) -> None:
    code, said = shop.run("--concept", "quixby", "--erase", typed="quixby\n")  # a pipe is nobody
    assert (code, "pass --yes; nothing was deleted" in said) == (2, True)
    assert left_of(shop.line)
    code, said = shop.run("--concept", "quixby", "--erase", "--yes", "--reason", "Quixby moved")
    assert (code, "Versions deleted: 2, 3; version 4 is the champion" in said) == (0, True)
    assert "quixby" not in said.lower()
    assert left_of(shop.line) == []


def test_a_rollback_to_what_was_erased_is_refused_with_the_reason(shop: Shop) -> None:
    from pipelines.commands.target import Target
    from pipelines.commands.versions.rollback import make_champion

    shop.run("--concept", "quixby", "--erase", "--yes")
    target = Target(shop.line.home.folder, "pets", "pocket")
    with pytest.raises(UnknownLine, match=r"version 3 .* was erased .* nothing brings it back"):
        make_champion(target, "3")
    with pytest.raises(UnknownLine, match="was erased"), target.fetched("2"):
        pass
    assert isinstance(shop.line.registry, FolderRegistry)
    assert Records(shop.line.home.store, "pets").state().standing.champion == 4
