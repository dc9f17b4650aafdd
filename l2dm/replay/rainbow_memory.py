"""The rainbow-memory bank of L2DM: replayed pictures are chosen by score, and no pixel is kept.

Long-term memory holds unit features of the real pictures and their prompts; short-term memory
holds pictures that the parent model draws for this task, chosen by Eq. 5 (Algorithm 1).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from l2dm import doors
from l2dm.bases.diffusion import derive_seed, generator_for
from l2dm.bases.encoders import Encoders
from l2dm.bases.model import Model
from l2dm.bases.sampling import Progress, Shot, draw_latents
from l2dm.files.shapes import expect_shape
from l2dm.spec import MemorySpec, SamplingSpec

DrawCandidates = Callable[[Model, Sequence[Shot], SamplingSpec], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ShortTerm:
    """Chosen pictures. latents: (m, C, h, w), scaled; entries: what each of them is."""

    latents: Tensor
    entries: tuple[doors.Replayed, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be drawn: the concepts that are replayed, the shots, and whose each of them is."""

    past: tuple[doors.Remembered, ...]
    shots: tuple[Shot, ...]
    owner: tuple[int, ...]


@dataclass(frozen=True)
class _Candidates:
    """Everything the parent drew. latents: (A, C, h, w); features: (A, d); owner: (A,) concept."""

    latents: Tensor
    features: Tensor
    owner: Tensor
    shots: tuple[Shot, ...]


def score(candidates: Tensor, own: Tensor, stored: Tensor, *, fidelity: float) -> Tensor:
    """Eq. 5 for every candidate of one concept against each of its stored features.

    candidates: (A, d), unit features of all candidates of all past concepts. own: (a,) indices of
    this concept's candidates. stored: (n, d), unit features in long-term memory. fidelity: beta_s.
    Returns (a, n): mean cosine distance to all candidates (the self pair adds 0) plus beta_s times
    the cosine to the stored feature.
    """
    expect_shape(candidates, "A d", name="candidates")
    expect_shape(stored, "n d", name="stored")
    mine = candidates[own]
    diversity = 1 - mine @ candidates.mean(0)  # mean over b of 1 - cos(a, b)
    return diversity[:, None] + fidelity * (mine @ stored.T)


def choose(scores: Tensor) -> tuple[tuple[int, int], ...]:
    """The best candidate of every stored feature, without replacement.

    scores: (a, n); -inf marks candidates that must not be taken. Returns (candidate, feature)
    pairs in the order of the features; fewer than n when candidates run out. Of equal scores the
    first wins. Reconstruction: Algorithm 1 does not say whether one picture may win twice.
    """
    left = scores.clone()
    chosen = []
    for feature in range(scores.shape[1]):
        column = left[:, feature]
        if len(column) == 0 or torch.isneginf(column).all():
            continue
        best = int(column.argmax())
        chosen.append((best, feature))
        left[best] = -torch.inf
    return tuple(chosen)


def choose_at_random(
    candidates: int, features: int, *, generator: torch.Generator
) -> tuple[tuple[int, int], ...]:
    """The control: as many candidates as there are stored features, uniformly."""
    order = torch.randperm(candidates, generator=generator).tolist()
    return tuple((candidate, feature) for feature, candidate in enumerate(order[:features]))


def refresh(
    model: Model,
    encoders: Encoders,
    long_term: Sequence[doors.Remembered],
    features: Mapping[str, Tensor],
    spec: MemorySpec,
    sampling: SamplingSpec,
    *,
    seed: int,
    draw: DrawCandidates | None = None,
) -> ShortTerm:
    """The short-term update of Algorithm 1, lines 2-5, before a task is trained.

    model: carries the parent's adapter. features: (n, d) per concept name. draw: what makes the
    candidates, `draw_candidates` if none is given.
    """
    planned = plan(long_term, spec, seed)
    past = planned.past
    if not past:
        return ShortTerm(torch.empty(0, *model.latent_shape), ())
    latents, pictures = (draw or draw_candidates)(model, planned.shots, sampling)
    owner = torch.tensor(planned.owner)
    drawn = _Candidates(latents, encoders.image(pictures), owner, planned.shots)
    picked: list[int] = []
    entries: list[doors.Replayed] = []
    for index, remembered in enumerate(past):
        own = (drawn.owner == index).nonzero().flatten()
        name = remembered.concept.name
        scores = score(drawn.features, own, features[name], fidelity=spec.fidelity)
        for candidate, feature in _select(drawn, own, scores, features[name], spec, seed, name):
            at = int(own[candidate])
            shot = drawn.shots[at]
            value = round(float(scores[candidate, feature]), 6)
            picked.append(at)
            entries.append(doors.Replayed(name, shot.prompt, shot.seed, value))
    return ShortTerm(drawn.latents[picked], tuple(entries))


def plan(long_term: Sequence[doors.Remembered], spec: MemorySpec, seed: int) -> Plan:
    """Which candidates are drawn for this task, concept by concept, never more than `spec.budget`.

    When there are more concepts than that, a seeded choice of them is replayed in this task.
    """
    past = tuple(_within_budget(long_term, spec.budget, seed))
    share = spec.budget // max(1, len(past))
    shots: list[Shot] = []
    owner: list[int] = []
    for index, remembered in enumerate(past):
        wanted = min(spec.candidates * len(remembered.prompts), share)
        for number in range(wanted):
            prompt = remembered.prompts[number % len(remembered.prompts)]
            shots.append(Shot(prompt, derive_seed(seed, "memory", remembered.concept.name, number)))
            owner.append(index)
    return Plan(past, tuple(shots), tuple(owner))


def draw_candidates(
    model: Model,
    shots: Sequence[Shot],
    sampling: SamplingSpec,
    *,
    on_progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Latents, (n, C, h, w), and pictures, (n, 3, H, W) uint8, on the CPU."""
    latents = draw_latents(model, shots, sampling, on_progress=on_progress)
    pictures = torch.cat([model.decode(part) for part in latents.split(sampling.batch)])
    return latents.cpu(), pictures


def _within_budget(
    long_term: Sequence[doors.Remembered], budget: int, seed: int
) -> Sequence[doors.Remembered]:
    if len(long_term) <= budget:
        return long_term
    generator = generator_for(seed, "memory", "concepts")
    kept = torch.randperm(len(long_term), generator=generator)[:budget].sort().values
    return [long_term[index] for index in kept.tolist()]


def _select(
    drawn: _Candidates,
    own: Tensor,
    scores: Tensor,
    stored: Tensor,
    spec: MemorySpec,
    seed: int,
    name: str,
) -> tuple[tuple[int, int], ...]:
    if spec.selection == "random":
        generator = generator_for(seed, "memory", "random", name)
        return choose_at_random(len(own), len(stored), generator=generator)
    close = drawn.features[own] @ stored.T >= spec.floor
    if not close.any():  # a concept is never dropped from replay altogether
        close = torch.ones_like(close)
    return choose(scores.masked_fill(~close, -torch.inf))
