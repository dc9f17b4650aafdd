import math

import pytest
import torch

from l2dm.errors import WrongShape
from l2dm.metrics.alignment import (
    identity_accuracy,
    identity_similarity,
    image_alignment,
    self_similarity,
    text_alignment,
)

RIGHT, UP, LEFT = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
HALF = 1 / math.sqrt(2)  # cosine of 45 degrees


@pytest.mark.parametrize("metric", [image_alignment, identity_similarity])
def test_alignment_is_the_mean_cosine_to_all_real_pictures(metric):
    # picture 1 points right: cosines to (right, up) are 1 and 0, mean 0.5
    # picture 2 points diagonally: cosines are both 0.7071, mean 0.7071; its length 3 is no matter
    generated = torch.tensor([RIGHT, [3 * HALF, 3 * HALF]])
    real = torch.tensor([RIGHT, UP])
    assert metric(generated, real).tolist() == pytest.approx([0.5, HALF])


@pytest.mark.parametrize("metric", [image_alignment, identity_similarity])
def test_alignment_of_no_pictures_is_empty_and_without_real_ones_refused(metric):
    assert metric(torch.empty(0, 2), torch.tensor([RIGHT])).shape == (0,)
    with pytest.raises(WrongShape, match="expected at least one, found none"):
        metric(torch.tensor([RIGHT]), torch.empty(0, 2))


def test_alignment_refuses_other_widths():
    with pytest.raises(WrongShape, match=r"real must have shape \(m, 2\), found \(1, 3\)"):
        image_alignment(torch.tensor([RIGHT]), torch.ones(1, 3))


def test_text_alignment_pairs_picture_and_prompt():
    # right-right: 1; up-left: 0; left-right: -1
    pictures, prompts = torch.tensor([RIGHT, UP, LEFT]), torch.tensor([RIGHT, LEFT, RIGHT])
    assert text_alignment(pictures, prompts).tolist() == pytest.approx([1.0, 0.0, -1.0])
    with pytest.raises(WrongShape, match="prompts must have shape"):
        text_alignment(pictures, prompts[:2])


def test_identity_accuracy_asks_for_the_nearest_identity():
    # Identity 0 is seen at 0° and 90°: its direction is 45°. Identity 1 is at 180°.
    # A picture at 50° is 5° from identity 0, one at 170° is 10° from identity 1,
    # and a picture at 0° is 45° from identity 0 but 30° from the distractor at -30°.
    known = [torch.tensor([RIGHT, UP]), torch.tensor([LEFT])]
    pictures = torch.tensor([_at(50), _at(170), _at(0)])
    distractors = torch.tensor([_at(-30)])
    assert identity_accuracy(pictures, known, 0, distractors).tolist() == [1.0, 0.0, 0.0]
    assert identity_accuracy(pictures, known, 1, distractors).tolist() == [0.0, 1.0, 0.0]
    # without the distractor the third picture is nearest to identity 0 again
    assert identity_accuracy(pictures, known, 0, torch.empty(0, 2)).tolist() == [1.0, 0.0, 1.0]


def test_identity_accuracy_counts_a_tie_as_wrong():
    known = [torch.tensor([RIGHT]), torch.tensor([RIGHT])]
    assert identity_accuracy(torch.tensor([RIGHT]), known, 0, torch.empty(0, 2)).tolist() == [0.0]


def test_identity_accuracy_needs_something_to_tell_from():
    with pytest.raises(WrongShape, match="needs another identity to tell from"):
        identity_accuracy(torch.tensor([RIGHT]), [torch.tensor([UP])], 0, torch.empty(0, 2))


def test_identity_accuracy_refuses_a_known_identity_without_features():
    with pytest.raises(WrongShape, match="no real features"):
        identity_accuracy(torch.tensor([RIGHT]), [torch.empty(0, 2)], 0, torch.tensor([UP]))


def test_self_similarity_leaves_out_a_picture_with_itself():
    # pairs: right-up 0, right-diagonal 0.7071, up-diagonal 0.7071; mean 0.4714. With the diagonal
    # of ones it would be (2 * 1.4142 + 3) / 9 = 0.6476.
    real = torch.tensor([RIGHT, UP, [1.0, 1.0]])
    assert self_similarity(real) == pytest.approx(2 * HALF / 3)


def test_self_similarity_of_one_picture_is_missing():
    assert self_similarity(torch.tensor([RIGHT])) is None


def _at(degrees):
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]
