"""Base models in a bucket: fetched once, whole or not at all, never mixed, refused by name."""

import json
import os
import shutil
import threading
import time
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import AWSResponse

from components.runtime import base_cache
from components.runtime.base_cache import fetch_to_serve, local_base, require_listed
from components.services.store import s3_client
from components.services.store.home import Home
from l2dm.bases import folder as base_folder
from l2dm.bases.family import families
from l2dm.errors import BadBase, BadStore, Conflict
from l2dm.serve import FETCHERS
from tests.worlds.object_stores import Bucket

NEVER = (
    "unet/diffusion_pytorch_model.bin",
    "v1-5-pruned.safetensors",
    "README.md",
    ".gitattributes",
)


class Base:
    """A base of empty words in a bucket, and what was asked of the store."""

    def __init__(self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, files: Path) -> None:
        self.bucket, self.place = bucket, f"s3://{bucket.name}/{bucket.prefix}/small-sd"
        self.requests: list[str] = []
        self.before: Callable[[str], AWSResponse | None] = lambda request: None
        connect = s3_client.connect

        def watched(**more: Any) -> Any:
            client = connect(**more)
            client.meta.events.register("before-send.s3", self._sent)
            return client

        monkeypatch.setattr(s3_client, "connect", watched)
        for path in files.rglob("*"):
            if path.is_file():
                self.put(path.relative_to(files).as_posix(), path.read_bytes())

    def put(self, name: str, data: bytes) -> None:
        self.bucket.put(f"small-sd/{name}", data)

    def delete(self, name: str) -> None:
        key = f"{self.bucket.prefix}/small-sd/{name}"
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)

    def _sent(self, request: Any, **_: Any) -> AWSResponse | None:
        key = urlsplit(request.url).path.partition("/small-sd/")[2]
        what = "LIST" if "list-type=2" in request.url else f"{request.method} {key}"
        self.requests.append(what)
        return self.before(what)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every base folder has; nobody loads it here."""
    folder = tmp_path_factory.mktemp("files")
    family = families()[0]
    kinds = {part.name: sorted(part.classes)[0] for part in family.parts}
    (folder / "model_index.json").write_text(
        json.dumps({name: ["library", kind] for name, kind in kinds.items()})
    )
    for name in kinds:
        (folder / name).mkdir()
        config = "tokenizer_config.json" if name == "tokenizer" else "config.json"
        (folder / name / config).write_text("{}")
    for name in family.weights:
        (folder / name / "model.safetensors").write_bytes(name.encode() * 1000)
    (folder / "tokenizer" / "merges.txt").write_text("a b")
    return folder


@pytest.fixture
def base(moto_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, files: Path) -> Base:
    return Base(moto_bucket, monkeypatch, files)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.at(tmp_path / "home")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def entries(home: Home) -> list[str]:
    return sorted(path.name for path in home.base_cache.glob("*"))


def refused(status: int) -> AWSResponse:
    class Raw:
        def stream(self, **_: Any) -> list[bytes]:
            return [b"<Error><Code>AccessDenied</Code></Error>"]

    return AWSResponse("http://store", status, {}, Raw())


@pytest.mark.parametrize("name", ["pocket", "org/name", "/bases/sd15", "./here"])
def test_what_is_in_no_bucket_stays_as_it_is(name: str, home: Home) -> None:
    assert local_base(name, home) == name
    assert not home.base_cache.exists()


def test_a_base_is_fetched_once_without_pickles(base: Base, home: Home, files: Path) -> None:
    for name in NEVER:
        base.put(name, b"not this")
    folder = Path(local_base(base.place, home))
    assert folder.parent.parent == home.base_cache
    assert folder.name == "small-sd"  # an export names its base so
    assert contents(folder) == contents(files)
    assert base_folder.fingerprint(folder) == base_folder.fingerprint(files)
    base.requests.clear()
    assert local_base(f"{base.place}/", home) == str(folder)
    assert base.requests == ["LIST"]
    assert entries(home) == [folder.parent.name]


def test_what_serves_a_version_finds_and_fetches_its_base(
    base: Base, tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the entry point that stands in pyproject.toml, whatever is installed here."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    scheme, _ = base.place.split("://")
    value = project["project"]["entry-points"][FETCHERS][scheme]
    fetch = EntryPoint(scheme, value, FETCHERS).load()
    assert fetch is fetch_to_serve
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))
    folder = Path(fetch(base.place))
    assert folder.is_relative_to(tmp_path / "scratch")
    assert contents(folder) == contents(files)
    base.requests.clear()
    assert fetch(base.place) == str(folder)
    assert base.requests == ["LIST"]


def test_a_bucket_with_nothing_else_in_it(
    base: Base, moto_bucket: Bucket, home: Home, files: Path
) -> None:
    name = f"{moto_bucket.name}-whole"
    moto_bucket.client.create_bucket(Bucket=name)
    for path, data in contents(files).items():
        moto_bucket.client.put_object(Bucket=name, Key=path, Body=data)
    assert contents(Path(local_base(f"s3://{name}", home))) == contents(files)


def test_other_files_in_the_bucket_are_another_entry(base: Base, home: Home) -> None:
    first = local_base(base.place, home)
    base.put("unet/model.safetensors", b"tenu" * 1000)  # as many bytes
    second = local_base(base.place, home)
    assert first != second
    found = {Path(one, "unet/model.safetensors").read_bytes()[:4] for one in (first, second)}
    assert found == {b"unet", b"tenu"}
    base.put("unet/model.safetensors", b"unet" * 1000)
    assert local_base(base.place, home) == first


def test_files_written_anew_while_they_are_fetched_are_not_mixed(base: Base, home: Home) -> None:
    """text_encoder/ is fetched before vae/: both are written anew in between, as many bytes."""
    written, times = list[str](), 2

    def write(request: str) -> None:
        if request == "GET tokenizer/merges.txt" and len(written) < times:
            written.append("abcdefgh"[len(written)])
            base.put("text_encoder/model.safetensors", written[-1].encode() * 12_000)
            base.put("vae/model.safetensors", written[-1].encode() * 3000)

    base.before = write  # type: ignore[assignment]
    folder = Path(local_base(base.place, home))
    parts = {
        (folder / one / "model.safetensors").read_bytes()[:2] for one in ("vae", "text_encoder")
    }
    assert parts == {b"bb"}
    assert entries(home) == [folder.parent.name]
    base.put("vae/model.safetensors", b"more")
    times = 8
    with pytest.raises(BadBase, match=r"found them written anew while .* try again when their up"):
        local_base(base.place, home)
    assert entries(home) == [folder.parent.name]


def test_an_object_that_is_gone_or_torn_is_fetched_again(
    base: Base, home: Home, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failed = base_cache.open_objects, list[str]()

    class Failing:
        def __init__(self, place: str) -> None:
            self._objects = real(place)

        def list(self, prefix: str) -> Any:
            return self._objects.list(prefix)

        def download(self, key: str, to: Path, **more: Any) -> None:
            if not failed:
                failed.append(key)
                raise Conflict("written anew")
            self._objects.download(key, to, **more)
            if len(failed) == 1 and key.startswith("unet/model"):
                failed.append(key)
                to.write_bytes(b"short")

    monkeypatch.setattr(base_cache, "open_objects", Failing)
    assert contents(Path(local_base(base.place, home))) == contents(files)
    assert len(failed) == 2


def test_two_at_once_have_one_entry(base: Base, home: Home, files: Path) -> None:
    met, found, both = set[int](), list[str](), threading.Barrier(2, timeout=60)

    def wait(request: str) -> None:
        if (
            request.startswith("HEAD") and threading.get_ident() not in met
        ):  # nothing is fetched yet
            met.add(threading.get_ident())
            both.wait()

    base.before = wait  # type: ignore[assignment]
    threads = [
        threading.Thread(target=lambda: found.append(local_base(base.place, home)))
        for _ in range(2)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(met) == len(found) == 2
    assert len(set(found)) == 1
    assert entries(home) == [Path(found[0]).parent.name]
    assert contents(Path(found[0])) == contents(files)


def test_who_comes_second_takes_the_entry_that_is_there(
    base: Base, home: Home, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = base_cache._publish

    def late(draft: Path, entry: Path, listed: Any) -> None:
        shutil.copytree(draft, entry)  # the other process, a moment before
        (entry / "theirs").touch()
        publish(draft, entry, listed)

    monkeypatch.setattr(base_cache, "_publish", late)
    folder = Path(local_base(base.place, home))
    assert (folder.parent / "theirs").exists()
    assert entries(home) == [folder.parent.name]


def test_an_entry_that_lost_files_is_fetched_again(base: Base, home: Home, files: Path) -> None:
    folder = Path(local_base(base.place, home))
    (folder / "vae/model.safetensors").unlink()  # a cleaner of old files in /tmp
    (folder / "unet/model.safetensors").write_bytes(b"cut")
    assert local_base(base.place, home) == str(folder)
    assert contents(folder) == contents(files)
    assert entries(home) == [folder.parent.name]


def test_what_a_killed_process_left_is_removed_a_day_later(base: Base, home: Home) -> None:
    old, new = home.base_cache / ".0.draft", home.base_cache / ".1.draft"
    for draft in (old, new):
        (draft / "small-sd").mkdir(parents=True)
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    local_base(base.place, home)
    assert not old.exists()
    assert new.exists()


def test_a_missing_bucket_or_prefix_is_told(base: Base, home: Home, moto_bucket: Bucket) -> None:
    for check in (lambda place: local_base(place, home), require_listed):
        with pytest.raises(BadBase, match=r"base model s3://no-such-b/p: .*NoSuchBucket .*another"):
            check("s3://no-such-b/p")
        with pytest.raises(BadBase, match=r"expected model_index.json .* found nothing below it"):
            check(f"s3://{moto_bucket.name}/nowhere")
        with pytest.raises(BadBase, match=r"found \d+ others such as 'small-sd/model_index.json'"):
            check(f"s3://{moto_bucket.name}/{moto_bucket.prefix}")
        for wrong in ("s3://", "s3:///prefix"):
            with pytest.raises(BadBase, match="expected s3://bucket/prefix, found no name of a bu"):
                check(wrong)
        with pytest.raises(BadBase, match="found the part"):
            check("s3://bucket/up/../here")
    assert entries(home) == []


@pytest.mark.parametrize("verb", ["LIST", "HEAD", "GET"])
def test_no_permission_is_told(base: Base, home: Home, verb: str) -> None:
    base.before = lambda request: refused(403) if request.startswith(verb) else None
    with pytest.raises(BadBase, match=r"open to us, found .*\(HTTP 403\); check AWS_ACCESS_KEY_ID"):
        local_base(base.place, home)
    assert entries(home) == []


def test_a_store_that_does_not_answer_is_no_wrong_base(
    base: Base, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(BadStore, match=r"expected an answer from s3://"):
        local_base(base.place, home)


def test_a_cache_that_cannot_be_written_is_told(base: Base, tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    home.folder.mkdir()
    (home.folder / "cache").touch()
    with pytest.raises(BadBase, match=r"room for 0.00 GB in .*/cache/bases, found .*L2DM_SCRATCH"):
        local_base(base.place, home)


def test_only_pickles_are_refused_before_anything_is_fetched(base: Base, home: Home) -> None:
    base.delete("unet/model.safetensors")
    base.put("unet/diffusion_pytorch_model.bin", b"pickle")
    base.delete("vae/model.safetensors")
    with pytest.raises(BadBase) as caught:
        local_base(base.place, home)
    told = caught.value.problems
    assert len(told) == 2
    assert told[0].startswith(f"base model {base.place}: unet/ holds only pickled weights (diff")
    assert told[1].endswith("vae/ holds no safetensors file")
    assert base.requests == ["LIST"]


def test_one_without_encoders_is_refused_by_a_listing(base: Base) -> None:
    for part, said in (("clip", "a CLIPModel"), ("identity", "a vision model such as DINO")):
        with pytest.raises(BadBase) as caught:
            require_listed(base.place)
        told = f"base model {base.place}: expected {part}/ with {said}"
        assert caught.value.problems[0].startswith(told)
        base.put(f"{part}/config.json", b"{}")
    require_listed(base.place)
    assert base.requests == ["LIST"] * 3


def test_an_incomplete_folder_is_told_by_its_name_in_the_bucket(base: Base, home: Home) -> None:
    base.delete("tokenizer/tokenizer_config.json")
    with pytest.raises(BadBase, match=f"^base model {base.place}: tokenizer/tokenizer_config.json"):
        local_base(base.place, home)
    assert entries(home) == []


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2DM_SCRATCH", str(tmp_path / "scratch"))
    assert Home.at("s3://state/pets").base_cache == tmp_path / "scratch" / "cache" / "bases"
    assert Home.at(tmp_path / "here").base_cache == tmp_path / "here" / "cache" / "bases"
