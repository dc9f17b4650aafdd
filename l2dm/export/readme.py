"""The README.md of an export: what lies there and a snippet that runs as it stands.

Standard library only. The snippet reads the base's place from the command line, because a path on
the exporting machine means nothing to anybody else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from l2dm import escape
from l2dm.doors import Concept

_LORA = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True)
class Facts:
    """What the text says. `variant` is 'fp16' where the base ships only half-precision files.

    pipeline: the class of diffusers that draws with the base. form: `forms.Form`.
    """

    line: str
    task: str
    pipeline: str
    form: str
    gate: str
    concepts: Sequence[Concept]
    base: str
    fingerprint: str
    variant: str | None
    steps: int
    guidance: float

    @property
    def prompt(self) -> str:
        """A prompt that names the newest concept."""
        return f"a photo of a {self.concepts[-1].phrase}"


def text(facts: Facts) -> str:
    """The whole README."""
    words = "".join(
        f"| `{one.placeholder}` | {escape.markdown(one.class_noun)} |\n" for one in facts.concepts
    )
    return f"""# Model line `{facts.line}` after task `{facts.task}`

Base model: {escape.code(facts.base)}, fingerprint `{facts.fingerprint}`.
The files work with that base only. Recommended: {facts.steps} steps, guidance {facts.guidance:g}.
Numbers, digests and settings are in `export.json`.

| word in a prompt | what it is |
|---|---|
{words}
Write the word before what it is: {escape.code(facts.prompt)}.

{_body(facts)}"""


def snippet(facts: Facts) -> str:
    """The Python program of the README. Run it in the export's folder."""
    variant = ', variant="fp16"' if facts.variant else ""
    loaded = {"lora": _load_lora, "gated": _load_gated}.get(facts.form, _load_merged)
    return f"""{loaded(facts, variant)}
pipe.set_progress_bar_config(disable=True)
picture = pipe(
    {json.dumps(facts.prompt, ensure_ascii=False)},
    num_inference_steps={facts.steps},
    guidance_scale={facts.guidance:g},
    generator=torch.Generator().manual_seed(0),
).images[0]
picture.save("picture.png")
"""


def _body(facts: Facts) -> str:
    program = f"```python\n{snippet(facts)}```\n"
    match facts.form:
        case "lora":
            return _WHOLE_LORA.format(program=program, base=_place(facts), line=facts.line)
        case "gated":
            others = _GATED_LORA if facts.gate == "prompt" else _GATED_ONLY
            return _GATED.format(program=program, base=_place(facts)) + others.format(
                gate=facts.gate
            )
        case _:
            return _MERGED.format(program=program)


def _place(facts: Facts) -> str:
    if facts.base == "pocket":
        return "the project's folder `l2dm/pocket/weights`"
    named = escape.code(facts.base)
    return named if "/" in facts.base else f"the folder of {named}"


def _load_lora(facts: Facts, variant: str) -> str:
    return f"""import sys
from pathlib import Path

import torch
from diffusers import {facts.pipeline}

base = sys.argv[1]  # "org/name" or a folder
pipe = {facts.pipeline}.from_pretrained(base{variant}, dtype=torch.float32)
pipe.load_lora_weights(".", weight_name="{_LORA}", adapter_name="l2dm_line_{facts.line}")
pipe.load_textual_inversion(sorted(map(str, Path("embeddings").glob("*.safetensors"))))"""


def _load_gated(facts: Facts, variant: str) -> str:
    return f"""import sys

import torch
from diffusers import DiffusionPipeline

base = sys.argv[1]  # "org/name" or a folder
pipe = DiffusionPipeline.from_pretrained(
    base, custom_pipeline=".", trust_remote_code=True{variant}, dtype=torch.float32
)
pipe.load_gated(".")"""


def _load_merged(facts: Facts, variant: str) -> str:
    return f"""from pathlib import Path

import torch
from diffusers import {facts.pipeline}

pipe = {facts.pipeline}.from_pretrained(".", dtype=torch.float32)
pipe.load_textual_inversion(sorted(map(str, Path("embeddings").glob("*.safetensors"))))"""


_OTHER_WORDS = """These tools name an embedding by its file: write `embedding:NAME` in ComfyUI and
`NAME` in A1111 where a prompt says `<NAME>`; A1111 reads `<...>` as something else. Their samplers
and noise differ from diffusers', so their pictures show the same thing but are not equal.
"""

_WHOLE_LORA = (
    """## diffusers

Save as `draw.py` in this folder, then `python draw.py BASE`, where BASE is {base}.

{program}
diffusers notes that the file has no text encoder part; so it is.

## ComfyUI and A1111

Copy `{line}.kohya.safetensors` to the LoRA folder and `embeddings/*.safetensors` to the embeddings
folder. Load the LoRA at strength 1, for the model only (it has no text encoder part).
"""
    + _OTHER_WORDS
)

_GATED = """## diffusers

Save as `draw.py` in this folder, then `python draw.py BASE`, where BASE is {base}.

{program}
`trust_remote_code=True` lets diffusers run `pipeline.py` of this folder; read it first. diffusers
copies that one file and knows nothing of the weights beside it, hence `load_gated`.
Every concept acts only where a prompt names it. A prompt that names none draws what the base draws.

Other pipelines work after `load_gated`, image to image, inpainting and ControlNet for instance:
`StableDiffusionImg2ImgPipeline.from_pipe(pipe)`. Embeddings that were made elsewhere, fused
projections and `save_pretrained` are refused: they would draw without the concepts.

## ComfyUI

Copy `comfyui_l2dm_gated.py` to ComfyUI's `custom_nodes/` and start it again; read the file first.
*l2dm: load gated concepts* takes a model and this folder, *l2dm: prompt* takes the place of CLIP
Text Encode, for the negative prompt too; there, write `<NAME>` as above. What other nodes encode is
refused.

## A1111, and ComfyUI without the nodes

"""

_GATED_LORA = (
    """They read plain LoRA files only. `lora/NAME.kohya.safetensors` is one concept as a LoRA:
load **one at a time**, at strength 1, for the model only, with its file from `embeddings/`.

It is not the same: a LoRA acts on every prompt, so also on the negative or empty prompt and on
prompts that do not name the concept, where the gate leaves the base alone. For the prompt that
names one concept the network computes the same up to rounding; the picture differs by what the LoRA
does to the empty prompt. Two of them loaded together disturb each other, which gates prevent.
"""
    + _OTHER_WORDS
)

_GATED_ONLY = """They read plain LoRA files only, and this line cannot be one: its gate is
`{gate}`, so each concept acts on the rows of its own words alone, while a LoRA acts on every word
of every prompt. As a LoRA these weights would draw something that was never learned. A line that
was learned with the gate `prompt` exports one LoRA file per concept.
"""

_MERGED = (
    """This folder is a whole model: the base with shifted singular values in the UNet and the text
encoder. That is no low-rank change, so there is no LoRA file.

## diffusers

Save as `draw.py` in this folder, then `python draw.py`.

{program}
## ComfyUI and A1111

ComfyUI's DiffusersLoader reads this folder from `models/diffusers`. A1111 reads single-file
checkpoints: convert with diffusers' `scripts/convert_diffusers_to_original_stable_diffusion.py`.
Copy `embeddings/*.safetensors` to the embeddings folder.
"""
    + _OTHER_WORDS
)
