"""A GPU that is not there: tensors in this machine's memory that count as being on "cuda:0".

Numbers are computed as ever, so code that looks at values runs through, and what it writes can be
compared with what a run on the CPU writes. A storage counts as on the GPU once something asked for
that (`to`, `device=`), and so does everything that is computed from it. As on a real one, an
operation on tensors of both places is refused, and so is numpy. So is saving what is on the GPU,
which a real one allows: a file is for machines without one.

Not seen: what goes past torch's dispatcher (C++ extensions, raw pointers), what CUDA has no kernel
for, other rounding, and memory.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal
from unittest import mock

import safetensors.torch
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from l2dm.bases import devices

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
Place = Literal["gpu", "either"]  # either: torch made it within an operation; none of both: CPU

INDEXING = {  # the indices, a list, may be on the CPU
    torch.ops.aten.index.Tensor,
    torch.ops.aten._unsafe_index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
}
NETWORKS = {  # what only networks do
    torch.ops.aten.convolution.default,
    torch.ops.aten.convolution_backward.default,
    torch.ops.aten.embedding.default,
    torch.ops.aten.native_group_norm.default,
    torch.ops.aten.native_layer_norm.default,
}
ABOUT = {
    Tensor.device.__get__: GPU,
    Tensor.is_cuda.__get__: True,
    Tensor.is_cpu.__get__: False,
    Tensor.get_device: GPU.index,
}


class Mixed(AssertionError):
    """What a real GPU refuses: tensors of both places, or what is the CPU's on it."""


class Places:
    """Where every storage counts as being. A weak reference keeps an address from being reused."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[StorageWeakRef, Place]] = {}

    def of(self, tensor: Tensor) -> Place | None:
        found = self._known.get(storage(tensor)._cdata)
        return found[1] if found else None

    def put(self, tensor: Tensor, place: Place | None) -> None:
        where = storage(tensor)
        if place is None:
            self._known.pop(where._cdata, None)
            return
        self._known[where._cdata] = (StorageWeakRef(where), place)
        if len(self._known) % 10_000 == 0:
            living = {at: one for at, one in self._known.items() if not one[0].expired()}
            self._known = living

    def is_there(self, one: Any) -> bool:
        return isinstance(one, Tensor) and self.of(one) == "gpu"


class Operations(TorchDispatchMode):
    """Refuses what a GPU refuses, and says where the result of an operation is."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.places = places
        self.asked = False  # whether Python asked for the tensor that is being made
        self.networks: Counter[str] = Counter()  # operations of networks, by place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors(args, kwargs)
        place = self._place(func, args, kwargs, given)
        if func in NETWORKS:
            self.networks[place or "cpu"] += 1
        result = func(*args, **kwargs)
        for made in tensors(result):
            if not any(are_one(made, one) for one in given):
                self.places.put(made, place)
        return result

    def _place(self, func: Any, args: Any, kwargs: Any, given: list[Tensor]) -> Place | None:
        if not given:
            return None if self.asked else "either"
        found = {self.places.of(one) for one in given}
        if "gpu" not in found:
            return "either" if found == {"either"} else None
        if func != torch.ops.aten.copy_.default:
            looked_at = (args[:1], args[2:], kwargs) if func in INDEXING else (args, kwargs)
            self._require_one_place(func, looked_at)
        return "gpu"

    def _require_one_place(self, func: Any, given: Any) -> None:
        for one in tree_leaves(given):
            if isinstance(one, Tensor) and self.places.of(one) is None and one.dim() > 0:
                shape = tuple(one.shape)
                raise Mixed(f"{func}: expected all tensors on {GPU}, found {shape} on the CPU")
            if isinstance(one, torch.Generator):
                raise Mixed(f"{func}: expected a generator of {GPU}, found one of the CPU")


