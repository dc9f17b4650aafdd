"""Two ComfyUI nodes for concepts that act only where a prompt names them.

Copy this file to ComfyUI's `custom_nodes/` and start it again. It needs nothing but ComfyUI.

* `l2dm: load gated concepts` takes a model and the folder of an export;
* `l2dm: prompt` takes the place of `CLIP Text Encode`, for the negative prompt too. Write `<toy>`.

A cross-attention key or value layer W computes  C W + sum_i G_i C A_i B_i : row by row of the text
features C, concept i's low-rank path is added where its gate G_i is one. The model finds the words
again by the bytes of their features, and refuses features that came from another node.
"""

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

FORMAT = "l2dm-gated-1"
WEIGHTS = "gated.safetensors"
EMBEDDINGS = "embeddings"
GATES = ("token", "span", "prompt")
REMEMBERED = 1024  # prompts whose features are known
_WORD = re.compile(r"(?<!<)<([a-z][a-z0-9_-]*)>(?!>)")
# `<Toy>`, `< toy >`, `<<toy>>`, `<toy` and `toy>`, which would be drawn as letters
_NEARLY = re.compile(r"<+\s*[^\W\d_][^<>\s]*\s*>+|<[\d_-][\w-]*>|<+[^\W\d_][\w-]*|[\w-]*[^\W\d_]>+")


