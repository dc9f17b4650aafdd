"""A state folder to dispatch in: runs that keep the steps' contracts, a clock of its own."""

import json
import os
from pathlib import Path

from components.services.line.records import Records
from components.services.line.uploads import Uploads
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry
from pipelines.dispatcher.dispatcher import Dispatcher, DispatchPolicy, RunSettings
from tests.worlds.fast_runs import FastRuns


class World:
    """A state folder with its registry, its runs and a clock that the test moves."""

    def __init__(
        self,
        folder: Path,
        policy: DispatchPolicy = DispatchPolicy(),  # noqa: B008
        place: str = "",
    ) -> None:
        (folder / "release").mkdir(parents=True)
        self.home = Home.at(place or folder / "home")
        self.registry = FolderRegistry(folder / "registry")
        self.runs = FastRuns(lambda: self.registry, folder / "release")
        self.policy, self.now = policy, 0.0
        self.dispatcher = self.another()

    def another(self, skew: float = 0.0) -> Dispatcher:
        return Dispatcher(
            self.home,
            self.runs,
            lambda: self.registry,
            RunSettings("pocket", "{}"),
            self.policy,
            clock=lambda: self.now + skew,
        )

    def upload(self, line: str, name: str, age: float = 0.0) -> None:
        folder = self.home.upload(line, name)
        folder.mkdir(parents=True)
        path = folder / "concept.json"
        path.write_text(json.dumps({"line": line, "name": name}))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))

    def put_others(self) -> str:
        """Other pictures under the name, as presigned PUTs or `aws s3 cp` do; their digest."""
        path = self.home.upload("pets", "rex") / "concept.json"
        path.write_text(json.dumps({"corrected": True}))
        return Uploads(self.home.store, "pets").digest("rex")

    def finish(self) -> str:
        (name,) = self.runs.running()
        self.runs.finish(name)
        return name

    def states(self, line: str = "pets") -> dict[str, str]:
        found = Records(self.home.store, line).concepts()
        return {state.name: state.state for state in found}

    def kinds(self, line: str = "pets") -> list[str]:
        return [event.kind for event in Records(self.home.store, line).events()]

    def chain(self, line: str = "pets") -> list[tuple[int, int]]:
        events = Records(self.home.store, line).events()
        return [
            (event.facts["source"], event.facts["target"])
            for event in events
            if event.kind == "promotion"
        ]


def expire(world: World, line: str = "pets") -> None:
    path = world.home.folder / "leases" / f"{line}.json"
    os.utime(path, (path.stat().st_mtime - 3600,) * 2)


class Rings:
    """Wake-ups that the test has thought of; each wait takes the next one."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.waited = list(lines), 0

    def wait(self, seconds: float) -> frozenset[str]:
        self.waited += 1
        if not seconds:  # between two lines of a scan
            return frozenset()
        return frozenset({self.lines.pop(0)}) if self.lines else frozenset()

    def close(self) -> None:
        pass
