"""Who may import whom, and how large things may get."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from l2dm.spec import Method

ROOT = Path(__file__).parent.parent
PACKAGES = ("l2dm", "components", "pipelines")
STEPS = ("intake", "generate_prior", "score_memory", "train", "evaluate", "promote")
PLATFORM = {"kfp", "mlflow", "boto3", "botocore"}
HEAVY = {"torch", "diffusers", "transformers", "peft", "safetensors", "numpy"}
TABLES = {"l2dm.spec._out_of_range"}  # one row per setting
MAX_MODULE, MAX_FUNCTION, MAX_BODY = 400, 40, 15


@dataclass(frozen=True)
class Import:
    module: str  # the importing one, dotted
    target: str  # what it imports, dotted
    top: bool  # at module level, so it costs time and ties when the module is loaded

    @property
    def package(self) -> str:
        return self.target.split(".")[0]

    def __str__(self) -> str:
        return f"{self.module} imports {self.target}{' at module level' if self.top else ''}"


def modules() -> dict[str, Path]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


def imports_of(name: str, path: Path) -> Iterator[Import]:
    def walk(node: ast.AST, top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from (Import(name, alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name} has a relative import"
                origin = child.module or ""
                for alias in child.names:
                    whole = f"{origin}.{alias.name}"
                    yield Import(name, whole if whole in MODULES else origin, top)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, top and not inside)

    yield from walk(ast.parse(path.read_text()), True)


MODULES = modules()
IMPORTS = [found for name, path in MODULES.items() for found in imports_of(name, path)]


def under(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def broken(importers: tuple[str, ...], forbidden: set[str]) -> list[str]:
    """Imports, at any depth of the code, of a forbidden package by one of these modules."""
    return [
        str(one)
        for one in IMPORTS
        if under(one.module, *importers) and under(one.target, *forbidden)
    ]


def test_every_package_was_looked_at() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(PACKAGES)
    assert len(MODULES) > 50 and len(IMPORTS) > 300
    for step in STEPS:
        assert f"components.{step}" in MODULES


def test_arrows_point_one_way() -> None:
    assert broken(("l2dm",), {"components", "pipelines"} | PLATFORM) == []
    assert broken(("components",), {"pipelines", "typer", "rich"}) == []
    assert broken(("components.services",), {"kfp"}) == []
    outward = [
        str(one)
        for one in IMPORTS
        if under(one.module, "components.services")
        and one.package in ("components", "l2dm")
        and not under(one.target, "components.services", "l2dm.doors", "l2dm.errors")
        and not under(one.target, "l2dm.files.manifest", "l2dm.spec")
        and one.target != "l2dm"
    ]
    assert outward == []


def test_records_specs_and_errors_need_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "l2dm"}
    light = ("l2dm.doors", "l2dm.spec", "l2dm.errors", "l2dm.files.manifest")
    foreign = [str(one) for one in IMPORTS if one.module in light and one.package not in allowed]
    heavier = [
        str(one)
        for one in IMPORTS
        if one.module in light and one.package == "l2dm" and not under(one.target, *light, "l2dm")
    ]
    assert foreign + heavier == []


def test_mathematics_knows_no_model_library() -> None:
    pure = ("l2dm.methods.losses", "l2dm.bases.diffusion", "l2dm.metrics")
    assert broken(pure, {"diffusers", "transformers", "peft", "l2dm.bases.model"}) == []
    assert broken(("l2dm.adapters",), {"diffusers", "transformers", "l2dm.bases"}) == []


def test_methods_do_not_know_each_other() -> None:
    pages = [f"l2dm.methods.{method}" for method in get_args(Method)]
    assert set(pages) <= set(MODULES)
    crossed = [
        str(one)
        for one in IMPORTS
        if one.module in pages and one.target in pages and one.target != one.module
    ]
    assert crossed == []
    assert broken(tuple(pages), {"diffusers", "transformers"}) == []


def test_one_door_to_diffusers_and_transformers() -> None:
    """Loading is a family's, `model` and `encoders`; export checks itself; the pocket makes
    its own base."""
    allowed = (
        "l2dm.bases.model",
        "l2dm.bases.stable_diffusion",
        "l2dm.bases.encoders",
        "l2dm.pocket",
        "l2dm.export.verify",
        "l2dm.export.write",
    )
    beyond = [
        str(one)
        for one in IMPORTS
        if one.package in {"diffusers", "transformers"}
        and not under(one.module, *allowed, "l2dm.export.gated_pipeline")
    ]
    assert beyond == []


def test_platform_modules_load_nothing_heavy() -> None:
    at_once = [
        str(one)
        for one in IMPORTS
        if one.top
        and under(one.module, "components", "pipelines")
        and one.package in HEAVY | {"mlflow", "boto3"}
        and one.module != "components.runtime.pyfunc"  # mlflow itself executes that file
    ]
    assert at_once == []
    own = [
        str(one)
        for one in IMPORTS
        if one.top
        and under(one.module, "components", "pipelines")
        and one.package == "l2dm"
        and not under(one.target, "l2dm.doors", "l2dm.errors", "l2dm.files.manifest", "l2dm.spec")
        and one.target not in ("l2dm", "l2dm.uploads.check")  # concepts: Pillow only
    ]
    assert own == []


def test_the_platform_never_uses_torch_itself() -> None:
    assert broken(("components", "pipelines"), {"torch", "diffusers", "transformers"}) == []


def test_the_command_line_loads_no_pipeline_library() -> None:
    heavy = [
        str(one)
        for one in IMPORTS
        if one.top and under(one.module, "pipelines.commands") and one.package == "kfp"
    ]
    assert heavy == []


def test_the_environment_is_read_at_the_edge_only() -> None:
    readers = {name for name, path in MODULES.items() if "os.environ" in path.read_text()}
    # the pocket's maker is a program of its own; models silences its libraries before loading them
    edge = (
        "components.services",
        "pipelines.places.run_here",
        "pipelines.places.runs",
        "pipelines.places.kfp_client",
        "pipelines.places.containers",
        "l2dm.pocket.make",
        "l2dm.bases.model",
    )
    assert {name for name in readers if not under(name, *edge)} == set()


@pytest.mark.parametrize("step", STEPS)
def test_a_component_is_a_declaration_and_a_short_call(step: str) -> None:
    tree = ast.parse(MODULES[f"components.{step}"].read_text())
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert function.name == step
    assert _lines(function) <= MAX_BODY


def test_modules_and_functions_stay_small() -> None:
    long = [name for name, path in MODULES.items() if len(_text(path)) > MAX_MODULE]
    assert long == []
    functions = [
        f"{name}.{node.name}: {_lines(node)} lines"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and _lines(node) > MAX_FUNCTION
        and f"{name}.{node.name}" not in TABLES
    ]
    assert functions == []


def test_no_catch_all_modules() -> None:
    vague = {"utils", "helpers", "common", "base", "manager", "misc"}
    assert {name for name in MODULES if name.split(".")[-1] in vague} == set()


def _text(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _lines(function: ast.FunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
