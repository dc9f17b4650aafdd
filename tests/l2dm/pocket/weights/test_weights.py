"""The folder that ships: loads as any Stable Diffusion folder does, is small, and is good."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from torch import Tensor

from l2dm.pocket import WEIGHTS
from l2dm.pocket.judge.judge import judge, load_judge
from l2dm.pocket.measure import rates as m
from l2dm.pocket.world.batches import to_unit
from l2dm.pocket.world.render_cache import render
from l2dm.pocket.world.scenes import NOUNS, TEST_SEEDS, identity, photos, pixels

MEGABYTES = 30


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return m.load_pipeline(WEIGHTS)


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MEGABYTES * 1_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt"}


def test_it_is_an_ordinary_pipeline_without_a_safety_checker(
    pipeline: StableDiffusionPipeline,
) -> None:
    assert pipeline.safety_checker is None
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.float32}
    assert pipeline.tokenizer.model_max_length == 32


def test_the_scaling_factor_was_measured(pipeline: StableDiffusionPipeline) -> None:
    pictures = to_unit(torch.from_numpy(render("held-out", range(64)).pictures))
    with torch.no_grad():
        latents = pipeline.vae.encode(pictures).latent_dist.mean
    assert float((latents * pipeline.vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.05)


def paint(pipeline: StableDiffusionPipeline, prompts: list[str]) -> Tensor:
    recommended = json.loads((WEIGHTS / "sampling.json").read_text(encoding="utf-8"))
    return m.paint(pipeline, prompts, recommended["steps"], recommended["guidance"])


def test_it_draws_what_is_asked(pipeline: StableDiffusionPipeline) -> None:
    asked = m.single_prompts()[::6]
    drawn = paint(pipeline, [prompt for prompt, _, _ in asked])
    noun, colour = m.single_rates(judge(load_judge(WEIGHTS / "judge"), drawn), asked)
    # Thirty pictures only: this catches broken weights; docs/pocket.md holds the measured rates.
    assert noun >= 0.8
    assert colour >= 0.75


def test_it_draws_the_same_again(pipeline: StableDiffusionPipeline) -> None:
    """In batches of one make-up; another size may differ in its last bits."""
    prompts = [prompt for prompt, _, _ in m.single_prompts()[:4]]
    assert torch.equal(paint(pipeline, prompts), paint(pipeline, prompts))


def test_the_judge_is_right_on_renders_it_has_not_seen() -> None:
    noun, count, colour = m.judge_rates(load_judge(WEIGHTS / "judge"), render("judge", range(300)))
    assert noun >= 0.98
    assert count >= 0.98
    assert colour >= 0.95


def test_the_judge_sees_nothing_in_an_empty_place() -> None:
    from l2dm.pocket.train.judge import empty_pictures

    verdicts = judge(load_judge(WEIGHTS / "judge"), empty_pictures(16))
    assert [verdict.things for verdict in verdicts] == [()] * 16


def features(folder: Path, who: range, seed: int) -> Tensor:
    pictures = [
        pixels(photos(identity(TEST_SEEDS[i], NOUNS[i % 4]), 3, seed)) for i in who
    ]  # four nouns only: strangers of the same noun are the hard ones
    return m.identity_features(folder, to_unit(torch.from_numpy(np.concatenate(pictures))))


def test_the_identity_encoder_tells_strangers_of_one_noun_apart() -> None:
    who = range(40)
    gallery = features(WEIGHTS / "identity", who, 0).view(len(who), 3, -1).mean(1)
    nearest = (features(WEIGHTS / "identity", who, 1) @ gallery.T).argmax(-1)
    truth = torch.arange(len(who)).repeat_interleave(3)
    assert float((nearest == truth).float().mean()) >= 0.9


def test_captions_find_their_pictures() -> None:
    assert m.retrieval_rate(WEIGHTS, render("retrieval", range(100))) >= 0.85


def matrices() -> Iterator[tuple[str, Tensor]]:
    """Every weight of the shipped files that is large enough for its spectrum to tell."""
    for file in sorted(WEIGHTS.rglob("*.safetensors")):
        for name, tensor in load_file(file).items():
            if tensor.ndim >= 2 and min(tensor.flatten(1).shape) >= 16:
                where = f"{file.parent.name}: {name}"
                yield where, tensor.float().flatten(1)


def at_its_start(matrix: Tensor) -> bool:
    """Whether a weight still is what a usual initialiser drew, whatever constant decay took.

    Its spectrum is that of independent draws (Marchenko and Pastur, 1967: the largest singular
    value over spread · (√rows + √columns) is about 1), and its values are still evenly spread: the
    largest is √3 times their spread.
    """
    rows, columns = matrix.shape
    spread = float(matrix.std())
    largest = float(torch.linalg.matrix_norm(matrix, 2)) / (spread * (rows**0.5 + columns**0.5))
    return largest < 1.08 and float(matrix.abs().max()) / spread < 1.9


def test_the_measure_tells_a_start_from_a_trained_weight() -> None:
    torch.manual_seed(0)
    for module in (torch.nn.Linear(128, 64), torch.nn.Conv2d(32, 32, 3)):
        start = module.weight.detach().flatten(1)
        assert at_its_start(0.93 * start)
        assert not at_its_start(start + 0.03 * torch.randn(start.shape))
        direction = torch.outer(torch.randn(len(start)), torch.randn(len(start[0])))
        assert not at_its_start(start + 0.05 * direction)


def test_no_shipped_weight_is_at_its_start() -> None:
    """The first base lost five of six million parameters to a kernel without gradients."""
    looked = dict(matrices())
    assert len(looked) > 150
    assert [where for where, matrix in looked.items() if at_its_start(matrix)] == []


def test_no_shipped_bias_is_at_its_start() -> None:
    still = [
        f"{file.parent.name}: {name}"
        for file in sorted(WEIGHTS.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
        if name.endswith(".bias") and not tensor.any()
    ]
    assert still == []


def test_no_config_names_the_place_where_it_was_made() -> None:
    configs = sorted(WEIGHTS.rglob("*.json"))
    assert len(configs) > 8
    assert not [path for path in configs if "_name_or_path" in path.read_text(encoding="utf-8")]
