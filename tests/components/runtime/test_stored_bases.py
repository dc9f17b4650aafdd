"""Bases under the state, in a folder and in a bucket: whole or not there, whoever is killed."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.runtime import stored_bases
from components.runtime.base_cache import local_base
from components.services.store.home import Home
from l2dm.errors import BadBase
from tests.worlds.object_stores import Bucket

FACTS = {"family": "Stable Diffusion 1/2", "resolution": 16, "fingerprint": "0" * 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "unet").mkdir(parents=True)
    (made / "model_index.json").write_text("{}")
    (made / "unet/config.json").write_text('{"a": 1}')
    return made


@pytest.fixture(params=["folder", "bucket"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    if request.param == "folder":
        yield Home.at(tmp_path / "home")
        return
    bucket: Bucket = request.getfixturevalue("moto_bucket")
    yield Home(tmp_path / "scratch", f"s3://{bucket.name}/{bucket.prefix}/state")


def test_a_base_is_stored_shown_and_found(home: Home, folder: Path) -> None:
    assert stored_bases.listed(home) == []
    assert stored_bases.stored_place(home, "mine") is None
    record = stored_bases.store(home, "mine", folder, FACTS)
    assert stored_bases.listed(home) == [record] == [stored_bases.shown(home, "mine")]
    assert (record["bytes"], record["resolution"]) == (10, 16)
    place = stored_bases.stored_place(home, "mine")
    assert place is not None and place.startswith(home.place) and place.endswith("/mine")
    prefix = f"bases/{record['files']}/"
    names = {one.key.removeprefix(prefix) for one in home.store.list(prefix)}
    assert names == {"model_index.json", "unet/config.json"}
    assert home.place not in json.dumps(record)  # the state may be moved


def test_names_that_are_taken_or_cannot_be(home: Home, folder: Path) -> None:
    stored_bases.store(home, "mine", folder, FACTS)
    before = [one.key for one in home.store.list("bases/")]
    with pytest.raises(BadBase, match="expected a free one, found a base of that name"):
        stored_bases.store(home, "mine", folder, FACTS)
    for name in ("pocket", "../x", "a/b", "", "A", "x" * 41, "a\n"):
        assert stored_bases.stored_place(home, name) is None
        with pytest.raises(BadBase, match="expected 1 to 40 lowercase letters"):
            stored_bases.store(home, name, folder, FACTS)
    with pytest.raises(BadBase, match="found 'other'; there are: mine"):
        stored_bases.shown(home, "other")
    assert [one.key for one in home.store.list("bases/")] == before


@pytest.mark.parametrize("at", range(3))
def test_a_killed_add_leaves_no_base(
    home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Between any two writes; the next add works, and what was left goes a day later."""
    store, done = home.store, list[str]()

    class Killed(BaseException):
        pass

    class Dying:
        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def upload(self, key: str, path: Path) -> None:
            self._live(key)
            store.upload(key, path)

        def create(self, key: str, data: bytes) -> str:
            self._live(key)
            return store.create(key, data)

        def _live(self, key: str) -> None:
            if len(done) == at:
                raise Killed
            done.append(key)

    monkeypatch.setitem(home.__dict__, "store", Dying())
    with pytest.raises(Killed):
        stored_bases.store(home, "mine", folder, FACTS)
    monkeypatch.setitem(home.__dict__, "store", store)
    assert stored_bases.listed(home) == []
    assert stored_bases.stored_place(home, "mine") is None
    record = stored_bases.store(home, "mine", folder, FACTS)
    assert stored_bases.listed(home) == [record]
    monkeypatch.setattr(stored_bases, "ABANDONED", -1.0)
    stored_bases.remove_abandoned(home)
    left = {one.key.split("/")[1] for one in home.store.list("bases/")}
    assert left == {"mine.json", record["files"].partition("/")[0]}


def test_a_young_draw_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """Somebody may be adding it at this moment."""
    home = Home.at(tmp_path / "home")
    home.store.upload("bases/mine.0123/mine/model_index.json", folder / "model_index.json")
    stored_bases.remove_abandoned(home)
    assert len(list(home.store.list("bases/"))) == 1
    old = time.time() - 2 * stored_bases.ABANDONED
    for path in (home.folder / "bases/mine.0123/mine").iterdir():
        os.utime(path, (old, old))
    stored_bases.remove_abandoned(home)
    assert list(home.store.list("bases/")) == []


def test_a_damaged_record_leads_nowhere_else(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    for data in (b"{", b"[]", b'{"name": "mine", "files": "../../etc"}', b'{"files": 5}'):
        home.store.write("bases/mine.json", data)
        with pytest.raises(BadBase, match=r"bases/mine\.json in .* is damaged"):
            stored_bases.stored_place(home, "mine")


def test_a_damaged_record_hides_no_other_base_and_loses_no_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home.at(tmp_path / "home")
    stored_bases.store(home, "mine", folder, FACTS)
    home.store.write("bases/mine.json", b"{")
    home.store.write("bases/Some note.json", b"{}")
    monkeypatch.setattr(stored_bases, "ABANDONED", -1.0)
    other = stored_bases.store(home, "other", folder, FACTS)  # removes what no record names
    assert stored_bases.listed(home) == [other]
    assert "bases/mine.json" in caplog.text and "is damaged" in caplog.text
    with pytest.raises(BadBase, match="found 'third'; there are: other"):
        stored_bases.shown(home, "third")
    assert len(list(home.store.list("bases/mine."))) == 3  # the record, two files


def test_one_in_a_bucket_is_fetched_as_any_other(
    moto_bucket: Bucket, tiny_base: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path / "scratch", f"s3://{moto_bucket.name}/{moto_bucket.prefix}/state")
    stored_bases.store(home, "mine", tiny_base, FACTS)
    place = stored_bases.stored_place(home, "mine")
    assert place is not None
    fetched = Path(local_base(place, home))
    assert fetched.name == "mine"
    assert (fetched / "clip/model.safetensors").read_bytes() == (
        tiny_base / "clip/model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/models/SD 1.5", "sd-1-5"),
        ("org/Name_2", "name_2"),
        ("a/x.safetensors", "x"),
        ("/", "base"),
    ],
)
def test_names_come_from_sources(source: str, name: str) -> None:
    assert stored_bases.suggested_name(source) == name
    stored_bases.require_name(name)
