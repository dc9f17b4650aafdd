"""What a safetensors file says of itself: names, types and shapes, held against its size."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from l2dm.errors import BadBase

MAX_HEADER = 8 << 20  # bytes; that of Stable Diffusion's UNet has 90 kB
MAX_TENSORS = 10_000  # of one file; that UNet has 686
MAX_AXES = 8
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
COUNTS = {"I64": 8, "I32": 4, "U8": 1, "BOOL": 1}  # buffers of old files: positions, masks
POSITIONS = (".position_ids", ".attention_mask", ".num_batches_tracked")
_PREFIX = 8  # bytes that say how long the header is


class DeclaredTensor(NamedTuple):
    """A tensor as a file declares it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_header(path: Path, name: str) -> dict[str, DeclaredTensor]:
    """Every tensor of a file. name: for messages. Raises BadBase for a cut file or a false header.

    Nothing of the tensors is read.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(_PREFIX), "little")
            if size < _PREFIX or length > size - _PREFIX:
                raise BadBase(f"{name} is cut off: {size:,} bytes, its header is not whole")
            if length > MAX_HEADER:
                raise BadBase(
                    f"{name}: expected a header up to {MAX_HEADER:,} bytes, found {length:,}"
                )
            text = file.read(length)
        content = json.loads(text, object_pairs_hook=_once)
    except OSError as error:
        raise BadBase(f"{name} could not be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadBase(f"{name}: its header is no JSON of safetensors") from error
    if not isinstance(content, dict):
        raise BadBase(f"{name}: its header is no JSON object")
    content.pop("__metadata__", None)
    return _tensors(content, name, size - _PREFIX - length)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _tensors(content: Mapping[str, Any], name: str, room: int) -> dict[str, DeclaredTensor]:
    if not content or len(content) > MAX_TENSORS:
        raise BadBase(f"{name}: expected 1 to {MAX_TENSORS:,} tensors, found {len(content):,}")
    found, spans = dict[str, DeclaredTensor](), list[tuple[int, int]]()
    for key, entry in content.items():
        found[key], span = _tensor(entry, f"{name}: tensor {key[:80]!r}", key)
        spans.append(span)
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise BadBase(
                f"{name}: its header lies: tensors overlap or leave holes at byte {end:,}"
            )
        end = stop
    if end != room:
        raise BadBase(
            f"{name} is cut off or lies: its header names {end:,} bytes, it holds {room:,}"
        )
    return found


def _tensor(entry: Any, what: str, key: str) -> tuple[DeclaredTensor, tuple[int, int]]:
    try:
        dtype, shape, (begin, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise BadBase(f"{what}: expected dtype, shape and data_offsets, found others") from error
    sizes = [begin, stop, *shape]
    if len(shape) > MAX_AXES or not all(type(one) is int and 0 <= one < 1 << 48 for one in sizes):
        raise BadBase(f"{what}: expected sizes that are whole numbers, found others")
    wide = FLOATS.get(dtype) if isinstance(dtype, str) else None
    if wide is None and key.endswith(POSITIONS) and isinstance(dtype, str):
        wide = COUNTS.get(dtype)
    if wide is None:
        raise BadBase(
            f"{what}: expected floating point ({', '.join(FLOATS)}), found {str(dtype)[:20]!r}; "
            "quantised weights are not read, use the model that they were made from"
        )
    stored = DeclaredTensor(dtype, shape)
    if stored.numbers * wide != stop - begin:
        raise BadBase(
            f"{what}: its header lies: {list(shape)} of {dtype} needs {stored.numbers * wide:,} "
            f"bytes, found {stop - begin:,}"
        )
    return stored, (begin, stop)
