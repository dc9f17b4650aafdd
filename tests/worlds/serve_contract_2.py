"""What MLflow holds of a version that was registered under contract 2 of `l2dm.serve`.

A copy of `components/runtime/pyfunc.py` as it was when that contract was made. Versions keep such
copies from then on, so this file is frozen and must go on working.
"""

import atexit
import hashlib
import importlib.util
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

COLUMNS = ("prompt", "negative_prompt", "seed", "count", "steps", "guidance", "scale")


class PromptToPng(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A prompt becomes pictures; `predict` is not annotated, mlflow would take that for a schema.

    Columns, and params for rows that leave them out: `negative_prompt`, `seed` (same seed, same
    bytes), `count` of pictures, `steps` and `guidance` (0: what the base recommends), `scale`
    (strengths of concepts, "rex=0.7").
    """

    def load_context(self, context: Any) -> None:
        """Load the release of this version on the base it was learned on."""
        _require_code(context)
        import l2dm.serve as serve  # torch and diffusers: not when a version is registered

        self.serve, base = serve, context.model_config["base"]
        self.release = serve.open_release(context.artifacts["release"], base)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """PNG bytes, `count` per row of the column `prompt`."""
        try:
            return self.release.pngs(_rows(model_input, params or {}))
        except self.serve.Refused as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error


def _rows(table: Any, params: Any) -> list[dict[str, Any]]:
    """A row per prompt. A column of one cell, and a param, holds for all of them."""
    columns = {name: _cells(table[name]) for name in COLUMNS if name in table}
    count = len(columns["prompt"])
    for name, cells in columns.items():
        if len(cells) not in (1, count):
            raise MlflowException.invalid_parameter_value(
                f"column {name}: expected {count} cells or one, found {len(cells)}"
            )
    rows = []
    for index in range(count):
        row = {name: params[name] for name in COLUMNS if name in params}
        for name, cells in columns.items():
            cell = cells[index if len(cells) == count else 0]
            if cell is not None and cell == cell:  # NaN: not given in this row
                row[name] = cell
        rows.append(row)
    return rows


def _cells(column: Any) -> list[Any]:
    """A dict of lists arrives as one cell with a list."""
    if isinstance(column, str) or not hasattr(column, "__iter__"):
        return [column]
    cells: list[Any] = []
    for cell in column:
        many = hasattr(cell, "__iter__") and not isinstance(cell, str)
        cells += list(cell) if many else [cell]
    return cells


def _require_code(context: Any) -> None:
    """Make `l2dm` known where it is not installed: from the wheel beside the release."""
    if importlib.util.find_spec("l2dm") is not None:
        return
    wheel = Path(context.artifacts["wheel"])
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != context.model_config["wheel_sha256"]:
        raise RuntimeError(
            f"expected {wheel.name} as it was registered, found it changed; fetch the model again"
        )
    folder = tempfile.mkdtemp(prefix="l2dm-served-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    sys.path.append(folder)


mlflow.models.set_model(PromptToPng())
