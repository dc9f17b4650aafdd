"""Closeness of generated pictures to real ones, to their prompts and to the right identity."""

from collections.abc import Sequence

import torch
from torch import Tensor

from l2dm.errors import WrongShape
from l2dm.files.shapes import expect_shape


def image_alignment(generated: Tensor, real: Tensor) -> Tensor:
    """Mean cosine of each generated picture to all real ones, (n,), in [-1, 1].

    generated: (n, d), real: (m, d), features of the base's image encoder, of any length.
    Source: CLIP-I. Raises WrongShape without real features.
    """
    return _mean_cosine(generated, real, "image_alignment")


def identity_similarity(generated: Tensor, real: Tensor) -> Tensor:
    """Mean cosine of each generated picture to all real ones, (n,), in [-1, 1].

    generated: (n, d), real: (m, d), features of the identity encoder, of any length.
    Source: the DINO score. Raises WrongShape without real features.
    """
    return _mean_cosine(generated, real, "identity_similarity")


def text_alignment(generated: Tensor, prompts: Tensor) -> Tensor:
    """Cosine of each picture to its own prompt, (n,), in [-1, 1]; raw, not scaled by 2.5.

    generated, prompts: (n, d). The prompts are read without placeholders: CLIP-T.
    """
    expect_shape(generated, "n d", name="generated")
    expect_shape(prompts, "n d", name="prompts", like=generated)
    return (_unit(generated) * _unit(prompts)).sum(1)


def identity_accuracy(
    generated: Tensor, known: Sequence[Tensor], right: int, distractors: Tensor
) -> Tensor:
    """Whether the nearest of all identities is the right one: 1.0 or 0.0 per picture, (n,).

    generated: (n, d). known: real features (m_k, d) of every known concept; the right one has
    index `right`. distractors: (q, d), one foreign identity a row. An identity's place is the
    direction of its mean unit feature (nearest class mean). A tie counts as wrong.
    """
    expect_shape(generated, "n d", name="generated")
    expect_shape(distractors, "q d", name="distractors")
    places = torch.cat([torch.stack([_direction(real) for real in known]), _unit(distractors)])
    cosines = _unit(generated) @ places.T  # (n, known + q)
    own = cosines[:, right].clone()
    cosines[:, right] = -torch.inf
    if cosines.shape[1] == 1:
        raise WrongShape(
            "identity_accuracy needs another identity to tell from: found one known concept and "
            "no distractors; pass distractors or set evaluate.distractors above 0"
        )
    return (own > cosines.amax(1)).float()


def self_similarity(real: Tensor) -> float | None:
    """Mean cosine of different real pictures with each other: the ceiling of a similarity.

    real: (m, d). The diagonal (a picture with itself) is left out. None below two pictures.
    Source: self_j of docs/methods.md.
    """
    expect_shape(real, "m d", name="real")
    count = len(real)
    if count < 2:
        return None
    unit = _unit(real)
    cosines = unit @ unit.T  # (m, m)
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def _mean_cosine(generated: Tensor, real: Tensor, name: str) -> Tensor:
    expect_shape(generated, "n d", name="generated")
    expect_shape(real, f"m {generated.shape[1]}", name="real")
    if not len(real):
        raise WrongShape(f"{name} compares with real features; expected at least one, found none")
    return (_unit(generated) @ _unit(real).T).mean(1)


def _direction(real: Tensor) -> Tensor:
    expect_shape(real, "m d", name="known")
    if not len(real):
        raise WrongShape("a known identity has no real features; expected at least one")
    return torch.nn.functional.normalize(_unit(real).mean(0), dim=0)


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.double(), dim=1)
