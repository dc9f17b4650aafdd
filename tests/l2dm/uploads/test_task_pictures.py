import pytest
import torch

from l2dm.errors import BadUpload
from l2dm.uploads.check import read_upload, submit, task_pictures
from tests.worlds.uploads import MILO, SPEC, scene


def test_task_pictures_are_centred_squares(tmp_path, box):
    folder = tmp_path / "mine"
    folder.mkdir()
    for i, ink in enumerate(("red", "lime", "blue")):
        picture = scene(i, (192, 64))
        picture.paste(ink, (64, 0, 128, 64))  # the middle third is the square
        picture.save(folder / f"{i}.png")
    upload = submit(folder, box, "pets", MILO, SPEC, {})
    stacked = task_pictures(box / "pets/milo", upload, 32, SPEC)
    assert stacked.shape == (3, 3, 32, 32)
    assert stacked.dtype == torch.uint8
    middle = stacked[:, :, 4:-4, 4:-4]  # the edge mixes with what was cropped away
    for i in range(3):
        assert middle[i].flatten(1).unique(dim=1).flatten().tolist() == [
            255 * (c == i) for c in range(3)
        ]


def test_task_pictures_names_every_picture_that_is_spoiled(place):
    upload = read_upload(place)
    for name in ("00.jpg", "01.png"):
        (place / name).write_bytes(b"x")
    with pytest.raises(BadUpload) as caught:
        task_pictures(place, upload, 32, SPEC)
    assert [problem.split("'")[1] for problem in caught.value.problems] == ["00.jpg", "01.png"]
