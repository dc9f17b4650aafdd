"""One function per published term. Every loss returns one value per sample; callers weight them."""

from torch import Tensor

from l2dm.files.shapes import expect_shape


def denoise_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the UNet's output, one value per sample.

    predicted, target: (B, C, H, W), latent units (noise or velocity). Returns (B,), the mean over
    channels and pixels. L2DM Eq. 1 (the LDM loss); also L_PR of Eq. 2 and 3 on class pictures.
    """
    expect_shape(predicted, "B C H W", name="predicted")
    expect_shape(target, "B C H W", name="target", like=predicted)
    return (predicted - target).square().flatten(1).mean(1)


def distill_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Elastic concept distillation: distance of student and teacher outputs, one value per sample.

    student, teacher: (B, C, H, W), outputs for the same noisy latents, timesteps and prompts; the
    teacher's carry no gradient. Returns (B,). L2DM Eq. 6 (quoted second-hand, docs/methods.md).
    """
    return denoise_loss(student, teacher.detach())
