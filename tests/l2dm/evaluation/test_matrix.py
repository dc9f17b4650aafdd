"""The new row, with a model whose pictures are plain colours so that every number is known."""

import contextlib
from dataclasses import replace

import pytest
import torch

from l2dm.doors import Concept, Drift, Measurement, Memory, Prior, Remembered, Scores, Task
from l2dm.errors import BadDoor, DoesNotFit
from l2dm.evaluation.matrix import fresh_row, new_row, no_scores, save
from l2dm.evaluation.measure import METRICS, Subject
from l2dm.files import door_files, images, manifest
from l2dm.files.door_files import ClassPictures, Features
from l2dm.sections import replaced
from l2dm.spec import EvaluateSpec, PriorSpec, Spec

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
REX, MIA = Concept("rex", "dog"), Concept("mia", "cat")
SPEC = Spec(evaluate=EvaluateSpec(pictures=4, budget=100, seed=10))


class FakeModel:
    """Counts as the base inside `plain`."""

    def __init__(self):
        self.adapted = True

    @contextlib.contextmanager
    def plain(self):
        self.adapted = False
        yield
        self.adapted = True


class Artist:
    """Draws one colour a picture and writes down what it was asked for."""

    def __init__(self, colours):
        self.colours = colours  # (adapted, prompt, seed) -> colour
        self.calls = []

    def __call__(self, model, shots, spec):
        self.calls.append((model.adapted, tuple(shots)))
        found = [self.colours(model.adapted, shot.prompt, shot.seed) for shot in shots]
        return _filled(found)


class FakeEncoders:
    """A picture's feature is its mean colour; "dog" reads as red, everything else as green."""

    def __init__(self, foreign=((0.0, 0.0, 1.0),)):
        self.foreign = torch.tensor(foreign) if foreign is not None else None

    def image(self, pictures):
        return torch.nn.functional.normalize(pictures.float().mean((2, 3)), dim=1)

    identity = image

    def text(self, prompts):
        assert not any("<" in prompt for prompt in prompts)
        return torch.tensor([[1.0, 0, 0] if "dog" in one else [0, 1.0, 0] for one in prompts])

    def distractors(self, count, pictures=None):
        if self.foreign is not None:
            return self.foreign[:count]
        return self.identity(pictures[:count]) if pictures is not None else torch.empty(0, 3)


def _filled(colours, side=8):
    pixels = torch.tensor(colours, dtype=torch.uint8)[:, :, None, None]
    return pixels.expand(-1, -1, side, side).contiguous()


def _task(folder, concept, row):
    record = Task(
        id=row, line="pets", concept=concept, pictures=("pictures/00.png", "pictures/01.png"),
        prompts=("a", "b"), parent="p", parent_version=0, base="base-1", seed=0,
    )  # fmt: skip

    pictures = _filled([RED, RED])
    return manifest.write(
        folder / f"task-{row}", record, lambda draft: door_files.write_pictures(draft, pictures)
    )


def _prior(folder, nouns=("dog",), count=5, side=8):
    captions = {noun: tuple(f"a {noun} {index}" for index in range(count)) for noun in nouns}
    record = Prior("base-1", tuple(nouns), captions, tuple(range(100, 100 + count)))
    drawn = {
        noun: ClassPictures(torch.zeros(count, 4, 1, 1), _filled([BLUE] * count, side))
        for noun in nouns
    }
    return manifest.write(
        folder / f"prior-{len(nouns)}", record,
        lambda draft: door_files.write_class_pictures(draft, drawn),
    )  # fmt: skip


def _memory(folder, *concepts, real=None):
    """Real features: rex is red twice, mia is once green and once between green and blue."""
    colours = {"rex": [[1.0, 0, 0]] * 2, "mia": [[0, 1.0, 0], [0, 0.6, 0.8]]} | (real or {})
    record = Memory("base-1", tuple(Remembered(one, ("x", "y")) for one in concepts))
    real = {one.name: torch.tensor(colours[one.name]) for one in concepts}
    features = {name: Features(found, found.clone()) for name, found in real.items()}
    return manifest.write(
        folder / f"memory-{len(concepts)}", record,
        lambda draft: door_files.write_memory(draft, features),
    )  # fmt: skip


def _empty(folder):
    return manifest.write(folder / "empty", no_scores("base-1"), lambda draft: None)


