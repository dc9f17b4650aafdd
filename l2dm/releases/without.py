"""A release without one of its concepts: nothing of it is left, all others are as they were.

Where every concept has weights of its own (`adapters.kinds`) this is exact: the weights, token
rows, features and scores of the others keep their values, so their pictures keep their bytes.
Where concepts share weights, what was learned of one cannot be told from the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from l2dm import doors
from l2dm.adapters.kinds import KINDS
from l2dm.errors import DoesNotFit, UnknownLine
from l2dm.evaluation import sheets
from l2dm.evaluation.matrix import no_scores
from l2dm.files import door_files, manifest
from l2dm.files.manifest import Door
from l2dm.releases import folder as releases

V = TypeVar("V")
REASON = (
    "A concept was taken out of the version before; nothing was learned, and all others are as "
    "they were."
)


@dataclass(frozen=True)
class Change:
    """What the new release is called: its task id, and the version that it is made from."""

    task: str
    parent_version: int


def known(release: Path) -> tuple[str, ...]:
    """Names of what a release knows, in order of learning. Raises BadDoor."""
    return tuple(one.name for one in releases.adapter_of(release).record.concepts)


def require_known(release: Path, name: str) -> None:
    """Raise UnknownLine when a release does not know this concept."""
    names = known(release)
    if name not in names:
        raise UnknownLine(
            f"expected one of the concepts {list(names)} that it knows, found {name!r}"
        )


def require_exact(release: Path) -> None:
    """Refuse a release out of which nothing can be taken exactly. Raises DoesNotFit."""
    adapter = releases.adapter_of(release)
    record, why = adapter.record, ""
    if record.kind != "none" and (record.kind not in KINDS or KINDS[record.kind].SHARED):
        why = f"its adapter {record.kind!r} is one for all concepts, so what one of them left in it"
    elif adapter.path(door_files.STATE).is_file():
        why = "the method keeps numbers that sum over all concepts, so what one of them left in it"
    if why:
        raise DoesNotFit(
            f"expected a line whose concepts have weights of their own (method 'gated'), found "
            f"method {record.method!r}: {why} cannot be told from the others and taken out. Teach "
            "the other concepts to a new line, or go back to a version before it with l2dm rollback"
        )


def without(
    release: Path, name: str, out: Path, change: Change | None = None
) -> Door[doors.Release]:
    """Write the release without this concept. Raises UnknownLine when it does not know it.

    change: None for one that is only learned on from, and gets no number. Exact as `require_exact`
    says; else the weights that concepts share stay as they are, and its token row, features and
    scores go. A method's own state goes, too, because it may be of every concept. Equal inputs
    give equal bytes.
    """
    require_known(release, name)
    old = manifest.read(release, doors.Release)
    named = change or Change(old.record.task, old.record.parent_version)

    def fill(draft: Path) -> None:
        _adapter(releases.adapter_of(release), name, draft / door_files.ADAPTER)
        _memory(releases.memory_of(release), name, draft / door_files.MEMORY)
        _scores(releases.scores_of(release), name, draft / door_files.SCORES)

    record = doors.Release(
        line=old.record.line,
        task=named.task,
        concept=None,
        parent_version=named.parent_version,
        adapter="",
        memory="",
        scores="",
        verdict=doors.Verdict(open=True, reasons=(REASON,)),
    )
    return releases.write_parts(out, record, fill, spec=old.spec, seed=old.seed, parent=old.digest)


def _adapter(old: Door[doors.Adapter], name: str, out: Path) -> Door[doors.Adapter]:
    record = old.record
    left = tuple(one for one in record.concepts if one.name != name)
    if not left:
        bare = doors.Adapter(method="none", kind="none", concepts=(), base=record.base, parent="")
        return manifest.write(out, bare, lambda _: None, spec=old.spec, seed=old.seed)
    weights, rows = door_files.read_weights(old), door_files.read_rows(old)
    if not KINDS[record.kind].SHARED:
        weights = _less(weights, f"{name}/")
    rows = {key: row for key, row in rows.items() if key != name}
    learned_last = record.concepts[-1].name == name  # the curve is of its learning
    curve = None if learned_last else door_files.read_curve(old.folder)
    fill = partial(door_files.write_adapter, weights=weights, rows=rows, curve=curve or None)
    new = replace(record, concepts=left, parent=old.digest)
    return manifest.write(
        out, new, fill, spec=old.spec, seed=old.seed, inputs={"adapter": old.digest}
    )


def _memory(old: Door[doors.Memory], name: str, out: Path) -> Door[doors.Memory]:
    features = door_files.read_long_term(old)
    features.pop(name, None)
    left = tuple(one for one in old.record.long_term if one.concept.name != name)
    fill = partial(door_files.write_memory, features=features)
    record = replace(old.record, long_term=left, short_term=())
    return manifest.write(
        out, record, fill, spec=old.spec, seed=old.seed, inputs={"memory": old.digest}
    )


def _scores(old: Door[doors.Scores], name: str, out: Path) -> Door[doors.Scores]:
    record = scores_without(old.record, name)
    nouns = {one.class_noun for one in record.concepts}
    measured = [
        one
        for one in door_files.read_measurements(old)
        if one.row in record.rows
        and one.concept != name
        and (one.noun is None or one.noun in nouns)
    ]

    def fill(draft: Path) -> None:
        door_files.write_measurements(draft, measured)
        sheets.carry(old.folder, draft, record)

    return manifest.write(
        out, record, fill, spec=old.spec, seed=old.seed, inputs={"scores": old.digest}
    )


def scores_without(old: doors.Scores, name: str) -> doors.Scores:
    """The scores of a line that never learned this concept: no column of it, no row of its task.

    Class nouns that no other concept has go, too. The last row stays the release's own: what it
    measured on the other concepts is what the release draws now.
    """
    names = [one.name for one in old.concepts]
    at = names.index(name)
    if len(names) == 1:
        return no_scores(old.base)
    concepts = _but(old.concepts, at)
    rows, nouns = _but(old.rows, at + 1), {one.class_noun for one in concepts}
    return doors.Scores(
        base=old.base,
        rows=rows,
        concepts=concepts,
        matrices={
            metric: tuple(_but(row, at) for row in _but(matrix, at + 1))
            for metric, matrix in old.matrices.items()
        },
        drift=tuple(one for one in old.drift if one.row in rows and one.noun in nouns),
        ceilings={metric: _but(values, at) for metric, values in old.ceilings.items()},
    )


def _but(values: tuple[V, ...], at: int) -> tuple[V, ...]:
    return (*values[:at], *values[at + 1 :])


def _less(tensors: Mapping[str, V], prefix: str) -> dict[str, V]:
    return {key: one for key, one in tensors.items() if not key.startswith(prefix)}
