"""Where a base model lies, whether it is one that we can run, and its fingerprint.

One code path for "pocket", a folder and "org/name": each becomes a folder in the layout that
diffusers saves. Loads no torch, so that a wrong base is refused at once. A base in a bucket is a
folder by the time that a step sees it (`components/runtime/base_cache.py`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from l2dm.bases.checks import encoders as encoder_checks
from l2dm.bases.checks.files import Files, problems_of, unreadable
from l2dm.bases.checks.scheduler import KNOWN, require_advice, require_scheduler
from l2dm.bases.checks.weights import header_of
from l2dm.bases.family import Family, Part, families
from l2dm.errors import BadBase, L2dmError

_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_FETCHED = ("*.json", "*.txt", "*/*.safetensors", "*/*.model")  # the last: sentencepiece words
_HASHED = {".json", ".txt", ".safetensors", ".model"}
_LIBRARIES = {"diffusers", "transformers"}  # a base may name any module; no other is imported
_WORDS = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
_INDEX = "model_index.json"
_BLOCK = 1 << 20
_SMALLEST, _LARGEST = 8, 2048  # side of a base's pictures in pixels
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
        folder = from_hub(name)
    else:
        raise BadBase(
            f"base model {name!r}: expected 'pocket', a folder in diffusers layout, 'org/name' on "
            "a model hub or, for commands and steps, s3://bucket/prefix; found no such folder"
        )
    check(folder)
    return folder


def check(folder: Path) -> None:
    """Raise BadBase, listing everything that keeps this folder from being a base model.

    Configs, headers and what lies beside them are read; nothing is loaded. What the headers name
    is held against the networks that the configs describe by `require_tensors`.
    """
    require_outline(folder)
    files, index = Files(folder), _index(folder)
    family = family_of(folder)
    problems = problems_of(_require_index, family, index)
    for part in family.parts:
        problems += problems_of(_require_part, files, part)
    if not problems:
        for part in family.parts:
            problems += problems_of(_require_whole, files, part, index[part.name][0])
        problems += problems_of(require_scheduler, files, family.predictions)
        problems += problems_of(require_advice, files)
    if not problems:
        problems = problems_of(_require_fitting, folder, files, family)
    if problems:
        raise _named(folder, problems)


def require_outline(folder: Path) -> None:
    """Raise BadBase for parts of another architecture, or without config or safetensors."""
    files = Files(folder)
    family, misfits = _recognised(_index(folder))
    fitting = [part for part in family.parts if part.name not in misfits]
    configs = [f"{part.name}/{'' if part.weights else 'tokenizer_'}config.json" for part in fitting]
    problems = [*misfits.values(), *(f"{one} is missing" for one in configs if not files.has(one))]
    unlisted = problems_of(_listed, files, family)
    if problems := problems + (unlisted or _unloadable(family, _listed(files, family))):
        raise _named(folder, problems)


def require_encoders(folder: Path) -> None:
    """Raise BadBase when `clip/` or `identity/` is missing, or cannot be what it should.

    Who learns and who checks needs both; who draws needs none.
    """
    if problems := problems_of(encoder_checks.require_encoders, Files(folder)):
        raise BadBase([f"base model {folder}: {problem}" for problem in problems])


def without_encoders(files: Iterable[str]) -> list[str]:
    """What `require_encoders` says of a base whose files, paths in its folder, lie elsewhere."""
    return list(encoder_checks.absent(files))


def require_tensors(name: str, parts: Mapping[str, tuple[str, str]], half: str | None) -> None:
    """Raise BadBase, naming tensors that are missing, unexpected or of another shape.

    name: what `locate` takes; the shipped base was compared when it was made. parts: library and
    class by the part's name. half: "fp16" or None. Loads torch and the classes.
    """
    if source_of(name) == "shipped":
        return
    from l2dm.bases.checks.tensors import require_tensors as require

    folder = locate(name)
    files = Files(folder)
    for part, (library, kind) in parts.items():
        with reading(folder, f"its {part}/"):
            require(files, part, library, kind, half)


def classes(folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class of every part with weights, of a base that `check` accepted."""
    index = _index(folder)
    return {name: (index[name][0], index[name][1]) for name in family_of(folder).weights}


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
    except L2dmError as error:
        if not isinstance(error, BadBase):
            raise
        raise _named(folder, error.problems) from error
    except Exception as error:  # libraries raise whatever a strange config leads them to
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:400]
        raise BadBase(f"base model {folder}: {unreadable(what, first)}") from error


def _named(folder: Path, problems: Sequence[str]) -> BadBase:
    """Each problem with the folder in front of it, once."""
    name = f"base model {folder}: "
    return BadBase([name + problem.removeprefix(name) for problem in problems])


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
    with reading(folder, "the size of its pictures"):
        return family.resolution(_configs(Files(folder), family))


