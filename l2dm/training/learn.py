"""What `train` does in each of its processes: doors to a lesson, a lesson to an adapter."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from l2dm import __version__, doors
from l2dm import spec as specs
from l2dm.adapters.contract import detached, require_finite
from l2dm.bases.model import Model, load_base
from l2dm.bases.prompts import TEMPLATES
from l2dm.context import Context, write_door
from l2dm.files import door_files, manifest
from l2dm.files.manifest import Door
from l2dm.methods import registry
from l2dm.methods.contract import Method
from l2dm.methods.lesson import Lesson, Pool, StateTensors
from l2dm.releases import folder as releases
from l2dm.training.fit import OnStep, fit
from l2dm.training.ranks import Team


@dataclass(frozen=True)
class Sources:
    """The folders that a concept is learned from."""

    task: Path
    parent: Path
    prior: Path
    memory: Path


def learn(
    sources: Sources,
    out: Path,
    context: Context,
    team: Team,
    *,
    work: Path | None = None,
    on_step: OnStep | None = None,
) -> Door[doors.Adapter] | None:
    """Learn the concept; rank 0 of the team writes the door and returns it, the others None."""
    task = manifest.read(sources.task, doors.Task)
    bank = manifest.read(sources.memory, doors.Memory)
    classes = manifest.read(sources.prior, doors.Prior)
    old = releases.adapter_of(sources.parent)
    spec = context.spec.train
    model = load_base(context.base, device=team.device)
    inputs = {
        "task": task.digest,
        "adapter": old.digest,
        "prior": classes.digest,
        "memory": bank.digest,
    }
    lesson = _lesson(model, task, old, classes, bank, _left_by(old, spec.method))
    learned, curve = fit(
        method_of(context.spec),
        model,
        lesson,
        spec,
        work=work,
        key=checkpoint_key(inputs, context.spec),
        on_step=on_step,
        team=team,
    )
    if team.rank != 0:
        return None
    record = doors.Adapter(
        method=spec.method,
        kind=learned.kind,
        concepts=(*old.record.concepts, task.record.concept),
        base=model.fingerprint,
        parent=old.digest,
        settings=learned.settings,
    )
    state = detached(learned.state)
    require_finite(state, f"state of method {spec.method!r}")

    def fill(draft: Path) -> None:
        door_files.write_adapter(draft, learned.weights, learned.rows, state, curve)

    return write_door(out, record, fill, context, inputs)


def checkpoint_key(inputs: Mapping[str, str], spec: specs.Spec) -> str:
    """What a checkpoint is of: this release, the digests of the inputs, every option resolved.

    A spec's text leaves out what equals a default; another release may have other defaults.
    """
    return json.dumps([__version__, inputs, specs.recorded(spec)], sort_keys=True)


def method_of(spec: specs.Spec) -> Method:
    """The spec's method with its options, from its page."""
    page = registry.page(spec.train.method).load()
    method: Method = page.METHOD(spec.train, specs.options_of(spec))
    return method


def _left_by(parent: Door[doors.Adapter], method: str) -> StateTensors:
    """What the method left at the parent's task; another method's state means nothing to it."""
    if parent.record.method != method:
        return {}
    state = door_files.read_state(parent)
    require_finite(state, f"state that method {method!r} left in {parent.folder}")
    return state


def _lesson(
    model: Model,
    task: Door[doors.Task],
    parent: Door[doors.Adapter],
    classes: Door[doors.Prior],
    bank: Door[doors.Memory],
    state: StateTensors,
) -> Lesson:
    pictures = door_files.read_pictures(task)
    mirrored = torch.cat([pictures, pictures.flip(-1)])  # a concept seen from both sides
    wordings = tuple(template.format(task.record.concept.phrase) for template in TEMPLATES)
    short, latents = door_files.read_short_term(bank), door_files.read_class_latents(classes)
    captions = [classes.record.captions[noun] for noun in classes.record.nouns]
    return Lesson(
        concept=task.record.concept,
        parent=parent,
        new=Pool(model.encode(mirrored).cpu(), (wordings,) * len(mirrored)),
        replay=Pool(short, tuple((entry.prompt,) for entry in bank.record.short_term)),
        prior=Pool(
            torch.cat([latents[noun] for noun in classes.record.nouns]),
            tuple((caption,) for captions_ in captions for caption in captions_),
        ),
        seed=task.record.seed,
        state=state,
    )
