"""A pyfunc model that answers with what it was given."""

from pathlib import Path
from typing import Any

import mlflow


class Echo(mlflow.pyfunc.PythonModel):
    def load_context(self, context: Any) -> None:
        self.base = context.model_config["base"]
        self.whole = (Path(context.artifacts["release"]) / "manifest.json").exists()

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        return [
            f"{self.base} {prompt} {params['seed']} {params['steps']} {self.whole}".encode()
            for prompt in model_input["prompt"]
        ]


mlflow.models.set_model(Echo())
