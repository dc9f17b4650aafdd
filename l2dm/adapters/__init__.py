"""What can be learned: LoRA (peft), spectral shifts, gated paths. `fitting.py` puts one on a model."""

from l2dm.adapters.contract import Adapter, NoAdapter

__all__ = ["Adapter", "NoAdapter"]