def _first_colours(adapted, prompt, seed):
    """After the first task: <rex> is red but for seed 13, class prompts stay, the base is blue."""
    if adapted and "<rex>" in prompt:
        return GREEN if seed == 13 else RED
    return BLUE


def _first(folder, spec=SPEC):
    artist = Artist(_first_colours)
    subject = Subject(FakeModel(), FakeEncoders(), spec, artist)
    parent = _empty(folder)
    found = new_row(
        subject, task=_task(folder, REX, "t0001"), parent=parent, prior=_prior(folder),
        memory=_memory(folder, REX),
    )  # fmt: skip
    door = manifest.write(
        folder / "scores-1", found.record, lambda draft: save(found, parent, draft)
    )
    return found, artist, door


def _second_colours(adapted, prompt, seed):
    """After the second: <mia> green, <rex> red only for seed 10, dog prompts red for seed 100."""
    if adapted and "<mia>" in prompt:
        return GREEN
    if adapted and "<rex>" in prompt:
        return RED if seed == 10 else GREEN
    return RED if adapted and seed == 100 else BLUE


def _second(folder, parent, spec=SPEC):
    artist = Artist(_second_colours)
    subject = Subject(FakeModel(), FakeEncoders(), spec, artist)
    found = new_row(
        subject, task=_task(folder, MIA, "t0002"), parent=parent,
        prior=_prior(folder, ("cat", "dog")), memory=_memory(folder, REX, MIA),
    )  # fmt: skip
    return found, artist


def test_the_first_row_by_hand(tmp_path):
    record = _first(tmp_path)[0].record
    assert record.rows == ("base", "t0001")
    assert record.concepts == (REX,)
    # three of four pictures are red like the real ones; the base draws blue
    assert record.matrices["identity_similarity"] == ((0.0,), (0.75,))
    assert record.matrices["image_alignment"] == ((0.0,), (0.75,))
    # the prompt without placeholder says "dog", which reads as red
    assert record.matrices["text_alignment"] == ((0.0,), (0.75,))
    # the only distractor is blue: red is nearest to rex; green ties between all; blue is foreign
    assert record.matrices["identity_accuracy"] == ((0.0,), (0.75,))
    assert record.drift == (Drift("t0001", "dog", 0.0, 0.0),)
    assert record.ceilings == {"image_alignment": (1.0,), "identity_similarity": (1.0,)}


def test_prompts_and_seeds_are_fixed_and_the_base_reads_the_noun_alone(tmp_path):
    artist = _first(tmp_path)[1]
    (plain, base), (adapted, rex), (_, dog) = artist.calls
    assert (plain, adapted) == (False, True)
    assert [shot.prompt for shot in base] == ["a photo of a dog", "a picture of a dog"] * 2
    assert [shot.prompt for shot in rex] == [
        "a photo of a <rex> dog",
        "a picture of a <rex> dog",
    ] * 2
    assert [shot.seed for shot in base] == [shot.seed for shot in rex] == [10, 11, 12, 13]
    assert [(shot.prompt, shot.seed) for shot in dog][:2] == [("a dog 0", 100), ("a dog 1", 101)]


def test_the_second_row_grows_every_matrix(tmp_path):
    record = _second(tmp_path, _first(tmp_path)[2])[0].record
    assert record.rows == ("base", "t0001", "t0002")
    assert record.concepts == (REX, MIA)
    # rex: one red of four. mia: green against (0, 1, 0) and (0, .6, .8): (1 + .6) / 2 = .8.
    # The base draws blue for "cat": (0 + .8) / 2 = .4
    assert record.matrices["identity_similarity"] == ((0.0, 0.4), (0.75, None), (0.25, 0.8))
    # ceiling of mia: its two real pictures have cosine .6
    assert record.ceilings["identity_similarity"] == (1.0, 0.6)
    # dog: one of four pictures went from blue to red, distance 1 each: mean .25; cat the same
    distances = {(one.row, one.noun): one.distance for one in record.drift}
    assert distances == {("t0001", "dog"): 0.0, ("t0002", "cat"): 0.25, ("t0002", "dog"): 0.25}
    assert all(one.kid is not None for one in record.drift)