class Questions(TorchFunctionMode):
    """Answers what Python asks about devices, and carries out moves."""

    def __init__(self, places: Places, operations: Operations) -> None:
        super().__init__()
        self.places, self.operations = places, operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ABOUT and self.places.is_there(args[0]):
            return ABOUT[func]
        if func in (Tensor.numpy, Tensor.__array__) and self.places.is_there(args[0]):
            raise Mixed(f"{func.__name__}: expected a tensor on the CPU, found one on {GPU}")
        if func in (Tensor.to, Tensor.cpu, Tensor.cuda):
            return self._moved(func, args, dict(kwargs))
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            return self._made(func, args, kwargs)
        return self._carried_out(func, args, kwargs)

    def _carried_out(self, func: Any, args: Any, kwargs: Any) -> Any:
        before, self.operations.asked = self.operations.asked, not tensors(args, kwargs)
        try:
            return func(*args, **kwargs)
        finally:
            self.operations.asked = before

    def _made(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        """A factory with `device=`: of new values, like another tensor, or of its values."""
        if kwargs.get("generator") is not None:
            raise Mixed(f"{func.__name__}: expected a generator of {GPU}, found one of the CPU")
        made: Tensor = self._carried_out(func, args, {**kwargs, "device": None})
        if any(are_one(made, one) and not self.places.is_there(one) for one in tensors(args)):
            made = copied(made)
        self.places.put(made, "gpu")
        return made

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        tensor, *rest = args
        copy, was = kwargs.pop("copy", False), self.places.is_there(tensor)
        device, dtype, form = CPU if func is Tensor.cpu else GPU, None, None
        if func is Tensor.to and rest and isinstance(rest[0], Tensor):
            device = GPU if self.places.is_there(rest[0]) else rest[0].device
            dtype = rest[0].dtype
        elif func is Tensor.to:
            device, dtype, _, form = torch._C._nn._parse_to(*rest, **kwargs)
        goes = was if device is None else device.type == "cuda"
        if not was and not goes:
            return self._carried_out(func, args, {**kwargs, "copy": True} if copy else kwargs)
        moved: Tensor = tensor.to(
            dtype or tensor.dtype, memory_format=form or torch.preserve_format
        )
        if are_one(moved, tensor) and was == goes and not copy:
            return moved
        moved = copied(moved) if are_one(moved, tensor) else moved
        self.places.put(moved, "gpu" if goes else None)
        return moved


def storage(tensor: Tensor) -> torch.UntypedStorage:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


def are_one(one: Tensor, other: Tensor) -> bool:
    return storage(one)._cdata == storage(other)._cdata


def copied(tensor: Tensor) -> Tensor:
    """A copy as far from a multiple of 64 bytes: the CPU's kernels add in an order that depends on
    it, and weights of a file begin anywhere."""
    if tensor.requires_grad or not tensor.is_contiguous():
        return tensor.clone()
    size = tensor.element_size()
    buffer = torch.empty(tensor.numel() + 64 // size, dtype=tensor.dtype)
    begin = (tensor.data_ptr() - buffer.data_ptr()) % 64 // size
    return buffer[begin : begin + tensor.numel()].view(tensor.shape).copy_(tensor)


def tensors(*tree: Any) -> list[Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, Tensor)]


@contextmanager
def gpu() -> Iterator[Operations]:
    """While it lasts the machine has a GPU, and what one process loads goes there."""
    places = Places()
    operations = Operations(places)
    with (
        mock.patch.object(devices, "accelerator", lambda: torch.device("cuda")),
        _saving(places),
        torch.backends.cudnn.flags(),  # afterwards they are as they were
        operations,
        Questions(places, operations),
    ):
        yield operations


@contextmanager
def _saving(places: Places) -> Iterator[None]:
    """Refuse to save what is there, also where a module has `save_file` under its own name."""

    def refusing(save: Callable[..., None]) -> Callable[..., None]:
        def refuse(value: Any, *args: Any, **more: Any) -> None:
            if any(places.is_there(one) for one in tensors(value)):
                raise Mixed(f"{save.__name__}: expected tensors on the CPU, found some on {GPU}")
            save(value, *args, **more)

        return refuse

    write = safetensors.torch.save_file
    ours = [one for name, one in sys.modules.items() if name.startswith("l2dm")]
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(torch, "save", refusing(torch.save)))
        patches.enter_context(mock.patch.object(safetensors.torch, "save_file", refusing(write)))
        for module in ours:
            if getattr(module, "save_file", None) is write:
                patches.enter_context(mock.patch.object(module, "save_file", refusing(write)))
        yield
