"""Payloads of every door: what is written comes back, what does not fit its record is refused."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from l2dm import doors
from l2dm.errors import BadDoor
from l2dm.files import door_files, manifest
from l2dm.files.door_files import ClassPictures, DrawnCall, Features
from l2dm.files.manifest import Door

REX, TOM = doors.Concept("rex", "dog"), doors.Concept("tom", "cat")
MEASURED = (
    doors.Measurement("base", "a photo of a dog", 7, {"x": 0.5}, concept="rex"),
    doors.Measurement("t1", "a dog", 8, {"distance": 1.0}, noun="dog"),
)


def pictures(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def write(folder: Path, record: Any, *fill: Callable[[Path], None]) -> Door[Any]:
    def payload(draft: Path) -> None:
        for one in fill:
            one(draft)

    manifest.write(folder / "door", record, payload)
    return manifest.read(folder / "door", type(record))


def files(door: Door[Any]) -> list[str]:
    found = [path for path in door.folder.rglob("*") if path.is_file()]
    return sorted({path.relative_to(door.folder).as_posix() for path in found} - {manifest.FILE})


def task(names: tuple[str, ...]) -> doors.Task:
    return doors.Task("t1", "pets", REX, names, ("a",) * len(names), "p", 0, "base", 0)


def prior(nouns: tuple[str, ...], count: int) -> doors.Prior:
    captions = dict.fromkeys(nouns, ("a",) * count)
    return doors.Prior("base", nouns, captions, tuple(range(count)))


def memory(*prompts: int, short: int = 0) -> doors.Memory:
    """Concepts with so many prompts each."""
    known = zip((REX, TOM), prompts, strict=False)
    entries = (doors.Replayed("rex", "a", 0, 0.5),) * short
    return doors.Memory("base", tuple(doors.Remembered(c, ("a",) * n) for c, n in known), entries)


def adapter(kind: str = "lowrank") -> doors.Adapter:
    return doors.Adapter("l2dm", kind, (REX,), "base", "p")


def scores(*concepts: doors.Concept) -> doors.Scores:
    return doors.Scores("base", ("base", "t1"), concepts, {}, (), {})


def test_pictures_of_a_task(tmp_path: Path) -> None:
    names = door_files.picture_names(3)
    assert names == ("pictures/00.png", "pictures/01.png", "pictures/02.png")
    drawn = pictures(3)
    door = write(tmp_path, task(names), lambda at: door_files.write_pictures(at, drawn))
    assert files(door) == [*names]
    assert torch.equal(door_files.read_pictures(door), drawn)
    assert torch.equal(door_files.read_pictures(door, 2), drawn[:2])


def test_class_pictures_lie_by_number_of_their_noun(tmp_path: Path) -> None:
    drawn = {
        noun: ClassPictures(random(2, 4, 1, 1, seed=seed), pictures(2, seed))
        for seed, noun in enumerate(("coffee cup", "../dog"))
    }
    record = prior(tuple(drawn), 2)
    door = write(tmp_path, record, lambda at: door_files.write_class_pictures(at, drawn))
    assert files(door) == [
        "latents.safetensors",
        *(f"pictures/{noun}/{number:03d}.png" for noun in range(2) for number in range(2)),
    ]
    latents = door_files.read_class_latents(door)
    assert list(latents) == list(drawn)
    for noun, one in drawn.items():
        assert torch.equal(latents[noun], one.latents)
        assert torch.equal(door_files.read_class_pictures(door, noun), one.pictures)
        assert torch.equal(door_files.read_class_pictures(door, noun, 1), one.pictures[:1])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (prior(("dog", "cat"), 2), r"expected tensors \['cat', 'dog'\] in .*found no \['cat'\]"),
        (prior(("dog",), 3), r"expected 3 latents of 'dog' in .*, as its record says, found 2"),
    ],
)
def test_class_latents_that_do_not_fit_their_record(
    tmp_path: Path, record: doors.Prior, message: str
) -> None:
    drawn = {"dog": ClassPictures(random(2, 4, 1, 1), pictures(2))}
    door = write(tmp_path, record, lambda at: door_files.write_class_pictures(at, drawn))
    with pytest.raises(BadDoor, match=message):
        door_files.read_class_latents(door)


def test_long_term_memory(tmp_path: Path) -> None:
    features = {
        "rex": Features(random(2, 5), random(2, 3)),
        "tom": Features(random(1, 5, seed=1), random(1, 3, seed=1)),
    }
    door = write(tmp_path, memory(2, 1), lambda at: door_files.write_memory(at, features))
    stored = load_file(door.path("long_term.safetensors"))
    assert sorted(stored) == ["rex/identity", "rex/image", "tom/identity", "tom/image"]
    found = door_files.read_long_term(door)
    assert list(found) == ["rex", "tom"]
    assert torch.equal(found["rex"].image, features["rex"].image)
    assert torch.equal(found["tom"].identity, features["tom"].identity)
    assert list(door_files.read_long_term(door, [TOM])) == ["tom"]
    again = write(tmp_path / "2", door.record, lambda at: door_files.copy_long_term(door, at))
    assert (
        again.path(door_files.LONG_TERM).read_bytes()
        == door.path(door_files.LONG_TERM).read_bytes()
    )


def test_an_empty_memory_has_no_features(tmp_path: Path) -> None:
    door = write(tmp_path, memory(), lambda at: door_files.write_memory(at, {}))
    assert door_files.read_long_term(door) == {}


def test_features_that_do_not_fit_their_record(tmp_path: Path) -> None:
    features = {"rex": Features(random(2, 5), random(2, 3))}
    door = write(tmp_path, memory(3, 1), lambda at: door_files.write_memory(at, features))
    with pytest.raises(
        BadDoor,
        match=r"expected features of every .* found no \['tom/identity', 'tom/image'\]; run",
    ):
        door_files.read_long_term(door)
    with pytest.raises(BadDoor, match=r"expected 3 rows of 'rex/image' in .*, found 2; run"):
        door_files.read_long_term(door, [REX])


def test_short_term_memory(tmp_path: Path) -> None:
    latents = random(2, 4, 1, 1)
    door = write(tmp_path, memory(short=2), lambda at: door_files.write_memory(at, {}, latents))
    assert sorted(load_file(door.path("short_term.safetensors"))) == ["latents"]
    assert torch.equal(door_files.read_short_term(door), latents)
    other = dataclasses.replace(door, record=memory(short=3))
    with pytest.raises(BadDoor, match=r"expected 3 short-term latents in .*, found 2"):
        door_files.read_short_term(other)


def test_a_release_has_no_short_term_memory(tmp_path: Path) -> None:
    door = write(tmp_path, memory(), lambda at: door_files.write_memory(at, {}))
    with pytest.raises(BadDoor, match=r"expected tensors in .*short_term\.safetensors, found none"):
        door_files.read_short_term(door)


def drawn(step: str, count: int) -> doors.Drawn:
    return doors.Drawn(step, "1/1", "base", (doors.Call(False, ("a",), (0,)),) * count)


def test_drawn_calls(tmp_path: Path) -> None:
    calls = [DrawnCall(pictures(2, seed), random(2, 4, 1, 1, seed=seed)) for seed in range(2)]
    door = write(tmp_path, drawn("score_memory", 2), lambda at: door_files.write_drawn(at, calls))
    stored = load_file(door.path("drawn.safetensors"))
    assert sorted(stored) == ["0/latents", "0/pictures", "1/latents", "1/pictures"]
    found = door_files.read_drawn(door)
    assert all(torch.equal(a.pictures, b.pictures) for a, b in zip(found, calls, strict=True))
    assert found[1].latents is not None
    assert torch.equal(found[1].latents, random(2, 4, 1, 1, seed=1))


def test_only_memory_needs_the_latents_of_what_was_drawn(tmp_path: Path) -> None:
    calls = [DrawnCall(pictures(2))]
    door = write(tmp_path, drawn("evaluate", 1), lambda at: door_files.write_drawn(at, calls))
    assert door_files.read_drawn(door)[0].latents is None
    other = dataclasses.replace(door, record=drawn("score_memory", 1))
    with pytest.raises(BadDoor, match=r"found no \['0/latents'\]"):
        door_files.read_drawn(other)


def test_an_adapter_with_a_state(tmp_path: Path) -> None:
    weights, rows, state = {"b": random(2), "a": random(1)}, {"rex": random(1, 4)}, {"f": random(3)}
    curve = {"new": [0.5, 0.25]}
    door = write(
        tmp_path, adapter(), lambda at: door_files.write_adapter(at, weights, rows, state, curve)
    )
    assert files(door) == [
        "adapter.safetensors", "curve.json", "method.safetensors", "tokens.safetensors"
    ]  # fmt: skip
    for found, wanted in (
        (door_files.read_weights(door), weights),
        (door_files.read_rows(door), rows),
        (door_files.read_state(door), state),
    ):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert door_files.read_curve(door.folder) == curve
    assert door.path("curve.json").read_text() == '{"terms": {"new": [0.5, 0.25]}}'


def test_what_an_adapter_does_not_have_is_not_written(tmp_path: Path) -> None:
    door = write(tmp_path, adapter(), lambda at: door_files.write_adapter(at, {}, {}, {}))
    assert files(door) == ["adapter.safetensors", "tokens.safetensors"]
    assert door_files.read_state(door) == {}
    assert door_files.read_curve(door.folder) == {}


def test_the_empty_adapter_has_no_files(tmp_path: Path) -> None:
    door = write(tmp_path, adapter("none"))
    assert (door_files.read_weights(door), door_files.read_rows(door)) == ({}, {})


@pytest.mark.parametrize(
    "read", [door_files.read_weights, door_files.read_rows, door_files.read_state]
)
def test_tensors_that_cannot_be_read(
    tmp_path: Path, read: Callable[[Door[doors.Adapter]], object]
) -> None:
    names = (door_files.WEIGHTS, door_files.ROWS, door_files.STATE)

    def fill(draft: Path) -> None:
        for name in names:
            (draft / name).write_bytes(b"rotten")

    with pytest.raises(BadDoor, match=r"expected tensors in .*safetensors, found none that can be"):
        read(write(tmp_path, adapter(), fill))


@pytest.mark.parametrize("text", ["{", "[]", '{"terms": 3}'])
def test_a_curve_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "curve.json").write_text(text)
    with pytest.raises(BadDoor, match=r"curve\.json, found none"):
        door_files.read_curve(tmp_path)


def test_measurements_are_compact_sorted_and_without_what_is_missing(tmp_path: Path) -> None:
    door = write(tmp_path, scores(REX), lambda at: door_files.write_measurements(at, MEASURED))
    assert door.path("values.json").read_text() == (
        '[{"concept":"rex","metrics":{"x":0.5},"prompt":"a photo of a dog","row":"base","seed":7},'
        '{"metrics":{"distance":1.0},"noun":"dog","prompt":"a dog","row":"t1","seed":8}]'
    )
    assert door_files.read_measurements(door) == MEASURED


def test_measurements_of_what_was_never_measured(tmp_path: Path) -> None:
    assert door_files.read_measurements(write(tmp_path, scores())) == ()
    with pytest.raises(
        BadDoor, match=r"expected values\.json in .* 1 concepts; run evaluate again"
    ):
        door_files.read_measurements(write(tmp_path / "2", scores(REX)))
    unfit = doors.Check("base", "t1", 0, "regressed", "release", 0.0, (), ("torn",))
    assert door_files.read_measurements(write(tmp_path / "3", unfit)) == ()


@pytest.mark.parametrize(
    "entry",
    [
        3,
        [],
        {},
        {"row": "t1", "prompt": "a", "seed": 1, "metrics": {}},  # of nothing
        {"row": "t1", "prompt": "a", "seed": 1, "metrics": {}, "concept": "rex", "noun": "dog"},
        {"row": "t1", "prompt": "a", "seed": "1", "metrics": {}, "concept": "rex"},
        {"row": "t1", "prompt": "a", "seed": True, "metrics": {}, "concept": "rex"},
        {"row": 1, "prompt": "a", "seed": 1, "metrics": {}, "concept": "rex"},
        {"row": "t1", "prompt": "a", "seed": 1, "metrics": {"x": None}, "concept": "rex"},
        {"row": "t1", "prompt": "a", "seed": 1, "metrics": [], "concept": "rex"},
        {"row": "t1", "prompt": "a", "seed": 1, "metrics": {}, "concept": "rex", "who": "me"},
    ],
)
def test_what_is_no_measurement_is_refused(tmp_path: Path, entry: object) -> None:
    def fill(draft: Path) -> None:
        (draft / "values.json").write_text(json.dumps([entry]))

    with pytest.raises(BadDoor, match=r"expected row, prompt, seed, metrics and either concept or"):
        door_files.read_measurements(write(tmp_path, scores(REX), fill))


def test_sheets_of_scores(tmp_path: Path) -> None:
    sheets = {
        door_files.concept_sheet("t1", "rex"): pictures(1)[0],
        door_files.class_sheet("t1", "dog"): pictures(1, 1)[0],
        door_files.real_sheet("rex"): pictures(1, 2)[0],
    }
    door = write(tmp_path, scores(REX), lambda at: door_files.write_sheets(at, sheets))
    assert files(door) == [
        "sheets/real/rex.png", "sheets/t1/class-dog.png", "sheets/t1/rex.png"
    ]  # fmt: skip
    names = [path.name for path in door_files.row_sheets(door, "t1")]
    assert names == ["class-dog.png", "rex.png"]
    assert door_files.row_sheets(door, "t2") == ()


def test_sheets_of_a_check(tmp_path: Path) -> None:
    record = doors.Check("base", "t1", 0, "healthy", "", 0.0, (), ("well",))
    sheets = {door_files.check_sheet(name): pictures(1)[0] for name in ("tom", "rex")}
    door = write(tmp_path, record, lambda at: door_files.write_sheets(at, sheets))
    assert [path.name for path in door_files.check_sheets(door)] == ["rex.png", "tom.png"]
    assert files(door) == ["sheets/rex.png", "sheets/tom.png"]


def test_names_and_json_are_read_without_torch() -> None:
    """A step's own page names sheets and curves, and must not wait for torch."""
    code = (
        "import sys; from l2dm.files import door_files; door_files.concept_sheet('t1', 'rex'); "
        "heavy = {'torch', 'safetensors', 'PIL', 'numpy'} & sys.modules.keys(); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
