"""Base models: recognise a folder, load it, read prompts, predict noise, draw.

One file a family. Nothing outside asks which family a base is; nothing here knows a method.
"""
