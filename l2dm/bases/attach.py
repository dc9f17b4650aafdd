"""Put an adapter on a model: a fresh one to train, or the one that a door holds."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from l2dm import doors
from l2dm.adapters.contract import AdapterSettings, AttachedAdapter
from l2dm.adapters.kinds import kind_of
from l2dm.bases.model import Model
from l2dm.errors import DoesNotFit
from l2dm.files import door_files
from l2dm.files.manifest import Door


def attach_new(
    model: Model,
    kind: str,
    settings: AdapterSettings,
    generator: torch.Generator,
    concepts: Sequence[doors.Concept] = (),
) -> AttachedAdapter:
    """A fresh adapter that changes nothing yet. Arguments as for `adapters.kinds.Kind.put_on`."""
    model.adapter = kind_of(kind).put_on(model, settings, generator, concepts)
    return model.adapter


def attach_door(model: Model, door: Door[doors.Adapter]) -> AttachedAdapter:
    """Put a learned adapter and its placeholders on a model that carries none.

    Raises DoesNotFit when the base is not the one it was trained on, or any weight does not match.
    """
    record = door.record
    if model.adapter.kind != "none":
        raise DoesNotFit("the model carries an adapter already; load the base again")
    if record.base != model.fingerprint:
        raise DoesNotFit(
            f"adapter {door.digest[:12]} was trained on base {record.base}, this run loads "
            f"{model.fingerprint} ({model.name}); pass the base that its line was started with"
        )
    if record.kind == "none":
        return model.adapter
    add_rows(model, record.concepts, door_files.read_rows(door))
    generator = torch.Generator()  # every weight it draws is overwritten by `load`
    adapter = attach_new(model, record.kind, record.settings, generator, record.concepts)
    adapter.load(door_files.read_weights(door))
    return adapter


def add_rows(model: Model, concepts: tuple[doors.Concept, ...], rows: Mapping[str, Tensor]) -> None:
    """Teach a model the placeholders of these concepts. rows: (1, D) per concept name."""
    names = {concept.name for concept in concepts}
    if names != rows.keys():
        raise DoesNotFit(
            f"adapter lists concepts {sorted(names)} but holds token rows {sorted(rows)}; "
            "train the task again"
        )
    for concept in concepts:
        row = rows[concept.name]
        if not torch.isfinite(row).all():
            raise DoesNotFit(f"token row of <{concept.name}> holds NaN or infinity; train it again")
        model.add_placeholder(concept.name, row.reshape(-1))
