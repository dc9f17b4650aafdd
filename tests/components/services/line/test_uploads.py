"""Uploads in a store: what waits, in which order, and what is fetched; on a folder and a bucket."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.line.uploads import MAX_FILES, Uploads
from components.services.store.folder import FolderObjects
from components.services.store.objects import Objects
from l2dm.errors import BadUpload
from l2dm.files.concept_json import MAX_JSON


def put(store: Objects, name: str, noun: str = "dog", pictures: int = 3) -> None:
    for number in range(pictures):
        store.write(f"inbox/pets/{name}/{number:02d}.png", bytes([number]) * 100)
    names = [{"name": f"{number:02d}.png"} for number in range(pictures)]
    facts = {"line": "pets", "concept": {"name": name, "class_noun": noun}, "pictures": names}
    store.write(f"inbox/pets/{name}/concept.json", json.dumps(facts).encode())


@pytest.fixture
def uploads(objects: Objects) -> Uploads:
    return Uploads(objects, "pets")


def test_an_upload_without_its_concept_json_does_not_exist(
    objects: Objects, uploads: Uploads
) -> None:
    objects.write("inbox/pets/half/00.png", b"1")
    objects.write("inbox/pets/deep/er/concept.json", b"{}")
    objects.write("inbox/pets/concept.json", b"{}")
    objects.write("inbox/petshop/rex/concept.json", b"{}")
    assert uploads.waiting(()) == ()
    put(objects, "rex")
    assert uploads.waiting(()) == ("rex",)
    assert uploads.class_noun("rex") == "dog"
    assert (uploads.class_noun("half"), uploads.digest("half")) == ("", "")


def test_a_concept_json_that_names_another_concept_is_refused(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    put(objects, "rex")
    objects.write("inbox/pets/ida/concept.json", objects.read("inbox/pets/rex/concept.json").data)
    with pytest.raises(BadUpload, match=r"'ida': expected .* its own folder, found concept 'rex'"):
        uploads.fetch("ida", tmp_path / "ida", max_bytes=1000)
    assert not list((tmp_path / "ida").glob("*.png"))
    uploads.fetch("rex", tmp_path / "rex", max_bytes=1000)


@pytest.mark.parametrize("noun", [7, ["dog"], "do\x1b[31mg", "d" * 41])
def test_a_class_noun_that_is_none_is_not_told(
    noun: object, objects: Objects, uploads: Uploads
) -> None:
    put(objects, "rex", noun)  # type: ignore[arg-type]
    assert uploads.class_noun("rex") == ""


def test_the_oldest_waits_in_front(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    for age, name in enumerate(("newest", "middle", "oldest")):
        put(store, name)
        path = tmp_path / "inbox" / "pets" / name / "concept.json"
        os.utime(path, (1_000_000 - age,) * 2)
    assert Uploads(store, "pets").waiting(()) == ("oldest", "middle", "newest")


def test_an_upload_waits_until_it_has_ended_and_again_when_its_pictures_change(
    objects: Objects, uploads: Uploads
) -> None:
    put(objects, "rex")
    records = Records(objects, "pets")
    digest = uploads.digest("rex")
    assert len(digest) == 64
    records.end(ConceptState("rex", "dog", "refused", reasons=("blurred",), upload=digest))
    assert uploads.waiting(records.concepts()) == ()
    put(objects, "rex", "puppy")
    assert uploads.digest("rex") != digest
    assert uploads.waiting(records.concepts()) == ("rex",)


def test_a_fetched_upload_is_the_one_that_was_put(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    put(objects, "rex")
    folder = uploads.fetch("rex", tmp_path / "scratch" / "rex", max_bytes=100)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(found) == ["00.png", "01.png", "02.png", "concept.json"]
    assert found["01.png"] == b"\x01" * 100


def test_what_is_not_listed_is_not_fetched(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    put(objects, "rex")
    for inside in ("99.png", "deep/00.png"):
        objects.write(f"inbox/pets/rex/{inside}", b"of an upload that came second")
    facts = json.loads(objects.read("inbox/pets/rex/concept.json").data)
    facts["pictures"] += [{"name": name} for name in ("deep/00.png", "../x", "gone.png")]
    objects.write("inbox/pets/rex/concept.json", json.dumps(facts).encode())
    folder = uploads.fetch("rex", tmp_path / "rex", max_bytes=100)
    files = sorted(path.name for path in folder.rglob("*"))
    assert files == ["00.png", "01.png", "02.png", "concept.json"]


@pytest.mark.parametrize("text", [b"[]", b"{", b"\xff", b'{"pictures": 3}'])
def test_a_broken_concept_json_is_fetched_alone_for_intake_to_refuse(
    objects: Objects, uploads: Uploads, tmp_path: Path, text: bytes
) -> None:
    put(objects, "rex")
    objects.write("inbox/pets/rex/concept.json", text)
    folder = uploads.fetch("rex", tmp_path / "rex", max_bytes=100)
    assert [path.name for path in folder.iterdir()] == ["concept.json"]
    assert uploads.class_noun("rex") == ""


def test_too_much_is_refused_before_it_is_fetched(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    put(objects, "rex", pictures=5)
    objects.write("inbox/pets/rex/03.png", b"x" * 101)
    objects.write("inbox/pets/rex/04.png", b"x" * 102)
    with pytest.raises(BadUpload) as caught:
        uploads.fetch("rex", tmp_path / "rex", max_bytes=100)
    assert len(caught.value.problems) == 2
    assert "'03.png' of upload 'rex': expected at most 100 bytes, found 101" in str(caught.value)
    assert [path.name for path in (tmp_path / "rex").iterdir()] == ["concept.json"]


def test_a_huge_concept_json_is_refused_and_told_from_another(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    objects.write("inbox/pets/rex/concept.json", b" " * (MAX_JSON + 1))
    assert uploads.waiting(()) == ("rex",)
    with pytest.raises(BadUpload, match=r"at most 1,000,000 bytes, found 1,000,001"):
        uploads.fetch("rex", tmp_path / "rex", max_bytes=100)
    assert uploads.class_noun("rex") == ""
    first = uploads.digest("rex")
    objects.write("inbox/pets/rex/concept.json", b" " * (MAX_JSON + 2))
    assert uploads.digest("rex") != first


def test_an_upload_of_too_many_pictures_is_refused(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path / "store")
    put(store, "rex", pictures=MAX_FILES + 1)
    with pytest.raises(BadUpload, match="at most 100 pictures, found 101"):
        Uploads(store, "pets").fetch("rex", tmp_path / "rex", max_bytes=100)


def local(folder: Path, *pictures: bytes) -> Path:
    """An upload in a folder, as `l2dm.uploads.folder` writes it."""
    folder.mkdir(parents=True)
    listed = []
    for number, picture in enumerate(pictures):
        (folder / f"{number:02d}.png").write_bytes(picture)
        sha256 = hashlib.sha256(picture).hexdigest()
        listed.append({"name": f"{number:02d}.png", "sha256": sha256})
    concept = {"name": folder.name, "class_noun": "dog"}
    facts = {"line": "pets", "concept": concept, "pictures": listed}
    (folder / "concept.json").write_text(json.dumps(facts))
    return folder


def bytes_below(objects: Objects, prefix: str) -> set[bytes]:
    """What lies there, concept.json left out."""
    keys = [entry.key for entry in objects.list(prefix) if not entry.key.endswith(".json")]
    return {objects.read(key).data for key in keys}


def test_a_committed_upload_is_fetched_as_it_was_and_listed_by_its_bytes(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    source = local(tmp_path / "a" / "rex", b"one", b"two")
    uploads.commit(source)
    sha256 = hashlib.sha256(b"two").hexdigest()
    keys = [entry.key for entry in objects.list("inbox/")]
    assert [key.rpartition("/")[2][:3] for key in keys] == ["00-", "01-", "con"]
    assert keys[1] == f"inbox/pets/rex/01-{sha256[:16]}.png"
    assert uploads.waiting(()) == ("rex",)
    folder = uploads.fetch("rex", tmp_path / "rex", max_bytes=100)
    told = json.loads((folder / "concept.json").read_bytes())
    assert told["pictures"][1] == {"name": f"01-{sha256[:16]}.png", "sha256": sha256}
    uploads.commit(source)  # again, because the answer was lost
    assert [entry.key for entry in objects.list("inbox/")] == keys


def test_a_half_upload_is_replaced(objects: Objects, uploads: Uploads, tmp_path: Path) -> None:
    """It never got its concept.json: whoever sent it was killed."""
    for key in ("00.png", "07-0123456789abcdef.png"):
        objects.write(f"inbox/pets/rex/{key}", b"half")
    uploads.commit(local(tmp_path / "rex", b"one", b"two"))
    assert bytes_below(objects, "inbox/pets/rex/") == {b"one", b"two"}


def test_of_two_uploads_with_one_name_the_first_is_kept_whole(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    uploads.commit(local(tmp_path / "a" / "rex", b"the first"))
    digest = uploads.digest("rex")
    with pytest.raises(BadUpload, match="found one of this name waiting in the store"):
        uploads.commit(local(tmp_path / "b" / "rex", b"the second"))
    assert uploads.digest("rex") == digest
    folder = uploads.fetch("rex", tmp_path / "rex", max_bytes=100)
    (picture,) = folder.glob("*.png")
    assert picture.read_bytes() == b"the first"
    assert bytes_below(objects, "inbox/") == {b"the first"}


def test_of_two_uploads_over_one_that_has_ended_one_is_kept_whole(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    uploads.commit(local(tmp_path / "a" / "rex", b"the first"))
    ended = uploads.digest("rex")
    uploads.commit(local(tmp_path / "b" / "rex", b"the second"), over=ended)
    second = uploads.digest("rex")
    with pytest.raises(BadUpload, match="found one of this name waiting in the store"):
        uploads.commit(local(tmp_path / "c" / "rex", b"the third"), over=ended)
    assert uploads.digest("rex") == second != ended
    folder = uploads.fetch("rex", tmp_path / "rex", max_bytes=100)
    (picture,) = folder.glob("*.png")
    assert picture.read_bytes() == b"the second"
    assert sum("the first" in str(objects.read(e.key).data) for e in objects.list("inbox/")) == 0


def test_pictures_that_both_uploads_have_stay_when_the_second_is_refused(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    uploads.commit(local(tmp_path / "a" / "rex", b"the same", b"the first"))
    with pytest.raises(BadUpload, match="found one of this name waiting in the store"):
        uploads.commit(local(tmp_path / "b" / "rex", b"the same", b"the second", b"a third"))
    assert bytes_below(objects, "inbox/") == {b"the same", b"the first"}


def test_of_uploads_that_race_exactly_one_wins_and_is_whole(
    objects: Objects, uploads: Uploads, tmp_path: Path
) -> None:
    objects.write("inbox/pets/rex/00.png", b"of one that never arrived")
    shown = [f"picture {number}".encode() for number in range(6)]
    folders = [local(tmp_path / str(i) / "rex", one, one * 2) for i, one in enumerate(shown)]

    def attempt(folder: Path) -> bool:
        try:
            uploads.commit(folder)
        except BadUpload as error:
            assert "found one of this name waiting in the store" in str(error)
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(attempt, folders))
    assert won.count(True) == 1
    folder = uploads.fetch("rex", tmp_path / "rex", max_bytes=100)
    winner = shown[won.index(True)]
    assert {one.read_bytes() for one in folder.glob("*.png")} == {winner, winner * 2}
    assert bytes_below(objects, "inbox/") == {winner, winner * 2}


def test_a_full_disk_leaves_no_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        if next(left) == 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    store = FolderObjects(tmp_path / "store")
    uploads, source = Uploads(store, "pets"), local(tmp_path / "rex", b"one", b"two")
    for writes in range(3):  # two pictures, then concept.json
        left = iter(range(writes, -1, -1))
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", no_space)
            with pytest.raises(OSError, match="No space left") as refused:
                uploads.commit(source)
            assert str(refused.value.filename).startswith(str(tmp_path / "store/inbox/pets/rex/"))
        assert [entry.key for entry in store.list("inbox/")] == []
        assert uploads.waiting(()) == ()
    uploads.commit(source)
    assert uploads.waiting(()) == ("rex",)


DYING = """
import os, sys
from pathlib import Path
from components.services.line.uploads import Uploads
from components.services.store.folder import FolderObjects

