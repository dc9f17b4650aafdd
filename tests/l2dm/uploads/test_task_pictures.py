from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from l2dm.errors import BadUpload
from l2dm.uploads.check import task_pictures
from l2dm.uploads.folder import read_upload, write_upload
from l2dm.uploads.pictures import read
from tests.worlds.uploads import MILO, SPEC, scene


def test_task_pictures_are_squares_with_their_boxes(tmp_path, place):
    """What stands out is in the middle here; tests of the crop ask of other places."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for i, ink in enumerate(("red", "lime", "blue")):
        picture = Image.new("RGB", (192, 64), (70, 70, 60 + 9 * i))
        picture.paste(ink, (64, 0, 128, 64))  # the middle third is the square
        picture.save(folder / f"{i}.png")
    upload = write_upload(place, folder, "pets", MILO, SPEC, {})
    stacked, boxes = task_pictures(place, upload, 32, SPEC, {}, line="pets")
    assert stacked.shape == (3, 3, 32, 32)
    assert stacked.dtype == torch.uint8
    assert boxes == ((64, 0, 128, 64),) * 3
    middle = stacked[:, :, 4:-4, 4:-4]  # the edge mixes with what was cropped away
    for i in range(3):
        assert middle[i].flatten(1).unique(dim=1).flatten().tolist() == [
            255 * (c == i) for c in range(3)
        ]


def test_squares_are_resized_as_they_always_were(tmp_path, place):
    folder = tmp_path / "mine"
    folder.mkdir()
    pictures = [scene(i, (96, 96)) for i in range(3)]
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i}.png")
    upload = write_upload(place, folder, "pets", MILO, SPEC, {})
    stacked, boxes = task_pictures(place, upload, 32, SPEC, {}, line="pets")
    assert boxes == ((0, 0, 96, 96),) * 3
    for picture, found in zip(pictures, stacked, strict=True):
        fitted = ImageOps.fit(picture, (32, 32), Image.Resampling.LANCZOS)
        assert found.permute(1, 2, 0).numpy().tobytes() == fitted.tobytes()


def test_task_pictures_names_every_picture_that_is_spoiled(written):
    upload = read_upload(written)
    for name in ("00.jpg", "01.png"):
        (written / name).write_bytes(b"x")
    with pytest.raises(BadUpload) as caught:
        task_pictures(written, upload, 32, SPEC, {}, line="pets")
    assert [problem.split("'")[1] for problem in caught.value.problems] == ["00.jpg", "01.png"]


def test_every_picture_is_decoded_once(written, monkeypatch):
    """Decoding is what an upload of large pictures costs."""
    decoded, load = [], ImageFile.ImageFile.load

    def counting(picture):
        if picture.tile:  # there is something to decode yet
            decoded.append(picture.filename)
        return load(picture)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counting)
    for name in ("00.jpg", "01.png", "02.webp"):
        read(written / name, SPEC, 32)
    assert [Path(name).name for name in decoded] == ["00.jpg", "01.png", "02.webp"]


def test_names_and_pictures_are_refused_together(written):
    upload = read_upload(written)
    (written / "00.jpg").write_bytes(b"x")
    with pytest.raises(BadUpload) as caught:
        task_pictures(written, upload, 32, SPEC, {"milo": "learned"}, {"<milo>": 1}, line="pets")
    assert len(caught.value.problems) == 3


def test_an_upload_of_another_line_is_refused_with_what_else_is_wrong(written):
    upload = read_upload(written)
    (written / "00.jpg").write_bytes(b"x")
    with pytest.raises(BadUpload) as caught:
        task_pictures(written, upload, 32, SPEC, {}, line="cars")
    line, picture = caught.value.problems
    assert "expected one for line 'cars', its concept.json says 'pets'" in line
    assert "00.jpg" in picture
