"""Read an export back with plain diffusers and compare it with this library, bit for bit.

Together with `bases/` and the stand-alone `gated_pipeline.py` this is all of the library that knows
diffusers.
"""

import contextlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from l2dm import doors
from l2dm.bases import folder as base_folder
from l2dm.bases.model import Model
from l2dm.bases.prompts import EVALUATION_TEMPLATES
from l2dm.bases.sampling import Shot, draw_latents
from l2dm.errors import DoesNotFit
from l2dm.export.forms import LORA, PIPELINE, Form, gated_name
from l2dm.spec import SamplingSpec

EMBEDDINGS = "embeddings"
SEED = 0
STEPS = 4  # enough to pass every layer several times; a finished picture would prove no more


@dataclass(frozen=True)
class Reference:
    """What this library draws and reads, to be met by the exported files.

    latents: (1, C, h, w). picture: (3, H, W) uint8. states: prompt -> text features (1, L, D).
    """

    prompt: str
    steps: int
    guidance: float
    latents: Tensor
    picture: Tensor
    states: Mapping[str, Tensor]


@dataclass(frozen=True)
class Written:
    """An export that was written: where, in which form, for which line and concepts."""

    folder: Path
    form: Form
    line: str
    concepts: Sequence[doors.Concept]


def adapter_name(line: str) -> str:
    """A name for diffusers: part of no weight's name, or its loader warns of missing keys."""
    return f"l2dm_line_{line}"


def reference(model: Model, concepts: Sequence[doors.Concept]) -> Reference:
    """One picture of the newest concept, and the text features of every concept's prompt."""
    prompts = [EVALUATION_TEMPLATES[0].format(concept.phrase) for concept in concepts]
    spec = SamplingSpec(steps=min(STEPS, model.steps), guidance=model.guidance)
    latents = draw_latents(model, [Shot(prompts[-1], SEED)], spec)
    with torch.no_grad():
        states = {prompt: model.read([prompt]).states for prompt in prompts}
    picture = model.decode(latents)[0]
    return Reference(prompts[-1], spec.steps, model.guidance, latents, picture, states)


def verify(written: Written, base: Path, wanted: Reference) -> None:
    """Draw the same from the files that were written. Raises DoesNotFit unless it is equal.

    Latents and text features must be equal bit for bit. Pixels may differ by one of 255 where
    diffusers' rounding to bytes and ours meet a tie.
    """
    with _quiet():
        pipe = open_export(written, base)
        problems = _text_problems(pipe, wanted) + _picture_problems(pipe, wanted)
    if problems:
        raise DoesNotFit(
            f"expected plain diffusers to draw from the exported files what this library draws, "
            f"found: {'; '.join(problems)}; nothing was written; compare the installed diffusers "
            "with constraints.txt"
        )


def open_export(written: Written, base: Path) -> Any:
    """The pipeline that the export's README describes, on the CPU in float32."""
    import diffusers

    pipeline = base_folder.family_of(base).pipeline
    plain, folder = getattr(diffusers, pipeline), written.folder
    match written.form:
        case "lora":
            pipe, name = _pipeline(plain, base), adapter_name(written.line)
            pipe.load_lora_weights(folder, weight_name=LORA, adapter_name=name)
        case "gated":
            pipe = _pipeline(getattr(_written(folder / PIPELINE), gated_name(pipeline)), base)
            pipe.load_gated(folder)
            return pipe
        case "merged":
            pipe = _pipeline(plain, folder)
    files = [str(folder / EMBEDDINGS / f"{one.name}.safetensors") for one in written.concepts]
    pipe.load_textual_inversion(files)
    return pipe


def _pipeline(kind: Any, folder: Path) -> Any:
    """The safety checker is left out: on noise it answers with a black picture."""
    left_out = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    known = inspect.signature(kind.__init__).parameters
    half = {"variant": "fp16"} if base_folder.variant(folder) else {}
    pipe = kind.from_pretrained(
        folder,
        use_safetensors=True,
        dtype=torch.float32,
        **{name: value for name, value in left_out.items() if name in known},
        **half,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _written(path: Path) -> ModuleType:
    """The module in a file, not this library's copy of it.

    `custom_pipeline=` needs a home folder that can be written; the tests go that way.
    """
    spec = importlib.util.spec_from_file_location("l2dm_exported_pipeline", path)
    if spec is None or spec.loader is None:
        raise DoesNotFit(f"expected a Python file at {path}, found none; export again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _text_problems(pipe: Any, wanted: Reference) -> list[str]:
    with torch.no_grad():
        return [
            f"other text features for {prompt!r}"
            for prompt, states in wanted.states.items()
            if not torch.equal(_states(pipe, prompt), states)
        ]


def _states(pipe: Any, prompt: str) -> Tensor:
    """Text features, (1, L, D). By keyword: the order of arguments differs between pipelines."""
    states: Tensor = pipe.encode_prompt(
        prompt=prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )[0]
    return states


def _picture_problems(pipe: Any, wanted: Reference) -> list[str]:
    seen: dict[str, Tensor] = {}

    def look(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.update(tensors)
        return tensors

    unit = pipe(
        wanted.prompt,
        num_inference_steps=wanted.steps,
        guidance_scale=wanted.guidance,
        generator=torch.Generator().manual_seed(SEED),
        output_type="pt",
        callback_on_step_end=look,
    ).images[0]
    difference = (seen["latents"] - wanted.latents).abs().max().item()
    levels = ((unit * 255).round().int() - wanted.picture.int()).abs().max().item()
    problems = [] if difference == 0 else [f"latents that differ by {difference:.2g}"]
    return problems + ([] if levels == 0 else [f"pixels that differ by {levels} of 255"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' loading bar and its notice that a LoRA has no text encoder part."""
    from diffusers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
