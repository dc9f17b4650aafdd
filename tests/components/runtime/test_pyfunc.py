"""A version is served by whatever release is installed later, wherever its modules moved.

Those that were registered since there is `l2dm.serve`: code of earlier ones names what is gone.
"""

import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import l2dm
from components.runtime.outcomes import MODEL_CODE
from components.services.store.home import Home
from components.services.tracking import mlflow_plugin
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import VersionFacts
from l2dm.serve import open_release
from l2dm.steps import empty_release

CONTRACT_1 = Path(__file__).parents[2] / "worlds" / "serve_contract_1.py"
FROZEN = "2a7bee6929eb95a04d8020e88eeb32fbaa86db46f158f7eab7c0f960293d985e"
OURS = ("l2dm", "components", "pipelines")
LIBRARY = Path(str(l2dm.__file__)).parent
STAYS = {"__init__", "serve"}
MOVED = sorted({path.stem for path in LIBRARY.iterdir() if path.name != "__pycache__"} - STAYS)
PROMPT = "a photo of a dog"
SERVE = """
import sys
sys.meta_path = [one for one in sys.meta_path if "editable" not in repr(one)]  # it finds ours, too
from importlib.util import find_spec
import mlflow
for name in sys.argv[4:]:
    assert find_spec(f"l2dm.{name}") is None and find_spec(f"l2dm.moved_{name}"), name
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/l2dm.pets/1")
(png,) = model.predict([{"prompt": sys.argv[2]}], params={"seed": 3, "steps": 2})
open(sys.argv[3], "wb").write(png)
"""


@pytest.fixture
def release(tmp_path: Path, tiny_base: Path) -> Path:
    return empty_release(tmp_path / "some-release", "pets", str(tiny_base)).folder


def test_the_code_of_a_contract_is_frozen() -> None:
    assert hashlib.sha256(CONTRACT_1.read_bytes()).hexdigest() == FROZEN


@pytest.mark.parametrize("code", [MODEL_CODE, CONTRACT_1])
def test_what_mlflow_copies_imports_one_module_of_ours(code: Path) -> None:
    found = set[str]()
    for node in ast.walk(ast.parse(code.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    assert {name for name in found if name.split(".")[0] in OURS} == {"l2dm.serve"}


def moved(to: Path) -> Path:
    """A release to come: all rooms of the library have other names, the other packages are gone.

    What MLflow loads of it (where a state folder's files are) has moved, too.
    """
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(LIBRARY, to / "l2dm", ignore=ignored)
    for path in (to / "l2dm").iterdir():
        if path.stem in MOVED:
            path.rename(path.with_name(f"moved_{path.name}"))
    names = "|".join(MOVED)
    for path in to.rglob("*.py"):
        text = re.sub(rf"\bl2dm\.({names})\b", r"l2dm.moved_\1", path.read_text())
        text = re.sub(r"^( *from l2dm import )(.+)$", _imported, text, flags=re.MULTILINE)
        path.write_text(text)
    for name in OURS[1:]:
        (to / name).mkdir()
        (to / name / "__init__.py").write_text("raise ImportError('this is not here any more')")
    shutil.copyfile(str(mlflow_plugin.__file__), to / "later_plugin.py")
    (to / "later-9.dist-info").mkdir()
    entry = "[mlflow.artifact_repository]\nmlflow-artifacts = later_plugin:files_of\n"
    (to / "later-9.dist-info" / "entry_points.txt").write_text(entry)
    (to / "later-9.dist-info" / "METADATA").write_text("Name: later\nVersion: 9\n")
    return to


def _imported(found: re.Match[str]) -> str:
    """`from l2dm import doors` of a room that has another name."""
    names = []
    for word in found[2].split(", "):
        name, _, alias = word.partition(" as ")
        names.append(f"moved_{name} as {alias or name}" if name in MOVED else word)
    return found[1] + ", ".join(names)


@pytest.mark.slow
def test_a_version_that_was_registered_before_a_move_is_served_after_it(
    home: Home, release: Path, tiny_base: Path, tmp_path: Path
) -> None:
    registry = MlflowRegistry(home, str(tiny_base), CONTRACT_1)
    registry.register("pets", release, VersionFacts("t0001", "rex", "dog", 0, "digest", True))
    served = tmp_path / "served.png"
    words = ["-c", SERVE, f"sqlite:///{home.database}", PROMPT, str(served), *MOVED]
    environment = {**os.environ, "PYTHONPATH": str(moved(tmp_path / "later"))}
    command = [sys.executable, "-P", *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    now = open_release(release, str(tiny_base)).png(PROMPT, seed=3, steps=2)
    assert served.read_bytes() == now
    assert now != open_release(release, str(tiny_base)).png(PROMPT, seed=4, steps=2)
