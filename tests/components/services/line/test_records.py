"""States are read off events; the projection is never wrong, at worst absent."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from components.services.line import status_cache
from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.store.folder import FolderObjects
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry, Version, VersionFacts


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(FolderObjects(tmp_path), "pets")


def upload(folder: Path, name: str, noun: str = "dog") -> Path:
    path = folder / name / "concept.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"concept": {"name": name, "class_noun": noun}}))
    return path.parent


def test_a_concept_goes_from_submitted_over_begun_to_one_end(records: Records) -> None:
    records.append("submitted", concept="rex", class_noun="dog")
    assert [state.state for state in records.concepts()] == ["waiting"]
    records.append(
        "begun", concept="rex", class_noun="dog", task="t0001", parent_version=4, upload="u"
    )
    (now,) = records.concepts()
    assert (now.state, now.task, now.parent_version, now.upload) == ("learning", "t0001", 4, "u")
    assert records.next_task() == "t0002"
    records.end(replace(now, state="held", version=5, reasons=("drift 0.4 over 0.3",)))
    assert records.concept("rex") == replace(
        now, state="held", version=5, reasons=("drift 0.4 over 0.3",)
    )
    records.append("submitted", concept="rex", class_noun="dog")
    assert records.concepts()[0].state == "waiting"


def test_an_end_is_recorded_once_per_task(records: Records) -> None:
    records.append(
        "begun", concept="rex", class_noun="dog", task="t0001", parent_version=0, upload="u"
    )
    ended = ConceptState("rex", "dog", "promoted", version=1, task="t0001", upload="u")
    records.end(ended)
    records.end(ended)
    assert [event.kind for event in records.events()] == ["begun", "ended"]
    with pytest.raises(ValueError, match=r"expected one of .*found 'waiting'"):
        records.end(replace(ended, state="waiting"))


def test_writers_at_once_never_share_a_number(records: Records) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(
                lambda i: records.append("submitted", concept=f"c{i}", class_noun="dog"), range(40)
            )
        )
    assert sorted(event.number for event in made) == list(range(1, 41))
    assert len(records.concepts()) == 40


def facts(number: int, parent: int, concept: str) -> VersionFacts:
    return VersionFacts(f"t{number:04d}", concept, "dog", parent, f"digest-{number}", True)


def test_the_status_of_a_line_has_the_documented_keys(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    release = tmp_path / "release"
    release.mkdir()
    registry = FolderRegistry(tmp_path / "registry")
    registry.register("pets", release, facts(1, 0, "rex"))
    registry.set_alias("pets", "champion", 1)
    upload(home.inbox / "pets", "mimi", "cat")
    index = status_cache.refresh(home, registry, "pets")
    assert status_cache.read(home, "pets", lambda: registry) == index
    assert status_cache.status(home, "pets", index) == {
        "name": "pets",
        "champion": 1,
        "challenger": None,
        "previous": None,
        "recipe": None,
        "untold": [],
        "versions": [
            {
                "version": 1,
                "task": "t0001",
                "concept": "rex",
                "verdict": "open",
                "reasons": [],
                "findings": [],
                "scores": {},
            }
        ],
        "set_aside": [],
        "concepts": [
            {
                "name": "mimi",
                "class_noun": "cat",
                "state": "waiting",
                "version": None,
                "reasons": [],
                "findings": [],
                "known": False,
                "known_version": None,
                "taken_back": None,
            }
        ],
    }


def test_status_tells_why_mlflow_was_not_told(tmp_path: Path) -> None:
    home, why = Home.at(tmp_path), {"why": "MLflow does not answer", "calls": []}
    home.store.write("untold/pets/t0001/train-1.json", json.dumps(why).encode())
    (told,) = status_cache.status(home, "pets", status_cache.Index())["untold"]
    assert told == "t0001 train: MLflow was not told everything: MLflow does not answer"


def test_a_kill_between_change_and_copy_leaves_no_wrong_copy(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    begun = {"concept": "rex", "class_noun": "dog", "task": "t0001"}
    Records(home.store, "pets").append("begun", **begun, parent_version=0, upload="u")
    release = tmp_path / "release"
    release.mkdir()
    registry = FolderRegistry(tmp_path / "registry")
    registry.register("pets", release, facts(1, 0, "rex"))
    status_cache.refresh(home, registry, "pets")
    status_cache.forget(home, "pets")
    registry.set_alias("pets", "champion", 1)  # killed here, before the copy is written
    assert status_cache.read(home, "pets", lambda: registry).aliases == {"champion": 1}


def test_a_line_that_never_began_a_task_does_not_open_the_registry(tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    upload(home.inbox / "pets", "rex")

    def never() -> FolderRegistry:
        raise AssertionError("opened")

    assert status_cache.read(home, "pets", never) == status_cache.Index()


def test_a_descent_follows_parents_whatever_was_champion_between() -> None:
    def made(number: int, parent: int) -> Version:
        return Version(
            number, VersionFacts(f"t{number:04d}", f"c{number}", "dog", parent, "d", True)
        )

    # 1, 2, 3 in a row; back to 1; 4 learned from it; back to 3
    versions = [made(1, 0), made(2, 1), made(3, 2), made(4, 1)]
    assert [one.number for one in status_cache.descent(versions, 3)] == [3, 2, 1]
    assert [one.number for one in status_cache.descent(versions, 4)] == [4, 1]
    assert status_cache.descent(versions, 0) == ()


def test_names_of_the_champions_descent_are_taken_and_rolled_back_ones_are_free(
    tmp_path: Path,
) -> None:
    home, release = Home.at(tmp_path), tmp_path / "release"
    release.mkdir()
    registry = FolderRegistry(tmp_path / "registry")
    for number, parent, concept in ((1, 0, "rex"), (2, 1, "mimi"), (3, 2, "bo")):
        registry.register("pets", release, facts(number, parent, concept))
    registry.set_alias("pets", "champion", 2)
    upload(home.inbox / "pets", "kim")
    index = status_cache.refresh(home, registry, "pets")
    assert status_cache.taken(home, "pets", index) == {
        "rex": "learned in version 1; l2dm submit --replace teaches it anew",
        "mimi": "learned in version 2; l2dm submit --replace teaches it anew",
        "kim": "its upload is waiting",
    }
