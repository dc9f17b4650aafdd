"""Doors and their payloads, pictures, shapes, child processes: bytes on disk and in pipes.

Nothing here knows a model.
"""
