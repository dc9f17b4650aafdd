"""A base of any family with at most one adapter: read prompts, predict, encode and decode pictures.

Everything that differs between families is asked of `Family` and `Networks`; sizes are read from
the base's configs.
"""

import contextlib
import copy
import inspect
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

from l2dm.adapters.contract import AttachedAdapter, NoAdapter
from l2dm.bases import devices
from l2dm.bases import folder as base_folder
from l2dm.bases.diffusion import NoiseSchedule
from l2dm.bases.family import Family, Networks, TextLayer
from l2dm.bases.prompts import placeholders_in, require_known
from l2dm.bases.text import Text
from l2dm.bases.token_rows import Placeholders, require_words
from l2dm.errors import BadBase, BadPrompt
from l2dm.files.images import to_bytes, to_unit


@dataclass
class Model:
    """A base model with at most one adapter attached.

    `resolution` in pixels; `steps` and `guidance` are what the base recommends for sampling.
    `bare`: whether it is the pretrained base right now, by `plain`.
    """

    name: str
    folder: Path
    fingerprint: str
    family: Family
    networks: Networks
    placeholders: Placeholders
    scheduler: Any  # diffusers is not typed
    noise: NoiseSchedule
    resolution: int
    steps: int
    guidance: float
    adapter: AttachedAdapter
    bare: bool = False

    @property
    def denoiser(self) -> nn.Module:
        """The network that predicts noise; low-rank adapters sit on it."""
        network: nn.Module = self.networks.named()[self.family.denoiser]
        return network

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of one picture's latents, (C, h, w)."""
        return self.networks.latent_shape

    def shifted(self) -> Mapping[str, nn.Module]:
        """The networks whose singular values a spectral adapter moves, by name."""
        named = self.networks.named()
        return {name: named[name] for name in self.family.shifted}

    def text_layers(self) -> Mapping[str, TextLayer]:
        """The denoiser's linear layers that make keys and values of text, by module name."""
        return self.networks.text_layers()

    def add_placeholder(self, name: str, row: Tensor) -> nn.Parameter:
        """Teach the model `<name>` and give it an embedding row, (D,). Returns the row."""
        return self.placeholders.add(name, row)

    def noun_row(self, noun: str) -> Tensor:
        """Where a placeholder starts: the mean embedding row of the class noun's tokens, (D,)."""
        return self.placeholders.noun_row(noun)

    def token_ids(self, words: str) -> list[int]:
        """Token ids of some words as `Text.ids` holds them, without begin and end."""
        return self.placeholders.token_ids(words)

    def read(self, prompts: Sequence[str]) -> Text:
        """Encode prompts as the base's own pipeline does: padded to its context length.

        Equal prompts are encoded once. Raises BadPrompt on an unknown placeholder, or when one
        lies behind the context length and would be cut off.
        """
        unique = list(dict.fromkeys(prompts))
        for prompt in unique:
            require_known(prompt, self.placeholders.ids)
        text = self.networks.read(unique)
        for prompt, row in zip(unique, text.ids.tolist(), strict=True):
            self._require_uncut(prompt, row)
        if len(unique) == len(prompts):
            return text
        place = {prompt: index for index, prompt in enumerate(unique)}
        return text[[place[prompt] for prompt in prompts]]

    def read_nothing(self, count: int) -> Text:
        """The text that guidance leads away from, `count` times."""
        return self.networks.read_nothing()[[0] * count]

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """The denoiser's output for noisy latents (B, C, h, w) at timesteps (B,), or one for all.

        Returns (B, C, h, w).
        """
        with self.adapter.reading(text.ids):
            return self.networks.predict(noisy, timesteps, text)

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) uint8 to scaled latents (B, C, h, w): the posterior's mean."""
        with torch.no_grad():
            return self.networks.encode(to_unit(pictures).to(self.device)).float()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w), wherever they are, to pictures (B, 3, H, W) uint8 on the CPU."""
        with torch.no_grad():
            unit = self.networks.decode(latents.to(self.device))
        return to_bytes(unit.float().cpu())

    def sampler(self) -> Any:
        """A fresh sampler of the base's own kind; diffusers' schedulers keep state in a run."""
        return copy.deepcopy(self.scheduler)

    @contextlib.contextmanager
    def plain(self) -> Iterator[None]:
        """Inside this block the model is the pretrained base, bit for bit."""
        before, self.bare = self.bare, True
        try:
            with self.adapter.disabled():
                yield
        finally:
            self.bare = before

    def cut_off(self, prompt: str) -> str:
        """The end of a prompt, in whole words, that lies behind the context; "" if nothing does."""
        return self.placeholders.cut_off(prompt)

    @contextlib.contextmanager
    def scaled(self, strengths: Mapping[str, float], nouns: Mapping[str, str]) -> Iterator[None]:
        """Inside, concepts act with these strengths: 1 is as learned, 0 not at all.

        strengths, nouns: by concept; those of a prompt, as `AttachedAdapter.scaled` says. Raises
        BadPrompt where the adapter cannot.
        """
        with self.placeholders.faded(strengths, nouns), self.adapter.scaled(strengths):
            yield

    def _require_uncut(self, prompt: str, ids: Sequence[int]) -> None:
        cut = [one for one in placeholders_in(prompt) if self.placeholders.ids[one] not in ids]
        if cut:
            raise BadPrompt(
                f"prompt {prompt!r} is longer than the {len(ids)} tokens "
                f"that this base reads, which cuts off <{cut[0]}>; shorten it"
            )


def load_base(name: str, *, device: torch.device | None = None) -> Model:
    """Load "pocket", a diffusers folder or "org/name", frozen, in float32. Raises BadBase.

    device: `devices.accelerator()` if none is named.
    """
    folder = base_folder.locate(name)
    family = base_folder.family_of(folder)
    with base_folder.reading(folder, "its tokenizer"):
        tokenizers = family.tokenizers(folder)
    half = base_folder.variant(folder)
    base_folder.require_tensors(name, base_folder.classes(folder), half)
    with base_folder.reading(folder, "its weights"):
        networks = family.load(folder, tokenizers, half)
        for reader in networks.readers():
            require_words(reader.tokenizer, reader.network.get_input_embeddings())
    place = devices.prepared(device)
    for network in networks.named().values():
        network.requires_grad_(False).eval().to(place)
    if base_folder.source_of(name) != "shipped":
        with base_folder.reading(folder, "its weights"):
            family.try_out(networks)
    advice = base_folder.recommended(folder)
    noise, scheduler = _schedules(folder, family, int(advice["steps"]))
    return Model(
        name=name,
        folder=folder,
        fingerprint=base_folder.fingerprint(folder),
        family=family,
        networks=networks,
        placeholders=Placeholders(networks.readers()),
        scheduler=scheduler,
        noise=noise,
        resolution=base_folder.resolution(folder),
        steps=int(advice["steps"]),
        guidance=float(advice["guidance"]),
        adapter=NoAdapter(),
    )


def vocabulary(name: str) -> frozenset[str]:
    """Every word of the base's tokenizers, for checking that a placeholder is free.

    Raises BadBase.
    """
    folder = base_folder.locate(name)
    with base_folder.reading(folder, "its tokenizer"):
        tokenizers = base_folder.family_of(folder).tokenizers(folder)
    return frozenset(word for tokenizer in tokenizers for word in tokenizer.get_vocab())


def resolution(name: str) -> int:
    """Side of the base's pictures in pixels, from its configs alone."""
    return base_folder.resolution(base_folder.locate(name))


