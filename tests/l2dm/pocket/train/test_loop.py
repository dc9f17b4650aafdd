from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from l2dm.pocket.train.loop import StagePlan, rate_at, train

PLAN = StagePlan(steps=12, rate=1e-2, warm=4, cool=0.5, ema=0.9, save_every=0.0)


class Killed(Exception):
    """Stands for a kill in the middle of a step."""


def run(work: Path, die_at: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    calls = 0

    def loss(generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        nonlocal calls
        calls += 1
        if calls == die_at:
            raise Killed
        x = torch.randn((8, 3), generator=generator)
        value = (net(x) - x.sum(-1, keepdim=True)).square().mean()
        return value, {"loss": value.item()}

    trained: dict[str, Tensor] = train("net", net, loss, PLAN, work).state_dict()
    return trained


@pytest.mark.parametrize("die_at", [1, 5, 12])
def test_a_killed_stage_ends_in_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, die_at: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    undisturbed = run(whole)
    with pytest.raises(Killed):
        run(broken, die_at)
    resumed = run(broken)
    for key, value in undisturbed.items():
        assert torch.equal(value, resumed[key]), key


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    again = run(tmp_path, die_at=1)  # a single step would raise
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_no_partial_checkpoint_is_left(tmp_path: Path) -> None:
    run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net.ckpt"]


def test_the_rate_warms_up_stays_and_cools_down() -> None:
    plan = StagePlan(steps=100, rate=1.0, warm=10, cool=0.5)
    assert rate_at(0, plan) == pytest.approx(0.1)  # (0 + 1) / 10
    assert rate_at(30, plan) == 1.0
    assert rate_at(75, plan) == pytest.approx(0.5)  # 25 steps left of the 50 that cool
    assert rate_at(99, plan) == pytest.approx(0.02)
