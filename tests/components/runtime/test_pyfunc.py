"""A version is served by whatever release is installed later, wherever its modules moved.

Those that were registered since there is `l2dm.serve`: code of earlier ones names what is gone.
"""

import ast
import hashlib
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

import l2dm
from components.runtime.outcomes import MODEL_CODE
from components.services.store.home import Home
from components.services.tracking import mlflow_plugin, served
from components.services.tracking.mlflow_registry import MlflowRegistry
from components.services.tracking.registry import VersionFacts
from l2dm.serve import open_release
from l2dm.steps import empty_release

CONTRACT_1 = Path(__file__).parents[2] / "worlds" / "serve_contract_1.py"
CONTRACT_2 = CONTRACT_1.with_name("serve_contract_2.py")
FROZEN_2 = "088de83c3467b97e32085cd9839147a13c4ab7b519c244243df7600908aa398f"
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
    assert hashlib.sha256(CONTRACT_2.read_bytes()).hexdigest() == FROZEN_2


@pytest.mark.parametrize("code", [MODEL_CODE, CONTRACT_1, CONTRACT_2])
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
@pytest.mark.parametrize("code", [CONTRACT_1, CONTRACT_2])
def test_a_version_that_was_registered_before_a_move_is_served_after_it(
    code: Path, home: Home, release: Path, tiny_base: Path, tmp_path: Path
) -> None:
    registry = MlflowRegistry(home, str(tiny_base), code)
    registry.register("pets", release, VersionFacts("t0001", "rex", "dog", 0, "digest", True))
    served = tmp_path / "served.png"
    words = ["-c", SERVE, f"sqlite:///{home.database}", PROMPT, str(served), *MOVED]
    environment = {**os.environ, "PYTHONPATH": str(moved(tmp_path / "later"))}
    command = [sys.executable, "-P", *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    now = open_release(release, str(tiny_base)).png(PROMPT, seed=3, steps=2)
    assert pixels(served.read_bytes()) == pixels(now)
    assert now != open_release(release, str(tiny_base)).png(PROMPT, seed=4, steps=2)


def pixels(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.tobytes()


ALONE = """
import sys
sys.meta_path = [one for one in sys.meta_path if "editable" not in repr(one)]
from importlib.util import find_spec
assert find_spec("l2dm") is None
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = {"prompt": [sys.argv[2]] * 2, "seed": [3, 4], "negative_prompt": ["", "a cup"]}
rows = pandas.DataFrame(rows)
pngs = model.predict(rows, params={"steps": 2, "count": 2})
for number, png in enumerate(pngs):
    open(f"{sys.argv[3]}/{number}.png", "wb").write(png)
assert "l2dm-served-" in sys.modules["l2dm"].__file__
try:
    model.predict(rows, params={"steps": 10**9})
except mlflow.exceptions.MlflowException as error:
    assert error.error_code == "INVALID_PARAMETER_VALUE" and "steps" in str(error), error
else:
    raise AssertionError("a thousand million steps")
"""


@pytest.mark.slow
def test_a_version_is_served_where_this_project_is_not_installed(
    home: Home, release: Path, tiny_base: Path, tmp_path: Path
) -> None:
    registry = MlflowRegistry(home, str(tiny_base), MODEL_CODE)
    registry.register("pets", release, VersionFacts("t0001", "rex", "dog", 0, "digest", True))
    (model,) = home.artifacts.rglob("MLmodel")  # as a server of MLflow would hand it out
    words = ["-P", "-c", ALONE, str(model.parent), PROMPT, str(tmp_path)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = open_release(release, str(tiny_base))
    wanted = [ours.png(PROMPT, seed=seed, steps=2) for seed in (3, 4)]
    drawn = [(tmp_path / f"{number}.png").read_bytes() for number in range(4)]
    assert [pixels(one) for one in drawn[:2]] == [pixels(one) for one in wanted]
    assert pixels(drawn[2]) != pixels(wanted[1])  # seed 4 again, led away from a cup


def test_requirements_are_pinned_and_name_nothing_that_somebody_else_may_own() -> None:
    found = served.requirements()
    assert all(re.fullmatch(r"[a-z-]+==[0-9][0-9a-z.]*", one) for one in found)
    assert not [one for one in found if one.startswith("l2dm")]
    assert {"torch", "diffusers", "transformers", "mlflow"} <= {one.split("==")[0] for one in found}


def test_the_wheel_that_goes_along_is_small_equal_and_whole(tmp_path: Path) -> None:
    path, digest = served.write_wheel(tmp_path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert path.stat().st_size < 400_000
    served._wheel.cache_clear()
    (tmp_path / "again").mkdir()
    assert served.write_wheel(tmp_path / "again")[1] == digest
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        listed = archive.read("l2dm-0.1.0.dist-info/RECORD").decode().splitlines()
    assert {"l2dm/serve.py", "l2dm/releases/painter.py", "l2dm/pocket/__init__.py"} <= names
    assert {line.split(",")[0] for line in listed} == names
    assert not [name for name in names if "pocket/weights" in name or name.startswith("/")]


@pytest.fixture(scope="module")
def pyfunc() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mlflow's own making while it is imported
        return importlib.import_module("components.runtime.pyfunc")


def test_a_changed_wheel_is_refused(
    tmp_path: Path, pyfunc: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = served.write_wheel(tmp_path)
    path.write_bytes(path.read_bytes() + b"x")
    context = SimpleNamespace(artifacts={"wheel": str(path)}, model_config={"wheel_sha256": digest})
    monkeypatch.setattr(pyfunc.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="as it was registered, found it changed"):
        pyfunc._require_code(context)


def test_rows_come_from_columns_and_params(pyfunc: ModuleType) -> None:
    table = pandas.DataFrame({"prompt": ["a", "b"], "seed": [1.0, float("nan")]})
    assert pyfunc._rows(table, {"seed": 7, "steps": 2, "other": 1}) == [
        {"prompt": "a", "seed": 1.0, "steps": 2},
        {"prompt": "b", "seed": 7, "steps": 2},
    ]
    whole = {"prompt": ["a", "b"], "seed": [5]}
    assert [row["seed"] for row in pyfunc._rows(whole, {})] == [5, 5]
    with pytest.raises(MlflowException, match="column seed: expected 3 cells or one, found 2"):
        pyfunc._rows({"prompt": ["a", "b", "c"], "seed": [1, 2]}, {})