def _schedules(folder: Path, family: Family, steps: int) -> tuple[NoiseSchedule, Any]:
    """The noise path of training and the sampler, both from the scheduler's config."""
    import diffusers
    from diffusers import DDPMScheduler

    with base_folder.reading(folder, "its scheduler"):
        config = DDPMScheduler.load_config(folder, subfolder="scheduler")
        training = DDPMScheduler.from_config(config)
        sampler = getattr(diffusers, config["_class_name"]).from_config(config)
        kept, prediction = training.alphas_cumprod, training.config.prediction_type
        if not kept.isfinite().all() or kept.min() < 0 or kept.max() > 1:
            raise BadBase("its scheduler's betas make no noise schedule; expected 0 to 1")
        _try_out(copy.deepcopy(sampler), steps)
    return NoiseSchedule(kept, prediction), sampler


def _try_out(sampler: Any, steps: int) -> None:
    """Three steps on zeros: options that disagree raise now, and not while pictures are drawn."""
    sampler.set_timesteps(steps)
    latents, generator = torch.zeros(1, 4, 2, 2), torch.Generator().manual_seed(0)
    draws = "generator" in inspect.signature(sampler.step).parameters
    more = {"generator": generator} if draws else {}
    for timestep in sampler.timesteps[:3]:
        scaled = sampler.scale_model_input(latents, timestep)
        latents = sampler.step(scaled, timestep, latents, return_dict=False, **more)[0]
    if not latents.isfinite().all():
        raise BadBase("its scheduler makes NaN or infinity of nothing; take that of its model")
