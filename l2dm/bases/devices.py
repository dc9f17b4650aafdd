"""Where a model is loaded: on the GPU if there is one, in float32 that does not vary."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def accelerator() -> torch.device:
    """The GPU if torch sees one (CUDA; ROCm has the same name), else the CPU.

    An empty CUDA_VISIBLE_DEVICES hides the GPUs. Several processes that learn together have a
    device each (`training.ranks.join`).
    """
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepared(device: torch.device | None = None) -> torch.device:
    """The device to load a model on: the one that is named, else `accelerator()`.

    On a GPU the whole process then computes float32 as float32: by default torch rounds
    convolutions to TF32, ten bits. Convolutions give the same bytes each time.
    """
    device = accelerator() if device is None else device
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return device


@contextmanager
def one_order(device: torch.device) -> Iterator[None]:
    """Inside, sums on a CPU are taken in one order, so the same threads give the same bytes.

    Some gradients (of `x[index]` with an index that comes twice) are else added up by whichever
    thread comes first. Not on a GPU: there some operations that we need have no such form.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its one attribute is a property that mypy cannot see
    fill = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # a help against bugs that costs time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        memory.fill_uninitialized_memory = fill
