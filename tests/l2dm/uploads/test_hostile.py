"""Hostile pictures: refused in one sentence, soon, in little memory; none is accepted half grey."""

import os
import resource
import signal
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from l2dm.errors import BadUpload
from l2dm.uploads.pictures import SeenPicture
from l2dm.uploads.reader import PictureReader
from tests.worlds import hostile_pictures
from tests.worlds.hostile_pictures import ACCEPTED, HONEST, REFUSED, SIDE, Made
from tests.worlds.picture_files import SPEC, chunk, look, saved, scene

SECONDS, MEMORY = 10, 1 << 20  # kilobytes


@contextmanager
def ended() -> Iterator[None]:
    """A hang ends the test; what is slow on a busy machine is measured in processor time."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {6 * SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(6 * SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def spent(reading: PictureReader) -> float:
    """Seconds of processor time of all readers until now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = used.ru_utime + used.ru_stime
    if reading._child is not None:
        text = Path(f"/proc/{reading._child.pid}/stat").read_text()
        ticks = text.rpartition(")")[2].split()[11:13]
        total += sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return total


def peak(reading: PictureReader) -> int:
    """The most memory that the reader has had, in kilobytes; 0 when it has ended."""
    if reading._child is None:
        return 0
    text = Path(f"/proc/{reading._child.pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


def pixels(seen: SeenPicture) -> np.ndarray:
    return np.frombuffer(seen.square, np.uint8).reshape(SIDE, SIDE, 3).astype(int)


def is_half_empty(seen: SeenPicture) -> bool:
    """Whether the lowest or the right third is of one colour, which none of the scenes is."""
    square = pixels(seen)
    sides = (square[-SIDE // 3 :], square[:, -SIDE // 3 :])
    return any(np.ptp(side.reshape(-1, 3), axis=0).max() <= 2 for side in sides)


def is_whole(seen: SeenPicture, kin: SeenPicture) -> bool:
    """Whether every eighth of the rows is what it would be."""
    apart = np.abs(pixels(seen) - pixels(kin)).reshape(8, -1).mean(axis=1)
    return bool(apart.max() < 12)


def read(reading: PictureReader, made: Made) -> SeenPicture | None:
    """What is seen of a hostile picture, None if it is refused."""
    before = spent(reading)
    try:
        with ended():
            seen = reading.read(made.path)
    except BadUpload as error:
        assert all(len(one) < 600 for one in error.problems), made.what
        assert made.due != ACCEPTED, f"{made.what}: {error}"
        return None
    except Exception as error:
        raise AssertionError(f"{made.what}: {type(error).__name__}: {error}") from error
    finally:
        assert spent(reading) - before < SECONDS + 1, made.what
        assert peak(reading) < MEMORY, made.what
    return seen


def run(folder: Path, seeds: range) -> list[str]:
    """What was accepted and lies."""
    lies = []
    with PictureReader(SPEC, SIDE) as reading:
        for seed in seeds:
            made = hostile_pictures.make(folder, seed)
            seen = read(reading, made)
            if seen is None:
                continue
            lie = made.due == REFUSED or (made.due == HONEST and is_half_empty(seen))
            if made.kin and not lie:
                beside = made.path.with_stem("kin")
                beside.write_bytes(made.kin)
                lie = not is_whole(seen, reading.read(beside))
            if lie:
                lies.append(f"{seed}, {made.what}")
    return lies


@pytest.mark.parametrize("part", range(6))
def test_hostile_pictures_are_refused_or_whole(part: int, tmp_path: Path) -> None:
    assert run(tmp_path, range(part * 12, part * 12 + 12)) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_hostile_pictures_are_refused_or_whole(part: int, tmp_path: Path) -> None:
    """672 pictures: each rule meets each kind four times."""
    begin = 1008 + 84 * part
    assert run(tmp_path, range(begin, begin + 84)) == []


def test_what_a_decoder_stumbles_over_is_of_the_picture(tmp_path: Path) -> None:
    """A palette that is announced and missing made Pillow fail an assertion of its own."""
    data = hostile_pictures.good("png", 0)
    head = bytearray(data[16:29])
    head[9] = 3
    (tmp_path / "a.png").write_bytes(data[:8] + chunk(b"IHDR", bytes(head)) + data[33:])
    (tmp_path / "b.png").write_bytes(data)
    with PictureReader(SPEC) as reading:
        with pytest.raises(BadUpload, match=r"picture 'a.png'"):
            reading.read(tmp_path / "a.png")
        assert reading.read(tmp_path / "b.png").look.format == "PNG"


def test_a_png_whose_pixels_were_changed_is_refused(tmp_path: Path) -> None:
    """Other deflated bytes are other pixels, of which Pillow asks no checksum."""
    data = bytearray(hostile_pictures.good("png", 0))
    at = data.index(b"IDAT")
    size = int.from_bytes(data[at - 4 : at], "big")
    rows = zlib.decompress(data[at + 4 : at + 4 + size])
    other = zlib.compress(rows[: len(rows) // 2] + bytes(len(rows) - len(rows) // 2))
    (tmp_path / "a.png").write_bytes(
        data[: at - 4] + chunk(b"IDAT", other)[:-4] + bytes(4) + chunk(b"IEND", b"")
    )
    with pytest.raises(BadUpload, match="found pixels that were changed after it was saved"):
        look(tmp_path / "a.png", SPEC)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_strip_of_nothing_in_a_tiff_of_jpegs_is_refused(tmp_path: Path, orientation: int) -> None:
    picture = scene(0, (128, 128))
    path = saved(picture, tmp_path / "a.tif", compression="jpeg", tiffinfo={274: orientation})
    assert look(path, SPEC).size == (128, 128)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xda") + 200
    data[at : at + 2] = b"\xff\xba"
    path.write_bytes(data)
    with pytest.raises(BadUpload, match="expected the 128 rows that its header promises"):
        look(path, SPEC)
