"""One contract suite for every object store: a folder, moto, and radosgw when servers run."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.services.store.folder import FolderObjects
from components.services.store.objects import Objects, removed_after
from components.services.store.open import open_objects, probe
from l2dm.errors import BadKey, BadStore, Conflict, NoSuchObject, TooLarge
from tests.worlds import object_counter
from tests.worlds.object_counter import count_up
from tests.worlds.object_stores import Bucket

WRITERS = 12
HOSTILE = {
    "nothing": "",
    "up": "a/../b",
    "only-up": "..",
    "here": "a/./b",
    "leading-slash": "/etc/passwd",
    "trailing-slash": "a/",
    "double-slash": "a//b",
    "hidden": "a/.b",
    "hidden-folder": ".store/00.lock",
    "newline": "a\nb",
    "null": "a\0b",
    "escape": "a\x1b[2J",
    "c1-control": "a\x85b",
    "half-letter": "a\ud800",
    "backslash": "a\\..\\b",
    "too-long": "ü" * 513,
}
ODD = ("a b.txt", "a+b", "a%2Fb", "a&b=c?d#e", "größe", "日本/写真 1.png", "~'\"<>`|", "emoji-🐕")

WRITE_ON = """
import sys
from pathlib import Path
from components.services.store.folder import FolderObjects
objects = FolderObjects(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    objects.write("pets/big", bytes([number % 256]) * 2**24)
    print(number, flush=True)
"""


def test_what_was_written_is_read_with_its_tag_and_age(objects: Objects) -> None:
    tags = [objects.write("pets/rex/1.png", data) for data in (b"one", b"two", b"")]
    assert len(set(tags)) == 3
    found = objects.read("pets/rex/1.png")
    assert (found.data, found.tag) == (b"", tags[-1])
    assert 0 <= found.age < 30
    everything = bytes(range(256)) * 5
    objects.write("pets/rex/1.png", everything)
    assert objects.read("pets/rex/1.png").data == everything


def test_the_age_grows(objects: Objects) -> None:
    objects.write("lease", b"held")
    before = objects.read("lease").age
    time.sleep(2.1)  # S3 tells whole seconds
    assert 1 <= objects.read("lease").age - before <= 8


def test_what_is_not_there_is_named(objects: Objects, tmp_path: Path) -> None:
    objects.write("pets/rex", b"")
    for key in ("pets/max", "cars/rex", "pets"):
        with pytest.raises(NoSuchObject, match=f"expected object '{key}' in .*, found nothing"):
            objects.read(key)
        with pytest.raises(NoSuchObject, match=f"expected object '{key}' in .*, found nothing"):
            objects.download(key, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_deleting_is_done_when_it_is_gone(objects: Objects) -> None:
    objects.write("pets/rex", b"1")
    objects.write("pets/rexford", b"2")
    for _ in range(2):
        objects.delete("pets/rex")
    assert [entry.key for entry in objects.list("")] == ["pets/rexford"]
    objects.create("pets/rex", b"3")
    assert objects.read("pets/rex").data == b"3"


def test_a_listing_has_the_order_of_keys_and_begins_after_one(objects: Objects) -> None:
    keys = ["a", "a-b/1", "a.b", "a/1", "a/10", "a/2", "a/b/c", "b/1", "é/1", "～/1", "🐕/1"]
    for number, key in enumerate(reversed(keys)):
        if key != "a":  # a folder cannot hold `a` beside `a/1`
            objects.write(key, b"x" * number)
    keys = keys[1:]
    listed = list(objects.list(""))
    assert [entry.key for entry in listed] == sorted(keys, key=str.encode) == keys
    assert [entry.size for entry in listed] == list(range(len(keys)))[::-1]
    assert all(abs(entry.modified - time.time()) < 60 for entry in listed)
    assert [entry.key for entry in objects.list("a/")] == ["a/1", "a/10", "a/2", "a/b/c"]
    assert [entry.key for entry in objects.list("a/1")] == ["a/1", "a/10"]
    assert [entry.key for entry in objects.list("a/", after="a/10")] == ["a/2", "a/b/c"]
    assert [entry.key for entry in objects.list("a/", after="a/11")] == ["a/2", "a/b/c"]
    assert list(objects.list("nothing/")) == []


def test_folders_are_the_next_segments(objects: Objects) -> None:
    for key in ("inbox/pets/rex/1.png", "inbox/pets/rex/2.png", "inbox/pets/note", "inbox/b c/x/y"):
        objects.write(key, b"")
    assert objects.folders("") == ("inbox",)
    assert objects.folders("inbox/") == ("b c", "pets")
    assert objects.folders("inbox/pets/") == ("rex",)
    assert objects.folders("inbox/pets/rex/") == ()
    assert objects.folders("inbox/none/") == ()


def test_a_folder_is_gone_with_its_last_object(
    objects: Objects,
) -> None:
    objects.write("inbox/pets/rex", b"")
    objects.delete("inbox/pets/rex")
    assert objects.folders("") == ()


@pytest.mark.parametrize("key", ODD)
def test_any_letter_that_is_no_control_character_is_kept(
    objects: Objects, key: str, tmp_path: Path
) -> None:
    key = f"odd/{key}"
    objects.create(key, b"data")
    assert objects.read(key).data == b"data"
    assert [entry.key for entry in objects.list("odd/")] == [key]
    objects.download(key, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"data"
    objects.delete(key)
    assert list(objects.list("")) == []


@pytest.mark.parametrize("key", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_key_is_refused_by_every_method(
    objects: Objects, key: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    calls: tuple[Callable[[], object], ...] = (
        lambda: objects.read(key),
        lambda: objects.write(key, b""),
        lambda: objects.create(key, b""),
        lambda: objects.replace(key, b"", "0" * 32),
        lambda: objects.delete(key),
        lambda: objects.upload(key, tmp_path / "file"),
        lambda: objects.download(key, tmp_path / "other"),
        lambda: list(objects.list(f"{key}/x")),
        lambda: objects.folders(f"{key}/x/"),
    )
    for call in calls:
        with pytest.raises(BadKey, match="expected names with / between them, found"):
            call()
    assert list(objects.list("")) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["file"]


def test_create_has_one_winner(objects: Objects) -> None:
    def create(number: int) -> bool:
        try:
            objects.create(f"lease/{turn}", b"writer %d" % number)
        except Conflict:
            return False
        return True

    for turn in range(8):
        with ThreadPoolExecutor(WRITERS) as pool:
            won = list(pool.map(create, range(WRITERS)))
        assert won.count(True) == 1
        assert objects.read(f"lease/{turn}").data == b"writer %d" % won.index(True)


def test_replace_loses_no_update(objects: Objects) -> None:
    objects.write("counter", b"0")
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda _: count_up(objects, 3), range(WRITERS)))
    assert objects.read("counter").data.split()[0] == b"%d" % (3 * WRITERS)


def test_a_retry_of_our_own_write_succeeds(objects: Objects) -> None:
    tag = objects.create("record", b"first")
    assert objects.create("record", b"first") == tag
    with pytest.raises(Conflict, match=r"expected no object 'record' in .*, found one"):
        objects.create("record", b"other")
    new = objects.replace("record", b"second", tag)
    assert new != tag
    assert objects.replace("record", b"second", tag) == new
    assert objects.read("record").tag == new


def test_replace_needs_the_tag_of_what_is_there(objects: Objects) -> None:
    with pytest.raises(Conflict, match=r"'record' in .* as it was read, found .*nothing"):
        objects.replace("record", b"new", "0" * 32)
    old = objects.write("record", b"old")
    objects.write("record", b"between")
    with pytest.raises(Conflict, match=r"'record' in .* as it was read, found other bytes"):
        objects.replace("record", b"new", old)
    assert objects.read("record").data == b"between"
    objects.delete("record")
    with pytest.raises(Conflict, match=r"'record' in .* as it was read, found .*nothing"):
        objects.replace("record", b"new", old)
    assert list(objects.list("")) == []


@pytest.mark.parametrize("size", [0, 1, 12 * 2**20 + 7], ids=["empty", "one", "parts"])
def test_a_file_of_any_size_goes_there_and_back(
    objects: Objects, size: int, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(data := os.urandom(size))
    for _ in range(2):  # over what is there, too
        objects.upload("adapters/rex", tmp_path / "file")
    assert [(entry.key, entry.size) for entry in objects.list("")] == [("adapters/rex", size)]
    assert objects.read("adapters/rex").data == data
    objects.download("adapters/rex", tmp_path / "new" / "folder" / "file", limit=size)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["file"]
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == data
    tag = objects.read("adapters/rex").tag
    objects.replace("adapters/rex", b"smaller", tag)
    objects.download("adapters/rex", tmp_path / "new" / "folder" / "file")
    assert (tmp_path / "new" / "folder" / "file").read_bytes() == b"smaller"


def test_too_large_an_object_is_refused_before_a_byte_is_written(
    objects: Objects, tmp_path: Path
) -> None:
    objects.write("pets/rex", b"12345678")
    with pytest.raises(TooLarge, match="'pets/rex': expected at most 7 bytes, found 8"):
        objects.download("pets/rex", tmp_path / "here" / "file", limit=7)
    assert list((tmp_path / "here").glob("*") if (tmp_path / "here").exists() else ()) == []


def test_a_listing_goes_on_after_a_thousand_keys(objects: Objects) -> None:
    keys = [f"records/{number:05d}" for number in range(1050)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda key: objects.write(key, b""), reversed(keys)))
    assert [entry.key for entry in objects.list("records/")] == keys
    assert [entry.key for entry in objects.list("records/", after=keys[20])] == keys[21:]
    assert objects.folders("") == ("records",)


def test_the_probe_passes_and_leaves_nothing(objects: Objects) -> None:
    probe(objects)
    assert list(objects.list("")) == []


def test_the_probe_refuses_a_store_that_writes_whatever_is_there(tmp_path: Path) -> None:
    class Careless(FolderObjects):
        def create(self, key: str, data: bytes) -> str:
            return self.write(key, data)

    class Forgetful(FolderObjects):
        def replace(self, key: str, data: bytes, tag: str) -> str:
            return self.write(key, data)

    for kind, what in ((Careless, "create"), (Forgetful, "replace")):
        with pytest.raises(
            BadStore, match=rf"second of two writers \({what} .* let both .*folder, AWS S3, MinIO"
        ):
            probe(kind(tmp_path))
        assert list(kind(tmp_path).list("")) == []


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    objects.write("counter", b"0")
    command = [sys.executable, object_counter.__file__, str(tmp_path), "60"]
    with subprocess.Popen(command) as one, subprocess.Popen(command) as other:
        assert (one.wait(), other.wait()) == (0, 0)
    assert objects.read("counter").data.split()[0] == b"120"


def test_a_kill_within_a_write_shows_nothing_of_it(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    for turn in range(6):
        command = [sys.executable, "-c", WRITE_ON, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "1\n"
            time.sleep(0.004 * turn)  # somewhere within one of the next writes
            writer.send_signal(signal.SIGKILL)
        data = objects.read("pets/big").data
        assert len(data) == 2**24 and len(set(data)) == 1
        assert [entry.key for entry in objects.list("")] == ["pets/big"]
        assert objects.folders("") == ("pets",)
        objects.write("pets/big", b"whole")  # the dead writer's lock is free
        assert objects.read("pets/big").data == b"whole"


def test_what_killed_writers_left_is_swept_and_what_is_being_written_is_not(
    tmp_path: Path,
) -> None:
    store, inside = FolderObjects(tmp_path), tmp_path / "pets" / "rex"
    (tmp_path / "file").write_bytes(b"data")
    store.write("pets/rex/00", b"data")
    dead, young = inside / ".1.draft", inside / ".2.draft"
    for sweep in (lambda: store.upload("pets/rex/01", tmp_path / "file"),
                  lambda: store.delete("pets/rex/01")):  # fmt: skip
        for draft in (dead, young):
            draft.write_bytes(b"half")
        os.utime(dead, (1_000_000, 1_000_000))
        sweep()
        assert (dead.exists(), young.exists()) == (False, True)
    young.unlink()
    store.delete("pets/rex/00")
    assert store.folders("") == ()


def test_a_place_is_a_folder_or_a_bucket(tmp_path: Path, moto_bucket: Bucket) -> None:
    folder = open_objects(str(tmp_path))
    folder.write("a/b", b"1")
    assert (tmp_path / "a" / "b").read_bytes() == b"1"
    open_objects(f"s3://{moto_bucket.name}").write("a/b", b"2")
    assert open_objects(f"s3://{moto_bucket.name}/a/").read("b").data == b"2"
    for place in ("gs://bucket", "s3://", "s3:///a", ""):
        with pytest.raises(BadStore, match=r"expected a folder or s3://bucket/prefix, found"):
            open_objects(place)
    with pytest.raises(BadKey, match=r"the part '\.\.'"):
        open_objects("s3://bucket/../other")


def test_a_folder_says_what_its_files_cannot_be(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    store.write("inbox/pets", b"an object")
    for key in ("inbox/pets/rex", "inbox"):
        with pytest.raises(BadKey, match="no folder of other keys and lies below no object"):
            store.write(key, b"data")
    with pytest.raises(BadKey, match="at most 255 bytes between two /"):
        store.write("a" * 256, b"data")
    store.delete("inbox")  # a folder is no object: nothing to delete, nothing lost
    assert store.read("inbox/pets").data == b"an object"


def test_writers_and_deleters_of_one_folder_never_lose_a_write(tmp_path: Path) -> None:
    """A folder is removed with its last object while another writer is about to use it."""
    store = FolderObjects(tmp_path)

    def churn(name: str) -> None:
        for number in range(40):
            key = f"deep/er/{name}-{number}"
            store.write(key, b"data")
            assert store.read(key).data == b"data"
            store.delete(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, "abcd"))
    assert store.folders("") == ()


def test_another_deleter_prunes_the_folder_between_two_steps_of_a_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderObjects(tmp_path)
    store.write("deep/er/rex", b"data")
    unlink = Path.unlink

    def unlink_and_prune(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        shutil.rmtree(tmp_path / "deep")

    monkeypatch.setattr(Path, "unlink", unlink_and_prune)
    store.delete("deep/er/rex")
    assert store.folders("") == ()


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_regular_file_is_no_object(kind: str, tmp_path: Path) -> None:
    """To open a pipe that nobody writes to waits for ever."""
    store = FolderObjects(tmp_path)
    store.write("pets/rex/1.png", b"1")
    path = tmp_path / "pets" / "rex" / "concept.json"
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            listening.bind(str(path))
        else:
            path.symlink_to("/dev/zero")
        assert [entry.key for entry in store.list("pets/")] == ["pets/rex/1.png"]
        for ask in (store.read, store.age, lambda key: store.download(key, tmp_path / "copy")):
            with pytest.raises(NoSuchObject):
                ask("pets/rex/concept.json")
        store.create("pets/rex/concept.json", b"{}")
        assert store.read("pets/rex/concept.json").data == b"{}"


def test_what_is_there_for_a_block_only_goes_and_hides_no_error_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderObjects(tmp_path)
    delete = FolderObjects.delete

    def stuck(self: FolderObjects, key: str) -> None:
        if key == "stuck":
            raise OSError(5, "Input/output error")
        delete(self, key)

    monkeypatch.setattr(FolderObjects, "delete", stuck)
    for key in ("stuck", "free"):
        store.write(key, b"probe")
    with pytest.raises(Conflict, match="of the block"), removed_after(store, "stuck", "free"):
        raise Conflict("of the block")
    assert [entry.key for entry in store.list("")] == ["stuck"]
    with pytest.raises(OSError, match="Input/output error"), removed_after(store, "stuck"):
        pass
