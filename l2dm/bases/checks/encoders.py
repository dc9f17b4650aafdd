"""The two encoders of a base that look at pictures: `clip/` and `identity/`."""

from collections.abc import Iterable, Iterator
from typing import Any

from l2dm.bases.checks.files import MAX_WORDS, Files, problems_of, unreadable
from l2dm.bases.checks.headers import FLOATS, read_header
from l2dm.bases.checks.weights import header_of
from l2dm.errors import BadBase

VISION = frozenset({
    "beit", "convnext", "convnextv2", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit",
    "resnet", "swin", "vit",
})  # fmt: skip
"""What `identity/` may be, by `model_type`: vision models that answer with one vector a picture."""
CONFIGS = {"clip/config.json": "CLIPModel", "identity/config.json": "vision model such as DINO"}
FIXED = frozenset({"clip", "deit", "vit"})  # read pictures of the size that they were trained on
MAX_SIDE = 1024  # pixels that an encoder reads
WORDS = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt")
_COLOURS = 3


def require_encoders(files: Files) -> None:
    """Raise BadBase when a base lacks encoders, or one of them cannot be what it should."""
    problems = list(absent(name for name in CONFIGS if files.has(name)))
    for part in (name.partition("/")[0] for name in CONFIGS if files.has(name)):
        found = problems_of(_require_encoder, files, part)
        problems += [unreadable(f"its {part}/", one) for one in found]
    if problems:
        raise BadBase(problems)


def absent(names: Iterable[str]) -> Iterator[str]:
    """The sentence about each encoder that a base lacks. names: what is in its folder."""
    there = set(names)
    for name, what in CONFIGS.items():
        if name not in there:
            yield (
                f"expected {name.partition('/')[0]}/ with a {what} in safetensors, found none; "
                "put it there, or add the base with `l2dm base add`, which does"
            )


def identity_width(config: dict[str, Any]) -> int:
    """Length of the vector that an identity encoder answers with."""
    if config.get("model_type") == "swin":
        depths = config.get("depths") or [1] * 4
        return int(config.get("embed_dim", 96) * 2 ** (len(depths) - 1))
    sizes = config.get("hidden_sizes")
    return int(sizes[-1]) if sizes else int(config.get("hidden_size", 768))


def _require_encoder(files: Files, part: str) -> None:
    files.require_plain(part)
    config = files.config(f"{part}/config.json")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in (VISION if part == "identity" else {"clip"}):
        wanted = ", ".join(sorted(VISION)) if part == "identity" else "clip"
        raise BadBase(f"model_type is {str(kind)[:80]!r}, expected {wanted}")
    header_of(files, part, "transformers")
    vision = config.get("vision_config", {}) if part == "clip" else config
    if not isinstance(vision, dict) or vision.get("num_channels", _COLOURS) != _COLOURS:
        raise BadBase("expected a model of pictures with three colours")
    trained = vision.get("image_size", 224) if kind in FIXED else None
    _require_preprocessing(files, f"{part}/preprocessor_config.json", trained)
    for name in WORDS:
        if files.has(f"{part}/{name}"):
            files.file(f"{part}/{name}", MAX_WORDS)
    if files.has(f"{part}/tokenizer_config.json"):
        files.config(f"{part}/tokenizer_config.json")
    if part == "identity" and files.has("identity/distractors.safetensors"):
        _require_distractors(files, config)


def _require_preprocessing(files: Files, name: str, trained: Any) -> None:
    config = files.config(name) if files.has(name) else {}
    side = side_of(config, trained or 224)
    if type(side) is not int or not 1 <= side <= MAX_SIDE:
        raise BadBase(f"{name}: expected a side of 1 to {MAX_SIDE} pixels, found {str(side)[:80]}")
    if trained is not None and side != trained:
        raise BadBase(f"{name}: expected a side of {str(trained)[:80]} pixels, found {side}")
    mean, std = config.get("image_mean", [0.5] * 3), config.get("image_std", [0.5] * 3)
    for key, values in (("image_mean", mean), ("image_std", std)):
        numbers = isinstance(values, list) and all(type(one) in (int, float) for one in values)
        if not numbers or len(values) != _COLOURS or (key == "image_std" and min(values) <= 0):
            raise BadBase(f"{name}: expected {key} of three numbers, found {str(values)[:80]}")


def side_of(config: dict[str, Any], default: Any) -> Any:
    """Side of the pictures that an encoder reads, from its preprocessor_config.json."""
    size = config.get("crop_size") or config.get("size") or default
    if isinstance(size, dict):
        size = size.get("shortest_edge") or size.get("height") or default
    return size


def _require_distractors(files: Files, config: dict[str, Any]) -> None:
    name = "identity/distractors.safetensors"
    found = read_header(files.file(name, 64 << 20), name).get("features")
    width = identity_width(config)
    if found is None or found.dtype not in FLOATS or found.shape[1:] != (width,):
        shape = "none" if found is None else list(found.shape)
        raise BadBase(f"{name}: expected features of shape [m, {width}], found {shape}")
