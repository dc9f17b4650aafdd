"""A release on its base: the model that it describes, ready to draw."""

from pathlib import Path

import torch

from l2dm import doors
from l2dm.bases import attach
from l2dm.bases.model import Model, load_base
from l2dm.files import manifest
from l2dm.files.manifest import Door
from l2dm.releases.folder import adapter_of


def load_release(release: Path, base: str, *, device: torch.device | None = None) -> Model:
    """The model that a release describes, ready to draw. Raises BadDoor, BadBase, DoesNotFit.

    device: as for `load_base`.
    """
    manifest.read(release, doors.Release)
    return load_adapter(adapter_of(release), base, device=device)


def load_adapter(
    adapter: Door[doors.Adapter], base: str, *, device: torch.device | None = None
) -> Model:
    """A base with an adapter on it, of a door that was read. Raises BadBase, DoesNotFit."""
    model = load_base(base, device=device)
    attach.attach_door(model, adapter)
    return model
