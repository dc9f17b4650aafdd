"""Base families: one module each, found because it lies here; `bases/family.py` is the contract."""
