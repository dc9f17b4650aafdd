"""The command line: quick, clean errors, documented exit codes and schema."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from components.services.line import status_cache
from components.services.line.ledger import ConceptState
from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry, VersionFacts
from pipelines.commands.cli import PAGES, app

COMMANDS = (
    *("demo", "submit", "presign", "learn", "status", "generate", "evaluate", "check", "schedule"),
    *("rollback", "cancel", "forget", "repair", "export", "dispatch", "history", "compile"),
    "settings",
)


def run(home: Path, *words: str) -> Any:
    return CliRunner().invoke(app, [*words], env={"L2DM_HOME": str(home), "COLUMNS": "200"})


def pictures(folder: Path, count: int = 4, side: int = 64) -> Path:
    """Different pictures: each has its own random pattern."""
    import random

    folder.mkdir()
    for number in range(count):
        rng = random.Random(number)
        small = Image.frombytes("RGB", (8, 8), rng.randbytes(192))
        small.resize((side, side), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    return folder


def submit(home: Path, folder: Path, concept: str = "rex", *more: str) -> Any:
    names = ["--line", "pets", "--concept", concept, "--class-noun", "dog"]
    return run(home, "submit", str(folder), *names, *more)


@pytest.mark.parametrize("words", [["--help"], ["status", "--json"]])
def test_light_commands_load_nothing_heavy_and_answer_at_once(
    words: list[str], tmp_path: Path
) -> None:
    code = (
        "import sys; from pipelines.commands.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: print('heavy', {'torch', 'mlflow', 'kfp', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, *words]
    # processor time, and the best of three: a busy machine makes a single one no measure
    assert min(processor_seconds(command, tmp_path) for _ in range(3)) < 0.5


def processor_seconds(command: list[str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "heavy set()" in done.stdout
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_submit_loads_nothing_heavy(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in")
    code = (
        "import sys; from pipelines.commands.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "finally: print('heavy', {'torch', 'mlflow', 'kfp'} & set(sys.modules))"
    )
    words = ["submit", str(folder), "--line", "pets", "--concept", "rex", "--class-noun", "dog"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, "heavy set()" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, tmp_path: Path) -> None:
    done = run(tmp_path, command, "--help")
    assert done.exit_code == 0
    assert "--json" in done.stdout


def test_every_command_has_a_page_of_its_name_and_a_test_of_its_help(tmp_path: Path) -> None:
    assert [name for name, _ in PAGES] == list(dict(PAGES))
    assert set(dict(PAGES)) == set(COMMANDS)
    for name, page in PAGES:
        assert page.__module__.rpartition(".")[2] == name


def test_a_submitted_upload_waits_and_cannot_be_submitted_twice(tmp_path: Path) -> None:
    folder, home = pictures(tmp_path / "in"), tmp_path / "home"
    assert submit(home, folder).exit_code == 0
    again = submit(home, folder)
    assert again.exit_code == 2
    assert "found it taken (its upload is waiting)" in again.stderr
    done = run(home, "status", "--json")
    assert json.loads(done.stdout) == {
        "lines": [
            {
                "name": "pets",
                "champion": None,
                "challenger": None,
                "previous": None,
                "recipe": None,
                "versions": [],
                "concepts": [
                    {
                        "name": "rex",
                        "class_noun": "dog",
                        "state": "waiting",
                        "version": None,
                        "reasons": [],
                        "findings": [],
                        "known": False,
                        "known_version": None,
                        "taken_back": None,
                    }
                ],
                "set_aside": [],
                "untold": [],
            }
        ],
        "set_aside": [],
    }


def test_bad_pictures_are_refused_with_every_problem_and_nothing_is_written(tmp_path: Path) -> None:
    folder, home = pictures(tmp_path / "in", side=8), tmp_path / "home"
    (folder / "torn.png").write_bytes(b"\x89PNG")
    done = submit(home, folder, "No Slug!")
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
    for problem in ("No Slug!", "0.png", "3.png", "torn.png"):
        assert problem in done.stderr
    assert not (home / "inbox").exists()


def test_an_upload_that_ended_without_success_can_be_submitted_again(tmp_path: Path) -> None:
    folder, home = pictures(tmp_path / "in"), tmp_path / "home"
    submit(home, folder)
    digest = Uploads(Home.at(home).store, "pets").digest("rex")
    reasons = ("step train: out of memory",)
    ended = ConceptState("rex", "dog", "failed", reasons=reasons, upload=digest)
    Records(Home.at(home).store, "pets").end(ended)
    assert "out of memory" in run(home, "status").stdout
    assert submit(home, folder).exit_code == 0
    (line,) = json.loads(run(home, "status", "--json").stdout)["lines"]
    assert [concept["state"] for concept in line["concepts"]] == ["waiting"]


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    submit(tmp_path / "home", pictures(tmp_path / "in"))
    done = run(tmp_path / "home", "learn", "--line", "pets", "--set", "train.step=3")
    assert done.exit_code == 2
    assert "spec has no key 'train.step'; nearest known key: train.steps" in done.stderr


def test_an_unknown_line_names_the_known_ones(tmp_path: Path) -> None:
    submit(tmp_path / "home", pictures(tmp_path / "in"))
    for words in (["learn"], ["status"], ["generate", "a dog", "--out", "x"], ["rollback"]):
        done = run(tmp_path / "home", *words, "--line", "cars")
        assert done.exit_code == 2
        assert "found 'cars'; there are ['pets']" in done.stderr


def test_a_base_that_is_missing_is_refused_before_anything_runs(tmp_path: Path) -> None:
    submit(tmp_path / "home", pictures(tmp_path / "in"))
    done = run(tmp_path / "home", "learn", "--line", "pets", "--base", str(tmp_path / "nowhere"))
    assert done.exit_code == 2
    assert "found no such folder" in done.stderr
    assert not (tmp_path / "home" / "runs").exists()


def test_status_shows_versions_aliases_and_reasons(tmp_path: Path) -> None:
    home, release = Home.at(tmp_path / "home"), tmp_path / "release"
    release.mkdir()
    registry = FolderRegistry(tmp_path / "registry")
    reasons = ("drift 0.40 is over the limit of 0.35",)
    facts = VersionFacts("t0001", "rex", "dog", 0, "digest", False, reasons, {"prior_drift": 0.4})
    registry.register("pets", release, facts)
    registry.set_alias("pets", "challenger", 1)
    Records(home.store, "pets").end(
        ConceptState("rex", "dog", "held", version=1, reasons=reasons, task="t0001")
    )
    status_cache.refresh(home, registry, "pets")
    (line,) = json.loads(run(home.folder, "status", "--line", "pets", "--json").stdout)["lines"]
    assert (line["champion"], line["challenger"]) == (None, 1)
    assert line["versions"] == [
        {
            "version": 1,
            "task": "t0001",
            "concept": "rex",
            "verdict": "closed",
            "reasons": list(reasons),
            "findings": [],
            "scores": {"prior_drift": 0.4},
        }
    ]
    assert line["concepts"][0]["state"] == "held"
    table = run(home.folder, "status").stdout
    assert "challenger 1" in table and "drift 0.40" in table


def test_history_tells_every_event_of_a_line(tmp_path: Path) -> None:
    submit(tmp_path / "home", pictures(tmp_path / "in"))
    (event,) = json.loads(run(tmp_path / "home", "history", "--line", "pets", "--json").stdout)[
        "events"
    ]
    assert (event["number"], event["kind"], event["concept"]) == (1, "submitted", "rex")
    assert "submitted  concept=rex" in run(tmp_path / "home", "history", "--line", "pets").stdout


def test_dispatch_once_ends_at_once_where_nothing_waits(tmp_path: Path) -> None:
    done = run(tmp_path / "home", "dispatch", "--once")
    assert (done.exit_code, done.stdout) == (0, "")
    submit(tmp_path / "home", pictures(tmp_path / "in"))
    done = run(tmp_path / "home", "dispatch", "--once", "--base", str(tmp_path / "nowhere"))
    assert done.exit_code == 2
    assert "found no such folder" in done.stderr
    assert not (tmp_path / "home" / "dispatched").exists()


def test_a_folder_sends_no_events(tmp_path: Path) -> None:
    done = run(tmp_path / "home", "dispatch", "--once", "--listen", "127.0.0.1:0")
    assert done.exit_code == 2
    assert "since a folder sends no events" in done.stderr


def test_compile_writes_the_golden_pipelines(tmp_path: Path) -> None:
    done = run(tmp_path, "compile", "--out", str(tmp_path / "out"), "--json")
    paths = [Path(path) for path in json.loads(done.stdout)["files"]]
    names = ["learn_concept.yaml", "learn_concept_wide.yaml", "check_forgetting.yaml"]
    assert [path.name for path in paths] == names
    for path in paths:
        golden = Path(__file__).parents[1] / "golden" / path.name
        assert path.read_text() == golden.read_text()


def test_schedule_tells_sets_and_ends_a_clock(tmp_path: Path) -> None:
    home, line = tmp_path / "home", ("--line", "pets")
    submit(home, pictures(tmp_path / "in"))
    assert "pets: not checked on a clock" in run(home, "schedule", *line).stdout
    done = run(home, "schedule", *line, "--cron", "0 3 * * *", "--set", "check.policy=roll_back")
    assert "pets: checked at 0 3 * * * (UTC) by the dispatcher, next " in done.stdout
    told = json.loads(run(home, "schedule", *line, "--json").stdout)
    assert (told["cron"], told["settings"]) == ("0 3 * * *", ["check.policy=roll_back"])
    assert "not checked" in run(home, "schedule", *line, "--off").stdout
    wrong = run(home, "schedule", *line, "--cron", "nightly")
    assert wrong.exit_code == 2
    assert "expected five fields such as '0 3 * * *'" in wrong.stderr
    assert run(home, "schedule", *line, "--set", "check.policy=weep").exit_code == 2


def test_a_line_without_champion_cannot_be_checked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    submit(home, pictures(tmp_path / "in"))
    done = run(home, "check", "--line", "cats")
    assert done.exit_code == 2
    assert "expected a line of" in done.stderr
    done = run(home, "check", "--line", "pets")
    assert done.exit_code == 2
    assert "expected line 'pets' to have a champion, found none" in done.stderr


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = pictures(tmp_path / "pictures")
    monkeypatch.setattr(os, "fsync", full)
    result = run(
        tmp_path / "home", "submit", str(folder),
        "--line", "pets", "--concept", "rex", "--class-noun", "dog",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "the file system refused: No space left on device" in result.stderr
    assert not (tmp_path / "home/inbox/pets/rex").exists()


def test_a_runner_that_cannot_carry_out_runs_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    config = tmp_path / "l2dm.toml"
    config.write_text("[cluster]\nhost = 'http://127.0.0.1:1'\n")
    words = ["dispatch", "--once", "--config", str(config)]
    done = run(tmp_path / "home", *words, "--runner", "cluster", "--base", "/bases/sd15")
    assert done.exit_code == 2
    for what in ("state in s3://bucket/prefix", "image", "MLFLOW_TRACKING_URI", "/bases/sd15"):
        assert what in done.stderr
    config.write_text("[docker]\nuser = 'me'\n")
    done = run(tmp_path / "home", *words)
    assert done.exit_code == 2
    assert 'docker.user: expected "uid:gid" in numbers' in done.stderr
    assert not (tmp_path / "home" / "dispatched").exists()


@pytest.mark.slow
def test_compile_places_the_steps_as_the_settings_say(tmp_path: Path) -> None:
    config = Path(__file__).parents[3] / "docs" / "l2dm.toml"
    done = run(tmp_path, "compile", "--out", str(tmp_path / "out"), "--config", str(config))
    golden = Path(__file__).parents[1] / "golden" / "placed" / "learn_concept.yaml"
    (path,) = (Path(line) for line in done.stdout.split() if line.endswith("learn_concept.yaml"))
    assert path.read_text() == golden.read_text()
    done = run(tmp_path, "compile", "--out", str(tmp_path), "--config", str(tmp_path / "no.toml"))
    assert done.exit_code == 2
    assert "could not read it" in done.stderr


def test_a_system_without_file_locks_is_told_where_it_runs() -> None:
    """Windows, as far as it can be pretended."""
    program = (
        "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None;"
        "import pipelines.commands.cli"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "runs on Linux and macOS" in done.stderr
    assert "Traceback" not in done.stderr
