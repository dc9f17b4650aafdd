"""A base folder put together: the parts that draw from one place, the encoders from another."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from l2dm.bases import folder as base_folder
from l2dm.bases.checks.encoders import VISION
from l2dm.bases.checks.files import Files
from l2dm.bases.checks.weights import files_of
from l2dm.errors import BadBase

CLIP = "openai/clip-vit-large-patch14"  # where a base brings no clip/ of its own
IDENTITY = "facebook/dinov2-small"  # the same for identity/
DEFAULTS = {"clip": CLIP, "identity": IDENTITY}
_BESIDE = {".json", ".txt", ".model"}
_OWN, _WORDS = "its own", "tokenizer_config.json"
_OPTIONAL = ("sampling.json", "domain.json")


@dataclass(frozen=True)
class BaseOrigin:
    """Where the parts of a base came from, without paths of this machine."""

    base: str
    clip: str
    identity: str


def put_together(source: str, encoders: Sequence[str], like: str, out: Path) -> BaseOrigin:
    """Copy or convert a base into the folder `out`, with encoders, and check it all.

    source: a diffusers folder, a name on a hub, or a .safetensors file. encoders: folders or hub
    names of a CLIPModel, of a vision model, or of bases that hold either; those of the source, or
    DEFAULTS, where none is named. like: of a single file, a base with the configs and words that it
    lacks; "" asks the hub. Raises BadBase; `out` may be half then.
    """
    if is_single_file(source):
        from l2dm.bases.adding import single_file

        single_file.convert(Path(source), like, out)
        own = Path(like) if base_folder.source_of(like) == "folder" else None
    else:
        own = base_folder.locate(source)
        _copy_base(own, out)
    chosen = _encoders(encoders, own)
    origins = {part: _copy_encoder(part, *chosen[part], out) for part in DEFAULTS}
    base_folder.check(out)
    base_folder.require_encoders(out)
    return BaseOrigin(_name_of(source), origins["clip"], origins["identity"])


def is_single_file(source: str) -> bool:
    """Whether a base is named as one checkpoint; another kind of file is refused by `locate`."""
    return source.endswith(".safetensors") and not Path(source).is_dir()


def _copy_base(folder: Path, out: Path) -> None:
    """What we read of a base and nothing else of its folder."""
    files, family = Files(folder), base_folder.family_of(folder)
    half = base_folder.variant(folder)
    wanted = ["model_index.json", *(name for name in _OPTIONAL if files.has(name))]
    wanted += _beside(files, "scheduler")
    for part, (library, _) in base_folder.classes(folder).items():
        wanted += [*files_of(files, part, library, half), *_beside(files, part)]
    wanted += [
        name for part in family.parts if not part.weights for name in _beside(files, part.name)
    ]
    _copy(files, wanted, out)


def _encoders(named: Sequence[str], own: Path | None) -> dict[str, tuple[Path, str, str]]:
    """For each part the folder it is in, the folder's name there, and what to call it."""
    found: dict[str, tuple[Path, str, str]] = {}
    for one in named:
        folder = _encoder_folder(one)
        parts = _parts_of(folder)
        if not parts:
            raise BadBase(
                f"encoders {one}: expected a CLIPModel, a vision model "
                f"({', '.join(sorted(VISION))}), or a folder with clip/ or identity/ of those; "
                "found none"
            )
        found = {part: (folder, place, _name_of(one)) for part, place in parts.items()} | found
    for part, default in DEFAULTS.items():
        if part not in found and own is not None and part in _parts_of(own):
            found[part] = (own, part, _OWN)
        if part not in found:
            found[part] = (_default_folder(part, default), "", default)
    return found


def _parts_of(folder: Path) -> dict[str, str]:
    """Which encoders a folder holds: as clip/ and identity/, or it is one itself."""
    files = Files(folder)
    parts = {part: part for part in DEFAULTS if files.has(f"{part}/config.json")}
    if parts or not files.has("config.json"):
        return parts
    kind = files.config("config.json").get("model_type")
    if kind == "clip":
        return {"clip": ""}
    return {"identity": ""} if isinstance(kind, str) and kind in VISION else {}


def _encoder_folder(name: str) -> Path:
    source = base_folder.source_of(name)
    if source == "folder":
        return Path(name)
    if source == "shipped":
        return base_folder.locate(name)
    if source == "hub":
        return base_folder.from_hub(name, root=True)
    raise BadBase(
        f"encoders {name!r}: expected a folder or org/name on a hub, found no such folder"
    )


def _default_folder(part: str, default: str) -> Path:
    try:
        return base_folder.from_hub(default, root=True)
    except BadBase as error:
        raise BadBase(
            f"expected {part}/ beside the base or a hub that gives {default}, found neither; pass "
            f"--encoders FOLDER with one that is on this machine ({error})"
        ) from error


def _copy_encoder(part: str, folder: Path, place: str, name: str, out: Path) -> str:
    """Copy an encoder's config, words and weights as `part`. Returns what to call it."""
    inside = Files(folder / place if place else folder)
    wanted = [*_beside(inside, ""), *_weights_of(inside)]
    if part == "identity" and inside.has("distractors.safetensors"):
        wanted.append("distractors.safetensors")
    _copy(inside, wanted, out / part)
    if part == "clip" and name != _OWN and not inside.has(_WORDS):
        _copy_words(Files(folder), name, out)
    return name


def _copy_words(files: Files, name: str, out: Path) -> None:
    """A clip/ without words of its own reads with those of the base that it was taken from."""
    if not files.has(f"tokenizer/{_WORDS}"):
        raise BadBase(
            f"encoders {name}: expected the words of its CLIPModel ({_WORDS}), found none"
        )
    words = Files(files.folder / "tokenizer")
    _copy(words, _beside(words, ""), out / "clip")


def _weights_of(files: Files) -> list[str]:
    return [name.removeprefix("./") for name in files_of(files, ".", "transformers", None)]


def _beside(files: Files, part: str) -> list[str]:
    """Configs and words of a part."""
    names = [name for name in files.names(part or ".") if Path(name).suffix in _BESIDE]
    prefix = f"{part}/" if part else ""
    return [f"{prefix}{name}" for name in names if not name.startswith(".")]


def _copy(files: Files, names: Sequence[str], out: Path) -> None:
    for name in dict.fromkeys(names):
        to = out / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files.file(name), to)


def _name_of(source: str) -> str:
    return source if base_folder.source_of(source) == "hub" else Path(source).resolve().name
