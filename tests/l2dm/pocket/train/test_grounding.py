"""Attention held to the renderer's masks; worked by hand."""

import pytest
import torch

from l2dm.pocket.train.grounding import CrossAttentionMaps, grounding_loss, token_loss
from l2dm.pocket.train.unet import build, masks_of_nouns, standing


def test_the_token_loss_is_the_squared_share_outside() -> None:
    maps = torch.tensor([[[[3.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    masks = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[0.5, 0.5], [0.0, 0.0]]]])
    # inside: 3 of 4, and (0.5 + 0.5) of 4
    assert token_loss(maps, masks).tolist() == [[pytest.approx(1 / 16), pytest.approx(9 / 16)]]


def test_a_token_without_a_mask_costs_nothing() -> None:
    assert token_loss(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).tolist() == [[0.0]]


def test_masks_are_reduced_to_the_size_of_each_map() -> None:
    masks = torch.zeros(1, 1, 4, 4)
    masks[..., :2] = 1.0
    coarse = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]]]])  # half of it inside
    fine = masks.clone()  # all of it inside
    assert grounding_loss([coarse, fine], masks).tolist() == [pytest.approx(0.25 / 2)]


def test_nouns_are_found_where_they_stand() -> None:
    tokens = torch.tensor([[9, 4, 5, 9], [4, 4, 9, 9]])
    nouns = torch.tensor([[0, 1], [0, 2]])  # label 2 is NOTHING here
    found = standing(tokens, nouns, torch.tensor([4, 5]))
    assert found.tolist() == [[[0, 1, 0, 0], [0, 0, 1, 0]], [[1, 1, 0, 0], [0, 0, 0, 0]]]


def test_two_things_of_one_noun_share_a_mask() -> None:
    masks = torch.tensor([[[[255, 0]], [[0, 51]]]] * 2, dtype=torch.uint8)
    shared = masks_of_nouns(torch.tensor([[3, 3], [3, 4]]), masks)
    assert shared[0, 0].tolist() == shared[0, 1].tolist() == [[1.0, pytest.approx(0.2)]]
    assert shared[1].tolist() == [[[1.0, 0.0]], [[0.0, pytest.approx(0.2)]]]


def test_recording_changes_no_prediction_and_reaches_the_keys() -> None:
    torch.manual_seed(0)
    unet = build().eval()
    noisy, states = torch.randn(2, 4, 16, 16), torch.randn(2, 6, 192)
    when = torch.tensor([10, 900])
    with torch.no_grad():
        plain = unet(noisy, when, states, return_dict=False)[0]
    recorder = CrossAttentionMaps(unet)
    recorder.chosen = torch.zeros(2, 2, 6)
    recorder.chosen[:, 0, 1] = recorder.chosen[:, 1, 3] = 1
    again = unet(noisy, when, states, return_dict=False)[0]
    torch.testing.assert_close(again, plain, atol=1e-5, rtol=1e-5)
    sides = sorted({one.shape[-1] for one in recorder.maps})
    assert sides == [8, 16]
    assert all(one.shape[:2] == (2, 2) for one in recorder.maps)
    grounding_loss(recorder.maps, torch.ones(2, 2, 16, 16) * 0.5).sum().backward()
    keys = [
        p for name, p in unet.named_parameters() if "down_blocks.0" in name and "attn2.to_k" in name
    ]
    assert keys and all(p.grad is not None and p.grad.abs().sum() > 0 for p in keys)
