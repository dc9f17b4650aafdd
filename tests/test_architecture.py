"""What the import contract (pyproject.toml, `lint-imports`) cannot say: sizes, names, start-up."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grimp
import pytest

from l2dm.bases import family
from l2dm.methods import registry

ROOT = Path(__file__).parent.parent
PACKAGES = ("l2dm", "components", "pipelines")
STEPS = ("intake", "generate_prior", "score_memory", "train", "evaluate", "promote")
HEAVY = ("torch", "diffusers", "transformers", "peft", "mlflow", "boto3")
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
MAX_MODULES, MAX_FUNCTION, MAX_BODY = 12, 40, 15
TWICE = {"Task", "Prior", "Memory", "Drawn", "Adapter", "Scores", "Release", "Check"}  # KFP's doors


def modules() -> dict[str, Path]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


MODULES = modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def test_the_import_contract_is_kept() -> None:
    """`lint-imports` in `make check` says the same, faster and with the whole chain."""
    # a process of its own: the linter sets up logging, which silences every logger that is there
    code = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_methods_and_families_do_not_know_each_other() -> None:
    graph = grimp.build_graph("l2dm", cache_dir=None)
    pages = {name for name in MODULES if name.startswith("l2dm.methods.") and _says(name, "NAME")}
    families = {name for name in MODULES if name.startswith("l2dm.bases.families.")}
    assert len(pages) == len(registry.names()) and len(families) == len(family.families())
    for group in (pages, families):
        for one in group:
            assert graph.find_modules_directly_imported_by(one) & group == set()


def test_platform_modules_load_nothing_heavy() -> None:
    """At their import; functions may. MLflow itself executes the model that it loads."""
    light = [
        name
        for name in MODULES
        if name.split(".")[0] != "l2dm" and name != "components.runtime.pyfunc"
    ]
    assert len(light) > 80
    probe = f"import {', '.join(light)}, sys; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_environment_is_read_at_the_edge_only() -> None:
    readers = {name for name, tree in TREES.items() if _reads_environment(tree)}
    # the pocket's maker is a program of its own; bases silence their libraries before loading them
    edge = ("components.services", "pipelines.places", "l2dm.files.children", "l2dm.bases")
    beyond = {name for name in readers if not name.startswith(edge)}
    assert beyond == {"l2dm.pocket.make"}


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ['A']",
        "import os as system\nsystem.getenv('A')",
        "from os import environ",
        "def f():\n    from os import path, getenv as get",
        "import os.path\nos.putenv('A', 'b')",
    ],
)
def test_the_environment_is_found_however_it_is_read(text: str) -> None:
    assert _reads_environment(ast.parse(text))
    assert not _reads_environment(ast.parse("import os\nos.replace(job.environ, 'b')"))


def test_the_platform_imports_by_name_only_its_own_wiring() -> None:
    """What the import contract cannot see: it would let any library in."""
    by_name = {
        name
        for name, tree in TREES.items()
        if name.split(".")[0] != "l2dm" and _names(tree) & {"import_module", "__import__"}
    }
    assert by_name == {"pipelines.places.compilation"}


@pytest.mark.parametrize("step", STEPS)
def test_a_component_is_a_declaration_and_a_short_call(step: str) -> None:
    (function,) = [node for node in TREES[f"components.{step}"].body if _is_function(node)]
    assert isinstance(function, ast.FunctionDef)
    assert function.name == step
    assert _lines(function) <= MAX_BODY


def test_folders_and_functions_stay_small() -> None:
    # A catalogue may grow: pages of methods and families are found by their own names.
    listed = {name for name in MODULES if _says(name, "NAME") or _says(name, "FAMILY")}
    plain = [
        path for name, path in MODULES.items() if path.name != "__init__.py" and name not in listed
    ]
    crowded = {
        str(folder): count
        for folder, count in Counter(path.parent.relative_to(ROOT) for path in plain).items()
        if count > MAX_MODULES
    }
    assert crowded == {}
    long = [
        f"{name}.{node.name}: {_lines(node)} lines"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _lines(node) > MAX_FUNCTION
    ]
    assert long == []


def test_every_folder_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for name, path in MODULES.items()
        if path.name == "__init__.py" and not ast.get_docstring(TREES[name])
    ]
    assert silent == []


def test_one_type_has_one_name_and_one_name_one_type() -> None:
    names = Counter(
        node.name for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} <= TWICE


def test_no_catch_all_modules() -> None:
    vague = {"utils", "helpers", "common", "base", "manager", "misc"}
    assert {name for name in MODULES if name.split(".")[-1] in vague} == set()


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef)


def _reads_environment(tree: ast.AST) -> bool:
    """Whether a module reads or sets variables of its environment, under whatever name of `os`."""
    nodes = list(ast.walk(tree))
    aliases = {
        alias.asname or "os"
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.split(".")[0] == "os"
    }
    asked = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in aliases
    }
    asked |= {
        alias.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
    }
    return bool(asked & ENVIRONMENT)


def _names(tree: ast.AST) -> set[str]:
    """Every name and attribute that a module uses or imports."""
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            used |= {alias.name for alias in node.names}
    return used


def _says(module: str, constant: str) -> bool:
    """Whether a module assigns a constant at its top."""
    return any(
        isinstance(target, ast.Name) and target.id == constant
        for node in TREES[module].body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )


def _lines(function: ast.FunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
