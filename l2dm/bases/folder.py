"""Where a base model lies, whether it is one that we can run, and its fingerprint.

One code path for "pocket", a folder and "org/name": each becomes a folder in the layout that
diffusers saves. Loads no torch, so that a wrong base is refused at once. A base in a bucket is a
folder by the time that a step sees it (`components/runtime/base_cache.py`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from safetensors import SafetensorError

from l2dm.bases.family import Family, families
from l2dm.errors import BadBase

_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_FETCHED = ("*.json", "*.txt", "*/*.safetensors", "*/*.model")  # the last: sentencepiece words
_HASHED = {".json", ".txt", ".safetensors", ".model"}
_LIBRARIES = {"diffusers", "transformers"}  # a base may name any module; no other is imported
_BLOCK = 1 << 20
Source = Literal["shipped", "folder", "hub"]


def source_of(name: str) -> Source | None:
    """What a base's name means: the one that ships with us, a folder here, a name on a hub.

    None: nothing that `locate` knows. "pocket" is the shipped one whatever lies in this folder.
    """
    if name == "pocket":
        return "shipped"
    if Path(name).is_dir():
        return "folder"
    return "hub" if name.count("/") == 1 and not name.startswith((".", "/")) else None


def locate(name: str) -> Path:
    """The folder of a base model; hub names are fetched, safetensors only. Raises BadBase."""
    source = source_of(name)
    if source == "shipped":
        from l2dm.pocket import WEIGHTS

        folder = WEIGHTS
    elif source == "folder":
        folder = Path(name)
    elif source == "hub":
        folder = _from_hub(name)
    else:
        raise BadBase(
            f"base model {name!r}: expected 'pocket', a folder in diffusers layout, 'org/name' on "
            "a model hub or, for commands and steps, s3://bucket/prefix; found no such folder"
        )
    check(folder)
    return folder


def check(folder: Path) -> None:
    """Raise BadBase, listing everything that keeps this folder from being a base model."""
    family, misfits = _recognised(_index(folder))
    files = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    fitting = [part for part in family.parts if part.name not in misfits]
    configs = [f"{part.name}/{'' if part.weights else 'tokenizer_'}config.json" for part in fitting]
    problems = [*misfits.values(), *(f"{one} is missing" for one in configs if one not in files)]
    if problems := problems + _unloadable(family, files):
        raise BadBase([f"base model {folder}: {problem}" for problem in problems])


def family_of(folder: Path) -> Family:
    """The family of a base that `check` found nothing against."""
    return _recognised(_index(folder))[0]


def no_index(found: str, advice: str) -> str:
    """The sentence about a base without model_index.json. advice: "pass the folder", or similar."""
    names = " or ".join(family.name for family in families())
    parts = " or ".join(", ".join(f"{name}/" for name in family.weights) for family in families())
    return (
        f"expected model_index.json of a {names} folder as diffusers saves it, found {found}; "
        f"{advice} that holds {parts}"
    )


def unloadable(files: Iterable[str]) -> list[str]:
    """Components without weights that we load, each in a sentence. files: paths in the folder.

    Of the family that the files come nearest to, because a list of names does not say which it is.
    """
    listed = list(files)
    return min((_unloadable(family, listed) for family in families()), key=len)


def fetched(file: str) -> bool:
    """Whether a file of a base that lies elsewhere is fetched, by its path; pickles never are."""
    return any(fnmatchcase(file, pattern) for pattern in _FETCHED)


def import_classes(name: str, *, weights: bool = True) -> None:
    """Import what a base's parts are made of, which takes seconds. Raises BadBase.

    Both libraries import a class when it is first asked for. weights: also of parts that hold any.
    """
    folder = locate(name)
    index = _index(folder)
    for part in family_of(folder).parts:
        library, kind = index[part.name]
        if library in _LIBRARIES and (weights or not part.weights):
            getattr(import_module(library), kind, None)


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Tell what the libraries cannot read of a base. what: "its weights". Raises BadBase."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadBase(
            f"base model {folder}: {what} could not be read: {error}; fetch or copy it again"
        ) from error


def weights_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files of one component."""
    return sorted((folder / part).glob("*.safetensors"))


