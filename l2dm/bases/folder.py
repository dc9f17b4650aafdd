"""Where a base model lies, whether it is one that we can run, and its fingerprint.

One code path for "pocket", a folder and "org/name": each becomes a folder in the layout that
diffusers saves. Standard library only, so that a wrong base is refused before torch is loaded.
A base in a bucket is a folder by the time that a step sees it (`components/bases.py`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from l2dm.errors import BadBase

_COMPONENTS = {
    "unet": {"UNet2DConditionModel"},
    "vae": {"AutoencoderKL"},
    "text_encoder": {"CLIPTextModel"},
    "tokenizer": {"CLIPTokenizer", "CLIPTokenizerFast"},
}
_WEIGHTS = ("unet", "vae", "text_encoder")
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
_FETCHED = ("*.json", "*.txt", "*/*.safetensors")
_BLOCK = 1 << 20


def locate(name: str) -> Path:
    """The folder of a base model; hub names are fetched, safetensors only. Raises BadBase."""
    if name == "pocket":
        from l2dm.pocket import WEIGHTS

        folder = WEIGHTS
    elif Path(name).is_dir():
        folder = Path(name)
    elif name.count("/") == 1 and not name.startswith((".", "/")):
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
    index = _read_json(folder / "model_index.json")
    if index is None:
        raise BadBase(
            f"base model {folder}: expected model_index.json of a Stable Diffusion folder as "
            "diffusers saves it, found none; pass the folder that holds unet/, vae/, text_encoder/"
        )
    problems = [problem for part in _COMPONENTS for problem in _component(folder, index, part)]
    problems += unloadable(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
    if problems:
        raise BadBase([f"base model {folder}: {problem}" for problem in problems])


def unloadable(files: Iterable[str]) -> list[str]:
    """Components without weights that we load, each in a sentence. files: paths in the folder."""
    names: dict[str, list[PurePosixPath]] = {part: [] for part in _WEIGHTS}
    for path in map(PurePosixPath, files):
        if len(path.parts) == 2 and path.parts[0] in names:
            names[path.parts[0]].append(path)
    return [problem for part in _WEIGHTS for problem in _weights(part, names[part])]


def fetched(file: str) -> bool:
    """Whether a file of a base that lies elsewhere is fetched, by its path; pickles never are."""
    return any(fnmatchcase(file, pattern) for pattern in _FETCHED)


def weights_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files of one component."""
    return sorted((folder / part).glob("*.safetensors"))


def variant(folder: Path) -> str | None:
    """'fp16' where the folder ships only half-precision files, else None."""
    names = [path.name for path in weights_files(folder, "unet")]
    return "fp16" if names and all(".fp16." in name for name in names) else None


def fingerprint(folder: Path) -> str:
    """Sixteen hex digits that name the weights and configs which decide what a base draws.

    Files up to 64 MiB are hashed whole, larger ones by size, first and last block and 62 blocks
    between, so that a 3 GB base costs a step milliseconds. Paths and times take no part.
    """
    digest = hashlib.sha256()
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        for path in sorted((folder / part).glob("*")):
            if path.suffix in {".json", ".txt", ".safetensors"} and path.is_file():
                digest.update(f"{part}/{path.name}:{path.stat().st_size}\n".encode())
                _hash_file(path, digest)
    return digest.hexdigest()[:16]


def resolution(folder: Path) -> int:
    """Side of the base's pictures in pixels: the noise predictor's, times the factor of the vae."""
    unet, vae = (_read_json(folder / part / "config.json") or {} for part in ("unet", "vae"))
    return int(unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1))


def recommended(folder: Path) -> dict[str, Any]:
    """What the base says about sampling: {"steps": int, "guidance": float}."""
    return {"steps": 30, "guidance": 7.5} | (_read_json(folder / "sampling.json") or {})


def _component(folder: Path, index: dict[str, Any], part: str) -> list[str]:
    entry = index.get(part)
    name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
    if name not in _COMPONENTS[part]:
        wanted = " or ".join(sorted(_COMPONENTS[part]))
        return [
            f"{part} is {name or 'missing'}, expected {wanted}; only Stable Diffusion 1.x and 2.x "
            "architectures are supported"
        ]
    config = "config.json" if part in _WEIGHTS else "tokenizer_config.json"
    return [] if (folder / part / config).is_file() else [f"{part}/{config} is missing"]


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
