"""Files of a base as somebody else may have made them: no links out, no pipes, JSON with limits."""

import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from l2dm import escape
from l2dm.errors import BadBase

MAX_CONFIG = 1 << 20  # bytes of a config; those of real bases have 1 to 5 kB
MAX_WORDS = 8 << 20  # bytes of a tokenizer's file; CLIP's has 2 MB, T5's 2.4 MB
MAX_ENTRIES = 2000  # files of one folder
MAX_DEPTH = 16  # brackets within brackets of a config
MAX_NUMBER = 1 << 20  # of any size in a config; a vocabulary of words is the largest of them
MAX_LAYERS = 128  # of one kind
CODE = {".py", ".pyc", ".so", ".pyd", ".dll", ".dylib"}
TEXT = {".json", ".txt", ".model"}
ENDLESS = {"lambda_min_clipped"}  # what diffusers itself writes as -Infinity
KERNELS = {"eager", "sdpa", "flash_attention_2", "flex_attention"}  # any other name is fetched


class Files:
    """A base's folder. Names are relative to it, with `/`; every method raises BadBase."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = Path(os.path.realpath(folder))
        # the cache of a hub: its snapshots hold links to the files of all revisions
        hub = self._root.parent.name == "snapshots"
        self._blobs = self._root.parent.parent / "blobs" if hub else None
        self._inside: dict[str, bool] = {}  # by folder: a link is seldom one
        self._configs: dict[str, dict[str, Any]] = {}

    def names(self, part: str) -> list[str]:
        """What lies in a part's folder, sorted; nothing when it is not there."""
        place = self.folder / part
        try:
            self._require_inside(part)
            found = sorted(os.listdir(place))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise BadBase(f"{part}/ could not be read: {error.strerror or error}") from error
        if len(found) > MAX_ENTRIES:
            raise BadBase(f"{part}/: expected at most {MAX_ENTRIES} files, found {len(found):,}")
        return found

    def has(self, name: str) -> bool:
        """Whether something of this name is there, whatever it is."""
        return os.path.lexists(self.folder / name)

    def file(self, name: str, limit: int | None = None) -> Path:
        """The path of a plain file that does not lie elsewhere and has at most `limit` bytes."""
        path = self.folder / name
        try:
            self._require_inside(name)
            found = path.stat()
        except FileNotFoundError as error:
            raise BadBase(f"{name} is missing") from error
        except OSError as error:
            raise BadBase(f"{name} could not be read: {error.strerror or error}") from error
        if not stat.S_ISREG(found.st_mode):
            raise BadBase(f"{name}: expected a plain file, found {_kind(found.st_mode)}")
        if limit is not None and found.st_size > limit:
            raise BadBase(f"{name}: expected at most {limit:,} bytes, found {found.st_size:,}")
        return path

    def json(self, name: str, limit: int = MAX_CONFIG) -> dict[str, Any]:
        """A file that holds one JSON object; numbers and depth are within reason."""
        try:
            content = json.loads(self.file(name, limit).read_bytes())
        except OSError as error:
            raise BadBase(f"{name} could not be read: {error.strerror or error}") from error
        except RecursionError as error:
            raise BadBase(f"{name}: expected JSON, found brackets without end") from error
        except ValueError as error:  # no JSON, no UTF-8, or a number of 5,000 digits
            raise BadBase(f"{name} is not JSON ({_short(str(error))})") from error
        if not isinstance(content, dict):
            raise BadBase(f"{name}: expected a JSON object, found {type(content).__name__}")
        return content

    def config(self, name: str) -> dict[str, Any]:
        """The same for the config of a part: no code, nothing quantised, numbers within reason."""
        if name not in self._configs:
            content = self.json(name)
            if problems := list(_unreasonable(name, content)):
                raise BadBase(problems)
            self._configs[name] = content
        return self._configs[name]

    def require_plain(self, part: str) -> None:
        """Every file of a part that somebody may read is one, and none is code or an adapter."""
        problems: list[str] = []
        for file in self.names(part):
            name = f"{part}/{file}"
            if Path(file).suffix in CODE:
                problems.append(f"{name} is code; a base holds weights and words only, remove it")
            elif file == "adapter_config.json":
                problems.append(f"{name} names an adapter over other weights; merge or remove it")
            elif not (self.folder / name).is_dir():
                limit = MAX_WORDS if Path(file).suffix in TEXT else None
                problems += problems_of(self.file, name, limit)
        if problems:
            raise BadBase(problems)

    def _require_inside(self, name: str) -> None:
        place, _, _ = name.rpartition("/")
        if place not in self._inside:
            self._inside[place] = not place or self._is_inside(place)
        linked = os.path.islink(self.folder / name)
        if self._inside[place] and (not linked or self._is_inside(name)):
            return
        raise BadBase(
            f"{name}: expected a file of this folder, found a link that leads out of it; "
            "copy what it leads to"
        )

    def _is_inside(self, name: str) -> bool:
        found = Path(os.path.realpath(self.folder / name))
        return found.is_relative_to(self._root) or (
            self._blobs is not None and found.is_relative_to(self._blobs)
        )


def problems_of(look: Callable[..., object], *arguments: Any) -> list[str]:
    """What a look at a base finds, as sentences: BadBase, and values that it stumbles over."""
    try:
        look(*arguments)
    except BadBase as error:
        return list(error.problems)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return [f"expected configs as the libraries save them, found others ({_short(error)})"]
    return []


def unreadable(what: str, detail: str) -> str:
    """The sentence about a part that is damaged. what: "its weights", "its clip/"."""
    return f"{what} could not be read: {detail}; fetch or copy it again"


def _unreasonable(name: str, content: dict[str, Any]) -> Iterator[str]:
    for path, value, depth in _walk(content):
        key = next((one for one in reversed(path) if not one.isdecimal()), "")
        where = f"{name}: {'.'.join(path)}"
        if depth > MAX_DEPTH:
            yield f"{name}: expected at most {MAX_DEPTH} brackets within brackets, found more"
            return
        if key == "auto_map" or key == "custom_pipelines":
            yield f"{where} names code of its own, which is never run; use a model without"
            return
        if key == "quantization_config" and value is not None:
            yield (
                f"{where}: expected weights in floating point, found quantised ones; "
                "use the model that they were made from"
            )
            return
        if key.endswith("attn_implementation") and value not in {None, *KERNELS}:
            yield f"{where} names code to be fetched, {_short(value)!r}; remove the line"
        if problem := _number_problem(key, value):
            yield f"{where}: {problem}"


def _number_problem(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return "" if key in ENDLESS else f"expected a number, found {value}"
    limit = MAX_LAYERS if "layers" in key or "depth" in key else MAX_NUMBER
    if abs(value) > limit:
        return f"expected at most {limit:,}, found {_short(value)}"
    return ""


def _walk(content: Any) -> Iterator[tuple[tuple[str, ...], Any, int]]:
    """Every value of a config with the keys that lead to it, and how deep it lies."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        path, value = waiting.pop()
        if path:
            yield path, value, len(path)
        if len(path) > MAX_DEPTH:
            continue
        if isinstance(value, dict):
            waiting += [((*path, str(key)), one) for key, one in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, str(index)), one) for index, one in enumerate(value)]


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _short(value: Any) -> str:
    """A value of a strange file, for a message. Long integers have no decimal digits in time."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"one of {value.bit_length():,} bits"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return escape.shortened(text, 80)
