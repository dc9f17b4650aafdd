"""What a command works on: one home, one spec, and a base that means the same everywhere."""

from pathlib import Path

import pytest

from components.services.line.records import Records
from components.services.store.home import Home
from l2dm.errors import BadBase
from pipelines.commands import target as page
from pipelines.commands.target import Target, require_base


def test_a_target_has_one_home_with_one_store_and_one_spec(tmp_path: Path) -> None:
    target = Target(tmp_path, "pets", "pocket", ("train.steps=3",))
    assert target.home.store is target.home.store
    assert target.spec is target.spec
    assert target.spec.train.steps == 3


def test_a_folder_called_pocket_does_not_hide_the_base_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pocket").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Target(tmp_path, "pets", "pocket").base_name == "pocket"
    require_base("pocket")
    other = Target(tmp_path, "pets", "./pocket").base_name
    assert other == str(tmp_path / "pocket")
    with pytest.raises(BadBase, match=r"expected model_index\.json"):
        require_base(other)


def test_a_name_on_a_hub_is_left_to_the_steps_unless_it_is_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    require_base("org/name")
    (tmp_path / "org/name").mkdir(parents=True)
    assert Target(tmp_path, "pets", "org/name").base_name == str(tmp_path / "org/name")
    with pytest.raises(BadBase, match=r"expected model_index\.json"):
        require_base("org/name")


def test_without_a_base_it_is_the_lines_own_and_pocket_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = list[str]()
    monkeypatch.setattr(page, "open_registry", lambda home, base: named.append(base))
    home = Home.at(tmp_path)
    kept = {"settings": {"train.method": "gated"}, "said": [], "fingerprint": "f"}
    facts = {"concept": "rex", "class_noun": "dog", "upload": "u", "parent_version": 0}
    for base in ("org/name", "./gone"):
        recipe = {**kept, "base": base}
        Records(home.store, "pets").append("begun", task="t0001", recipe=recipe, **facts)
        Target(tmp_path, "pets", "").registry()
    for line, base in (("", ""), ("cars", ""), ("pets", "pocket")):
        Target(tmp_path, line, base).registry()
    assert named == ["org/name", str(tmp_path / "gone"), "pocket", "pocket", "pocket"]
