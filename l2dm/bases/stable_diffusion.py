"""Load a base model, read prompts, predict noise, encode and decode pictures.

Only this module, `encoders.py`, the export (`plain.py`, `gated_pipeline.py`) and `pocket/`, which
makes a base, import diffusers and transformers. Everything that differs between bases (sizes,
attention width, prediction type, scaling factor, context length) is read from the base's configs.
"""

import contextlib
import copy
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Loading a base is our own progress line; the libraries' bars and notices would hide it.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import torch
from torch import Tensor, nn

from l2dm.adapters.contract import Adapter, NoAdapter
from l2dm.bases import devices
from l2dm.bases import folder as base_folder
from l2dm.bases.diffusion import NoiseSchedule
from l2dm.bases.prompts import placeholders_in, require_known
from l2dm.bases.text import PlaceholderEmbedding, Text
from l2dm.errors import BadBase, BadPrompt, DoesNotFit
from l2dm.files.images import to_bytes, to_unit

log = logging.getLogger(__name__)


@dataclass
class Model:
    """A Stable Diffusion base with at most one adapter attached.

    `latent_shape` is (C, h, w); `resolution` in pixels; `steps` and `guidance` are what the base
    recommends for sampling. `bare`: whether it is the pretrained base right now, by `plain`.
    """

    name: str
    folder: Path
    fingerprint: str
    unet: nn.Module
    vae: Any  # diffusers is not typed
    text_encoder: nn.Module
    tokenizer: Any
    scheduler: Any
    noise: NoiseSchedule
    latent_shape: tuple[int, int, int]
    resolution: int
    scaling: float
    steps: int
    guidance: float
    embedding: PlaceholderEmbedding
    adapter: Adapter
    bare: bool = False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.unet.parameters()).device

    def add_placeholder(self, name: str, row: Tensor) -> nn.Parameter:
        """Teach the tokenizer `<name>` and give it an embedding row, (D,). Returns the row."""
        word = f"<{name}>"
        if word in self.tokenizer.get_vocab():
            raise DoesNotFit(
                f"{word} is a word of this base's tokenizer already; choose another concept name"
            )
        self.tokenizer.add_tokens(word)
        return self.embedding.add(name, self.tokenizer.convert_tokens_to_ids(word), row)

    def noun_row(self, noun: str) -> Tensor:
        """Where a placeholder starts: the mean embedding row of the class noun's tokens, (D,)."""
        return self.embedding.table.weight[self.token_ids(noun)].mean(0).detach().float()

    def token_ids(self, words: str) -> list[int]:
        """Token ids of some words, without begin and end."""
        ids: list[int] = self.tokenizer(words, add_special_tokens=False).input_ids
        return ids

    def read(self, prompts: Sequence[str]) -> Text:
        """Encode prompts as the base's own pipeline does: padded to its context length.

        Equal prompts are encoded once. Raises BadPrompt on an unknown placeholder, or when one
        lies behind the context length and would be cut off.
        """
        unique = list(dict.fromkeys(prompts))
        for prompt in unique:
            require_known(prompt, self.embedding.ids)
        tokens = self.tokenizer(
            unique,
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids = tokens.input_ids
        for prompt, row in zip(unique, ids.tolist(), strict=True):
            self._require_uncut(prompt, row)
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        ids = ids.to(self.device)
        mask = tokens.attention_mask.to(self.device) if masked else None
        states = self.text_encoder(ids, attention_mask=mask)[0]
        text = Text(ids, states)
        if len(unique) == len(prompts):
            return text
        place = {prompt: index for index, prompt in enumerate(unique)}
        return text[[place[prompt] for prompt in prompts]]

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """The UNet's output for noisy latents (B, C, h, w) at timesteps (B,), or one for all."""
        with self.adapter.reading(text.ids):
            output: Tensor = self.unet(
                noisy, timesteps, encoder_hidden_states=text.states, return_dict=False
            )[0]
        return output

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) uint8 to scaled latents (B, C, h, w): the posterior's mean."""
        with torch.no_grad():
            posterior = self.vae.encode(to_unit(pictures).to(self.device)).latent_dist
        latents: Tensor = posterior.mean * self.scaling
        return latents.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w), wherever they are, to pictures (B, 3, H, W) uint8 on the CPU."""
        with torch.no_grad():
            scaled = latents.to(self.device) / self.scaling
            unit = self.vae.decode(scaled, return_dict=False)[0]
        return to_bytes(unit.float().cpu())

    def sampler(self) -> Any:
        """A fresh sampler of the base's own kind; diffusers' schedulers keep state in a run."""
        return copy.deepcopy(self.scheduler)

    def cross_attention_kv(self) -> Mapping[str, nn.Linear]:
        """The key and value projections of every cross-attention layer, by module name."""
        found: dict[str, nn.Linear] = {}
        for name, module in self.unet.named_modules():
            if getattr(module, "is_cross_attention", False):
                found |= {f"{name}.to_k": module.to_k, f"{name}.to_v": module.to_v}
        return found

    @contextlib.contextmanager
    def plain(self) -> Iterator[None]:
        """Inside this block the model is the pretrained base, bit for bit."""
        before, self.bare = self.bare, True
        try:
            with self.adapter.disabled():
                yield
        finally:
            self.bare = before

    def _require_uncut(self, prompt: str, ids: Sequence[int]) -> None:
        cut = [name for name in placeholders_in(prompt) if self.embedding.ids[name] not in ids]
        if cut:
            raise BadPrompt(
                f"prompt {prompt!r} is longer than the {self.tokenizer.model_max_length} tokens "
                f"that this base reads, which cuts off <{cut[0]}>; shorten it"
            )


def load_base(name: str, *, device: torch.device | None = None) -> Model:
    """Load "pocket", a diffusers folder or "org/name", frozen, in float32. Raises BadBase.

    device: `devices.accelerator()` if none is named.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    folder = base_folder.locate(name)
    options = {"torch_dtype": torch.float32, "use_safetensors": True}
    half = {"variant": "fp16"} if base_folder.variant(folder) else {}
    try:
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options, **half)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **options, **half)
        text_encoder = CLIPTextModel.from_pretrained(
            folder, subfolder="text_encoder", dtype=torch.float32, use_safetensors=True, **half
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BadBase(f"base model {folder}: its weights could not be read: {error}") from error
    for part in (unet, vae, text_encoder):
        part.requires_grad_(False).eval().to(devices.prepared(device))
    embedding = PlaceholderEmbedding(text_encoder.get_input_embeddings())
    text_encoder.set_input_embeddings(embedding)
    noise, scheduler = _schedules(folder)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side = unet.config.sample_size
    advice = base_folder.recommended(folder)
    return Model(
        name=name,
        folder=folder,
        fingerprint=base_folder.fingerprint(folder),
        unet=unet,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=load_tokenizer(folder),
        scheduler=scheduler,
        noise=noise,
        latent_shape=(unet.config.in_channels, side, side),
        resolution=side * factor,
        scaling=vae.config.scaling_factor,
        steps=int(advice["steps"]),
        guidance=float(advice["guidance"]),
        embedding=embedding,
        adapter=NoAdapter(),
    )


def load_tokenizer(folder: Path) -> Any:
    """The base's tokenizer."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")


def vocabulary(name: str) -> frozenset[str]:
    """Every word of the base's tokenizer, for checking that a placeholder is free."""
    return frozenset(load_tokenizer(base_folder.locate(name)).get_vocab())


def resolution(name: str) -> int:
    """Side of the base's pictures in pixels, from its configs alone."""
    return base_folder.resolution(base_folder.locate(name))


def _schedules(folder: Path) -> tuple[NoiseSchedule, Any]:
    import diffusers
    from diffusers import DDPMScheduler

    config = DDPMScheduler.load_config(folder, subfolder="scheduler")
    kind = getattr(diffusers, str(config["_class_name"]), None)
    if kind is None:
        raise BadBase(f"base model {folder}: unknown scheduler {config['_class_name']!r}")
    training = DDPMScheduler.from_config(config)
    prediction = training.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise BadBase(
            f"base model {folder}: predicts {prediction!r}, expected 'epsilon' or 'v_prediction'"
        )
    return NoiseSchedule(training.alphas_cumprod, prediction), kind.from_config(config)
