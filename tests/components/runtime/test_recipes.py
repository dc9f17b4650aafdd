"""A line keeps method, adapter and base; what it cannot follow is refused before any work."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import Field

from components.runtime import outcomes, stored_bases
from components.runtime.recipes import checked_on, learned_with, named_base, recipe_of
from components.services.line import snapshots, status_cache
from components.services.line.ledger import Ledger
from components.services.line.recipe import Asked, Recipe
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry, VersionFacts
from l2dm import doors, steps
from l2dm.bases import folder as base_folder
from l2dm.errors import BadBase, BadSpec
from l2dm.files import manifest
from l2dm.methods import registry
from l2dm.sections import KEPT, Section
from l2dm.spec import Spec, from_json, options_of, override, recorded
from pipelines.commands.target import Target
from tests.worlds import six_steps

POCKET = base_folder.fingerprint(base_folder.locate("pocket"))


class KeptLine:
    """A line with a champion, learned as `settings` say, on the base that is named."""

    def __init__(self, folder: Path, *settings: str, base: str = "pocket") -> None:
        self.home = Home.at(folder / "home")
        self.records = Records(self.home.store, "pets")
        self.begin("t0001", *settings, base=base)

    def begin(self, task: str, *settings: str, base: str = "pocket", parent: int = 0) -> None:
        found = base_folder.fingerprint(base_folder.locate(base))
        recipe = recipe_of(self.home, override(Spec(), settings), base, found)
        named = {"concept": "rex", "class_noun": "dog", "upload": "u", "parent_version": parent}
        self.records.append("begun", task=task, recipe=asdict(recipe), **named)

    def promote(self, task: str = "t0001", version: int = 1) -> "KeptLine":
        self.records.append("promotion", line="pets", task=task, source=0, target=version)
        return self

    def learned_with(self, *settings: str, base: str = "") -> tuple[str, Spec]:
        asked = Asked(base, settings)
        found, spec = learned_with(self.home, "pets", self.records, asked, _no_registry)
        return found, from_json(spec)


class _AnotherDefault(Section):
    """Options of `gated` as a later release may have them."""

    gate: str = Field("span", description="", json_schema_extra=KEPT)


def _no_registry() -> Any:
    raise AssertionError("the registry is not asked where the records know")


def test_what_nobody_asks_for_is_what_the_line_was_begun_with(tmp_path: Path) -> None:
    begun = ("train.method=sequential", "sequential.adapter=spectral", "train.rank=3")
    line = KeptLine(tmp_path, *begun, "train.steps=9").promote()
    base, spec = line.learned_with("train.steps=5")
    assert base == "pocket"
    assert spec == override(Spec(), [*begun, "train.steps=5"])  # steps are of a task, not kept
    assert line.learned_with(*begun)[1].train.method == "sequential"  # to say the same is no harm


def test_a_line_keeps_what_was_a_default_when_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = KeptLine(tmp_path).promote()
    assert line.learned_with()[1] == Spec()
    monkeypatch.setattr(registry, "options", lambda name: _AnotherDefault)
    assert options_of(line.learned_with()[1]) == _AnotherDefault(gate="token")
    assert options_of(Spec()) == _AnotherDefault(gate="span")


def test_a_record_of_before_names_what_was_said() -> None:
    data = {"settings": {"train.method": "gated"}, "said": [], "base": "", "fingerprint": "f"}
    assert Recipe.from_data(data) == Recipe({"train.method": "gated"}, "", "f")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("train.method=l2dm", r'train.method "gated", found "l2dm"'),
        ("train.rank=4", r"train.rank 8, found 4"),
        ("gated.gate=span", r'gated.gate "token", found "span"'),
    ],
)
def test_another_method_or_adapter_is_refused_with_the_way_out(
    tmp_path: Path, setting: str, said: str
) -> None:
    line = KeptLine(tmp_path).promote()
    before = line.records.events()
    with pytest.raises(BadSpec, match=said) as caught:
        line.learned_with("train.steps=5", setting)
    assert "l2dm submit ... --line OTHER" in str(caught.value)
    assert line.records.events() == before


def test_another_base_is_refused_by_what_lies_in_it(tmp_path: Path, tiny_base: Path) -> None:
    line = KeptLine(tmp_path).promote()
    with pytest.raises(BadBase, match=rf"base pocket \(fingerprint {POCKET}\), found .*--base"):
        line.learned_with(base=str(tiny_base))
    with pytest.raises(BadBase, match="found org/name"):
        line.learned_with(base="org/name")
    copy = shutil.copytree(base_folder.locate("pocket"), tmp_path / "copy")
    assert line.learned_with(base=str(copy))[0] == str(copy)  # the same files elsewhere


def test_a_line_without_champion_may_begin_anew(tmp_path: Path, tiny_base: Path) -> None:
    line = KeptLine(tmp_path, "train.method=sequential")
    assert line.learned_with()[1].train.method == "sequential"
    base, spec = line.learned_with("train.method=l2dm", base=str(tiny_base))
    assert (base, spec.train.method) == (str(tiny_base), "l2dm")


def test_the_champion_decides_also_after_a_rollback_to_what_was_held(tmp_path: Path) -> None:
    line = KeptLine(tmp_path, "train.method=sequential")
    line.begin("t0002", "train.method=gated")
    line.promote("t0002", 2)
    assert line.learned_with()[1].train.method == "gated"
    line.records.append("promotion", line="pets", task="t0001", source=2, target=1)
    assert line.learned_with()[1].train.method == "sequential"


def test_a_base_in_a_folder_is_found_again_when_both_move(tmp_path: Path, tiny_base: Path) -> None:
    """No path of this machine is recorded."""
    old, new = tmp_path / "old", tmp_path / "new"
    base = shutil.copytree(tiny_base, old / "base")
    line = KeptLine(old, base=str(base)).promote()
    assert str(tmp_path) not in json.dumps([dict(one.facts) for one in line.records.events()])
    assert line.learned_with()[0] == str(base)
    shutil.move(old, new)
    moved = Records(Home.at(new / "home").store, "pets")
    found, _ = learned_with(Home.at(new / "home"), "pets", moved, Asked(), _no_registry)
    assert found == str(new / "base")
    assert Target(new / "home", "pets", "").base_name == str(new / "base")
    shutil.move(new / "base", tmp_path / "elsewhere")
    with pytest.raises(BadBase, match="no such folder; name its new place with --base"):
        learned_with(Home.at(new / "home"), "pets", moved, Asked(), _no_registry)
    assert named_base(Home.at(new / "home"), moved.state()) == str(new / "base")
    with pytest.raises(BadBase, match="no such folder"):
        _ = Target(new / "home", "pets", "").base_name
    asked = Asked(str(tmp_path / "elsewhere"))
    assert learned_with(Home.at(new / "home"), "pets", moved, asked, _no_registry)[0]
    assert checked_on(Home.at(new / "home"), "pets", moved.state(), "given") == "given"


@pytest.mark.parametrize("known_by", ["stored", "another line", "another task"])
def test_the_same_base_in_another_place_is_taken_and_told(
    tmp_path: Path, tiny_base: Path, known_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The state moved, and its base, which lay beside it, did not come along."""
    gone = shutil.copytree(tiny_base, tmp_path / "gone")
    line = KeptLine(tmp_path / "old", base=str(gone)).promote()
    fingerprint = base_folder.fingerprint(tiny_base)
    other = shutil.copytree(tiny_base, tmp_path / "old" / "home" / "near")
    if known_by == "stored":
        stored = stored_bases.store(line.home, "tiny", other, {"fingerprint": fingerprint})
        expected = stored_bases.place_of(Home.at(tmp_path / "new" / "home"), stored)
    else:
        at = {"task": "t0001", "parent_version": 0, "upload": "u", "class_noun": "dog"}
        name = "cars"
        if known_by == "another task":  # that was held
            name, at = "pets", {**at, "task": "t0002"}
        kept = Recipe({"train.method": "gated"}, "./near", fingerprint)
        Records(line.home.store, name).append("begun", concept="bolt", recipe=asdict(kept), **at)
        expected = str(tmp_path / "new" / "home" / "near")
    shutil.move(tmp_path / "old", tmp_path / "new")
    shutil.move(gone, tmp_path / "away")
    home = Home.at(tmp_path / "new" / "home")
    records = Records(home.store, "pets")
    assert learned_with(home, "pets", records, Asked(), _no_registry)[0] == expected
    (said,) = caplog.messages
    assert said.startswith("line pets: its base is no longer in ") and expected in said
    assert checked_on(home, "pets", records.state(), "given") == expected
    assert Target(home.folder, "pets", "").base_name == expected


