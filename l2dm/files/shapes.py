"""Checking the axes of a tensor at public functions, with an error that names the axis."""

from torch import Tensor

from l2dm.errors import WrongShape


def expect_shape(tensor: Tensor, axes: str, *, name: str, like: Tensor | None = None) -> None:
    """Raise WrongShape unless `tensor` has these axes.

    axes: names separated by blanks, e.g. "B C H W"; a number in place of a name is a fixed size.
    like: a tensor that must have exactly the same shape.
    """
    wanted = axes.split()
    fits = tensor.ndim == len(wanted) and all(
        int(axis) == size for axis, size in zip(wanted, tensor.shape, strict=True) if axis.isdigit()
    )
    if not fits:
        raise WrongShape(
            f"{name} must have shape ({', '.join(wanted)}), found {tuple(tensor.shape)}"
        )
    if like is not None and tensor.shape != like.shape:
        raise WrongShape(f"{name} must have shape {tuple(like.shape)}, found {tuple(tensor.shape)}")
