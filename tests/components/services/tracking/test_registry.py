"""One contract suite for both registries, then the promotion protocol on both."""

import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from pytest import MonkeyPatch

from components.services.line.promotion import roll_back, settle
from components.services.line.records import Records
from components.services.store.folder import FolderObjects
from components.services.store.home import Home
from components.services.tracking.connection import connect, told
from components.services.tracking.mlflow_registry import MlflowRegistry, _description
from components.services.tracking.registry import (
    FolderRegistry,
    Registry,
    Version,
    VersionFacts,
    resolve,
    told_of,
)
from components.services.tracking.runs import runs_of
from l2dm import doors
from l2dm.doors import Finding
from l2dm.errors import BadDoor, L2dmError, StaleParent, TrackingFailed, UnknownLine
from l2dm.files import manifest
from tests.worlds.hostile_text import texts

MODEL_CODE = Path(__file__).parents[3] / "worlds" / "echo_model.py"
CLOSED = (Finding("text", False),)
ITEMS = ("ul", "/ul", "li", "/li")
OPEN = VersionFacts(
    "t0001", "rex", "dog", 0, "digest-1", True, ("identity 0.9 of 0.5",), {"drift": 0.1}
)


@pytest.fixture(params=["folder", "mlflow"])
def registry(request: pytest.FixtureRequest, home: Home) -> Registry:
    if request.param == "folder":
        return FolderRegistry(home.folder / "registry")
    return MlflowRegistry(home, "pocket", MODEL_CODE)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "some-name"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "weights").write_bytes(b"\x00\x01")
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(FolderObjects(tmp_path), "pets")


def facts(number: int, parent: int, *, verdict: bool = True) -> VersionFacts:
    return replace(
        OPEN, task=f"t{number:04d}", digest=f"digest-{number}", parent_version=parent, open=verdict
    )


def test_a_registered_version_tells_its_facts_and_gives_its_files_back(
    registry: Registry, release: Path, tmp_path: Path
) -> None:
    assert registry.versions("pets") == ()
    number = registry.register("pets", release, OPEN)
    (version,) = registry.versions("pets")
    assert (number, version.number, version.facts) == (1, 1, OPEN)
    assert registry.lines() == ("pets",)
    folder = registry.fetch("pets", 1, tmp_path / "fetched")
    assert (folder / "adapter" / "weights").read_bytes() == b"\x00\x01"
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", "manifest.json"]


def test_the_same_task_and_digest_are_one_version(registry: Registry, release: Path) -> None:
    assert [registry.register("pets", release, OPEN) for _ in range(2)] == [1, 1]
    assert registry.register("pets", release, facts(2, 1)) == 2
    assert [version.number for version in registry.versions("pets")] == [1, 2]


def test_a_task_that_two_runs_learned_is_one_version(registry: Registry, release: Path) -> None:
    """Other bytes, because another machine made them; the first one registered stays."""
    assert registry.register("pets", release, OPEN) == 1
    assert registry.register("pets", release, replace(OPEN, digest="of another machine")) == 1
    assert [version.facts.digest for version in registry.versions("pets")] == ["digest-1"]


def test_of_two_registrations_at_once_one_version_stays(registry: Registry, release: Path) -> None:
    """Neither sees the other when it looks first; or a request was sent twice."""
    assert registry.register("pets", release, OPEN) == 1
    blind, seen = [True], registry.versions

    def versions(line: str) -> tuple[Version, ...]:
        return () if blind and blind.pop() else seen(line)

    registry.versions = versions  # type: ignore[method-assign]
    assert registry.register("pets", release, replace(OPEN, digest="another")) == 1
    assert [version.number for version in seen("pets")] == [1]


def test_the_aliases_of_all_lines_are_asked_for_together(registry: Registry, release: Path) -> None:
    for line in ("pets", "cars"):
        registry.register(line, release, OPEN)
    registry.set_alias("pets", "champion", 1)
    assert registry.every_alias() == {"cars": {}, "pets": {"champion": 1}}


