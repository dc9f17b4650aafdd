"""How often scenes of two things are drawn in the second cycle."""

import numpy as np
import pytest

from l2dm.pocket.data import NOTHING, Renders
from l2dm.pocket.train_unet import pair_shares


def test_scenes_of_two_things_come_up_as_often_as_asked() -> None:
    labels = np.zeros((5, 5), np.uint8)
    labels[:, 2] = [NOTHING, 3, NOTHING, NOTHING, NOTHING]  # only the second scene has two things
    renders = Renders(np.zeros((5, 64, 64, 3), np.uint8), ((),) * 5, labels)
    # 0.4 on the one, 0.6 shared by the other four
    assert pair_shares(renders, 0.4).tolist() == pytest.approx([0.15, 0.4, 0.15, 0.15, 0.15])
