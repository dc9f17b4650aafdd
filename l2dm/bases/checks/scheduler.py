"""The scheduler of a base: one that we know, with numbers that make a noise schedule."""

from collections.abc import Collection

from l2dm.bases.checks.files import Files
from l2dm.errors import BadBase

CONFIG = "scheduler/scheduler_config.json"
KNOWN = frozenset({
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler",
    "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler",
})  # fmt: skip
MAX_TIMESTEPS = 10_000  # of training; every known base has 1,000
MAX_STEPS, MAX_GUIDANCE = 1000, 100.0  # of sampling, as sampling.json may advise


def require_scheduler(files: Files, predictions: Collection[str]) -> None:
    """Raise BadBase for a class that is no scheduler of ours, and for numbers out of reason."""
    if not files.has(CONFIG):
        raise BadBase("its scheduler could not be read: scheduler_config.json is missing")
    config = files.config(CONFIG)
    kind = config.get("_class_name")
    if not isinstance(kind, str) or kind not in KNOWN:
        raise BadBase(
            f"unknown scheduler {str(kind)[:80]!r}; expected one of {', '.join(sorted(KNOWN))}"
        )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in tuple(predictions):
        wanted = " or ".join(repr(one) for one in predictions)
        raise BadBase(f"predicts {str(prediction)[:80]!r}, expected {wanted}")
    steps, betas = config.get("num_train_timesteps", 1000), config.get("trained_betas")
    if betas is not None:
        steps = len(betas) if isinstance(betas, list) and all(map(_is_number, betas)) else betas
    if type(steps) is not int or not 2 <= steps <= MAX_TIMESTEPS:
        raise BadBase(
            f"{CONFIG}: expected 2 to {MAX_TIMESTEPS:,} timesteps of training, found "
            f"{str(steps)[:80]}"
        )


def require_advice(files: Files) -> None:
    """Raise BadBase for a sampling.json that recommends what cannot be drawn with."""
    if not files.has("sampling.json"):
        return
    advice = files.config("sampling.json")
    steps, guidance = advice.get("steps", 30), advice.get("guidance", 7.5)
    if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
        raise BadBase(f"sampling.json: expected steps of 1 to {MAX_STEPS}, found {str(steps)[:80]}")
    if not _is_number(guidance) or not 0 <= guidance <= MAX_GUIDANCE:
        raise BadBase(
            f"sampling.json: expected guidance of 0 to {MAX_GUIDANCE:g}, found {str(guidance)[:80]}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