def variant(folder: Path) -> str | None:
    """'fp16' where the folder ships only half-precision files, else None."""
    names = [path.name for path in weights_files(folder, family_of(folder).denoiser)]
    return "fp16" if names and all(".fp16." in name for name in names) else None


def fingerprint(folder: Path) -> str:
    """Sixteen hex digits that name the weights and configs which decide what a base draws.

    Files up to 64 MiB are hashed whole, larger ones by size, first and last block and 62 blocks
    between, so that a 3 GB base costs a step milliseconds. Paths and times take no part.
    """
    digest = hashlib.sha256()
    for part in (*(part.name for part in family_of(folder).parts), "scheduler"):
        for path in sorted((folder / part).glob("*")):
            if path.suffix in _HASHED and path.is_file():
                digest.update(f"{part}/{path.name}:{path.stat().st_size}\n".encode())
                _hash_file(path, digest)
    return digest.hexdigest()[:16]


def resolution(folder: Path) -> int:
    """Side of the base's pictures in pixels, from the configs of its parts."""
    family = family_of(folder)
    return family.resolution(
        {name: _read_json(folder / name / "config.json") or {} for name in family.weights}
    )


def recommended(folder: Path) -> dict[str, Any]:
    """What the base says about sampling: {"steps": int, "guidance": float}."""
    return {"steps": 30, "guidance": 7.5} | (_read_json(folder / "sampling.json") or {})


def _index(folder: Path) -> dict[str, Any]:
    index = _read_json(folder / "model_index.json")
    if index is None:
        raise BadBase(f"base model {folder}: {no_index('none', 'pass the folder')}")
    return index


def _recognised(index: dict[str, Any]) -> tuple[Family, dict[str, str]]:
    """The family that an index fits, or the nearest one, and what speaks against it by part."""

    def distance(found: tuple[Family, dict[str, str]]) -> tuple[bool, bool, int]:
        family, misfits = found
        return bool(misfits), family.pipeline != index.get("_class_name"), len(misfits)

    return min(((family, _misfits(family, index)) for family in families()), key=distance)


def _misfits(family: Family, index: dict[str, Any]) -> dict[str, str]:
    """Parts of an index that are another family's, each with a sentence."""
    expected = {part.name: " or ".join(sorted(part.classes)) for part in family.parts}
    expected |= dict.fromkeys(sorted(family.without), "none")
    allowed = {part.name: part.classes for part in family.parts}
    known = ", ".join(one.name for one in families())
    return {
        name: f"{name} is {found or 'missing'}, expected {wanted}; only {known} architectures are "
        "supported"
        for name, wanted in expected.items()
        if (found := _class_of(index.get(name))) not in allowed.get(name, {None})
    }


def _class_of(entry: object) -> str | None:
    """The class that an index names for a part, if it has that part."""
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _unloadable(family: Family, files: Iterable[str]) -> list[str]:
    names: dict[str, list[PurePosixPath]] = {part: [] for part in family.weights}
    for path in map(PurePosixPath, files):
        if len(path.parts) == 2 and path.parts[0] in names:
            names[path.parts[0]].append(path)
    return [problem for part in names for problem in _weights(part, names[part])]


def _weights(part: str, files: Sequence[PurePosixPath]) -> list[str]:
    if any(path.suffix == ".safetensors" for path in files):
        return []
    pickled = sorted(path.name for path in files if path.suffix in _PICKLED)
    if pickled:
        return [
            f"{part}/ holds only pickled weights ({', '.join(pickled)}), which can run code when "
            "they are loaded; convert them to safetensors"
        ]
    return [f"{part}/ holds no safetensors file"]


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FETCHED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BadBase(
            f"base model {name!r}: no such folder here and the hub did not give it "
            f"({type(error).__name__}); check the name, or download it and pass the folder"
        ) from error


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadBase(f"base model: {path} is not JSON ({error})") from error
    return content if isinstance(content, dict) else None


def _hash_file(path: Path, digest: "hashlib._Hash") -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= 64 * _BLOCK:
            digest.update(file.read())
            return
        for block in range(64):
            file.seek(block * (size - _BLOCK) // 63)
            digest.update(file.read(_BLOCK))
