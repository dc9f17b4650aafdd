import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from l2dm.errors import DoesNotFit
from l2dm.pocket.train.loop import StagePlan, fingerprint, rate_at, train

PLAN = StagePlan(steps=12, rate=1e-2, warm=4, cool=0.5, ema=0.9, save_every=0.0)


class Killed(Exception):
    """Stands for a kill in the middle of a step."""


def run(
    work: Path, die_at: int | None = None, plan: StagePlan = PLAN, trained_on: str = "noise"
) -> dict[str, Tensor]:
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

    trained: dict[str, Tensor] = train("net", net, loss, plan, work, trained_on).state_dict()
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


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"trained_on": "darkness"}, "trained_on 'noise' instead of 'darkness'"),
        ({"plan": replace(PLAN, rate=1e-3)}, "rate 0.01 instead of 0.001"),
        ({"plan": replace(PLAN, ema=None, seed=1)}, "ema 0.9 instead of None, seed 0 instead of 1"),
    ],
)
def test_a_checkpoint_of_another_stage_is_refused_with_what_to_delete(
    other: dict[str, Any], named: str, tmp_path: Path
) -> None:
    run(tmp_path)
    kept = (tmp_path / "net.ckpt").read_bytes()
    with pytest.raises(DoesNotFit, match=rf"another: {re.escape(named)}; delete .*net\.ckpt to"):
        run(tmp_path, **other)
    assert (tmp_path / "net.ckpt").read_bytes() == kept


def test_a_checkpoint_that_does_not_say_what_it_was_trained_on_is_refused(tmp_path: Path) -> None:
    """Such one holds the faulty first base."""
    run(tmp_path)
    state = torch.load(tmp_path / "net.ckpt", weights_only=True)
    del state["key"]
    torch.save(state, tmp_path / "net.ckpt")
    with pytest.raises(DoesNotFit, match=r"name None instead of 'net', .*; delete .*net\.ckpt to"):
        run(tmp_path)


def test_a_stage_may_be_made_longer_on_the_way(tmp_path: Path) -> None:
    run(tmp_path)
    longer = replace(PLAN, steps=14, cool=0.9, save_every=9.0)
    with pytest.raises(Killed):
        run(tmp_path, die_at=2, plan=longer)
    run(tmp_path, die_at=3, plan=longer)  # there are two steps more, and no third one


def test_a_fingerprint_is_of_every_part_in_order() -> None:
    net, data = nn.Linear(2, 1), torch.arange(4.0)
    whole = fingerprint("scenes", 16, data, net)
    assert whole == fingerprint("scenes", 16, data.clone(), copy.deepcopy(net))
    assert len({whole, *(fingerprint(*parts) for parts in (
        ("scene", 16, data, net), ("scenes", 17, data, net), ("scenes", 16, data + 1, net),
        ("scenes", 16, data.half(), net), ("scenes", 16, data.view(2, 2), net),
        ("scenes", 16, data, nn.Linear(2, 1)), (16, "scenes", data, net),
    ))}) == 8  # fmt: skip


def test_no_partial_checkpoint_is_left(tmp_path: Path) -> None:
    run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net.ckpt"]


def test_the_rate_warms_up_stays_and_cools_down() -> None:
    plan = StagePlan(steps=100, rate=1.0, warm=10, cool=0.5)
    assert rate_at(0, plan) == pytest.approx(0.1)  # (0 + 1) / 10
    assert rate_at(30, plan) == 1.0
    assert rate_at(75, plan) == pytest.approx(0.5)  # 25 steps left of the 50 that cool
    assert rate_at(99, plan) == pytest.approx(0.02)
