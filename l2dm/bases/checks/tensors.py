"""Weights held against the networks that configs describe, name by name and shape by shape.

Libraries fill a weight that a file lacks with random numbers and go on. So the network is built
first where no number is held (torch's meta device) and compared with the headers of the files.
"""

import importlib
import inspect
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from l2dm.bases.checks.files import Files
from l2dm.bases.checks.headers import DeclaredTensor
from l2dm.bases.checks.weights import header_of
from l2dm.errors import BadBase

NAMED = 5  # tensors of one kind that a message names
SPARE = 64  # parameters that a network may make and not store: tied ones


def require_tensors(files: Files, part: str, library: str, kind: str, variant: str | None) -> None:
    """Raise BadBase, naming tensors that are missing, unexpected or of another shape.

    kind: the class that reads the part, or "AutoModel" for what its config names.
    """
    stored = header_of(files, part, library, variant)
    described = files.config(f"{part}/config.json")
    with _bounded(part, len(stored)), _quiet():
        if library == "diffusers":
            missing, unexpected, misshapen = _of_diffusers(kind, described, stored)
        else:
            missing, unexpected, misshapen = _of_transformers(kind, files.folder / part, stored)
    told = [
        *_told(missing, "is missing", "are missing"),
        *_told(unexpected, "is not expected", "are not expected"),
        *(
            f"{name} has shape {list(found)}, its config describes {list(wanted)}"
            for name, found, wanted in misshapen[:NAMED]
        ),
    ]
    if told:
        raise BadBase(f"{part}/: its tensors do not fit its config.json: {'; '.join(told)}")


Differences = tuple[list[str], list[str], list[tuple[str, tuple[int, ...], tuple[int, ...]]]]


def without_pooler(kind: str, stored: Collection[str]) -> bool:
    """Whether a vision transformer was saved without the layer behind its first token, as DINO.

    kind: its `model_type`. stored: names of its tensors.
    """
    return kind in {"vit", "deit"} and not any("pooler." in name for name in stored)


def _of_diffusers(
    kind: str, described: dict[str, Any], stored: Mapping[str, DeclaredTensor]
) -> Differences:
    network = _class_of("diffusers", kind)
    _require_kinds(network, described)
    with torch.device("meta"):
        empty = network.from_config(described)
        found = {name: torch.empty(one.shape) for name, one in stored.items()}
    empty._fix_state_dict_keys_on_load(found)  # names of old releases, as its own loader does
    wanted = empty.state_dict()
    ignored = network._keys_to_ignore_on_load_unexpected or []
    unexpected = [name for name in found.keys() - wanted.keys() if not _matches(name, ignored)]
    misshapen = [
        (name, tuple(found[name].shape), tuple(wanted[name].shape))
        for name in sorted(found.keys() & wanted.keys())
        if found[name].shape != wanted[name].shape
    ]
    return sorted(wanted.keys() - found.keys()), sorted(unexpected), misshapen


def _require_kinds(network: Any, described: Mapping[str, Any]) -> None:
    """Words where a network counts, or numbers where it reads words, fail when it draws."""
    for name, option in inspect.signature(network.__init__).parameters.items():
        value, default = described.get(name), option.default
        counts = isinstance(default, int | float) and isinstance(value, str | dict)
        if counts or (isinstance(default, str) and isinstance(value, int | float | list | dict)):
            raise BadBase(
                f"config.json: {name}: expected one like {default!r}, found {value!r}"[:200]
            )


def _of_transformers(kind: str, folder: Path, stored: Mapping[str, DeclaredTensor]) -> Differences:
    from transformers import AutoConfig, AutoModel

    options: dict[str, Any] = {}
    if kind == "AutoModel":
        config = AutoConfig.from_pretrained(folder)
        network = AutoModel._model_mapping[type(config)]
        if without_pooler(config.model_type, stored):
            options["add_pooling_layer"] = False
    else:
        network = _class_of("transformers", kind)
        config = network.config_class.from_pretrained(folder)
    with torch.device("meta"):
        found = {name: torch.empty(one.shape) for name, one in stored.items()}
    # the library's own loader, with its own renamings, on tensors that hold nothing
    _, told = network.from_pretrained(
        None, config=config, state_dict=found, device_map="meta", dtype=torch.float32,
        ignore_mismatched_sizes=True, output_loading_info=True, **options,
    )  # fmt: skip
    if told["error_msgs"]:
        raise BadBase("; ".join(told["error_msgs"])[:400])
    misshapen = [(one, tuple(have), tuple(want)) for one, have, want in told["mismatched_keys"]]
    return sorted(told["missing_keys"]), sorted(told["unexpected_keys"]), sorted(misshapen)


@cache
def _class_of(library: str, kind: str) -> Any:
    return getattr(importlib.import_module(library), kind)


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


@contextmanager
def _bounded(part: str, stored: int) -> Iterator[None]:
    """A network that describes far more layers than its files hold is not built to its end."""
    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > 2 * stored + SPARE:
            raise BadBase(
                f"its config.json describes more than the {stored:,} tensors of its files"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' own tables of what does not fit: ours says it."""
    loggers = [logging.getLogger(name) for name in ("transformers", "diffusers")]
    before = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(loggers, before, strict=True):
            one.setLevel(level)


def _told(names: list[str], one: str, several: str) -> Iterator[str]:
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        listed = ", ".join(name[:120] for name in names[:NAMED])
        yield f"{listed}{more} {one if len(names) == 1 else several}"
