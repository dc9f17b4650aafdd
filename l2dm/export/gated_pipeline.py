"""Stable Diffusion whose learned concepts act only where a prompt names them.

This file stands alone: torch, safetensors, diffusers and what they need. Use it from its folder:

    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(BASE, custom_pipeline=FOLDER, trust_remote_code=True)
    pipe.load_gated(FOLDER)
    pipe("a photo of a <toy> cat").images[0]

A cross-attention key or value layer W computes  C W + sum_i G_i C A_i B_i : row by row of the text
features C, concept i's low-rank path A_i B_i is added where its gate G_i is one. Without a
placeholder in the prompt the picture is the base's own, bit for bit.

Other pipelines made of this one work, too, img2img, inpainting and ControlNet for instance:

    StableDiffusionImg2ImgPipeline.from_pipe(pipe)("a photo of a <toy> cat", image=picture)

The UNet knows the features that its text encoder made of a prompt, and refuses any others.
"""

import functools
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

FORMAT = "l2dm-gated-1"
WEIGHTS = "gated.safetensors"
EMBEDDINGS = "embeddings"
GATES = ("token", "span", "prompt")
REMEMBERED = 1024  # prompts whose features are known; each takes a hundred bytes


@dataclass(frozen=True)
class _Concept:
    """One concept: its placeholder's token id, its noun's ids, its gate and its low-rank paths."""

    own: int
    noun: tuple[int, ...]
    gate: str
    paths: Mapping[str, tuple[Tensor, Tensor]]  # layer -> down (d_in, r), up (r, d_out)


@dataclass
class _Gates:
    """What every hook of one UNet looks at. `rows` and `paths` hold what this call has opened."""

    concepts: dict[str, _Concept] = field(default_factory=dict)
    hooked: set[str] = field(default_factory=set)
    rows: dict[str, Tensor] = field(default_factory=dict)  # (B, L, 1) bool
    paths: dict[str, dict[str, tuple[Tensor, Tensor]]] = field(default_factory=dict)
    drawing: bool = False
    read: tuple[tuple[int, ...], ...] = ()  # token ids that the text encoder reads now
    known: OrderedDict[bytes, tuple[int, ...]] = field(default_factory=OrderedDict)

    def remember(self, features: Tensor) -> None:
        """The features (B, L, D) of the prompts that the text encoder reads now."""
        width = len(self.read[0]) if self.read else 0
        if features.shape[:-1] != (len(self.read), width):
            return
        for ids, row in zip(self.read, features, strict=True):
            self.known[_digest(row)] = ids
            self.known.move_to_end(_digest(row))
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)

    def open_for(self, features: Tensor) -> None:
        """Open the gates of the prompts that these features (B, L, D) were made of."""
        self.close()
        found = [self._ids(row) for row in features]
        self.open(torch.tensor(found), features)

    def _ids(self, row: Tensor) -> tuple[int, ...]:
        if ids := self.known.get(_digest(row)):
            return ids
        if not row.any():  # some pipelines lead away from nothing at all
            return (-1,) * row.shape[0]
        raise ValueError(
            "expected text features that this pipeline's own text encoder made of a prompt, found "
            "others: concepts are found by the words of a prompt; pass prompt and negative_prompt, "
            "no embeddings that were made, mixed or weighted elsewhere"
        )

    def open(self, ids: Tensor, like: Tensor) -> None:
        """Open the gates that token ids (B, L) name; weights move to the device of `like`."""
        self.close()
        everyone = {concept.own for concept in self.concepts.values()}
        for name, concept in self.concepts.items():
            rows = rows_of(ids, concept.gate, concept.own, concept.noun, everyone)
            if rows.any():
                self.rows[name] = rows.unsqueeze(-1).to(like.device)
                self.paths[name] = {
                    layer: (down.to(like), up.to(like))
                    for layer, (down, up) in concept.paths.items()
                }

    def close(self) -> None:
        """Back to the base."""
        self.rows.clear()
        self.paths.clear()