def test_another_base_is_never_taken_for_it(tmp_path: Path, tiny_base: Path) -> None:
    gone = shutil.copytree(tiny_base, tmp_path / "gone")
    line = KeptLine(tmp_path, base=str(gone)).promote()
    near = shutil.copytree(tiny_base, line.home.folder / "near")
    config = near / "unet" / "config.json"
    config.write_text(config.read_text() + " ")  # changed since it was recorded
    kept = Recipe({"train.method": "gated"}, "./near", base_folder.fingerprint(tiny_base))
    at = {"task": "t0001", "parent_version": 0, "upload": "u", "class_noun": "dog"}
    Records(line.home.store, "cars").append("begun", concept="bolt", recipe=asdict(kept), **at)
    shutil.move(gone, tmp_path / "away")
    with pytest.raises(BadBase, match="no such folder; name its new place with --base"):
        line.learned_with()


def test_an_older_line_is_read_off_its_champion_once(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    records, registry = Records(home.store, "pets"), FolderRegistry(tmp_path / "registry")
    release = _release(tmp_path / "release", "train.method=sequential", "train.rank=3")
    registry.register("pets", release, VersionFacts("t0001", "rex", "dog", 0, "digest", True))
    records.append("promotion", line="pets", task="t0001", source=0, target=1)
    assert status_cache.status(home, "pets", status_cache.Index())["recipe"] is None
    opened = list[int]()

    def open_registry() -> FolderRegistry:
        opened.append(1)
        return registry

    for _ in range(2):
        with pytest.raises(BadSpec, match=r'train.method "sequential", found "gated"'):
            asked = Asked("", ("train.method=gated",))
            learned_with(home, "pets", records, asked, open_registry)
    base, spec = learned_with(home, "pets", records, Asked(), open_registry)
    assert (base, from_json(spec).train.rank, len(opened)) == ("pocket", 3, 1)
    assert [event.kind for event in records.events()] == ["promotion", "kept"]
    told = status_cache.status(home, "pets", status_cache.Index())["recipe"]
    assert (told["method"], told["adapter"]) == ("sequential", "rank 3, adapter lowrank")


def _release(folder: Path, *settings: str) -> Path:
    """A champion of before lines had recipes: what is read of it is its adapter's door."""
    spec = recorded(override(Spec(), settings))
    record = doors.Adapter(spec["train"]["method"], "lowrank", (), POCKET, "")
    whole = doors.Release("pets", "t0001", None, 0, "", "", "", doors.Verdict(True, ()))

    def fill(draft: Path) -> None:
        manifest.write(draft / "adapter", record, lambda _: None, spec=spec)

    manifest.write(folder, whole, fill)
    return folder


def test_a_step_that_was_started_before_the_line_had_a_champion_refuses_too(
    tmp_path: Path,
) -> None:
    """Two learners on a new line: the second looked at it before the first task."""
    line = KeptLine(tmp_path, "train.method=sequential").promote()
    subject = SimpleNamespace(line="pets", concept="mimi")
    step: Any = SimpleNamespace(subject=subject, home=line.home, spec=Spec(), looked=None)
    step.settings = SimpleNamespace(base="pocket")
    with pytest.raises(BadSpec, match="keeps what it was begun with"):
        outcomes._require_recipe(step, line.records)


def test_intake_sees_another_base_before_anything_is_drawn(tmp_path: Path, tiny_base: Path) -> None:
    uploaded = six_steps.upload(tmp_path, six_steps.REX, 1)
    parent = steps.empty_release(tmp_path / "empty", "pets", "pocket").folder
    context = steps.Context(str(tiny_base), "pets", "t0001", 0, six_steps.SPEC)
    with pytest.raises(BadBase, match="learns on the base with fingerprint"):
        steps.intake(uploaded, parent, tmp_path / "task", context)


def test_a_snapshot_keeps_recipes(tmp_path: Path) -> None:
    line = KeptLine(tmp_path, "train.method=l2dm", "l2dm.adapter=spectral").promote()
    ledger = line.records.state()
    snapshots.write(line.home.store, "pets", ledger)
    again = snapshots.read(line.home.store, "pets")
    assert isinstance(again, Ledger)
    assert again.recipe == ledger.recipe
    assert again.recipe == Recipe(
        {"train.method": "l2dm", "train.rank": 8, "l2dm.adapter": "spectral"},
        "pocket",
        POCKET,
    )
