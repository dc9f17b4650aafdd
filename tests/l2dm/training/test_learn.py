"""The test that says whether any of this works: careless learning forgets, careful does not.

Two dogs in a row on the pocket base. With new pictures only, the second dog takes the first one's
place; with replay, prior and distillation it does not; with gates it cannot.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from l2dm import doors, steps
from l2dm import spec as specs
from l2dm.bases import sampling
from l2dm.files import images
from l2dm.metrics.forgetting import relative_drop
from l2dm.pocket.world.scenes import TUNING_SEEDS, identity, photos
from l2dm.releases import folder as releases
from l2dm.releases.load import load_release
from l2dm.uploads.folder import write_upload

DOGS = {"ada": TUNING_SEEDS[1], "dora": TUNING_SEEDS[2]}
METRIC = "identity_similarity"


def spec_of(method: str) -> specs.Spec:
    return specs.parse(
        {
            "train": {"method": method, "steps": 150, "checkpoint_every": 0},
            "prior": {"count": 16},
            "memory": {"candidates": 2, "budget": 10},
            "evaluate": {"pictures": 8},
        }
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prior")


def learn_both(root: Path, method: str, cache: Path) -> list[Path]:
    spec = spec_of(method)
    parent = root / "empty"
    steps.empty_release(parent, "dogs", "pocket")
    found = []
    for number, (name, seed) in enumerate(DOGS.items(), start=1):
        source = root / f"pictures-{name}"
        source.mkdir(parents=True)
        for index, picture in enumerate(photos(identity(seed, "dog"), 5, seed=1)):
            picture.save(source / f"{index}.png")
        uploaded, concept = root / "inbox" / "dogs" / name, doors.Concept(name, "dog")
        write_upload(uploaded, source, "dogs", concept, spec.intake, {})
        context = steps.Context("pocket", "dogs", f"t{number:04d}", number - 1, spec)
        home = root / context.task_id
        path: Mapping[str, Path] = {
            part: home / part
            for part in ("task", "prior", "memory", "adapter", "scores", "release")
        }
        steps.intake(root / "inbox/dogs" / name, parent, path["task"], context)
        steps.generate_prior(path["task"], parent, path["prior"], context, cache=cache)
        steps.score_memory(path["task"], parent, path["memory"], context)
        inputs = (path["task"], parent, path["prior"], path["memory"])
        steps.train(*inputs, path["adapter"], context)
        steps.evaluate(*inputs, path["adapter"], path["scores"], context)
        steps.promote(
            path["task"], parent, path["memory"], path["adapter"], path["scores"],
            path["release"], context,
        )  # fmt: skip
        parent = path["release"]
        found.append(parent)
    return found


def first_dog(releases_: list[Path]) -> tuple[float, float, float]:
    """Similarity of the first dog: base, learned, after the second dog."""
    column = [row[0] for row in releases.scores_of(releases_[-1]).record.matrices[METRIC]]
    base, learned, after = column
    assert base is not None
    assert learned is not None
    assert after is not None
    return base, learned, after


@pytest.mark.slow
@pytest.mark.timeout(1800)  # on a core that others want, too
def test_careless_learning_forgets_and_careful_learning_does_not(
    tmp_path: Path, cache: Path
) -> None:
    careless = learn_both(tmp_path / "sequential", "sequential", cache)
    careful = learn_both(tmp_path / "l2dm", "l2dm", cache)
    base, learned, _ = first_dog(careless)
    assert learned - base > 0.1, "the first dog was not learned at all"
    forgot, kept = (
        relative_drop(releases.scores_of(one[-1]).record.matrices[METRIC], 0)
        for one in (careless, careful)
    )
    assert forgot is not None
    assert kept is not None
    assert forgot > 0.3
    assert kept < forgot / 2


@pytest.mark.slow
@pytest.mark.timeout(1800)  # on a core that others want, too
def test_gated_learning_cannot_forget(tmp_path: Path, cache: Path) -> None:
    first, second = learn_both(tmp_path, "gated", cache)
    base, learned, after = first_dog([first, second])
    assert learned - base > 0.1
    assert after == learned
    drift = releases.scores_of(second).record.drift
    assert all(one.distance == 0.0 for one in drift)
    before, now = (load_release(release, "pocket") for release in (first, second))
    for prompt in ("a photo of a <ada> dog", "a photo of a dog", "a cat and a red car"):
        shots = [sampling.Shot(prompt, seed) for seed in (1, 2)]
        pictures = [sampling.draw(model, shots, specs.SamplingSpec()) for model in (before, now)]
        assert images.png_bytes(pictures[0][1]) == images.png_bytes(pictures[1][1])
