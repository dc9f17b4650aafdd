"""How often scenes of two things are drawn in training."""

import pytest
import torch

from l2dm.pocket.train.unet import pair_shares
from l2dm.pocket.world.render_cache import NOTHING


def test_scenes_of_two_things_come_up_as_often_as_asked() -> None:
    second = [NOTHING, 3, NOTHING, NOTHING, NOTHING]  # only the second scene has two things
    nouns = torch.tensor([[0, noun] for noun in second])
    # 0.4 on the one, 0.6 shared by the other four
    assert pair_shares(nouns, 0.4).tolist() == pytest.approx([0.15, 0.4, 0.15, 0.15, 0.15])
