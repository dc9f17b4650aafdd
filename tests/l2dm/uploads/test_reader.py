import errno
import os
import re
import signal
import sys

import pytest
from PIL import Image

from l2dm.errors import BadUpload
from l2dm.files import children
from l2dm.uploads import reader
from l2dm.uploads.pictures import read
from l2dm.uploads.reader import PictureReader
from tests.worlds.picture_files import SPEC, saved, scene
from tests.worlds.uploads import pictures, problems


def test_a_reader_sees_what_is_seen_without_it(tmp_path):
    paths = [saved(scene(i), tmp_path / f"{i}.jpg") for i in range(2)]
    with PictureReader(SPEC, 32) as reading:
        assert [reading.read(path) for path in paths] == [read(path, SPEC, 32) for path in paths]


def slow_png(chunks: int) -> bytes:
    """A good picture with so many empty chunks behind it: each is a step in Python."""
    import io

    buffer = io.BytesIO()
    scene(0).save(buffer, "PNG")
    data = buffer.getvalue()
    empty = b"\0\0\0\0abCd\xe3\x0b\xad\xb9"
    return data[:-12] + empty * chunks + data[-12:]


@pytest.mark.slow
def test_a_picture_that_takes_too_long_is_refused_and_the_next_one_read(tmp_path):
    slow, good = tmp_path / "slow.png", saved(scene(1), tmp_path / "good.png")
    slow.write_bytes(slow_png(2_400_000))
    with PictureReader(SPEC) as reading:
        with pytest.raises(BadUpload, match=r"'slow.png'.*takes much longer than pictures of its"):
            reading.read(slow)
        assert reading.read(good) == read(good, SPEC)


def test_a_picture_that_takes_too_much_memory_is_refused(tmp_path, monkeypatch):
    spec = SPEC.model_copy(update={"max_pixels": 400_000_000})
    large = Image.new("L", (13_000, 13_000), 200)  # the ground of its RGBA takes 676 MB, and again
    path = saved(large, tmp_path / "a.png", transparency=200)
    with PictureReader(spec) as reading, pytest.raises(BadUpload, match=r"more than that memory"):
        reading.read(path)


@pytest.mark.parametrize("by", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_is_of_the_picture_and_a_kill_is_not(by, tmp_path, monkeypatch):
    path = saved(scene(0), tmp_path / "a.png")
    started = reader._start

    def doomed():
        child = started()
        os.kill(child.pid, by)
        child.wait()
        return child

    monkeypatch.setattr(reader, "_start", doomed)
    kind = BadUpload if by == signal.SIGSEGV else OSError
    with PictureReader(SPEC) as reading, pytest.raises(kind, match=r"a\.png"):
        reading.read(path)


def test_what_decoders_grumble_is_heard_by_nobody_and_a_reader_that_cannot_start_is(
    tmp_path, monkeypatch, capfd
):
    path = saved(scene(0, (128, 128)), tmp_path / "a.tif", compression="jpeg")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xda") + 200
    data[at : at + 2] = b"\xff\xba"  # a marker where pixels are due
    path.write_bytes(data)
    with pytest.raises(BadUpload), PictureReader(SPEC) as reading:
        reading.read(path)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(children, "command", lambda _: [sys.executable, "-m", "l2dm.no_reader"])
    with pytest.raises(OSError, match="ends by itself"), PictureReader(SPEC) as reading:
        reading.read(path)
    assert "No module named l2dm.no_reader" in capfd.readouterr().err


def test_a_folder_is_read_by_one_child_which_ends(tmp_path, monkeypatch):
    readers, started = [], reader._start

    def counting():
        readers.append(started())
        return readers[-1]

    monkeypatch.setattr(reader, "_start", counting)
    assert problems(pictures(tmp_path / "mine", 4)) == ()
    (child,) = readers
    assert child.returncode == 0


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_that_the_system_does_not_give_is_no_damaged_picture(code, tmp_path, monkeypatch):
    path = saved(scene(0), tmp_path / "a.png")

    def withheld(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Image, "open", withheld)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        read(path, SPEC)


def test_a_decoder_that_is_led_astray_is_of_the_picture(tmp_path, monkeypatch):
    """A strange picture leads it to a place before the beginning of its file."""
    path = saved(scene(0), tmp_path / "a.png")

    def astray(*_, **__):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(Image, "open", astray)
    with pytest.raises(BadUpload, match="truncated or corrupt"):
        read(path, SPEC)


def test_the_reader_passes_on_what_the_system_does_not_give(tmp_path):
    with PictureReader(SPEC) as reading:
        with pytest.raises(FileNotFoundError) as caught:
            reading.read(tmp_path / "gone.png")
        assert caught.value.filename == str(tmp_path / "gone.png")
        assert reading.read(saved(scene(0), tmp_path / "a.png")).look.format == "PNG"
