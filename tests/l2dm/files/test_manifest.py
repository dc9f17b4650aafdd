import dataclasses
import errno
import json
import os
import random
import subprocess
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import pytest

from l2dm import doors
from l2dm.doors import Concept, Memory, Prior, Replayed, Task
from l2dm.errors import BadDoor
from l2dm.files import manifest

RECORDS = [
    kind
    for kind in vars(doors).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
]
DOORS = (
    doors.Task, doors.Prior, doors.Memory, doors.Drawn, doors.Adapter, doors.Scores, doors.Release,
    doors.Check,
)  # fmt: skip
TASK = Task("t0001", "pets", Concept("milo", "dog"), ("a",), ("b",), "0" * 64, 0, "base", 3)


def made_up(kind, rng):
    """A random value of a record's field type."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return made_up(rng.choice(options), rng)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: made_up(hint, rng) for name, hint in hints.items()})
    if origin is tuple:
        return tuple(made_up(options[0], rng) for _ in range(rng.randrange(4)))
    if origin is Mapping:
        return {made_up(str, rng): made_up(options[1], rng) for _ in range(rng.randrange(4))}
    if kind is str:
        return "".join(rng.choices('ab é猫"\\\n/<>\u2028', k=rng.randrange(6)))
    if kind is float:
        return rng.choice((0.0, -0.0, 1.0, 1e-300, 1e300, rng.gauss(0, 1)))
    if kind is int:
        return rng.choice((0, 1, -1, 2**53 + 1, rng.randrange(10**6)))
    return {bool: rng.random() < 0.5, types.NoneType: None}[kind]


def payload(folder: Path) -> None:
    (folder / "pictures").mkdir()
    (folder / "pictures" / "00.png").write_bytes(b"\x00\x01\x02")
    (folder / "curve.json").write_text("[1, 2]")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def door(tmp_path):
    return manifest.write(
        tmp_path / "task", TASK, payload, spec={"steps": 3}, seed=5, inputs={"parent": "1" * 64}
    )


@pytest.fixture
def release(tmp_path):
    verdict = doors.Verdict(True, ("It is fine.",))
    record = doors.Release("pets", "t0001", Concept("milo", "dog"), 0, "a", "m", "s", verdict)
    return manifest.write(tmp_path / "release", record, lambda _: None)


def test_records_are_all_there():
    assert len(RECORDS) == 19
    assert len(DOORS) == 8


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_a_record_survives_json(kind):
    rng = random.Random(kind.__name__)
    for _ in range(200):
        record = made_up(kind, rng)
        text = json.dumps(manifest.to_data(record), allow_nan=False)
        assert manifest.from_data(kind, json.loads(text)) == record


@pytest.mark.parametrize("kind", DOORS, ids=lambda kind: kind.__name__)
def test_a_door_survives_the_disk(kind, tmp_path):
    rng = random.Random(kind.__name__)
    for i in range(5):
        record = made_up(kind, rng)
        written = manifest.write(tmp_path / str(i), record, payload)
        assert manifest.read(tmp_path / str(i), kind) == written
        assert written.record == record


def test_seed_spec_and_inputs_come_back(door):
    again = manifest.read(door.folder, Task)
    assert again == door
    assert (again.seed, again.spec, again.inputs) == (5, {"steps": 3}, {"parent": "1" * 64})
    assert again.path("curve.json").read_text() == "[1, 2]"


def test_digest_depends_on_everything_but_the_place(door, tmp_path):
    def other(**changes):
        options = {"spec": {"steps": 3}, "seed": 5, "inputs": {"parent": "1" * 64}} | changes
        record, fill = options.pop("record", TASK), options.pop("fill", payload)
        return manifest.write(tmp_path / "elsewhere" / "door", record, fill, **options).digest

    def other_payload(folder):
        payload(folder)
        (folder / "curve.json").write_text("[1, 3]")

    assert other() == door.digest
    changed = {
        other(record=dataclasses.replace(TASK, seed=4)),
        other(fill=other_payload),
        other(spec={"steps": 4}),
        other(seed=6),
        other(inputs={"parent": "2" * 64}),
    }
    assert len(changed - {door.digest}) == 5


def test_every_flipped_byte_is_refused(door):
    for path in (door.path("pictures/00.png"), door.path("curve.json"), door.path(manifest.FILE)):
        whole = path.read_bytes()
        for i in range(len(whole)):
            torn = bytearray(whole)
            torn[i] ^= 1 << (i % 8)
            path.write_bytes(torn)
            with pytest.raises(BadDoor):
                manifest.read(door.folder, Task)
        path.write_bytes(whole)
    assert manifest.read(door.folder, Task) == door


def test_a_manifest_that_was_formatted_again_is_refused(door):
    """The digest is that of the text, so the same data in another text is another door."""
    path = door.path(manifest.FILE)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    with pytest.raises(BadDoor, match=r"manifest.json was changed after it was written; run the"):
        manifest.read(door.folder, Task)


def test_every_cut_of_the_manifest_is_refused(door):
    path = door.path(manifest.FILE)
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i])
        with pytest.raises(BadDoor):
            manifest.read(door.folder, Task)


def test_changed_missing_and_foreign_files_are_named_together(door):
    door.path("curve.json").write_text("[1, 3]")
    door.path("pictures/00.png").unlink()
    door.path("notes.txt").write_text("hello")
    with pytest.raises(
        BadDoor,
        match=r"missing \['pictures/00.png'\]; foreign \['notes.txt'\]; changed \['curve.json'\]; "
        "run the step",
    ):
        manifest.read(door.folder, Task)


def test_another_kind_is_refused_by_name(door):
    with pytest.raises(BadDoor, match=r"expected a Prior door, found a Task in .*; check which"):
        manifest.read(door.folder, Prior)


@pytest.mark.parametrize(
    ("ours", "advice"),
    [
        (0, r"has format 1, this version \(.*\) reads format 0: .* a newer one, .*; upgrade l2dm"),
        (2, r"has format 1, this version \(.*\) reads format 2: .* an older one, .*; read it with"),
    ],
)
def test_a_door_too_new_or_too_old_is_refused_by_name(
    release, monkeypatch, ours: int, advice: str
) -> None:
    monkeypatch.setattr(manifest, "FORMAT", ours)
    with pytest.raises(BadDoor, match=f"the Release door in {release.folder} {advice}"):
        manifest.read(release.folder, doors.Release)


@pytest.mark.parametrize("format_", [None, "1", True, 1.0])
def test_a_door_without_a_format_number_is_refused(door, format_):
    path = door.path(manifest.FILE)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": format_}))
    with pytest.raises(BadDoor, match=f"expected a door of format 1 .*, found format {format_!r};"):
        manifest.read(door.folder, Task)


def test_the_format_is_told_before_the_kind(door, monkeypatch):
    """A door of another format may call its kinds otherwise."""
    monkeypatch.setattr(manifest, "FORMAT", 2)
    with pytest.raises(BadDoor, match=r"the Task door in .* has format 1"):
        manifest.read(door.folder, Prior)


def test_an_absent_door_is_refused(tmp_path):
    with pytest.raises(BadDoor, match=r"expected a Task door in .*nowhere, found no manifest.json"):
        manifest.read(tmp_path / "nowhere", Task)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"kind"', "\udcff", "[" * 100_000])
def test_what_is_not_a_manifest_is_refused(text, door):
    door.path(manifest.FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadDoor, match="is not a manifest"):
        manifest.read(door.folder, Task)


def test_a_record_that_does_not_fit_is_refused(tmp_path):
    """A folder that another version of the code wrote, whole but with other fields."""

    @dataclasses.dataclass(frozen=True)
    class Task:
        id: str

    manifest.write(tmp_path / "task", Task("t0001"), payload)
    with pytest.raises(BadDoor, match=r"does not hold a Task record: .*missing"):
        manifest.read(tmp_path / "task", doors.Task)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Concept, []),
        (Concept, None),
        (Concept, {"name": "milo"}),
        (Concept, {"name": "milo", "class_noun": "dog", "more": 1}),
        (Concept, {"name": "milo", "class_noun": 3}),
        (Memory, {"base": "b", "long_term": "abc"}),
        (Prior, {"base": "b", "nouns": [], "captions": [], "seeds": []}),
        (Prior, {"base": "b", "nouns": [], "captions": {}, "seeds": [True]}),
    ],
)
def test_data_of_another_shape_is_refused(kind, data):
    with pytest.raises((TypeError, KeyError)):
        manifest.from_data(kind, data)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_written(value, tmp_path):
    record = Memory("base", (), (Replayed("milo", "a dog", 0, value),))
    with pytest.raises(ValueError, match=f"found {value} in a record; missing is None"):
        manifest.write(tmp_path / "memory", record, payload)
    assert names(tmp_path) == []


class Stopped(BaseException):
    """Like a kill that Python still sees."""


def fill_and_stop(folder: Path) -> None:
    payload(folder)
    raise Stopped


def no_space(*_: object) -> typing.NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_stopped_while_filling_leaves_nothing(tmp_path):
    with pytest.raises(Stopped):
        manifest.write(tmp_path / "task", TASK, fill_and_stop)
    assert names(tmp_path) == []


def test_stopped_while_filling_keeps_the_old_door(door, tmp_path):
    with pytest.raises(Stopped):
        manifest.write(door.folder, dataclasses.replace(TASK, seed=9), fill_and_stop)
    assert names(tmp_path) == ["task"]
    assert manifest.read(door.folder, Task) == door


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_door_or_none(name, door, tmp_path, monkeypatch):
    monkeypatch.setattr(os, name, no_space)
    for folder in (door.folder, tmp_path / "new"):
        with pytest.raises(OSError, match="No space left"):
            manifest.write(folder, dataclasses.replace(TASK, seed=9), payload)
    monkeypatch.undo()
    assert names(tmp_path) == ["task"]
    assert manifest.read(door.folder, Task) == door


def test_every_rename_that_fails_leaves_a_whole_door(door, tmp_path, monkeypatch):
    """The renames of a replacement: manifest, old door away, new door in."""
    rename, calls = os.replace, []

    for failing in range(3):
        calls.clear()

        def fragile(source, target, failing=failing):
            calls.append(target)
            if len(calls) == failing + 1:
                no_space()
            rename(source, target)

        monkeypatch.setattr(os, "replace", fragile)
        with pytest.raises(OSError, match="No space left"):
            manifest.write(door.folder, dataclasses.replace(TASK, seed=9), payload)
        monkeypatch.setattr(os, "replace", rename)
        assert manifest.read(door.folder, Task) == door
        assert names(tmp_path) == ["task"]


DYING = """
import os, sys
from pathlib import Path
from l2dm.files import manifest
from l2dm.doors import Concept, Task

