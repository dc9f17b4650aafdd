"""What can be learned: LoRA (peft), spectral shifts, gated paths. `bases/attach.py` puts one on.

An adapter knows no base: layers and networks are passed in.
"""