def lora_header(folder: Path, prediction: str) -> Mapping[str, str]:
    """What a LoRA file's header says of this base. prediction: what its denoiser predicts."""
    family = family_of(folder)
    return family.lora_header(_configs(Files(folder), family), prediction)


def recommended(folder: Path) -> dict[str, Any]:
    """What the base says about sampling: {"steps": int, "guidance": float}."""
    files = Files(folder)
    advice = files.json("sampling.json") if files.has("sampling.json") else {}
    return {"steps": 30, "guidance": 7.5} | advice


def _index(folder: Path) -> dict[str, Any]:
    files = Files(folder)
    if not files.has(_INDEX):
        raise BadBase(f"base model {folder}: {no_index('none', 'pass the folder')}")
    try:
        index = files.json(_INDEX)
        for name in index:
            if not name.isidentifier():
                raise BadBase(f"{_INDEX}: expected names of parts, found {name[:80]!r}")
    except BadBase as error:
        raise BadBase([f"base model {folder}: {problem}" for problem in error.problems]) from error
    return index


def _require_index(family: Family, index: Mapping[str, Any]) -> None:
    """A pipeline and a scheduler that we know, and no module of its own."""
    if odd := [name for name in (part.name for part in family.parts) if _is_foreign(index[name])]:
        raise BadBase(
            f"{odd[0]} is of the module {str(index[odd[0]][0])[:80]!r}, expected diffusers or "
            "transformers; code of its own is never run"
        )
    kind = index.get("_class_name", family.pipeline)
    if kind != family.pipeline:
        raise BadBase(
            f"{_INDEX} names the pipeline {str(kind)[:80]!r}, expected {family.pipeline}; save the "
            "model as that one"
        )
    scheduler = _class_of(index.get("scheduler"))
    if scheduler is not None and scheduler not in KNOWN:
        raise BadBase(f"{_INDEX} names the scheduler {str(scheduler)[:80]!r}, which is not known")


def _is_foreign(entry: Sequence[Any]) -> bool:
    return entry[0] not in tuple(_LIBRARIES)


def _require_part(files: Files, part: Part) -> None:
    """Configs that can be read and describe no code, and nothing but plain files beside them."""
    files.require_plain(part.name)
    files.config(f"{part.name}/{'' if part.weights else 'tokenizer_'}config.json")


def _require_whole(files: Files, part: Part, library: str) -> None:
    """Headers of the weights, or the words of a tokenizer."""
    if part.weights:
        half = variant(files.folder)
        header = problems_of(header_of, files, part.name, library, half)
        if header:
            raise BadBase([unreadable("its weights", one) for one in header])
    elif not any(files.has(f"{part.name}/{name}") for name in _WORDS):
        raise BadBase(f"{part.name}/: expected one of {', '.join(_WORDS)}, found none")


def _require_fitting(folder: Path, files: Files, family: Family) -> None:
    """Parts that work together, for pictures of a size within reason."""
    with reading(folder, "its configs"):
        if problems := list(family.misfits(_configs(files, family))):
            raise BadBase(problems)
        side = family.resolution(_configs(files, family))
    if not _SMALLEST <= side <= _LARGEST:
        found = f"{side:,}"[:40]
        raise BadBase(f"expected pictures of {_SMALLEST} to {_LARGEST} pixels, found {found}")


def _configs(files: Files, family: Family) -> dict[str, dict[str, Any]]:
    return {
        part.name: files.config(f"{part.name}/{'' if part.weights else 'tokenizer_'}config.json")
        for part in family.parts
    }


def _listed(files: Files, family: Family) -> list[str]:
    """What lies in the folders that hold weights."""
    return [f"{part}/{name}" for part in family.weights for name in files.names(part)]


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
    if not isinstance(entry, list) or len(entry) != 2 or entry[1] is None:
        return None
    return str(entry[1])[:80]


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


def from_hub(name: str, *, root: bool = False) -> Path:
    """The folder of a name on the hub, safetensors only. Raises BadBase.

    root: also weights that lie in no folder of their own, as those of an encoder.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_FETCHED, *(("*.safetensors", "*.model") if root else ())]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BadBase(
            f"base model {name!r}: no such folder here and the hub did not give it "
            f"({type(error).__name__}); check the name, or download it and pass the folder"
        ) from error


def _hash_file(path: Path, digest: "hashlib._Hash") -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= 64 * _BLOCK:
            digest.update(file.read())
            return
        for block in range(64):
            file.seek(block * (size - _BLOCK) // 63)
            digest.update(file.read(_BLOCK))
