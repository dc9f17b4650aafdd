"""Installed from a wheel, in a folder with `components/` and `pipelines/` of its own.

Every Kubeflow project is such a folder. What the commands start are Python processes, and Python
puts the current folder in front of everything installed, unless it is told not to.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.worlds.uploads import pictures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[3]
TINY = (
    *("intake.min_side=8", "prior.count=2", "memory.candidates=1", "memory.budget=4"),
    *("train.steps=2", "train.batch=2", "train.method=l2dm"),
    *("l2dm.replay_batch=1", "train.checkpoint_every=1"),
    *("evaluate.pictures=1", "evaluate.distractors=4", "evaluate.resamples=20"),
    *("gate.min_identity=0", "gate.max_forgetting=2", "gate.max_drift=2", "train.processes=2"),
    "gate.max_text_loss=9",
)


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel in it, used from `folder`."""

    environment: Path
    folder: Path

    def run(self, command: str, *words: str, settings: tuple[str, ...] = TINY) -> str:
        """Standard output of an `l2dm` command that ends well."""
        chosen = [word for setting in settings for word in ("--set", setting)]
        ours = {"L2DM_HOME": "home", "L2DM_BASE": "base", "HOME": str(self.folder)}
        cpu = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [self.environment / "bin" / "l2dm", command, *words, *chosen],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], **ours, **cpu},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def submit(self, name: str) -> None:
        """An upload of three pictures."""
        shown = pictures(self.folder / f"pictures-{name}", 3, first=10 * len(name))
        named = ("--line", "pets", "--concept", name, "--class-noun", "dog")
        self.run("submit", str(shown), *named, settings=("intake.min_side=8",))

    def states(self) -> dict[str, tuple[str, list[str]]]:
        """Every concept's state and the reasons for it."""
        (line,) = json.loads(self.run("status", "--json", settings=()))["lines"]
        return {one["name"]: (one["state"], one["reasons"]) for one in line["concepts"]}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its packages are the wheel and everything that is installed here, without this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    for name in ("l2dm", "components", "pipelines"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    building = ["wheel", *offline, "--no-build-isolation", "--wheel-dir", folder / "wheels", source]
    subprocess.run([*pip, *building], check=True)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = (folder / "wheels").iterdir()
    subprocess.run([*pip, "--python", python, "install", *offline, wheel], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "rest.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "venv"


@pytest.fixture(scope="module")
def installed(
    environment: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    folder = tmp_path_factory.mktemp("kubeflow-project")
    for name in ("components", "pipelines"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('of another project')\n")
    (folder / "base").symlink_to(tiny_base)
    return Installed(environment, folder)


def test_commands_work_among_folders_of_the_same_names(installed: Installed) -> None:
    installed.submit("rex")
    installed.run("learn", "--line", "pets")
    assert installed.states()["rex"][0] == "promoted"
    installed.run("generate", "<rex> dog", "--line", "pets", "-n", "1", "--out", "drawn")
    assert len(list((installed.folder / "drawn").iterdir())) == 1
    installed.run("check", "--line", "pets")
    installed.submit("mimi")
    # a refusal says that its run and its step began, in a second
    changed = sorted((installed.folder / "home/inbox/pets/mimi").glob("*.png"))[0]
    changed.write_bytes(changed.read_bytes() + b"more")
    installed.run("dispatch", "--once")
    state, reasons = installed.states()["mimi"]
    assert (state, len(reasons)) == ("refused", 1)
    assert changed.name in reasons[0]
