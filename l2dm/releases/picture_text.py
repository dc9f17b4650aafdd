"""What a PNG file says of its own making: the keys that readers of other tools know, and ours.

`parameters` is what A1111 writes and its readers show: the prompt, the negative prompt and one line
of settings. `l2dm` is JSON with everything that drawing the picture again needs.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from l2dm import __version__
from l2dm.releases.request import EVERY, DrawPlan

PARAMETERS, OWN = "parameters", "l2dm"
_SAMPLERS = {  # what A1111 calls them
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}


@dataclass(frozen=True)
class Origin:
    """What all pictures of one request share.

    version: None where it is not known. release, base: digest and fingerprint. sampler: the
    scheduler's class. side: of a picture in pixels.
    """

    line: str
    version: int | None
    release: str
    base: str
    sampler: str
    steps: int
    guidance: float
    side: int


def digest(origin: Origin, plan: DrawPlan) -> str:
    """Eight hex digits of what was asked, the seed apart: equal for equal pictures."""
    asked = _asked(origin, plan)
    del asked["seed"], asked["code"]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def texts(origin: Origin, plan: DrawPlan) -> dict[str, str]:
    """The text chunks of a picture, by keyword."""
    asked = _asked(origin, plan)
    return {
        PARAMETERS: _parameters(origin, plan),
        OWN: json.dumps(asked, sort_keys=True, ensure_ascii=False),
    }


def _asked(origin: Origin, plan: DrawPlan) -> dict[str, Any]:
    wish = plan.wish
    return {
        "line": origin.line,
        "version": origin.version,
        "release": origin.release,
        "base": origin.base,
        "prompt": wish.prompt,
        "negative_prompt": wish.negative,
        "seed": wish.seed,
        "strengths": dict(sorted(wish.strengths.items())),
        "steps": origin.steps,
        "guidance": origin.guidance,
        "sampler": origin.sampler,
        "side": origin.side,
        "code": __version__,
    }


def _parameters(origin: Origin, plan: DrawPlan) -> str:
    """A1111's text. A prompt stands on one line, so that none can add lines that read as others."""
    wish = plan.wish
    negative = [f"Negative prompt: {_one_line(wish.negative)}"] if wish.negative else []
    of = origin.line if origin.version is None else f"{origin.line} version {origin.version}"
    values: Mapping[str, object] = {
        "Steps": origin.steps,
        "Sampler": _SAMPLERS.get(origin.sampler, origin.sampler),
        "CFG scale": f"{origin.guidance:g}",
        "Seed": wish.seed,
        "Size": f"{origin.side}x{origin.side}",
        "Model hash": origin.release[:10],
        "Model": of,
        **_strengths(wish.strengths),
        "Version": f"l2dm {__version__}",
    }
    settings = ", ".join(f"{key}: {value}" for key, value in values.items())
    return "\n".join([_one_line(wish.prompt), *negative, settings])


def _strengths(strengths: Mapping[str, float]) -> Mapping[str, str]:
    said = " ".join(f"{name}={value:g}" for name, value in strengths.items() if name != EVERY)
    every = [f"{strengths[EVERY]:g}"] if EVERY in strengths else []
    words = " ".join([*every, *([said] if said else [])])
    return {"Strength": words} if words else {}


def _one_line(text: str) -> str:
    return " ".join(text.split())
