"""What looks at pictures: a CLIP model for alignment, a vision model for identity.

Both come from the base's own folder (`clip/`, `identity/`); a DINO folder goes through the same
code as the pocket's own encoder.
Preprocessing is read from `preprocessor_config.json`, without torchvision.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from l2dm.bases import devices
from l2dm.bases import folder as base_folder
from l2dm.bases.checks.encoders import side_of
from l2dm.bases.checks.files import Files
from l2dm.bases.checks.tensors import without_pooler
from l2dm.bases.checks.weights import header_of
from l2dm.bases.token_rows import require_words

_BATCH = 64
_CLASSES = {"clip": ("transformers", "CLIPModel"), "identity": ("transformers", "AutoModel")}


@dataclass(frozen=True)
class Preprocessing:
    """side: pixels. mean, std: (3,) of pixel values in [0, 1]."""

    side: int
    mean: Tensor
    std: Tensor

    def __call__(self, pictures: Tensor) -> Tensor:
        """pictures: (B, 3, H, W) uint8. Returns (B, 3, side, side) float32, normalised."""
        values = pictures.float() / 255
        if values.shape[-1] != self.side:
            values = functional.interpolate(
                values, size=self.side, mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 1)
        return (values - self.mean.view(3, 1, 1)) / self.std.view(3, 1, 1)


@dataclass(frozen=True)
class Encoders:
    """Frozen encoders; every feature has unit length. Pictures and features are on the CPU."""

    clip: Any
    tokenizer: Any
    clip_input: Preprocessing
    vision: nn.Module
    vision_input: Preprocessing
    foreign: Tensor | None  # (m, d') identity features of the base's own distractors

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.vision.parameters()).device

    @torch.no_grad()
    def image(self, pictures: Tensor) -> Tensor:
        """CLIP image features. pictures: (B, 3, H, W) uint8. Returns (B, d)."""
        parts = []
        for part in pictures.split(_BATCH):
            pooled = self.clip.vision_model(self.clip_input(part).to(self.device)).pooler_output
            parts.append(self.clip.visual_projection(pooled))
        return _unit(parts)

    @torch.no_grad()
    def text(self, prompts: tuple[str, ...] | list[str]) -> Tensor:
        """CLIP text features, (B, d)."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.clip.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        pooled = self.clip.text_model(tokens.input_ids.to(self.device)).pooler_output
        return _unit([self.clip.text_projection(pooled)])

    @torch.no_grad()
    def identity(self, pictures: Tensor) -> Tensor:
        """Identity features (DINO's role). pictures: (B, 3, H, W) uint8. Returns (B, d')."""
        parts = []
        for part in pictures.split(_BATCH):
            seen = self.vision(self.vision_input(part).to(self.device))
            pooled = getattr(seen, "pooler_output", None)  # DINO's ViT has none: its first token
            parts.append((seen.last_hidden_state[:, 0] if pooled is None else pooled).flatten(1))
        return _unit(parts)

    def distractors(self, count: int, pictures: Tensor | None = None) -> Tensor:
        """Identity features of things that are none of the line's concepts, (m <= count, d').

        The base's own list where it ships one, else of class pictures, (B, 3, H, W) uint8.
        """
        if self.foreign is not None:
            return self.foreign[:count]
        if pictures is None or len(pictures) == 0:
            return torch.empty(
                0, self.identity(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape[1]
            )
        return self.identity(pictures[:count])


def load_encoders(base: str, *, device: torch.device | None = None) -> Encoders:
    """The encoders that lie in a base's folder, in `clip/` and `identity/`. Raises BadBase.

    device: `devices.accelerator()` if none is named.
    """
    from transformers import AutoModel, CLIPModel, CLIPTokenizer

    root = base_folder.locate(base)
    base_folder.require_encoders(root)
    place, exact = devices.prepared(device), {"dtype": torch.float32, "use_safetensors": True}
    own = root / "clip" / "tokenizer_config.json"
    words = root / "clip" if own.is_file() else root / "tokenizer"
    foreign = root / "identity" / "distractors.safetensors"
    base_folder.require_tensors(base, _CLASSES, None)
    with base_folder.reading(root, "its clip/"):
        clip = CLIPModel.from_pretrained(root / "clip", **exact)
        tokenizer = CLIPTokenizer.from_pretrained(words)
        require_words(tokenizer, clip.text_model.get_input_embeddings())
        clip_input = _preprocessing(root / "clip", clip.config.vision_config.image_size)
    with base_folder.reading(root, "its identity/"):
        vision = AutoModel.from_pretrained(root / "identity", **exact, **_bare(root))
        side = getattr(vision.config, "image_size", 224)
        vision_input = _preprocessing(root / "identity", side)
        distractors = load_file(foreign)["features"].float() if foreign.is_file() else None
    encoders = Encoders(
        clip=clip.requires_grad_(False).eval().to(place),
        tokenizer=tokenizer,
        clip_input=clip_input,
        vision=vision.requires_grad_(False).eval().to(place),
        vision_input=vision_input,
        foreign=distractors,
    )
    if base_folder.source_of(base) != "shipped":
        with base_folder.reading(root, "its clip/ or identity/"):
            _require_answers(encoders)
    return encoders


def _require_answers(encoders: Encoders) -> None:
    """Ask each once: a config of nonsense fails now, and not behind hours of drawing."""
    black = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image, text = encoders.image(black), encoders.text(["a"])
    if not all(one.isfinite().all() for one in (image, text, encoders.identity(black))):
        raise ValueError("it answers NaN or infinity")
    if image.shape != text.shape:
        raise ValueError("pictures and texts have features of different lengths")


def _bare(root: Path) -> dict[str, Any]:
    """How a vision transformer is loaded that has no layer behind its first token, as DINO."""
    files = Files(root)
    kind = files.config("identity/config.json")["model_type"]
    bare = without_pooler(kind, header_of(files, "identity", "transformers"))
    return {"add_pooling_layer": False} if bare else {}


def _preprocessing(folder: Path, side: int) -> Preprocessing:
    path = folder / "preprocessor_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    size = side_of(config, side)
    mean, std = config.get("image_mean", [0.5] * 3), config.get("image_std", [0.5] * 3)
    return Preprocessing(int(size), torch.tensor(mean), torch.tensor(std))


def _unit(parts: list[Tensor]) -> Tensor:
    return functional.normalize(torch.cat(parts).float().cpu(), dim=-1)
