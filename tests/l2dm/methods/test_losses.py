import pytest
import torch

from l2dm.errors import WrongShape
from l2dm.methods.losses import denoise_loss, distill_loss


def latents(*values: float) -> torch.Tensor:
    """(1, 1, 1, n)"""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_denoise_loss_is_the_mean_square_per_sample() -> None:
    # sample 0: ((1-0)^2 + (3-0)^2) / 2 = 5; sample 1: ((2-2)^2 + (0-4)^2) / 2 = 8
    predicted = torch.cat([latents(1, 3), latents(2, 0)])
    target = torch.cat([latents(0, 0), latents(2, 4)])
    assert denoise_loss(predicted, target).tolist() == [5.0, 8.0]


def test_distill_loss_sends_no_gradient_to_the_teacher() -> None:
    student = latents(1.0, 2.0).requires_grad_()
    teacher = latents(0.0, 0.0).requires_grad_()
    loss = distill_loss(student, teacher)
    assert loss.tolist() == [2.5]  # (1 + 4) / 2
    loss.sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.flatten().tolist() == [1.0, 2.0]  # 2 (s - t) / 2


def test_shapes_are_named() -> None:
    with pytest.raises(WrongShape, match=r"target must have shape \(1, 1, 1, 2\), found"):
        denoise_loss(latents(1, 2), latents(1))
