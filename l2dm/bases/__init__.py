"""Base models: recognise a folder, load it, read prompts, predict noise, draw.

One file a family, in `families/`. Nothing outside asks which family a base is; nothing here knows
a method.
"""
