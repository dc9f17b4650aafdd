import math
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from l2dm.doors import Concept, Remembered
from l2dm.replay import rainbow_memory
from l2dm.replay.rainbow_memory import choose, choose_at_random, score
from l2dm.spec import MemorySpec, SamplingSpec

NO = -math.inf


def test_eq_5_by_hand() -> None:
    # Three candidates of two concepts in the plane; the first two belong to concept l.
    candidates = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    own = torch.tensor([0, 1])
    stored = torch.tensor([[1.0, 0.0]])
    # cosines: a0 with a0, a1, a2 = 1, .6, 0 -> mean distance (0 + .4 + 1) / 3
    #          a1 with a0, a1, a2 = .6, 1, .8 -> mean distance (.4 + 0 + .2) / 3
    diversity = [1.4 / 3, 0.6 / 3]
    # fidelity: cos(a0, f) = 1, cos(a1, f) = .6; beta_s = 2
    expected = [diversity[0] + 2 * 1.0, diversity[1] + 2 * 0.6]
    found = score(candidates, own, stored, fidelity=2.0)
    assert found.shape == (2, 1)
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_vectorised_equals_the_double_sum() -> None:
    generator = torch.Generator().manual_seed(1)
    unit = torch.nn.functional.normalize(torch.randn(9, 5, generator=generator), dim=-1)
    stored = torch.nn.functional.normalize(torch.randn(3, 5, generator=generator), dim=-1)
    own = torch.tensor([2, 4, 5])
    found = score(unit, own, stored, fidelity=0.5)
    for row, a in enumerate(own.tolist()):
        for column in range(3):
            distances = [1 - float(unit[a] @ unit[b]) for b in range(9)]
            expected = sum(distances) / 9 + 0.5 * float(unit[a] @ stored[column])
            assert float(found[row, column]) == pytest.approx(expected, abs=1e-5)


def test_the_best_is_chosen_without_replacement() -> None:
    scores = torch.tensor([[9.0, 8.0], [1.0, 7.0], [2.0, 0.0]])
    # candidate 0 wins feature 0, so feature 1 takes its second best, candidate 1
    assert choose(scores) == ((0, 0), (1, 1))


def test_choosing_stops_when_candidates_run_out() -> None:
    assert choose(torch.tensor([[1.0, 2.0]])) == ((0, 0),)
    assert choose(torch.tensor([[NO, 2.0], [NO, NO]])) == ((0, 1),)
    assert choose(torch.empty(0, 2)) == ()


def test_order_of_candidates_does_not_matter_when_scores_differ() -> None:
    rows = [[3.0, 1.0], [2.0, 5.0], [0.5, 4.0]]
    best = {
        frozenset(tuple(rows[order[c]]) for c, _ in choose(torch.tensor([rows[i] for i in order])))
        for order in permutations(range(3))
    }
    assert len(best) == 1


def test_random_control_takes_each_candidate_once() -> None:
    chosen = choose_at_random(6, 3, generator=torch.Generator().manual_seed(0))
    assert [feature for _, feature in chosen] == [0, 1, 2]
    assert len({candidate for candidate, _ in chosen}) == 3


@pytest.mark.parametrize(("concepts", "budget"), [(1, 3), (3, 8), (5, 7), (9, 4)])
def test_budget_is_never_exceeded_and_no_concept_dropped_within_it(
    monkeypatch: pytest.MonkeyPatch, concepts: int, budget: int
) -> None:
    drawn = []

    def fake_draw(model: Any, shots: Any, sampling: Any, on_progress: Any = None) -> torch.Tensor:
        drawn.extend(shots)
        return torch.arange(len(shots) * 4.0).view(-1, 4, 1, 1)

    monkeypatch.setattr(rainbow_memory, "draw_latents", fake_draw)
    generator = torch.Generator().manual_seed(0)

    def unit(count: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=-1)

    past = [Remembered(Concept(f"c{i}", "dog"), ("a", "b", "c")) for i in range(concepts)]
    model = SimpleNamespace(latent_shape=(4, 1, 1), decode=lambda latents: latents)
    encoders = SimpleNamespace(image=lambda pictures: unit(len(pictures)))
    bank = rainbow_memory.refresh(
        model,  # type: ignore[arg-type]
        encoders,  # type: ignore[arg-type]
        past,
        {f"c{i}": unit(3) for i in range(concepts)},
        MemorySpec(candidates=4, budget=budget),
        SamplingSpec(),
        seed=0,
    )
    assert len(drawn) <= budget
    replayed = {entry.concept for entry in bank.entries}
    assert len(replayed) == min(concepts, budget)
    assert len(bank.latents) == len(bank.entries)
    per_concept = [sum(e.concept == name for e in bank.entries) for name in replayed]
    assert max(per_concept) <= 3  # one picture per stored feature