def test_every_picture_is_kept_with_its_numbers(tmp_path):
    first, _, door = _first(tmp_path)
    found = first.measurements
    assert door_files.read_measurements(door) == found
    assert len(found) == 4 + 4 + 4  # base, rex, drift
    perfect = dict.fromkeys(METRICS, 1.0)
    assert found[4] == Measurement("t0001", "a photo of a <rex> dog", 10, perfect, concept="rex")
    assert found[-1] == Measurement("t0001", "a dog 3", 103, {"distance": 0.0}, noun="dog")


def test_a_door_carries_the_past_and_adds_the_new(tmp_path):
    parent = _first(tmp_path)[2]
    found = _second(tmp_path, parent)[0]
    door = manifest.write(
        tmp_path / "scores-2", found.record, lambda draft: save(found, parent, draft)
    )
    assert door_files.read_measurements(door) == (
        *door_files.read_measurements(parent),
        *found.measurements,
    )
    drawn = sorted(
        path.relative_to(door.folder / "sheets").as_posix()
        for path in door.folder.rglob("sheets/**/*.png")
    )
    assert drawn == [
        "base/class-cat.png", "base/class-dog.png", "base/mia.png", "base/rex.png",
        "real/mia.png", "real/rex.png",
        "t0001/class-dog.png", "t0001/rex.png",
        "t0002/class-cat.png", "t0002/class-dog.png", "t0002/mia.png", "t0002/rex.png",
    ]  # fmt: skip
    assert manifest.read(door.folder, Scores).record == found.record
    four = images.load_png(door.path(door_files.concept_sheet("t0001", "rex")))
    assert four.shape == (3, 8, 4 * 8 + 3 * images.GAP)
    assert four[:, 0, 0].tolist() == list(RED)
    assert four[:, 0, -1].tolist() == list(GREEN)  # seed 13


def test_the_same_inputs_give_the_same_door(tmp_path):
    digests = {_first(tmp_path / name)[2].digest for name in ("one", "two")}
    assert len(digests) == 1


def test_the_budget_bounds_the_pictures(tmp_path):
    spec = replaced(SPEC, evaluate=EvaluateSpec(pictures=8, budget=6, seed=10))
    artist = _second(tmp_path, _first(tmp_path)[2], spec)[1]
    assert [len(shots) for _, shots in artist.calls] == [3] * 5  # 6 // 2, concepts and nouns alike
    spec = replaced(SPEC, evaluate=EvaluateSpec(pictures=8, budget=1, seed=10))
    artist = _second(tmp_path / "small", _first(tmp_path / "small")[2], spec)[1]
    assert [len(shots) for _, shots in artist.calls] == [1] * 5
    spec = replaced(SPEC, evaluate=EvaluateSpec(pictures=99, budget=999, seed=10))
    calls = _first(tmp_path / "large", spec)[1].calls
    assert [len(shots) for _, shots in calls] == [99, 99, 5]  # the prior has 5 pictures a noun


def test_one_picture_has_a_distance_and_no_kid(tmp_path):
    spec = replaced(SPEC, evaluate=EvaluateSpec(pictures=1, seed=10))
    assert _first(tmp_path, spec)[0].record.drift == (Drift("t0001", "dog", 0.0, None),)


def test_flipped_last_bits_are_no_drift(tmp_path):
    # In this batch the base draws 254 where it drew 255 for the prior, with or without adapter.
    def colours(adapted, prompt, seed):
        return (0, 0, 254) if "dog" in prompt else RED

    artist = Artist(colours)
    subject = Subject(FakeModel(), FakeEncoders(), SPEC, artist)
    found = new_row(
        subject, task=_task(tmp_path, REX, "t0001"), parent=_empty(tmp_path),
        prior=_prior(tmp_path), memory=_memory(tmp_path, REX),
    )  # fmt: skip
    assert found.record.drift == (Drift("t0001", "dog", 0.0, 0.0),)
    (adapted, now), (plain, base) = artist.calls[-2:]
    assert (adapted, plain) == (True, False)
    assert now == base


def test_only_so_many_nouns_are_drawn(tmp_path):
    spec = replaced(SPEC, prior=PriorSpec(max_nouns=1))
    found = _second(tmp_path, _first(tmp_path)[2], spec)[0]
    assert [one.noun for one in found.record.drift if one.row == "t0002"] == ["cat"]


