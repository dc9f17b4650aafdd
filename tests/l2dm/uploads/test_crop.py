import pytest
from PIL import Image

from l2dm.uploads import crop
from tests.worlds.picture_files import scene
from tests.worlds.uploads import MILO, SPEC


def with_thing(size: tuple[int, int], at: tuple[int, int], side: int) -> Image.Image:
    """A coloured thing in a landscape with little things all over."""
    picture = Image.new("RGB", size, (110, 160, 190))
    for i in range(60):
        x, y = (i * 97) % size[0], (i * 61) % size[1]
        picture.paste((60, 110 + i, 50), (x, y, x + size[0] // 60, y + size[1] // 40))
    picture.paste(scene(1, (side, side)), at)
    return picture


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("size", [(1200, 300), (400, 240), (300, 900)])
def test_the_square_holds_the_thing_wherever_it_is(share, size):
    side = min(size) // 2
    x, y = ((round((one - side) * share)) for one in size)
    box = crop.square(with_thing(size, (x, y), side), size).box
    left, top, right, bottom = box
    assert right - left == bottom - top == min(size)
    shown = max(0, min(right, x + side) - max(left, x)) * max(
        0, min(bottom, y + side) - max(top, y)
    )
    assert shown >= 0.9 * side * side


@pytest.mark.parametrize("size", [(640, 640), (641, 640), (900, 300)])
def test_without_anything_that_stands_out_it_is_the_middle(size):
    left, top, right, _ = crop.square(Image.new("RGB", size, "navy"), size).box
    assert abs((left + right) - size[0]) <= 1
    assert top == 0


def test_how_much_is_cut_off():
    assert crop.square(Image.new("RGB", (100, 100)), (100, 100)).lost == 0
    assert crop.square(Image.new("RGB", (500, 100)), (500, 100)).lost == 0.8


def test_the_box_is_of_the_whole_picture_though_a_reduced_one_is_looked_at():
    picture = with_thing((1200, 300), (1000, 50), 200)
    whole = crop.square(picture, picture.size).box
    reduced = crop.square(picture.reduce(4), picture.size).box
    assert max(abs(a - b) for a, b in zip(whole, reduced, strict=True)) <= 40


def test_whoever_submits_is_told_what_is_cut_off_and_what_is_enlarged(tmp_path):
    from l2dm.uploads.folder import write_upload

    folder = tmp_path / "mine"
    folder.mkdir()
    for i, size in enumerate(((600, 150), (160, 120), (60, 60))):
        scene(i, size).save(folder / f"{i}.png")
    told: list[str] = []
    place = tmp_path / "up" / "milo"
    write_upload(place, folder, "pets", MILO, SPEC, {}, resolution=64, remark=told.append)
    small, cut = told
    assert "'2.png' (60 x 60)" in small and "enlarged" in small and "0.png" not in small
    assert "'0.png' (75% is cut off)" in cut and "1.png" not in cut
