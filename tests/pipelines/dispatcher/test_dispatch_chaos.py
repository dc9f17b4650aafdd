"""Dispatchers and runs that die between any two writes: every upload ends once, no chain forks."""

import random
from pathlib import Path

import pytest

from components.services.line.records import Records
from components.services.store.folder import FolderObjects
from components.services.store.home import Home
from pipelines.dispatcher.dispatcher import Dispatcher, DispatchPolicy
from tests.worlds.dispatch_world import World, expire


class Death(BaseException):
    """The process is gone: nothing catches it, nothing runs after it."""


class Mortal(FolderObjects):
    """Dies before or after a request, at random."""

    def __init__(self, folder: Path, dice: random.Random, chance: float) -> None:
        super().__init__(folder)
        self.dice, self.chance = dice, chance

    def _put(self, key: str, data: bytes) -> str:
        self.maybe_die()
        tag = super()._put(key, data)
        self.maybe_die()
        return tag

    def maybe_die(self) -> None:
        if self.dice.random() < self.chance:
            raise Death


@pytest.mark.parametrize("seed", range(6))
def test_whatever_dies_every_upload_ends_once_and_the_chain_is_linear(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dispatchers and runs die between any two of their writes and start again."""
    dice = random.Random(seed)
    world = World(tmp_path, DispatchPolicy(attempts=1000, backoff=0.0, parallel=3))
    chance = [0.15]

    def store(home: Home) -> Mortal:
        return Mortal(home.folder, dice, chance[0])

    monkeypatch.setattr(Home, "store", property(store))
    monkeypatch.setattr("components.services.line.leases._died_here", lambda facts: False)
    world.runs.verdict = lambda concept: not concept.endswith("3")

    def cut() -> None:
        if dice.random() < chance[0]:
            raise Death

    world.runs.cut = cut
    lines = ("a", "b", "c")
    for line in lines:
        for number in range(4):
            world.upload(line, f"c{number}", age=dice.random())
    dispatchers = [world.another(), world.another()]
    for turn in range(2000):
        chance[0] = 0.15 if turn < 300 else 0.0
        act(world, dispatchers, dice)
        if turn > 300 and all(ended(world, line) for line in lines):
            break
    for line in lines:
        check_line(world, line)


def act(world: World, dispatchers: list[Dispatcher], dice: random.Random) -> None:
    """One random move; whoever dies is replaced by a new process."""
    which = dice.randrange(len(dispatchers))
    world.now += 1
    try:
        match dice.choice(("look", "look", "run", "expire", "kill")):
            case "look":
                dispatchers[which].look()
            case "run":
                for name in world.runs.running()[:1]:
                    try:
                        world.runs.finish(name)
                    except Death:
                        world.runs.fail(name, None)
            case "expire":
                line = dice.choice("abc")
                if (world.home.folder / "leases" / f"{line}.json").exists():
                    expire(world, line)
            case "kill":
                dispatchers[which] = world.another()
    except Death:
        dispatchers[which] = world.another()


def ended(world: World, line: str) -> bool:
    states = world.states(line)
    return len(states) == 4 and set(states.values()) <= {"promoted", "held"}


def check_line(world: World, line: str) -> None:
    assert ended(world, line), (world.states(line), world.kinds(line))
    events = Records(world.home.store, line).events()
    ends = [event.facts["concept"] for event in events if event.kind == "ended"]
    assert sorted(ends) == ["c0", "c1", "c2", "c3"]  # each once
    chain = world.chain(line)
    assert [source for source, _ in chain] == [0, *(target for _, target in chain[:-1])]
    versions = world.registry.versions(line)
    assert sorted(v.facts.concept for v in versions) == ["c0", "c1", "c2", "c3"]  # none doubled
    promoted = {version.number: version.facts for version in versions if version.facts.open}
    assert {target for _, target in chain} == set(promoted)
    for source, target in chain:
        assert promoted[target].parent_version == source