def test_class_pictures_are_distractors_where_the_base_has_none(tmp_path):
    def colours(adapted, prompt, seed):
        return RED if adapted and seed % 2 else BLUE

    subject = Subject(FakeModel(), FakeEncoders(foreign=None), SPEC, Artist(colours))
    found = new_row(
        subject, task=_task(tmp_path, REX, "t0001"), parent=_empty(tmp_path),
        prior=_prior(tmp_path), memory=_memory(tmp_path, REX),
    )  # fmt: skip
    # blue pictures are nearest to the prior's blue ones
    assert found.record.matrices["identity_accuracy"] == ((0.0,), (0.5,))


def test_a_concept_that_memory_lost_is_refused(tmp_path):
    parent = _first(tmp_path)[2]
    subject = Subject(FakeModel(), FakeEncoders(), SPEC, Artist(_second_colours))
    with pytest.raises(BadDoor, match=r"found no \['mia/identity', 'mia/image'\]"):
        new_row(
            subject, task=_task(tmp_path, MIA, "t0002"), parent=parent, prior=_prior(tmp_path),
            memory=_memory(tmp_path, REX),
        )  # fmt: skip


def test_another_base_is_refused(tmp_path):
    prior = _prior(tmp_path)
    other = replace(prior, record=replace(prior.record, base="base-2"))
    subject = Subject(FakeModel(), FakeEncoders(), SPEC, Artist(_first_colours))
    with pytest.raises(DoesNotFit, match="made with base base-2, the task with base-1"):
        new_row(
            subject, task=_task(tmp_path, REX, "t0001"), parent=_empty(tmp_path), prior=other,
            memory=_memory(tmp_path, REX),
        )  # fmt: skip


def test_values_that_went_missing_are_refused(tmp_path):
    door = _first(tmp_path)[2]
    door.path("values.json").unlink()
    with pytest.raises(BadDoor, match=r"expected values\.json in"):
        door_files.read_measurements(door)
    assert door_files.read_measurements(_empty(tmp_path)) == ()


def test_a_fresh_row_uses_the_given_seeds(tmp_path):
    artist = Artist(_second_colours)
    subject = Subject(FakeModel(), FakeEncoders(), SPEC, artist)
    found = fresh_row(subject, memory=_memory(tmp_path, REX, MIA), seed=8)
    assert [shot.seed for shot in artist.calls[0][1]] == [8, 9, 10, 11]
    # rex is red for seed 10 alone; mia is always green
    assert found.means["identity_similarity"] == {"rex": 0.25, "mia": 0.8}
    assert {one.row for one in found.measurements} == {"seed-8"}
    assert len(found.measurements) == 8


def test_a_fresh_row_draws_foreign_identities_where_the_base_has_none(tmp_path):
    artist = Artist(_second_colours)
    subject = Subject(FakeModel(), FakeEncoders(foreign=None), SPEC, artist)
    found = fresh_row(subject, memory=_memory(tmp_path, REX), seed=8)
    assert artist.calls[0][0] is False  # the base drew them
    assert found.means["identity_accuracy"] == {"rex": 0.25}


def test_a_fresh_row_of_an_empty_line_is_empty(tmp_path):
    subject = Subject(FakeModel(), FakeEncoders(), SPEC, Artist(_second_colours))
    found = fresh_row(subject, memory=_memory(tmp_path), seed=8)
    assert found.measurements == ()
    assert found.means["identity_similarity"] == {}


# diffusers 0.42 passes tensors to np.array, which numpy 2 deprecates
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_a_row_of_a_real_model_is_complete_and_repeats(tmp_path, tiny_base):
    from l2dm.bases.encoders import load_encoders
    from l2dm.bases.model import load_base

    folder = str(tiny_base)
    subject = Subject(load_base(folder), load_encoders(folder), SPEC)
    subject.model.add_placeholder("rex", subject.model.noun_row("dog"))
    real = _filled([RED, GREEN], side=16)
    features = Features(subject.encoders.image(real), subject.encoders.identity(real))
    memory = manifest.write(
        tmp_path / "memory",
        Memory("base-1", (Remembered(REX, ("x", "y")),)),
        lambda draft: door_files.write_memory(draft, {"rex": features}),
    )
    rows = [
        new_row(
            subject, task=_task(tmp_path, REX, "t0001"), parent=_empty(tmp_path),
            prior=_prior(tmp_path, side=16), memory=memory,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert rows[0].record == rows[1].record
    assert rows[0].measurements == rows[1].measurements
    for matrix in rows[0].record.matrices.values():
        assert all(isinstance(value, float) for row in matrix for value in row)