store, folder, name, count = sys.argv[1:]
real, left = getattr(os, name), [int(count)]

def deadly(*args, **options):
    left[0] -= 1
    if left[0] == 0:
        os._exit(9)  # runs no handler, as kill -9
    return real(*args, **options)

setattr(os, name, deadly)
Uploads(FolderObjects(Path(store)), "pets").commit(Path(folder))
"""


@pytest.mark.parametrize("where", ["fsync 1", "replace 1", "fsync 2", "fsync 3", "replace 3"])
def test_killed_at_any_point_before_the_end_leaves_no_upload(where: str, tmp_path: Path) -> None:
    store, source = FolderObjects(tmp_path / "store"), local(tmp_path / "rex", b"one", b"two")
    command = [sys.executable, "-c", DYING, str(store.folder), str(source), *where.split()]
    assert subprocess.run(command, check=False).returncode == 9
    uploads = Uploads(store, "pets")
    assert (uploads.waiting(()), uploads.digest("rex")) == ((), "")
    again = local(tmp_path / "again" / "rex", b"three")
    uploads.commit(again)
    assert bytes_below(store, "inbox/") == {b"three"}


def test_uploads_that_ended_are_not_read_again_by_a_whole_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderObjects(tmp_path)
    store.write("inbox/pets/rex/concept.json", b"{}")
    records, uploads = Records(store, "pets"), Uploads(store, "pets")
    found = uploads.commitment("rex")
    records.end(ConceptState("rex", "dog", "refused", upload=found.digest, mark=found.mark))
    states = Records(store, "pets").concepts()
    with monkeypatch.context() as blind:
        blind.setattr(FolderObjects, "read", None)
        assert Uploads(store, "pets").waiting(states) == ()
    store.write("inbox/pets/rex/concept.json", b"{}")  # the same from a backup
    assert Uploads(store, "pets").waiting(states) == ()
    store.write("inbox/pets/rex/concept.json", b'{"other": "pictures"}')
    long_ago = 1_000_000  # whatever its time says
    os.utime(tmp_path / "inbox/pets/rex/concept.json", (long_ago, long_ago))
    assert Uploads(store, "pets").waiting(states) == ("rex",)


def test_names_alone_tell_that_nothing_waits_and_what_does(tmp_path: Path) -> None:
    store = FolderObjects(tmp_path)
    for name, age in (("rex", 30), ("mimi", 60)):
        store.write(f"inbox/pets/{name}/concept.json", name.encode())
        path = tmp_path / "inbox/pets" / name / "concept.json"
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    store.write("inbox/pets/half/00.png", b"picture")
    uploads = Uploads(store, "pets")
    assert uploads.open(()) == uploads.waiting(()) == ("mimi", "rex")
    over = (ConceptState("mimi", "dog", "promoted", upload=uploads.digest("mimi")),)
    assert uploads.open(over) == ("rex",)
    for number in range(30):
        store.write(f"inbox/pets/c{number}/concept.json", b"{}")
    assert uploads.open(over) == uploads.waiting(over)
