"""The six steps. Each is a plain function: folders in, a folder out. None needs a network.

    intake ─┬─► generate_prior ─┐
            └─► score_memory ───┴─► train ─► evaluate ─► promote

On a long line `draw_memory` and `draw_evaluation` draw for `score_memory` and `evaluate`, several
at once and a shard each.

Same inputs and same seed give the same bytes on one machine. `parent` is always a release; the
first task of a line starts from the empty one, so no step asks whether it is the first.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from l2dm import doors
from l2dm import spec as specs
from l2dm.bases import devices, sampling
from l2dm.bases import folder as base_folder
from l2dm.bases.encoders import Encoders, load_encoders
from l2dm.bases.model import load_base, resolution, vocabulary
from l2dm.bases.prompts import TEMPLATES
from l2dm.bases.sampling import Progress
from l2dm.context import Context, write_door
from l2dm.errors import BadBase
from l2dm.evaluation import matrix, shards
from l2dm.evaluation.measure import Drawer, Subject, counted, planned
from l2dm.evaluation.shards import Shard
from l2dm.files import door_files, manifest
from l2dm.files.concept_json import accepted_under
from l2dm.files.door_files import Features
from l2dm.files.manifest import Door
from l2dm.metrics import gate
from l2dm.releases import folder as releases
from l2dm.releases.check import check_release, save_check
from l2dm.releases.load import load_adapter, load_release
from l2dm.replay import class_pictures, rainbow_memory
from l2dm.replay.rainbow_memory import DrawCandidates
from l2dm.training import launch
from l2dm.training.fit import OnStep
from l2dm.training.learn import Sources, learn, method_of
from l2dm.training.ranks import Alone
from l2dm.uploads import captions
from l2dm.uploads.check import task_pictures
from l2dm.uploads.folder import read_upload


def empty_release(out: Path, line: str, base: str) -> Door[doors.Release]:
    """The release that a line starts from: no adapter, no memory, no scores."""
    return releases.write_empty(out, line, base_folder.fingerprint(base_folder.locate(base)))


def intake(upload: Path, parent: Path, out: Path, context: Context) -> Door[doors.Task]:
    """Turn an upload into a task, or refuse it with every reason at once.

    Raises BadUpload, and BadBase for a base that lacks encoders.
    """
    release = manifest.read(parent, doors.Release)
    adapter = releases.adapter_of(parent).record
    _require_base(context, adapter)
    found = read_upload(upload)
    taken = {old.name: "the line has learned it already" for old in adapter.concepts}
    limits = accepted_under(found.limits, context.spec.intake)
    base_folder.require_encoders(base_folder.locate(context.base))  # not after hours of drawing
    words = vocabulary(context.base)
    side = resolution(context.base)
    pictures = task_pictures(upload, found, side, limits, taken, words, line=context.line)
    names = door_files.picture_names(len(pictures.boxes))
    said = [listed.caption for listed in found.pictures]
    record = doors.Task(
        id=context.task_id,
        line=context.line,
        concept=found.concept,
        pictures=names,
        prompts=captions.prompts(said, TEMPLATES, found.concept),
        parent=release.digest,
        parent_version=context.parent_version,
        base=adapter.base,
        seed=context.seed,
        crops=pictures.boxes,
    )
    fill = partial(door_files.write_pictures, pictures=pictures.pixels)
    return write_door(out, record, fill, context, {"parent": release.digest})


def generate_prior(
    task: Path,
    parent: Path,
    out: Path,
    context: Context,
    *,
    cache: Path | None = None,
    on_progress: Progress | None = None,
) -> Door[doors.Prior]:
    """Class pictures of every noun that the line knows and of the new one, from the bare base."""
    lesson = manifest.read(task, doors.Task)
    known = releases.adapter_of(parent).record.concepts
    spec = context.spec
    model = load_base(context.base)
    nouns = class_pictures.nouns_for(lesson.record.concept, known, spec.prior.max_nouns)
    drawn = {
        noun: class_pictures.generate(
            model,
            noun,
            spec.prior.count,
            spec.sampling,
            seed=spec.seed,  # of the line, not of the task: every task preserves the same pictures
            cache=cache,
            on_progress=on_progress,
        )
        for noun in nouns
    }
    record = doors.Prior(
        base=model.fingerprint,
        nouns=nouns,
        captions={noun: class_pictures.captions(noun, spec.prior.count) for noun in nouns},
        seeds=class_pictures.seeds(spec.seed, spec.prior.count),
    )
    fill = partial(door_files.write_class_pictures, drawn=drawn)
    return write_door(out, record, fill, context, {"task": lesson.digest})


def score_memory(
    task: Path,
    parent: Path,
    out: Path,
    context: Context,
    *,
    drawn: Sequence[Path] = (),
    on_progress: Progress | None = None,
) -> Door[doors.Memory]:
    """The rainbow-memory bank for this task: Algorithm 1 of L2DM.

    Short-term memory is drawn with the parent model and chosen by Eq. 5, if the method replays it;
    then long-term memory takes the features and prompts of the new pictures, never their pixels.
    drawn: what `draw_memory` drew in shards; the same bytes.
    """
    lesson = manifest.read(task, doors.Task)
    old = releases.memory_of(parent)
    inputs = {"task": lesson.digest, "memory": old.digest}
    features = door_files.read_long_term(old)
    model = load_release(parent, context.base)
    encoders = load_encoders(context.base)
    spec = context.spec
    draw: DrawCandidates = partial(rainbow_memory.draw_candidates, on_progress=on_progress)
    if drawn:
        draw = shards.gather(drawn, "score_memory", inputs, specs.recorded(spec)).candidates
    short = rainbow_memory.refresh(
        model,
        encoders,
        _replayed(old.record, spec),
        {name: one.image for name, one in features.items()},
        spec.memory,
        spec.sampling,
        seed=lesson.record.seed,
        draw=draw,
    )
    features[lesson.record.concept.name] = _features_of(lesson, encoders)
    new = doors.Remembered(lesson.record.concept, lesson.record.prompts)
    record = doors.Memory(model.fingerprint, (*old.record.long_term, new), short.entries)
    fill = partial(door_files.write_memory, features=features, short_term=short.latents)
    return write_door(out, record, fill, context, inputs)


def draw_memory(
    task: Path,
    parent: Path,
    out: Path,
    context: Context,
    *,
    shard: str,
) -> Door[doors.Drawn]:
    """One shard of what `score_memory` draws: every n-th batch of candidates. shard: "2/4"."""
    lesson, old = manifest.read(task, doors.Task), releases.memory_of(parent)
    model, spec = load_release(parent, context.base), context.spec
    planned = rainbow_memory.plan(_replayed(old.record, spec), spec.memory, lesson.record.seed)
    kept = shards.Recorder()
    for batch in Shard.named(shard).mine(shards.batches(planned.shots, spec.sampling)):
        kept.candidates(model, batch, spec.sampling)
    record = doors.Drawn("score_memory", shard, model.fingerprint, tuple(kept.calls))
    inputs = {"task": lesson.digest, "memory": old.digest}
    return write_door(out, record, kept.save, context, inputs)


def train(
    task: Path,
    parent: Path,
    prior_: Path,
    memory_: Path,
    out: Path,
    context: Context,
    *,
    work: Path | None = None,
    on_step: OnStep | None = None,
) -> Door[doors.Adapter]:
    """Learn the concept. A run that was killed goes on from its last checkpoint in `work`.

    With `train.processes` above 1 it starts that many. Raises StepFailed when one of them dies.
    """
    sources = Sources(task, parent, prior_, memory_)
    if context.spec.train.processes > 1:
        launch.together(sources, out, context, work=work, on_step=on_step)
        return manifest.read(out, doors.Adapter)
    door = learn(sources, out, context, Alone(devices.accelerator()), work=work, on_step=on_step)
    assert door is not None  # who learns alone writes
    return door


def evaluate(  # noqa: PLR0913 - one parameter for each door
    task: Path,
    parent: Path,
    prior_: Path,
    memory_: Path,
    adapter: Path,
    out: Path,
    context: Context,
    *,
    drawn: Sequence[Path] = (),
    on_progress: Progress | None = None,
) -> Door[doors.Scores]:
    """The new row of every matrix: all known concepts and classes, fixed prompts and seeds.

    drawn: what `draw_evaluation` drew in shards; the same bytes.
    """
    lesson = manifest.read(task, doors.Task)
    learned = manifest.read(adapter, doors.Adapter)
    bank, classes = manifest.read(memory_, doors.Memory), manifest.read(prior_, doors.Prior)
    before = releases.scores_of(parent)
    inputs = {
        "task": lesson.digest,
        "adapter": learned.digest,
        "memory": bank.digest,
        "prior": classes.digest,
        "scores": before.digest,
    }
    model = load_adapter(learned, context.base)
    cost = planned(context.spec, len(learned.record.concepts), len(classes.record.nouns))
    draw = counted(cost, on_progress)
    if drawn:
        draw = shards.gather(drawn, "evaluate", inputs, specs.recorded(context.spec)).pictures
    subject = Subject(model, load_encoders(context.base), context.spec, draw)
    found = matrix.new_row(subject, task=lesson, parent=before, prior=classes, memory=bank)
    fill = partial(matrix.save, found, before)
    return write_door(out, found.record, fill, context, inputs)


def draw_evaluation(
    task: Path,
    parent: Path,
    prior_: Path,
    adapter: Path,
    out: Path,
    context: Context,
    *,
    shard: str,
) -> Door[doors.Drawn]:
    """One shard of what `evaluate` draws: every n-th concept and class noun. shard: "2/4"."""
    lesson, learned = manifest.read(task, doors.Task), manifest.read(adapter, doors.Adapter)
    classes, before = manifest.read(prior_, doors.Prior), releases.scores_of(parent)
    model = load_adapter(learned, context.base)
    kept = shards.Recorder()
    drawer = Drawer(model, context.spec, kept.pictures(sampling.draw))
    parts = matrix.drawings(drawer, task=lesson, parent=before, prior=classes)
    for draw in Shard.named(shard).mine(parts):
        draw()
    record = doors.Drawn("evaluate", shard, model.fingerprint, tuple(kept.calls))
    inputs = {
        "task": lesson.digest,
        "adapter": learned.digest,
        "prior": classes.digest,
        "scores": before.digest,
    }
    return write_door(out, record, kept.save, context, inputs)


def promote(
    task: Path,
    parent: Path,
    memory_: Path,
    adapter: Path,
    scores: Path,
    out: Path,
    context: Context,
) -> Door[doors.Release]:
    """Ask the gate and put the release together. Aliases are moved by whoever owns the registry."""
    lesson = manifest.read(task, doors.Task).record
    release = manifest.read(parent, doors.Release)
    rows = manifest.read(scores, doors.Scores)
    parts = releases.Parts(
        manifest.read(adapter, doors.Adapter), manifest.read(memory_, doors.Memory), rows
    )
    measured = door_files.read_measurements(rows)  # a smaller budget per concept is no forgetting
    verdict = gate.judge(rows.record, lesson.concept, context.spec.gate, measured)
    return releases.write(
        out,
        parts,
        line=lesson.line,
        task=lesson,
        verdict=verdict,
        spec=specs.recorded(context.spec),
        parent=release.digest,
    )


def evaluate_release(
    release: Path, context: Context, *, seed: int, on_progress: Progress | None = None
) -> matrix.FreshRow:
    """A release evaluated again on everything it knows, with other seeds than at its release."""
    manifest.read(release, doors.Release)
    adapter = releases.adapter_of(release)
    model, known = load_adapter(adapter, context.base), adapter.record.concepts
    draw = counted(planned(context.spec, len(known), 0), on_progress)
    subject = Subject(model, load_encoders(context.base), context.spec, draw)
    return matrix.fresh_row(subject, memory=releases.memory_of(release), seed=seed)


def check(
    release: Path, out: Path, context: Context, *, seed: int, on_progress: Progress | None = None
) -> Door[doors.Check]:
    """Does a release still draw what it drew? Its own seeds, and others from `seed` on."""
    found, inputs = check_release(
        release, context.base, context.spec, seed, on_progress=on_progress
    )
    spec = specs.resolved(context.spec)
    return manifest.write(
        out, found.record, partial(save_check, found), spec=spec, seed=seed, inputs=inputs
    )


def _require_base(context: Context, adapter: doors.Adapter) -> None:
    """A line learns on one base, and its first step sees it before anything is drawn."""
    found = base_folder.fingerprint(base_folder.locate(context.base))
    if found != adapter.base:
        raise BadBase(
            f"line {context.line!r} learns on the base with fingerprint {adapter.base}, found "
            f"{found} ({context.base}); pass the base that the line was begun with"
        )


def _replayed(bank: doors.Memory, spec: specs.Spec) -> tuple[doors.Remembered, ...]:
    """The concepts whose pictures the method wants to see again."""
    return bank.long_term if method_of(spec).replays else ()


def _features_of(task: Door[doors.Task], encoders: Encoders) -> Features:
    pictures = door_files.read_pictures(task)
    return Features(encoders.image(pictures), encoders.identity(pictures))


__all__ = [
    "Context",
    "check",
    "draw_evaluation",
    "draw_memory",
    "empty_release",
    "evaluate",
    "evaluate_release",
    "generate_prior",
    "intake",
    "promote",
    "score_memory",
    "train",
]
