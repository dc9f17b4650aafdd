"""A line of three concepts, learned by nobody: doors with made-up tensors, versions, records.

Every action on the store and the registry can be the last one of its process.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from components.services.line.ledger import ConceptState
from components.services.line.recipe import Recipe
from components.services.line.records import Records
from components.services.store.home import Home
from components.services.tracking.registry import FolderRegistry, Registry, VersionFacts
from l2dm import doors
from l2dm.files import door_files, manifest
from l2dm.files.door_files import Features
from l2dm.releases import folder as releases
from tests.worlds import history

QUIXBY = doors.Concept("quixby", "dog")  # a shorter name is found in base64 by chance
KNOWN = (doors.Concept("ada", "cat"), QUIXBY, doors.Concept("bolt", "car"))
RECIPE = Recipe({"train.method": "gated", "train.rank": 2, "gated.gate": "token"}, "pocket", "f")
CHANGES = ("write", "create", "replace", "delete", "upload")  # of a store
MOVES = ("register", "set_alias", "drop_alias", "erase")  # of a registry


class Killed(BaseException):
    """The process ends here."""


class Cut:
    """Ends the process at its n-th action: before it, or after it and before its answer."""

    def __init__(self, at: int = 10**9, *, after: bool = False) -> None:
        self.at, self.after, self.count = at, after, 0

    def of(self, whole: Any, names: tuple[str, ...]) -> Any:
        return _Cutting(whole, names, self)

    def __call__(self, act: Callable[..., Any], *given: Any, **more: Any) -> Any:
        self.count += 1
        if self.count == self.at and not self.after:
            raise Killed
        answer = act(*given, **more)
        if self.count == self.at:
            raise Killed
        return answer


class _Cutting:
    def __init__(self, whole: Any, names: tuple[str, ...], cut: Cut) -> None:
        self._whole, self._names, self._cut = whole, names, cut

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._whole, name)
        if name not in self._names:
            return act
        return lambda *given, **more: self._cut(act, *given, **more)


class TaughtLine:
    """Versions 1 to 3 of line "pets": ada, then quixby, then bolt."""

    def __init__(self, folder: Path, registry: Registry | None = None, place: str = "") -> None:
        self.folder, self.home = folder, Home.at(place or folder / "home")
        self.registry: Any = registry or FolderRegistry(folder / "registry")
        for number in range(1, len(KNOWN) + 1):
            self._teach(number)

    @property
    def records(self) -> Records:
        """As a process that has just begun reads them."""
        return Records(self.home.store, "pets")

    def cut(self, cut: Cut) -> tuple[Home, Any]:
        """Home and registry of a process that ends at that action."""
        home = Home(self.home.folder, self.home.bucket)
        home.__dict__["store"] = cut.of(home.store, CHANGES)
        return home, cut.of(self.registry, MOVES)

    def picture(self, name: str) -> bytes:
        """One of its pictures, as it was uploaded."""
        return hashlib.sha256(name.encode()).digest() * 40

    def _teach(self, number: int) -> None:
        known, concept, task = KNOWN[:number], KNOWN[number - 1], f"t{number:04d}"
        upload, records = self._submit(concept), self.records
        named = {"concept": concept.name, "class_noun": concept.class_noun, "upload": upload}
        run = {"run": f"pets-{concept.name}-{number}", "attempt": 1, "fence": number, "mark": "m"}
        records.append("submitted", **named, since=0)
        records.append("started", concept=concept.name, upload=upload, **run)
        recipe = asdict(RECIPE)
        records.append("begun", **named, task=task, parent_version=number - 1, recipe=recipe)
        door = release(self.folder / "releases" / task, known, task, number - 1)
        reasons = tuple(f"<{one.name}> is remembered." for one in known)
        facts = VersionFacts(
            task, concept.name, concept.class_noun, number - 1, door.digest, True, reasons
        )
        version = self.registry.register("pets", door.folder, facts)
        records.append("promotion", line="pets", task=task, source=number - 1, target=version)
        if number > 1:
            self.registry.set_alias("pets", "previous", number - 1)
        self.registry.set_alias("pets", "champion", version)
        state = ConceptState(
            concept.name, concept.class_noun, "promoted", version, reasons, task, upload=upload
        )
        records.end(state, costs={}, scores={})

    def _submit(self, concept: doors.Concept) -> str:
        key, picture = f"inbox/pets/{concept.name}/", self.picture(concept.name)
        listed = [doors.PictureFile("00.png", hashlib.sha256(picture).hexdigest())]
        upload = doors.Upload("pets", concept, tuple(listed))
        text = json.dumps(manifest.to_data(upload)).encode()
        self.home.store.write(f"{key}00.png", picture)
        self.home.store.write(f"{key}concept.json", text)
        return hashlib.sha256(text).hexdigest()


def features(name: str) -> Features:
    """Of three pictures of a concept."""
    image, identity = (_made(f"{name} {kind}", 3, 24) for kind in ("image", "identity"))
    return Features(image, identity)


def release(
    folder: Path, known: tuple[doors.Concept, ...], task: str, parent: int
) -> manifest.Door[doors.Release]:
    """A release with gated adapters that knows these concepts."""
    weights = {f"{c.name}/layer.{at}": _made(c.name + at, 4, 2) for c in known for at in _PATHS}
    rows = {one.name: _made(f"{one.name} row", 1, 12) for one in known}
    settings = {"rank": 2, "gate": "token"}
    adapter = doors.Adapter("gated", "gated", known, "0123456789abcdef", "p", settings)
    spec = {"train": {"rank": 2}, "gated": {"gate": "token"}}
    parts = folder.parent / f"{folder.name}-parts"
    made = manifest.write(
        parts / "adapter", adapter, lambda at: door_files.write_adapter(at, weights, rows, {}, {}),
        spec=spec,
    )  # fmt: skip
    remembered = tuple(doors.Remembered(one, (f"a {one.phrase}",) * 3) for one in known)
    kept = {one.name: features(one.name) for one in known}
    memory = manifest.write(
        parts / "memory", doors.Memory("0123456789abcdef", remembered),
        lambda at: door_files.write_memory(at, kept),
    )  # fmt: skip
    scores = history.scores(parts / "scores", known, 0.0, _pictures)
    record = doors.Task(task, "pets", known[-1], (), (), "", parent, "0123456789abcdef", 0)
    verdict = doors.Verdict(True, tuple(f"<{one.name}> is remembered." for one in known))
    given = releases.Parts(made, memory, scores)
    return releases.write(
        folder, given, line="pets", task=record, verdict=verdict, spec={}, parent=""
    )


_PATHS = ("down", "up")


def _made(seed: str, *shape: int) -> torch.Tensor:
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4])
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def _pictures(at: object, what: object) -> torch.Tensor:
    name = what.name if isinstance(what, doors.Concept) else str(what)
    number = int.from_bytes(hashlib.sha256(f"{name} {at}".encode()).digest()[:4])
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (4, 3, 8, 8), generator=generator, dtype=torch.uint8)
