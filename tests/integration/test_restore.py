"""MLflow's database and the bucket restored from backups of different minutes, on real servers."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.mlflow_registry import MlflowRegistry
from pipelines.dispatcher.dispatcher import Dispatcher, DispatchPolicy, RunSettings
from pipelines.dispatcher.repair import repair_line
from tests.integration import servers
from tests.worlds.fast_runs import FastRuns

pytestmark = pytest.mark.slow

ECHO = Path(__file__).parents[1] / "worlds" / "echo_model.py"
LINE = "pets"


@dataclass
class Team:
    """A state in a bucket; MLflow servers of this test, each on a database of its own."""

    where: servers.Where
    home: Home
    folder: Path
    started: "list[subprocess.Popen[bytes]]" = field(default_factory=list)
    registry: MlflowRegistry = field(init=False)
    runs: FastRuns = field(init=False)
    dispatcher: Dispatcher = field(init=False)

    def program(self, name: str, *arguments: str, **more: object) -> str:
        host, port = self.where.database.rpartition("@")[2].split("/")[0].split(":")
        reach = ("-h", host, "-p", port, "-U", "l2dm")
        command = [f"{servers.postgres_programs()}/{name}", *reach, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, **more)  # type: ignore[call-overload]
        return str(done.stdout)

    def serve(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """An MLflow server on a database; from now on the line lives there."""
        port = servers.free_port()
        address = f"{self.where.database.rpartition('/')[0]}/{database}"
        options = ("--workers", "1", "--backend-store-uri", address)
        place = ("--artifacts-destination", f"s3://{servers.BUCKET}/{self.home.store.prefix}mlflow")  # type: ignore[attr-defined]
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), *options, *place]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        endpoint = {"MLFLOW_S3_ENDPOINT_URL": self.where.endpoint}
        with open(self.folder / f"{database}.log", "wb") as log:
            self.started.append(
                subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env=os.environ | quiet | endpoint,
                    start_new_session=True,
                )
            )
        until = time.monotonic() + 120
        while not servers.answers(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < until, (self.folder / f"{database}.log").read_text()
            time.sleep(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        self.registry = MlflowRegistry(self.home, "pocket", ECHO)
        self.runs = FastRuns(lambda: self.registry, self.folder / "release")
        self.dispatcher = self.new_dispatcher()

    def new_dispatcher(self) -> Dispatcher:
        policy, settings = DispatchPolicy(backoff=0.0), RunSettings("pocket", "{}")
        return Dispatcher(self.home, self.runs, lambda: self.registry, settings, policy)

    def upload(self, *names: str) -> None:
        for name in names:
            facts = {"line": LINE, "concept": {"name": name, "class_noun": "dog"}, "pictures": []}
            self.home.store.create(f"inbox/{LINE}/{name}/concept.json", json.dumps(facts).encode())

    def learn(self) -> None:
        """Until nothing waits."""
        for _ in range(30):
            if self.dispatcher.look().get(LINE) == "idle":
                return
            for name in self.runs.running():
                self.runs.finish(name)
        raise AssertionError(self.story())

    def story(self) -> list[str]:
        return [event.kind for event in Records(self.home.store, LINE).events()]

    def state(self) -> dict[str, bytes]:
        """A backup of the bucket."""
        entries = self.home.store.list("")
        kept = (one.key for one in entries if not one.key.startswith("mlflow/"))
        return {key: self.home.store.read(key).data for key in kept}

    def put_back(self, backup: dict[str, bytes]) -> None:
        for key in self.state():
            self.home.store.delete(key)
        for key, data in backup.items():
            self.home.store.write(key, data)

    def check(self) -> None:
        """Records, registry and aliases tell the same story, and the chain is linear."""
        ledger = Records(self.home.store, LINE).state()
        versions = {v.number: v.facts for v in self.registry.versions(LINE)}
        aliases = self.registry.aliases(LINE)
        assert aliases.get("champion", 0) == ledger.standing.champion
        assert aliases.get("previous", 0) == ledger.standing.previous
        for number, task in ledger.versions.items():
            assert versions[number].task == task
        number = ledger.standing.champion
        while number:
            assert ledger.versions[number] == versions[number].task
            number = versions[number].parent_version


@pytest.fixture
def team(place: str, tmp_path: Path) -> Iterator[Team]:
    where = servers.told()
    assert where is not None
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "manifest.json").write_text("{}")
    team = Team(where, Home.at(place), tmp_path)
    yield team
    for process in team.started:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.mark.filterwarnings("ignore")  # mlflow's, while a model is logged
def test_backups_of_different_minutes_end_consistent_and_say_what_was_dropped(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, older, empty = (f"{name}_{uuid.uuid4().hex[:8]}" for name in ("live", "older", "empty"))
    team.program("createdb", live)
    team.serve(live, monkeypatch)
    team.upload("rex", "mimi")
    team.learn()
    early_database, early_bucket = team.program("pg_dump", live), team.state()
    team.upload("sunny", "bolt")
    team.learn()
    assert Records(team.home.store, LINE).state().standing.champion == 4
    late_bucket = team.state()

    # the bucket is older: versions 3 and 4 are unknown to the records, their uploads never came
    team.put_back(early_bucket)
    team.dispatcher = team.new_dispatcher()
    team.upload("luna")
    team.learn()
    team.check()
    (event,) = [e for e in Records(team.home.store, LINE).events() if e.kind == "restored"]
    assert (event.facts["lost"], event.facts["unknown"]) == ([], [3, 4])
    assert team.registry.versions(LINE)[-1].facts.parent_version == 2

    # the database is older: versions 3 and 4 are lost, their uploads are learned again
    team.put_back(late_bucket)
    team.program("createdb", older)
    team.program("psql", "-q", "-d", older, input=early_database)
    team.serve(older, monkeypatch)
    team.upload("nero")
    team.learn()
    team.check()
    (event,) = [e for e in Records(team.home.store, LINE).events() if e.kind == "restored"]
    assert [one["version"] for one in event.facts["lost"]] == [3, 4]
    states = {state.name: state.state for state in Records(team.home.store, LINE).concepts()}
    assert states == dict.fromkeys(("rex", "mimi", "sunny", "bolt", "nero"), "promoted")

    # another database: nothing happens unasked; a person says that it is the one
    before = team.story()
    team.program("createdb", empty)
    team.serve(empty, monkeypatch)
    team.upload("rita")
    assert [team.dispatcher.look()[LINE] for _ in range(2)] == ["broken", "broken"]
    assert team.story() == before
    dropped = repair_line(team.home, team.registry, LINE)
    assert dropped is not None and dropped.champion == 0 and len(dropped.lost) == 5
    team.learn()
    team.check()
    assert Records(team.home.store, LINE).state().standing.champion == 6
