import io

import pytest
import torch
from PIL import Image

from l2dm.errors import BadDoor, DoesNotFit, WrongShape
from l2dm.files import images


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_load_of_save_is_the_same_picture(tmp_path):
    picture = noise(3, 5, 7)
    images.save_png(picture, tmp_path / "a.png")
    assert torch.equal(images.load_png(tmp_path / "a.png"), picture)


def test_channels_and_axes_are_where_they_belong(tmp_path):
    """A 2 x 3 picture, red in row 1, column 2."""
    picture = torch.zeros(3, 2, 3, dtype=torch.uint8)
    picture[0, 1, 2] = 255
    images.save_png(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.size == (3, 2)
        assert opened.getpixel((2, 1)) == (255, 0, 0)
        assert opened.getpixel((1, 1)) == (0, 0, 0)


def test_png_bytes_are_the_same_for_the_same_picture_whatever_its_strides():
    picture = noise(3, 8, 8)
    strided = picture.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert images.png_bytes(picture) == images.png_bytes(strided) == images.png_bytes(picture)
    assert images.png_bytes(picture) != images.png_bytes(noise(3, 8, 8, seed=1))
    assert Image.open(io.BytesIO(images.png_bytes(picture))).info == {}  # no time, no text


def test_stack_keeps_the_order(tmp_path):
    pictures = noise(3, 3, 4, 6)
    for i, picture in enumerate(pictures):
        images.save_png(picture, tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in (2, 0, 1)]
    assert torch.equal(images.stack(paths), pictures[[2, 0, 1]])


def test_stack_refuses_two_sizes_and_none(tmp_path):
    images.save_png(noise(3, 4, 6), tmp_path / "a.png")
    images.save_png(noise(3, 4, 4), tmp_path / "b.png")
    with pytest.raises(WrongShape, match=r"of one size, found sizes \[\(3, 4, 4\), \(3, 4, 6\)\]"):
        images.stack([tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(WrongShape, match=r"found sizes \[\] in no folder"):
        images.stack([])


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n\0\0"])
def test_an_unreadable_file_is_a_bad_door(content, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BadDoor, match=r"expected a PNG picture at .*a.png.*run the step"):
        images.load_png(tmp_path / "a.png")


def test_a_missing_file_is_a_bad_door(tmp_path):
    with pytest.raises(BadDoor, match=r"expected a PNG picture at .*none\.png"):
        images.load_png(tmp_path / "none.png")


def test_unit_range_by_hand():
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8)
    # 51 / 127.5 - 1 = 0.4 - 1
    assert images.to_unit(pictures).tolist() == pytest.approx([-1.0, -0.6, 1.0])
    assert images.to_unit(pictures).dtype == torch.float32


def test_bytes_are_rounded_and_clamped_by_hand():
    # -2 and 2 clamp; 0.5 * 127.5 + 127.5 = 191.25; -0.9 * 127.5 + 127.5 = 12.75
    unit = torch.tensor([-2.0, -0.9, 0.5, 2.0])
    assert images.to_bytes(unit).tolist() == [0, 13, 191, 255]
    assert images.to_bytes(unit).dtype == torch.uint8


def test_every_byte_survives_the_unit_range():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(images.to_bytes(images.to_unit(every)), every)
    assert torch.equal(images.to_bytes(images.to_unit(every).double()), every)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused(value):
    with pytest.raises(DoesNotFit, match=r"expected finite pixels, found NaN or infinity"):
        images.to_bytes(torch.tensor([0.0, value]))


def test_floats_are_not_pictures():
    with pytest.raises(WrongShape, match=r"expected uint8 pictures, found torch.float32"):
        images.to_unit(torch.zeros(3, 4, 4))


def test_sheet_by_hand():
    """Three pictures of 1 x 2 in two columns: 1 + 2 + 1 rows, 2 + 2 + 2 columns."""
    pictures = torch.stack([torch.full((3, 1, 2), i, dtype=torch.uint8) for i in (1, 2, 3)])
    w = 255
    expected = [
        [1, 1, w, w, 2, 2],
        [w, w, w, w, w, w],
        [w, w, w, w, w, w],
        [3, 3, w, w, w, w],
    ]
    assert images.sheet(pictures, columns=2).tolist() == [expected] * 3


def test_sheet_is_not_wider_than_its_pictures():
    pictures = noise(2, 3, 4, 4)
    assert images.sheet(pictures, columns=5).shape == (3, 4, 10)
    assert torch.equal(images.sheet(pictures[:1], columns=5), pictures[0])


def test_sheet_of_nothing_is_refused():
    with pytest.raises(WrongShape, match=r"at least one picture and one column, found 0 and 3"):
        images.sheet(noise(0, 3, 4, 4), columns=3)


@pytest.mark.parametrize(
    ("pictures", "found"),
    [
        (noise(4, 4, 3), r"uint8 \(4, 4, 3\)"),
        (noise(1, 3, 4, 4), r"uint8 \(1, 3, 4, 4\)"),
        (noise(3, 4, 4).float(), r"float32 \(3, 4, 4\)"),
    ],
)
def test_other_axes_are_refused(pictures, found):
    with pytest.raises(WrongShape, match=rf"expected uint8 pictures \(3, H, W\), found .*{found}"):
        images.png_bytes(pictures)


def test_bytes_become_pictures_with_the_colours_in_front():
    rows = [bytes(range(12)), bytes(range(12, 24))]
    pictures = images.from_bytes(rows, 2)
    assert pictures.dtype == torch.uint8
    assert pictures.shape == (2, 3, 2, 2)
    assert pictures[0].permute(1, 2, 0).flatten().tolist() == list(range(12))
    assert pictures[1, :, 1, 1].tolist() == [21, 22, 23]
