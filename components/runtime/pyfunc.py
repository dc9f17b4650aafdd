"""The file that mlflow executes to serve a version: a prompt becomes the bytes of a PNG.

It runs in a fresh interpreter from a copy, so it imports installed packages only, and what costs
time inside the functions.
"""

from typing import Any

import mlflow


class PromptToPng(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A prompt becomes a picture; `predict` is not annotated, mlflow would take that for a schema.

    Params: `seed` (same seed, same bytes) and `steps` (0: what the base recommends).
    """

    def load_context(self, context: Any) -> None:
        """Load the release of this version on the base it was learned on."""
        from pathlib import Path

        from components.runtime.base_cache import local_base
        from components.services.store.home import Home
        from l2dm.releases.painter import open_release

        folder, base = Path(context.artifacts["release"]), context.model_config["base"]
        # no state folder here: a base in a bucket is kept beside it, as the state of one would be
        self.painter = open_release(folder, local_base(base, Home.at(base)))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """PNG bytes, one per row of the column `prompt`."""
        from l2dm.files.images import png_bytes
        from l2dm.spec import SamplingSpec

        given = params or {}
        sampling = SamplingSpec(steps=int(given.get("steps", 0)))
        seeds = [int(given.get("seed", 0))]
        prompts: list[str] = []
        for cell in model_input["prompt"]:  # a dict of lists arrives as one cell with a list
            prompts += [cell] if isinstance(cell, str) else list(cell)
        return [png_bytes(self.painter.paint(text, seeds, sampling)[0]) for text in prompts]


mlflow.models.set_model(PromptToPng())
