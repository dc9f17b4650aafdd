"""A registered version is served by whatever release is installed, wherever its modules moved."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import l2dm
from components.runtime.outcomes import MODEL_CODE
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import VersionFacts
from l2dm.serve import open_release
from l2dm.steps import empty_release

REGISTERED = Path(__file__).parents[2] / "worlds" / "registered_version.py"
OURS = ("l2dm", "components", "pipelines")
MOVED = ("bases", "files", "releases", "adapters")
PROMPT = "a photo of a dog"
SERVE = """
import sys
sys.meta_path = [one for one in sys.meta_path if "editable" not in repr(one)]  # it finds ours, too
from importlib.util import find_spec
import mlflow
assert find_spec("l2dm.releases") is None and find_spec("l2dm.moved_releases")
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/l2dm.pets/1")
(png,) = model.predict([{"prompt": sys.argv[2]}], params={"seed": 3, "steps": 2})
open(sys.argv[3], "wb").write(png)
"""


@pytest.fixture
def release(tmp_path: Path, tiny_base: Path) -> Path:
    return empty_release(tmp_path / "some-release", "pets", str(tiny_base)).folder


@pytest.mark.parametrize("code", [MODEL_CODE, REGISTERED])
def test_what_mlflow_copies_imports_one_module_of_ours(code: Path) -> None:
    found = set[str]()
    for node in ast.walk(ast.parse(code.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    assert {name for name in found if name.split(".")[0] in OURS} == {"l2dm.serve"}


def moved(to: Path) -> Path:
    """A release to come: the library's rooms have other names, the other packages are gone."""
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(Path(str(l2dm.__file__)).parent, to / "l2dm", ignore=ignored)
    for name in MOVED:
        (to / "l2dm" / name).rename(to / "l2dm" / f"moved_{name}")
    for path in to.rglob("*.py"):
        text = path.read_text()
        for name in MOVED:
            text = text.replace(f"l2dm.{name}", f"l2dm.moved_{name}")
        path.write_text(text)
    for name in OURS[1:]:
        (to / name).mkdir()
        (to / name / "__init__.py").write_text("raise ImportError('this is not here any more')")
    return to


@pytest.mark.slow
def test_a_version_that_was_registered_before_a_move_is_served_after_it(
    home: Home, release: Path, tiny_base: Path, tmp_path: Path
) -> None:
    registry = MlflowRegistry(home, str(tiny_base), REGISTERED)
    registry.register("pets", release, VersionFacts("t0001", "rex", "dog", 0, "digest", True))
    served = tmp_path / "served.png"
    words = ["-c", SERVE, f"sqlite:///{home.database}", PROMPT, str(served)]
    environment = {**os.environ, "PYTHONPATH": str(moved(tmp_path / "later"))}
    command = [sys.executable, "-P", *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    now = open_release(release, str(tiny_base)).png(PROMPT, seed=3, steps=2)
    assert served.read_bytes() == now
    assert now != open_release(release, str(tiny_base)).png(PROMPT, seed=4, steps=2)