def test_an_mlflow_that_does_not_answer_is_told(home: Home, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = MlflowRegistry(home, "pocket", MODEL_CODE)
    with pytest.raises(TrackingFailed, match=r"MLflow at http://127.0.0.1:9 to list the versions"):
        registry.versions("pets")


def test_the_words_of_an_error_of_mlflow_hold_its_cause_and_no_secret(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    connect(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:9")
    said = "These failed:\n# a.png\n[Errno 28] No space left at http://me:hush@x\n[SQL: INSERT]"
    with pytest.raises(TrackingFailed) as caught, told("take a file"):
        raise MlflowException(said)
    assert "These failed: # a.png [Errno 28] No space left" in str(caught.value)
    assert "hush" not in str(caught.value) and "INSERT" not in str(caught.value)


def test_aliases_are_set_moved_and_dropped(registry: Registry, release: Path) -> None:
    assert registry.aliases("pets") == {}
    registry.register("pets", release, OPEN)
    registry.register("pets", release, facts(2, 1))
    registry.set_alias("pets", "champion", 1)
    registry.set_alias("pets", "champion", 2)
    registry.set_alias("pets", "challenger", 1)
    assert registry.aliases("pets") == {"champion": 2, "challenger": 1}
    registry.drop_alias("pets", "challenger")
    registry.drop_alias("pets", "challenger")
    assert registry.aliases("pets") == {"champion": 2}


def test_what_does_not_exist_is_named(registry: Registry, release: Path, tmp_path: Path) -> None:
    registry.register("pets", release, OPEN)
    with pytest.raises(UnknownLine, match=r"expected version 7 of line 'pets', found versions \[1"):
        registry.set_alias("pets", "champion", 7)
    with pytest.raises(UnknownLine, match="expected version 1 of line 'cars'"):
        registry.fetch("cars", 1, tmp_path / "fetched")
    with pytest.raises(UnknownLine, match=r"a version number or one of \[\] .*found 'chmapion'"):
        resolve(registry, "pets", "chmapion")
    with pytest.raises(UnknownLine, match=r"a champion before the one of now .*found none"):
        resolve(registry, "pets", "previous")
    assert resolve(registry, "pets", "1") == 1
    with pytest.raises(UnknownLine, match=r"none yet; .* `l2dm learn --line birds` learns it"):
        resolve(registry, "birds", "champion")


def test_who_asks_for_a_champion_that_the_gate_held_is_told_so_and_the_way_out(
    registry: Registry, release: Path, records: Records
) -> None:
    registry.register("pets", release, facts(1, 0, verdict=False))
    with pytest.raises(UnknownLine, match=r"--version 1 to look at it.* --to 1`"):
        resolve(registry, "pets", "champion")  # its alias is not set yet
    settle(registry, records, "pets", 1)
    with pytest.raises(UnknownLine) as told:
        resolve(registry, "pets", "champion")
    said = str(told.value)
    assert "no version was promoted yet: the gate held the newest one, version 1" in said
    for way in ("l2dm status --line pets", "report", "--version challenger"):
        assert way in said
    assert "`l2dm rollback --line pets --to challenger`" in said
    assert resolve(registry, "pets", "challenger") == 1


def test_eight_first_alias_creations_at_once_all_succeed(registry: Registry, release: Path) -> None:
    registry.register("pets", release, OPEN)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: registry.set_alias("pets", "champion", 1), range(8)))
    assert registry.aliases("pets") == {"champion": 1}


def test_an_open_gate_sets_previous_then_champion_and_a_closed_one_challenger_only(
    registry: Registry, release: Path, records: Records
) -> None:
    registry.register("pets", release, OPEN)
    assert settle(registry, records, "pets", 1)
    assert registry.aliases("pets") == {"champion": 1}
    registry.register("pets", release, facts(2, 1))
    assert settle(registry, records, "pets", 2)
    assert registry.aliases("pets") == {"champion": 2, "previous": 1}
    registry.register("pets", release, facts(3, 2, verdict=False))
    assert not settle(registry, records, "pets", 3)
    assert registry.aliases("pets") == {"champion": 2, "previous": 1, "challenger": 3}


def test_settling_twice_changes_nothing(
    registry: Registry, release: Path, records: Records
) -> None:
    for number, parent in ((1, 0), (2, 1)):
        registry.register("pets", release, facts(number, parent))
        settle(registry, records, "pets", number)
    before = registry.aliases("pets")
    assert settle(registry, records, "pets", 2)
    assert registry.aliases("pets") == before
    assert [event.kind for event in records.events()] == ["promotion", "promotion"]


def test_a_stale_parent_is_refused_and_no_alias_moves(
    registry: Registry, release: Path, records: Records
) -> None:
    for number, parent in ((1, 0), (2, 1), (3, 1)):
        registry.register("pets", release, facts(number, parent))
    settle(registry, records, "pets", 1)
    settle(registry, records, "pets", 2)
    with pytest.raises(
        StaleParent, match=r"'pets' to be version 1, from which task t0003 .* found version 2"
    ):
        settle(registry, records, "pets", 3)
    assert registry.aliases("pets") == {"champion": 2, "previous": 1}


def test_rollback_moves_back_and_forth_and_is_recorded(
    registry: Registry, release: Path, records: Records, tmp_path: Path
) -> None:
    for number, parent in ((1, 0), (2, 1)):
        registry.register("pets", release, facts(number, parent))
        settle(registry, records, "pets", number)
    seen: list[bool] = []

    def check(version: int, folder: Path) -> None:
        seen.append((folder / "manifest.json").exists())

    assert roll_back(registry, records, "pets", 1, check, tmp_path / "scratch") == 2
    assert registry.aliases("pets") == {"champion": 1, "previous": 2}
    assert seen == [True]
    last = records.events()[-1]
    assert (last.kind, last.facts["source"], last.facts["target"]) == ("rollback", 2, 1)
    with pytest.raises(L2dmError, match="version 1 is already the champion"):
        roll_back(registry, records, "pets", 1, check, tmp_path / "scratch")


def test_a_version_that_does_not_load_never_becomes_champion(
    registry: Registry, release: Path, records: Records, tmp_path: Path
) -> None:
    for number, parent in ((1, 0), (2, 1)):
        registry.register("pets", release, facts(number, parent))
        settle(registry, records, "pets", number)

    def check(version: int, folder: Path) -> None:
        raise BadDoor("torn")

    with pytest.raises(BadDoor, match="torn"):
        roll_back(registry, records, "pets", 1, check, tmp_path / "scratch")
    assert registry.aliases("pets") == {"champion": 2, "previous": 1}


def test_a_challenger_that_becomes_champion_by_rollback_is_no_challenger_any_more(
    registry: Registry, release: Path, records: Records, tmp_path: Path
) -> None:
    registry.register("pets", release, facts(1, 0))
    registry.register("pets", release, facts(2, 1, verdict=False))
    settle(registry, records, "pets", 1)
    settle(registry, records, "pets", 2)
    accept: Callable[[int, Path], None] = lambda version, folder: None  # noqa: E731
    roll_back(registry, records, "pets", 2, accept, tmp_path / "scratch")
    assert registry.aliases("pets") == {"champion": 2, "previous": 1}


def test_a_pickle_in_the_registry_is_never_loaded(
    home: Home, release: Path, tmp_path: Path
) -> None:
    """Somebody put one beside the release: it is neither opened nor copied out."""

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "exploded",)

    registry = MlflowRegistry(home, "pocket", MODEL_CODE)
    registry.register("pets", release, OPEN)
    (model,) = home.artifacts.rglob("MLmodel")
    (model.parent / "python_model.pkl").write_bytes(pickle.dumps(Bomb()))
    (model.parent / "artifacts" / "release" / "adapter.pkl").write_bytes(pickle.dumps(Bomb()))
    folder = registry.fetch("pets", 1, tmp_path / "fetched")
    assert not (tmp_path / "exploded").exists()
    assert not (folder / "python_model.pkl").exists()
    with pytest.raises(BadDoor):  # and the release beside it is refused
        manifest.read(folder, doors.Release)