folder, where = sys.argv[1:]
name, _, count = where.partition(":")
module = {"fsync": os, "replace": os, "rmtree": manifest.shutil}.get(name, manifest)
real, left = getattr(module, name, None), [int(count or 1)]

def deadly(*args, **options):
    left[0] -= 1
    if left[0] == 0:
        os._exit(9)  # runs no handler, as kill -9
    return real(*args, **options)

def fill(draft):
    (draft / "curve.json").write_text("[1, 3]")
    if name == "fill":
        os._exit(9)

setattr(module, name, deadly)
record = Task("t0001", "pets", Concept("milo", "dog"), ("a",), ("b",), "0" * 64, 0, "base", 9)
manifest.write(Path(folder), record, fill)
"""


@pytest.mark.parametrize(
    "where", ["fill", "fsync", "replace:1", "replace:2", "replace:3", "rmtree"]
)
def test_killed_at_any_point_leaves_a_whole_door_or_none(where, door, tmp_path):
    new = dataclasses.replace(TASK, seed=9)
    run = subprocess.run([sys.executable, "-c", DYING, str(door.folder), where], check=False)
    assert run.returncode == 9  # it died, and where it should
    if door.folder.exists():
        found = manifest.read(door.folder, Task)
        assert found == door or found.record == new
    assert manifest.write(door.folder, new, payload).record == new  # and the next write sweeps
    assert names(tmp_path) == ["task"]


def test_dead_drafts_are_swept_and_neighbours_left_alone(tmp_path):
    for name in (".task.draft-dead", ".task2.draft-other", "task2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    manifest.write(tmp_path / "task", TASK, payload)
    assert names(tmp_path) == [".task2.draft-other", "task", "task2"]


def test_write_text_is_absent_or_whole(tmp_path, monkeypatch):
    manifest.write_text(tmp_path / "a.json", "old é")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        manifest.write_text(tmp_path / "a.json", "new")
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "old é"


def test_a_verdict_of_before_its_findings_is_read():
    old = {"open": False, "reasons": ["too far"]}
    assert manifest.from_data(doors.Verdict, old) == doors.Verdict(False, ("too far",))
    new = doors.Verdict(False, ("too far",), (doors.Finding("drift", False),))
    assert manifest.from_data(doors.Verdict, manifest.to_data(new)) == new