class GatedConcepts:
    """The concepts of one export, and the prompts whose features are known.

    A concept's id stands for its word among token ids: -2, -3, ... rows: (D,), a word's embedding.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / WEIGHTS
        if not path.is_file():
            raise ValueError(f"expected {WEIGHTS} in {folder}, found none; name an export's folder")
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
        if written.get("format") != FORMAT or written.get("gate") not in GATES:
            raise ValueError(
                f"expected a file of format {FORMAT} with a gate of {GATES}, found format "
                f"{written.get('format')!r} and gate {written.get('gate')!r} in {path}; use the "
                "node file that lies beside the weights"
            )
        self.gate = written["gate"]
        self.nouns: dict[str, str] = dict(json.loads(written["concepts"]))
        self.ids = {name: -2 - number for number, name in enumerate(self.nouns)}
        self.weights = load_file(path)
        self.rows = {
            name: load_file(folder / EMBEDDINGS / f"{name}.safetensors")[f"<{name}>"].reshape(-1)
            for name in self.nouns
        }
        self.layers = sorted({key.partition("/")[2].rpartition(".")[0] for key in self.weights})
        self._known: OrderedDict[bytes, dict[str, Tensor]] = OrderedDict()
        self._seen: tuple[Tensor, int, dict[str, Tensor]] | None = None

    def remember(self, features: Tensor, owned: dict[str, Tensor]) -> None:
        """The rows (L,) bool that concepts own in a prompt's features, (1, L, D)."""
        for kind in (torch.float32, torch.float16, torch.bfloat16):  # the model reads one of these
            self._known[_digest(features[0].to(kind))] = owned
        while len(self._known) > 3 * REMEMBERED:
            self._known.popitem(last=False)

    def owned(self, features: Tensor) -> dict[str, Tensor]:
        """Rows that concepts own, each (B, L, 1) bool. features: (B, L, D). Raises ValueError."""
        if self._seen and self._seen[0] is features and self._seen[1] == features._version:
            return self._seen[2]
        found = [self._of(prompt) for prompt in features]
        names = dict.fromkeys(name for one in found for name in one)
        none = torch.zeros(features.shape[1], dtype=torch.bool)
        rows = {
            name: torch.stack([one.get(name, none) for one in found]).unsqueeze(-1)
            for name in names
        }
        rows = {name: mask.to(features.device) for name, mask in rows.items()}
        self._seen = (features, features._version, rows)
        return rows

    def _of(self, prompt: Tensor) -> dict[str, Tensor]:
        """One prompt's rows; ComfyUI repeats a prompt to the length of a longer one beside it."""
        length = prompt.shape[0]
        for width in (one for one in range(length, 0, -1) if length % one == 0):
            owned = self._known.get(_digest(prompt[:width]))
            if owned is not None and torch.equal(prompt, prompt[:width].repeat(length // width, 1)):
                return {name: mask.repeat(length // width) for name, mask in owned.items()}
        if not prompt.any():  # ConditioningZeroOut
            return {}
        raise ValueError(
            "expected text features of the node 'l2dm: prompt', found others: concepts are found "
            "by the words of a prompt; encode the prompt and the negative prompt with that node, "
            "and do not mix or average what it gives"
        )

    def forward(self, original: Callable[..., Tensor], layer: str) -> Callable[..., Tensor]:
        """What a layer computes instead of `original`: the same, plus the open paths."""

        def forward(states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            output = original(states, *args, **kwargs)
            for name, rows in self.owned(states).items():
                down = self.weights[f"{name}/{layer}.down"].to(states)
                up = self.weights[f"{name}/{layer}.up"].to(states)
                output = torch.where(rows, output + (states @ down) @ up, output)
            return output

        return forward


class LoadGated:
    """Concepts of an export on a model."""

    RETURN_TYPES = ("MODEL", "L2DM_GATED")
    RETURN_NAMES = ("model", "concepts")
    FUNCTION = "load"
    CATEGORY = "loaders"
    DESCRIPTION = "Concepts of an l2dm export that act only where a prompt names them."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A model and a folder."""
        return {"required": {"model": ("MODEL",), "folder": ("STRING", {"default": ""})}}

    def load(self, model: Any, folder: str) -> tuple[Any, GatedConcepts]:
        """The model with gates on its layers. Raises ValueError for another base."""
        import comfy.utils  # type: ignore[import-not-found]

        gated, patched = GatedConcepts(Path(folder.strip()).expanduser()), model.clone()
        names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
        for layer in gated.layers:
            key = names.get(f"{layer}.weight")
            path = f"diffusion_model.{str(key).removesuffix('.weight')}"
            _require_fit(gated, layer, patched.get_model_object(path) if key else None)
            before = patched.get_model_object(f"{path}.forward")
            patched.add_object_patch(f"{path}.forward", gated.forward(before, layer))
        return patched, gated


class GatedPrompt:
    """A prompt whose words in <brackets> are concepts."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "conditioning"
    DESCRIPTION = "In the place of CLIP Text Encode, for the negative prompt too. Write <toy>."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """A text encoder, the loaded concepts and a text."""
        text = ("STRING", {"multiline": True, "dynamicPrompts": True})
        return {"required": {"clip": ("CLIP",), "concepts": ("L2DM_GATED",), "text": text}}

    def encode(self, clip: Any, concepts: GatedConcepts, text: str) -> tuple[list[Any]]:
        """Conditioning as CLIP Text Encode gives it. Raises ValueError for an unknown word."""
        key, begin, end, pad, width = _edges(clip)
        words = _tokens(clip, key, end, concepts, text)
        if len(words) > width - 2:
            raise ValueError(
                f"expected a prompt of at most {width - 2} tokens, found {len(words)}; shorten it"
            )
        row = [begin, *words, end, *[pad] * width][:width]
        ids = [concepts.ids[one] if isinstance(one, str) else _id(one) for one in row]
        tokens = [(concepts.rows[one], 1.0) if isinstance(one, str) else one for one in row]
        features, pooled = clip.encode_from_tokens({key: [tokens]}, return_pooled=True)
        nouns = {name: _ids(clip, key, end, noun) for name, noun in concepts.nouns.items()}
        concepts.remember(features, _owned(ids, concepts, nouns))
        return ([[features, {"pooled_output": pooled}]],)


def _edges(clip: Any) -> tuple[str, Any, Any, Any, int]:
    """The tokenizer's name, what begins, ends and fills a prompt, and how long one is."""
    empty = clip.tokenize("")
    if len(empty) != 1:
        raise ValueError(
            f"expected a model with one text encoder, found {sorted(empty)}; load the base that "
            "export.json names"
        )
    ((key, (chunk, *_)),) = empty.items()
    return key, chunk[0], chunk[1], chunk[2], len(chunk)


def _tokens(clip: Any, key: str, end: Any, concepts: GatedConcepts, text: str) -> list[Any]:
    """Tokens without begin and end; a concept's is its name."""
    found: list[Any] = []
    for number, part in enumerate(_WORD.split(text)):
        if number % 2:
            if part not in concepts.ids:
                known = ", ".join(f"<{name}>" for name in concepts.ids)
                raise ValueError(f"expected words of {known}, found <{part}>")
            found.append(part)
        elif part.strip():
            if nearly := _NEARLY.search(part):
                known = ", ".join(f"<{name}>" for name in concepts.ids)
                raise ValueError(f"expected words of {known}, found {nearly[0]!r}")
            if part.count("(") != part.count(")"):
                raise ValueError(
                    f"expected brackets beside words like <toy>, not around them, found {part!r}"
                )
            for chunk in clip.tokenize(part)[key]:
                inner = list(chunk[1:])
                stops = [at for at, one in enumerate(inner) if _id(one) == _id(end)]
                found += inner[: stops[0]] if stops else inner
    return found


def _ids(clip: Any, key: str, end: Any, words: str) -> list[int]:
    chunk = clip.tokenize(words)[key][0][1:]
    ids = [_id(one) for one in chunk]
    return ids[: ids.index(_id(end))]


def _id(token: Any) -> int:
    """A token's number; -1 for an embedding, which has none."""
    value = token[0]
    return value if isinstance(value, int) else -1


def _owned(
    ids: list[int], concepts: GatedConcepts, nouns: Mapping[str, list[int]]
) -> dict[str, Tensor]:
    everyone = set(concepts.ids.values())
    return {
        name: torch.tensor(rows_of(ids, concepts.gate, own, nouns[name], everyone))
        for name, own in concepts.ids.items()
        if own in ids
    }


def rows_of(
    ids: list[int], gate: str, own: int, noun: Sequence[int], everyone: set[int]
) -> list[bool]:
    """The rows of one prompt that a concept owns, which the prompt names.

    token: the placeholder's. span: also the class noun's where it follows directly. prompt: all,
    or with several placeholders those after the own one and before the next.
    """
    if gate == "prompt":
        if not everyone.intersection(ids) - {own}:
            return [True] * len(ids)
        owner, owned = 0, []
        for token in ids:
            owner = token if token in everyone else owner
            owned.append(owner == own)
        return owned
    owned = [token == own for token in ids]
    if gate == "span":
        for place, token in enumerate(ids):
            if token == own and ids[place + 1 : place + 1 + len(noun)] == list(noun):
                owned[place + 1 : place + 1 + len(noun)] = [True] * len(noun)
    return owned


def _require_fit(gated: GatedConcepts, layer: str, linear: Any) -> None:
    """Raise ValueError unless a layer of the model maps what the concepts were made for."""
    for name in gated.ids:
        down, up = gated.weights[f"{name}/{layer}.down"], gated.weights[f"{name}/{layer}.up"]
        wanted = (down.shape[0], up.shape[1])
        found = (getattr(linear, "in_features", 0), getattr(linear, "out_features", 0))
        if found != wanted:
            raise ValueError(
                f"the concepts were learned on another base model: {layer} maps {found}, <{name}> "
                f"is made for {wanted}; load the base that export.json names"
            )


def _digest(features: Tensor) -> bytes:
    plain = features.detach().cpu().contiguous()
    return hashlib.sha256(plain.view(torch.uint8).numpy().tobytes()).digest()


NODE_CLASS_MAPPINGS = {"L2dmLoadGated": LoadGated, "L2dmGatedPrompt": GatedPrompt}
NODE_DISPLAY_NAME_MAPPINGS = {
    "L2dmLoadGated": "l2dm: load gated concepts",
    "L2dmGatedPrompt": "l2dm: prompt",
}