class GatedStableDiffusionPipeline(StableDiffusionPipeline):  # type: ignore[misc]
    """`StableDiffusionPipeline` plus `load_gated`; every other call and argument is unchanged.

    Gates are read from `prompt` and `negative_prompt`, so embeddings made elsewhere are refused
    once concepts are loaded. So are fused projections (`fuse_qkv_projections`) and saving.
    """

    def load_gated(self, folder: str | Path) -> tuple[str, ...]:
        """Add the concepts of an exported folder; returns their placeholders. Raises ValueError."""
        header, weights = _read(Path(folder) / WEIGHTS)
        names = [name for name, _ in header["concepts"]]
        layers = sorted({key.partition("/")[2].rpartition(".")[0] for key in weights})
        _require_fit(self.unet, names, layers, weights)
        words = [f"<{name}>" for name in names]
        files = [Path(folder) / EMBEDDINGS / f"{name}.safetensors" for name in names]
        self.load_textual_inversion([load_file(file) for file in files], token=words)
        gates = self._own_gates()
        for name, noun in header["concepts"]:
            gates.concepts[name] = _Concept(
                own=self.tokenizer.convert_tokens_to_ids(f"<{name}>"),
                noun=tuple(self.tokenizer(noun, add_special_tokens=False).input_ids),
                gate=header["gate"],
                paths={
                    layer: (weights[f"{name}/{layer}.down"], weights[f"{name}/{layer}.up"])
                    for layer in layers
                },
            )
        if not gates.hooked:
            _watch(self.text_encoder, self.unet, gates)
        for layer in layers:
            if layer not in gates.hooked:
                self.unet.get_submodule(layer).register_forward_hook(_hook(gates, layer))
                gates.hooked.add(layer)
        return tuple(words)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Refused: what is saved as a plain folder would draw without the concepts."""
        _refuse_to_save()

    @functools.wraps(StableDiffusionPipeline.__call__)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draw; gates are open only inside."""
        gates = self._own_gates()
        gates.drawing = True
        try:
            return super().__call__(*args, **kwargs)
        finally:
            gates.drawing = False
            gates.close()

    def encode_prompt(
        self,
        prompt: Any,
        device: Any,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        negative_prompt: Any = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """As the parent class; inside a call it also opens the gates of these prompts."""
        gates = self._own_gates()
        self._require_words(gates, prompt, negative_prompt)
        given = [key for key in ("prompt_embeds", "negative_prompt_embeds") if _has(options, key)]
        if gates.drawing and gates.concepts and given:
            raise ValueError(
                f"expected prompt and negative_prompt, found {' and '.join(given)}: gates are read "
                "from the words of a prompt; pass the prompts themselves"
            )
        encoded: tuple[Tensor, Tensor | None] = super().encode_prompt(
            prompt,
            device,
            num_images_per_prompt,
            do_classifier_free_guidance,
            negative_prompt,
            **options,
        )
        if gates.drawing and gates.concepts:
            texts = [prompt]
            if do_classifier_free_guidance:  # the order in which the pipeline stacks the two
                empty = "" if isinstance(prompt, str) else [""] * len(prompt)
                texts.insert(0, empty if negative_prompt is None else negative_prompt)
            ids = torch.cat([self._ids(text) for text in texts])
            gates.open(ids.repeat_interleave(num_images_per_prompt, 0), encoded[0])
        return encoded

    def _ids(self, prompts: str | list[str]) -> Tensor:
        """Token ids as the text encoder reads them, (B, L)."""
        texts = [prompts] if isinstance(prompts, str) else prompts
        tokens = self.tokenizer(
            self.maybe_convert_prompt(texts, self.tokenizer),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        ids: Tensor = tokens.input_ids
        return ids

    def _require_words(self, gates: _Gates, *prompts: Any) -> None:
        """Raise ValueError for a word like `<toy>` that no loaded concept has, or nearly has."""
        texts = [text for one in prompts for text in ([one] if isinstance(one, str) else one or ())]
        named = dict.fromkeys(name for text in texts for name in words_in(text))
        unknown = [word for word in named if word[1:-1] not in gates.concepts]
        if unknown:
            known = ", ".join(f"<{name}>" for name in gates.concepts) or "none"
            raise ValueError(
                f"expected words of loaded concepts, which are {known}, found {', '.join(unknown)};"
                " call load_gated with the export's folder first"
            )

    def _own_gates(self) -> _Gates:
        """The gates of this pipeline's UNet, made on first use; pipelines may share a UNet."""
        gates: _Gates = self.unet.__dict__.setdefault("_l2dm_gates", _Gates())
        return gates


def words_in(prompt: str) -> list[str]:
    """Words in brackets; also `<Toy>`, `< toy >`, `<<toy>>`, `<toy` and `toy>`, as they stand."""
    found = re.findall(
        r"<+\s*[^\W\d_][^<>\s]*\s*>+|<[\d_-][\w-]*>|<+[^\W\d_][\w-]*|[\w-]*[^\W\d_]>+", prompt
    )
    return [str(word) for word in found]


def rows_of(ids: Tensor, gate: str, own: int, noun: Sequence[int], everyone: set[int]) -> Tensor:
    """The rows of prompts that a concept owns. ids: (B, L). Returns (B, L) bool.

    token: the placeholder's. span: also the class noun's where it follows directly. prompt: all,
    or with several placeholders those after the own one and before the next.
    """
    owned = [
        _owned(tokens, gate, own, tuple(noun), everyone) if own in tokens else [False] * len(tokens)
        for tokens in ids.tolist()
    ]
    return torch.tensor(owned, dtype=torch.bool, device=ids.device)


def _owned(
    tokens: list[int], gate: str, own: int, noun: tuple[int, ...], everyone: set[int]
) -> list[bool]:
    """One prompt of `rows_of`, which names this concept."""
    if gate == "prompt":
        if not everyone.intersection(tokens) - {own}:
            return [True] * len(tokens)
        owner, owned = -1, []
        for token in tokens:
            owner = token if token in everyone else owner
            owned.append(owner == own)
        return owned
    owned = [token == own for token in tokens]
    if gate == "span":
        for place, token in enumerate(tokens):
            if token == own and tuple(tokens[place + 1 : place + 1 + len(noun)]) == noun:
                owned[place + 1 : place + 1 + len(noun)] = [True] * len(noun)
    return owned


def _watch(reader: nn.Module, unet: nn.Module, gates: _Gates) -> None:
    """Let the UNet know, in any pipeline, of which words the text features are that it is given.

    Whatever pipeline draws: the text encoder makes features of token ids, and the UNet is given
    them, row by row, as they are. So rows are found again by their bytes.
    """

    def reads(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        gates.read = tuple(map(tuple, ids.tolist()))

    def has_read(module: nn.Module, args: tuple[Any, ...], features: Tensor) -> None:
        gates.remember(features)

    def draws(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        processors = (type(getattr(one, "processor", None)) for one in unet.modules())
        if any(kind.__name__.startswith("Fused") for kind in processors):
            raise ValueError(
                "expected separate projections, found fused ones, which pass the concepts by; call "
                "unfuse_qkv_projections"
            )
        if not gates.drawing:
            gates.open_for(args[2] if len(args) > 2 else kwargs["encoder_hidden_states"])

    def has_drawn(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not gates.drawing:
            gates.close()

    reader.register_forward_pre_hook(reads, with_kwargs=True)
    for name, module in reader.named_modules():
        if name.rpartition(".")[2] == "final_layer_norm":  # also called alone, for clip_skip
            module.register_forward_hook(has_read)
    unet.register_forward_pre_hook(draws, with_kwargs=True)
    unet.register_forward_hook(has_drawn, always_call=True)
    unet.__dict__["save_pretrained"] = _refuse_to_save  # other pipelines save part by part


def _refuse_to_save(*args: Any, **kwargs: Any) -> None:
    raise ValueError(
        "expected to keep the base and the export's folder, found a call to save both as one: a "
        "plain folder would draw without the concepts; load the base again and call load_gated"
    )


def _digest(row: Tensor) -> bytes:
    """What tells the features of one prompt, (L, D), from all others."""
    plain = row.detach().cpu().contiguous()
    return hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).digest()


def _hook(gates: _Gates, layer: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    """Add the open paths to a layer's output. `where` leaves every other row's bits alone."""

    def change(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        states: Tensor = inputs[0]  # (B, L, d_in)
        for name, rows in gates.rows.items():
            if rows.shape[:2] != states.shape[:2]:
                raise ValueError(
                    f"expected text features of {tuple(rows.shape[:2])} prompts x tokens, found "
                    f"{tuple(states.shape[:2])} in {layer}; a callback changed the batch, which "
                    "gated concepts do not support"
                )
            down, up = gates.paths[name][layer]
            output = torch.where(rows, output + (states @ down) @ up, output)
        return output

    return change


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of `gated.safetensors`."""
    if not path.is_file():
        raise ValueError(f"expected {WEIGHTS} in {path.parent}, found none; pass the export folder")
    with safe_open(path, framework="pt") as file:
        written = file.metadata() or {}
    if written.get("format") != FORMAT or written.get("gate") not in GATES:
        raise ValueError(
            f"expected a file of format {FORMAT} with a gate of {GATES}, found format "
            f"{written.get('format')!r} and gate {written.get('gate')!r} in {path}; use the "
            "pipeline.py that lies beside the weights"
        )
    return {"gate": written["gate"], "concepts": json.loads(written["concepts"])}, load_file(path)


def _require_fit(
    unet: nn.Module, names: list[str], layers: list[str], weights: Mapping[str, Tensor]
) -> None:
    """Raise ValueError unless every concept has a path of the right size for every layer."""
    modules = dict(unet.named_modules())
    problems = [f"no layer {layer}" for layer in layers if layer not in modules]
    for layer in [layer for layer in layers if layer in modules]:
        expected = (getattr(modules[layer], "in_features", 0), modules[layer].out_features)
        for name in names:
            down, up = weights.get(f"{name}/{layer}.down"), weights.get(f"{name}/{layer}.up")
            found = None if down is None or up is None else (down.shape[0], up.shape[1])
            if found != expected:
                problems.append(f"{layer} maps {expected}, <{name}> is made for {found}")
    if problems:
        raise ValueError(
            f"the concepts were learned on another base model: {'; '.join(problems[:3])} "
            f"({len(problems)} in all); load the base that export.json names"
        )


def _has(options: Mapping[str, Any], key: str) -> bool:
    return options.get(key) is not None
