"""The pipelines as YAML for Kubeflow Pipelines: what is compiled is what runs, everywhere."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.places.settings import Settings

STEPS = ("intake", "generate_prior", "score_memory", "train", "evaluate", "promote")
PIPELINES: Mapping[str, tuple[str, ...]] = {  # names of each one's steps
    "learn_concept": STEPS,
    "learn_concept_wide": STEPS,
    "check_forgetting": ("check",),
}


def pipelines() -> dict[str, Any]:
    """Every pipeline by name; imports kfp."""
    with quiet():
        return {name: getattr(import_module(f"pipelines.{name}"), name) for name in PIPELINES}


def compile_pipeline(
    name: str, folder: Path, settings: Settings | None = None, image: str = ""
) -> Path:
    """Write one pipeline; the same code and settings give the same bytes. Raises BadSettings.

    image: instead of that of the settings.
    """
    return _write({name: _placed(settings, image)[name]}, folder)[0]


def compile_pipelines(folder: Path, settings: Settings | None = None) -> tuple[Path, ...]:
    """Write every pipeline, one YAML each. Raises BadSettings."""
    return _write(_placed(settings), folder)


def _placed(settings: Settings | None, image: str = "") -> dict[str, Any]:
    """All of them, because a step of the settings may be any one's."""
    if settings is None:
        return pipelines()
    with quiet():
        from pipelines.places.placement import placed

        return placed(pipelines(), settings, image)


def _write(found: dict[str, Any], folder: Path) -> tuple[Path, ...]:
    with quiet():
        from kfp import compiler

        folder.mkdir(parents=True, exist_ok=True)
        paths = {name: folder / f"{name}.yaml" for name in found}
        for name, path in paths.items():
            compiler.Compiler().compile(found[name], str(path))
    return tuple(paths.values())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what kfp warns about: image names without "python", its own deprecations."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"kfp\..*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield
