"""What MLflow holds of a version that was registered under contract 1 of `l2dm.serve`.

A copy of `components/runtime/pyfunc.py` as it was when that contract was made. Versions keep such
copies from then on, so this file is frozen and must go on working.
"""

from typing import Any

import mlflow


class PromptToPng(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A prompt becomes a picture; `predict` is not annotated, mlflow would take that for a schema.

    Params: `seed` (same seed, same bytes) and `steps` (0: what the base recommends).
    """

    def load_context(self, context: Any) -> None:
        """Load the release of this version on the base it was learned on."""
        from l2dm.serve import open_release  # torch and diffusers: not when a version is registered

        base = context.model_config["base"]
        self.release = open_release(context.artifacts["release"], base)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """PNG bytes, one per row of the column `prompt`."""
        given = params or {}
        seed, steps = int(given.get("seed", 0)), int(given.get("steps", 0))
        prompts: list[str] = []
        for cell in model_input["prompt"]:  # a dict of lists arrives as one cell with a list
            prompts += [cell] if isinstance(cell, str) else list(cell)
        return [self.release.png(text, seed=seed, steps=steps) for text in prompts]


mlflow.models.set_model(PromptToPng())
