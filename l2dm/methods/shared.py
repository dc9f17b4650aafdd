"""What methods share that train one adapter for the whole line, concept after concept."""

from typing import Literal

from pydantic import Field
from torch import nn

from l2dm.bases.attach import attach_door, attach_new
from l2dm.bases.diffusion import generator_for
from l2dm.bases.model import Model
from l2dm.errors import DoesNotFit
from l2dm.methods.contract import Learned
from l2dm.methods.lesson import Lesson, StateTensors
from l2dm.sections import KEPT, Section


class SharedOptions(Section):
    """Which adapter the line shares."""

    adapter: Literal["lowrank", "spectral"] = Field(
        "lowrank",
        description="LoRA on keys and values of text, or singular values (the paper's own)",
        json_schema_extra=KEPT,
    )


def begin_shared(model: Model, lesson: Lesson, kind: str, rank: int) -> nn.Parameter:
    """Attach the line's one adapter, holding the parent's weights, ready to train.

    kind: of the adapter. rank: where it has one. Returns the new concept's token row, which starts
    at its class noun. Rows of earlier concepts stay frozen. Raises DoesNotFit when the line has an
    adapter of another kind or rank.
    """
    record, concept = lesson.parent.record, lesson.concept
    if record.kind == "none":
        attach_new(model, kind, {"rank": rank}, generator_for(lesson.seed, "adapter"))
    else:
        found = (record.kind, record.settings.get("rank", rank))
        if found != (kind, rank):
            raise DoesNotFit(
                f"the line's adapter is {found[0]} of rank {found[1]}, the spec asks for "
                f"{kind} of rank {rank}; a line keeps its adapter"
            )
        attach_door(model, lesson.parent)
    row = model.add_placeholder(concept.name, model.noun_row(concept.class_noun))
    row.requires_grad_(True)
    return row


def learned_shared(model: Model, state: StateTensors | None = None) -> Learned:
    """The adapter with every row, (1, D), and what the method itself keeps for the next task."""
    rows = {name: row.unsqueeze(0).cpu() for name, row in model.placeholders.state().items()}
    adapter = model.adapter
    return Learned(adapter.kind, adapter.settings, adapter.state(), rows, state or {})
