"""What images are made of, without building one: requirements, versions, what the build may see."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "infra/image"
DOCKERFILE = (IMAGE / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def requirements() -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements", IMAGE / "requirements.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", line)[0] for line in lines}


def test_a_step_gets_every_dependency_but_kfps_own(requirements: ModuleType) -> None:
    step = requirements.requirements("step", PROJECT)
    kfp = requirements.requirements("kfp", PROJECT)
    assert names(kfp) == {"kfp"}
    assert sorted([*step, *kfp]) == sorted(PROJECT["dependencies"])


def test_the_service_gets_kfp_and_what_cluster_and_server_need(requirements: ModuleType) -> None:
    service = names(requirements.requirements("service", PROJECT))
    assert service == {"kfp", "kfp-kubernetes", "psycopg2-binary", "mlflow"}


def test_kfps_executor_imports_nothing_but_kfp() -> None:
    """What `--no-deps kfp` rests on: a new kfp that imports more shows here, not in a cluster."""
    code = (
        "import sys; import kfp.dsl.executor_main, components.artifacts; "
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    command = [sys.executable, "-S", "-c", code]
    found = importlib.util.find_spec("kfp")
    assert found is not None and found.origin is not None
    site = Path(found.origin).parents[1]
    environment = {"_KFP_RUNTIME": "true", "PYTHONPATH": f"{ROOT}:{site}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"kfp", "components", "__main__"}


def test_every_file_says_the_same_torch() -> None:
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    torch = f"torch=={pinned[1]}"
    assert f"ARG TORCH={torch}\n" in DOCKERFILE
    assert f"TORCH ?= {torch}\n" in (ROOT / "Makefile").read_text()
    assert f"${{TORCH:-{torch}}}" in (IMAGE / "build.sh").read_text()


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    first, *rules = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"
    ]
    assert first == "*"
    seen = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    for source in copied:
        assert (ROOT / source).exists()
        assert any(source == one or source.startswith(f"{one}/") for one in seen), source
    assert not {".git", ".venv", "tests", "infra/local", "infra"} & seen


def test_no_address_of_a_registry_is_in_the_files() -> None:
    for path in IMAGE.iterdir():
        if path.is_file():
            assert not re.search(r"https?://(?!127\.0\.0\.1)", path.read_text()), path.name
    assert "# syntax" not in DOCKERFILE  # a frontend is fetched from one


SCRIPTS = [path for path in sorted((ROOT / "infra").rglob("*.sh")) if path.name != "client.sh"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_posix_and_stop_at_errors(path: Path) -> None:
    subprocess.run(["sh", "-n", str(path)], check=True)
    text = path.read_text()
    assert text.startswith("#!/bin/sh\n") == ("set -eu\n" in text)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-x", str(path)], check=True, cwd=ROOT)


def test_hadolint_has_nothing_to_say() -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed: the Dockerfile was not linted")
    done = subprocess.run(["hadolint", str(IMAGE / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
