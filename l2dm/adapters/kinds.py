"""The one table of adapter kinds: a new kind is a module of this folder and a name here."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from l2dm.adapters import gated, lowrank, spectral
from l2dm.adapters.contract import AdapterSettings, AttachedAdapter, Host
from l2dm.doors import Concept
from l2dm.errors import DoesNotFit


class Kind(Protocol):
    """What the module of a kind answers."""

    KIND: str
    SHARED: bool
    """Whether all concepts share its weights; else each name begins with `<concept>/`."""

    def put_on(
        self,
        host: Host,
        settings: AdapterSettings,
        generator: torch.Generator,
        concepts: Sequence[Concept] = (),
    ) -> AttachedAdapter:
        """A fresh one on a base; at first it changes nothing.

        settings: as `AttachedAdapter.settings` gives them, perhaps with some of other kinds.
        generator: draws what does not start at zero. concepts: those that get weights of their own
        at once, where each has some.
        """


_MODULES: tuple[Kind, ...] = (lowrank, spectral, gated)
KINDS: Mapping[str, Kind] = {module.KIND: module for module in _MODULES}


def kind_of(name: str) -> Kind:
    """A kind by its own name. Raises DoesNotFit."""
    if name not in KINDS:
        raise DoesNotFit(
            f"expected an adapter of a kind that this version of the library knows "
            f"({', '.join(KINDS)}), found kind {name!r}"
        )
    return KINDS[name]