def test_a_registered_version_is_served_by_pyfunc_with_its_params(
    home: Home, release: Path
) -> None:
    registry = MlflowRegistry(home, "a-base", MODEL_CODE)
    registry.register("pets", release, OPEN)
    registry.set_alias("pets", "champion", 1)
    import mlflow

    model = mlflow.pyfunc.load_model("models:/l2dm.pets@champion")
    assert model.predict([{"prompt": "a dog"}], params={"seed": 3}) == [b"a-base a dog 3 0 True"]


def test_a_model_logged_before_a_kill_is_registered_not_logged_again(
    home: Home, release: Path
) -> None:
    registry = MlflowRegistry(home, "pocket", MODEL_CODE)
    registry._log("pets", release, OPEN)  # killed before the version was created
    assert registry.register("pets", release, OPEN) == 1
    models = registry._client.search_logged_models(
        [registry._client.get_experiment_by_name("l2dm/pets").experiment_id]
    )
    assert len(models) == 1


def test_facts_of_a_version_of_before_its_findings_are_read() -> None:
    old = {name: value for name, value in manifest.to_data(OPEN).items() if name != "findings"}
    assert manifest.from_data(VersionFacts, old) == OPEN


def test_a_description_takes_no_markup_of_what_people_typed() -> None:
    """`<sunny>` vanished in MLflow, which shows Markdown and takes it for HTML."""
    renderer = MarkdownIt("commonmark", {"html": True})
    for text in texts():
        facts = replace(
            OPEN, concept="sunny", class_noun=text, reasons=(f"<sunny> {text}",), findings=CLOSED
        )
        page = renderer.render(_description(facts))
        assert set(re.findall(r"<(/?\w+)", page)) <= {"p", "/p", "strong", "/strong", *ITEMS}, text
        assert "&lt;sunny&gt;" in page and "<li>✕ " in page
    many = replace(OPEN, reasons=tuple(f"{text} {number}" for number, text in enumerate(texts())))
    assert len(_description(many)) < 5000 and _description(many).endswith("\n* …")


