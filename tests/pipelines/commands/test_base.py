"""`l2dm base`: one command from a folder to a base that lines learn on, or nothing at all."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from components.services.store.home import Home
from l2dm.bases import folder as base_folder
from l2dm.errors import BadBase
from pipelines.commands.cli import app
from pipelines.commands.target import Target, require_base


def run(home: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["base", *words], env={"L2DM_HOME": str(home), "COLUMNS": "200"})


def test_a_base_is_added_listed_shown_and_named(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    done = run(home, "add", str(tiny_base), "--name", "tiny", "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["fingerprint"] == base_folder.fingerprint(tiny_base)
    assert (record["name"], record["resolution"], record["clip_from"]) == ("tiny", 16, "its own")
    assert json.loads(run(home, "list", "--json").stdout) == [record]
    shown = json.loads(run(home, "show", "tiny", "--json").stdout)
    assert shown == record | {"loaded_by": shown["loaded_by"]}
    assert "tiny  Stable Diffusion 1/2, 16 pixels" in run(home, "list").stdout
    assert "prediction    epsilon" in run(home, "show", "tiny").stdout
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # a folder of that name does not hide it
    name = Target(home, "pets", "tiny").base_name
    assert name == shown["loaded_by"]
    require_base(name)
    assert base_folder.fingerprint(base_folder.locate(name)) == record["fingerprint"]
    moved = tmp_path / "moved"
    shutil.move(home, moved)
    require_base(Target(moved, "pets", "tiny").base_name)
    again = run(moved, "add", str(tiny_base), "--name", "tiny")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "found a base of that name" in again.stderr
    assert left(moved) == {record["files"].partition("/")[0], "tiny.json"}


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["./gone"], "expected 'pocket', a folder in diffusers layout"),
        (["x.safetensors"], "x.safetensors is missing"),
        (["bare"], "pass --encoders FOLDER with one that is on this machine"),
        (["bare", "--encoders", "gone"], "expected a folder or org/name on a hub"),
        (["bare", "--name", "A b"], "expected 1 to 40 lowercase letters"),
        (["torn"], "is cut off"),
    ],
)
def test_what_cannot_be_a_base_leaves_nothing(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], refusal: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("bare", "torn"):
        shutil.copytree(tiny_base, tmp_path / name)
    shutil.rmtree(tmp_path / "bare/clip")
    weights = tmp_path / "torn/vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = run(tmp_path / "home", "add", *words)
    assert done.exit_code == 2
    assert refusal in done.stderr
    assert "Traceback" not in done.stderr
    assert left(tmp_path / "home") == set()
    assert not list((tmp_path / "home/cache").rglob("*.safetensors"))


def test_no_line_begins_on_a_base_without_encoders(tiny_base: Path, tmp_path: Path) -> None:
    """Told before anything is drawn."""
    copy = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    require_base(str(copy))
    shutil.rmtree(copy / "clip")
    with pytest.raises(BadBase, match=r"expected clip/ with a CLIPModel .* `l2dm base add`"):
        require_base(str(copy))


@pytest.mark.slow
@pytest.mark.parametrize("at", ["reading", "drawing", "storing"])
def test_one_that_is_killed_leaves_no_base(tiny_base: Path, tmp_path: Path, at: str) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-c", "from pipelines.commands.cli import main; main()"]
    words = ["base", "add", str(tiny_base), "--name", "tiny", "--home", str(home)]
    with subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if at in line:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert run(home, "list", "--json").stdout.strip() == "[]"
    done = run(home, "add", str(tiny_base), "--name", "tiny")
    assert done.exit_code == 0, done.stderr
    require_base(Target(home, "pets", "tiny").base_name)


def left(home: Path) -> set[str]:
    return {one.key.split("/")[1] for one in Home.at(home).store.list("bases/")}
