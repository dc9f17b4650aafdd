"""A release as files that others read: diffusers, ComfyUI, A1111; and the proof that they do.

Nothing here is needed to learn.
"""