def test_mlflow_tells_in_words_what_a_rollback_took_back(home: Home, release: Path) -> None:
    registry = MlflowRegistry(home, "pocket", MODEL_CODE)
    client = connect(home).MlflowClient()
    registry.register("pets", release, OPEN)
    second = replace(OPEN, task="t0002", concept="mimi", digest="other", parent_version=1)
    registry.register("pets", release, replace(second, findings=CLOSED))
    registry.tell("pets", 1, {"rex": 1}, {"mimi": 2}, {1: "promoted", 2: "taken back"})
    described = client.get_registered_model("l2dm.pets").description
    assert described == told_of(1, {"rex": 1}, {"mimi": 2})
    versions = {one.version: one.tags for one in client.search_model_versions("name = 'l2dm.pets'")}
    states = {str(version): tags["l2dm.state"] for version, tags in versions.items()}
    assert states == {"1": "promoted", "2": "taken back"}
    assert {str(v): tags["l2dm.closed_by"] for v, tags in versions.items()} == {
        "1": "",
        "2": "text",
    }
    (run,) = runs_of(client, "pets", "t0002")
    assert run.data.tags["l2dm.state"] == "taken back"
    assert registry.versions("pets")[1].facts.findings == CLOSED


def test_what_versions_have_in_common_lies_on_the_disk_twice(home: Home, release: Path) -> None:
    registry = MlflowRegistry(home, "pocket", MODEL_CODE)
    sheet, big = release / "sheets" / "rex.png", bytes(range(256)) * 40
    sheet.parent.mkdir()
    for number in range(1, 6):
        sheet.write_bytes(big if number != 4 else big[::-1])
        (release / "adapter" / "weights").write_bytes(bytes([number]) * 5000)
        registry.register("pets", release, facts(number, number - 1))

    def of(name: str) -> list[int]:
        found = [
            registry._files("pets", number) / "artifacts" / "release" for number in range(1, 6)
        ]
        return [(folder / name).stat().st_ino for folder in found]

    sheets, weights = of("sheets/rex.png"), of("adapter/weights")
    assert sheets[0] == sheets[2] == sheets[4]  # with the one before the last
    assert len({sheets[0], sheets[1], sheets[3]}) == 3  # 1 and 2 are two copies, 4 is another sheet
    assert len(set(weights)) == 5
    registry.erase("pets", [1, 3], lambda text: False)
    again = registry.fetch("pets", 5, home.folder / "fetched")
    assert (again / "sheets" / "rex.png").read_bytes() == big


def test_two_copies_stay_where_a_version_in_between_was_erased(home: Home, release: Path) -> None:
    registry = MlflowRegistry(home, "pocket", MODEL_CODE)
    (release / "sheet").write_bytes(b"\x01" * 5000)
    for number in range(1, 5):
        registry.register("pets", release, facts(number, number - 1))
    registry.erase("pets", [3], lambda text: False)
    registry.register("pets", release, facts(5, 4))
    second, fourth, fifth = (
        (registry._files("pets", number) / "artifacts" / "release" / "sheet").stat().st_ino
        for number in (2, 4, 5)
    )
    assert second == fourth != fifth  # 4 and 2 are one file: 5 keeps its own


def test_a_damaged_file_is_shared_with_no_version(home: Home, release: Path) -> None:
    registry = MlflowRegistry(home, "pocket", MODEL_CODE)
    (release / "sheet").write_bytes(b"\x01" * 5000)
    for number in (1, 2):
        registry.register("pets", release, facts(number, number - 1))
    first = registry._files("pets", 1) / "artifacts" / "release" / "sheet"
    first.write_bytes(b"\x01" * 4999 + b"\x02")
    registry.register("pets", release, facts(3, 2))
    third = registry.fetch("pets", 3, home.folder / "fetched")
    assert (third / "sheet").read_bytes() == b"\x01" * 5000
