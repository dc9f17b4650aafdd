"""Where a model is loaded: on the GPU if there is one, in float32 that does not vary."""

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
