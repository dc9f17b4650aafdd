"""Pictures as tensors: files <-> uint8, uint8 <-> the [-1, 1] that a VAE reads, and sheets.

A picture is uint8 RGB, (3, H, W); several are (B, 3, H, W). Pillow and torch only: torchvision's
wheel does not load beside a CPU build of torch.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from l2dm.errors import BadDoor, DoesNotFit, WrongShape

__all__ = [
    "from_bytes",
    "load_png",
    "png_bytes",
    "save_png",
    "sheet",
    "stack",
    "to_bytes",
    "to_unit",
]

GAP = 2  # pixels between the pictures of a sheet
WHITE = 255


def load_png(path: Path) -> Tensor:
    """A picture that this project wrote, (3, H, W) uint8. Raises BadDoor when it is unreadable."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return _tensor(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise BadDoor(
            f"expected a PNG picture at {path}, found none that can be read ({error}); "
            "run the step that writes it again"
        ) from error


def save_png(picture: Tensor, path: Path) -> None:
    """Write a picture, (3, H, W) uint8; equal pictures give equal files. The folder must exist."""
    path.write_bytes(png_bytes(picture))


def png_bytes(picture: Tensor, texts: Mapping[str, str] | None = None) -> bytes:
    """A picture, (3, H, W) uint8, as the bytes of a PNG file without time in it.

    texts: text chunks by keyword; without them it holds none.
    """
    _expect(picture, "(3, H, W)", 3)
    height, width = picture.shape[1:]
    pixels = picture.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
    buffer = io.BytesIO()
    chunks = PngInfo()
    for keyword, text in (texts or {}).items():
        chunks.add_text(keyword, text)
    made = Image.frombytes("RGB", (width, height), pixels)
    made.save(buffer, "PNG", compress_level=6, pnginfo=chunks)
    return buffer.getvalue()


def stack(paths: Sequence[Path]) -> Tensor:
    """PNG pictures of one size as (B, 3, H, W) uint8. Raises WrongShape, BadDoor."""
    pictures = [load_png(path) for path in paths]
    shapes = sorted({tuple(picture.shape) for picture in pictures})
    if len(shapes) != 1:
        where = paths[0].parent if paths else "no folder"
        raise WrongShape(
            f"expected one or more pictures of one size, found sizes {shapes} in {where}; "
            "stack only pictures of one door"
        )
    return torch.stack(pictures)


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [-1, 1]; any shape, (...), which stays."""
    if pictures.dtype != torch.uint8:
        raise WrongShape(f"expected uint8 pictures, found {pictures.dtype}; call to_bytes first")
    return pictures.float() / 127.5 - 1.0


def to_bytes(unit: Tensor) -> Tensor:
    """Floats, (...), in [-1, 1] and clamped beyond, to uint8 by rounding. Inverse of `to_unit`.

    Raises DoesNotFit when a value is not finite, because it would turn into an arbitrary colour.
    """
    if not bool(torch.isfinite(unit).all()):
        raise DoesNotFit(
            "expected finite pixels, found NaN or infinity in a drawn picture; the weights "
            "diverged, so learn again with a smaller train.rate"
        )
    # In diffusers' own order of operations, so that both give the same byte at rounding ties.
    return ((unit.float() * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def sheet(pictures: Tensor, columns: int) -> Tensor:
    """Pictures (N, 3, h, w) in reading order as one (3, H, W), white gaps of 2 px between them."""
    _expect(pictures, "(N, 3, h, w)", 4)
    count, _, height, width = pictures.shape
    if count == 0 or columns < 1:
        raise WrongShape(
            f"expected at least one picture and one column, found {count} and {columns}; "
            "leave the sheet out when there is nothing to show"
        )
    columns = min(columns, count)
    rows = -(-count // columns)
    high, wide = rows * (height + GAP) - GAP, columns * (width + GAP) - GAP
    result = torch.full((3, high, wide), WHITE, dtype=torch.uint8)
    for i in range(count):
        top, left = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        result[:, top : top + height, left : left + width] = pictures[i]
    return result


def from_bytes(pictures: Sequence[bytes], side: int) -> Tensor:
    """RGB bytes, (side, side, 3) of each picture, as (B, 3, side, side) uint8."""
    flat = torch.frombuffer(bytearray(b"".join(pictures)), dtype=torch.uint8)
    return flat.view(len(pictures), side, side, 3).permute(0, 3, 1, 2).contiguous()


def _tensor(picture: Image.Image) -> Tensor:
    width, height = picture.size
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(height, width, 3).permute(2, 0, 1).contiguous()  # (3, H, W)


def _expect(pictures: Tensor, axes: str, ndim: int) -> None:
    if pictures.ndim != ndim or pictures.shape[-3] != 3 or pictures.dtype != torch.uint8:
        raise WrongShape(
            f"expected uint8 pictures {axes}, found {pictures.dtype} {tuple(pictures.shape)}; "
            "convert with to_bytes and put the colours before height and width"
        )
