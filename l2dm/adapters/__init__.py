"""What can be learned: LoRA (peft), spectral shifts, gated paths. `bases/attach.py` puts one on."""

from l2dm.adapters.contract import Adapter, NoAdapter

__all__ = ["Adapter", "NoAdapter"]
