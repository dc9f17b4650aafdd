"""Doors, pictures, tensors' shapes, child processes: what becomes of bytes on disk and in pipes.

Nothing here knows a model.
"""
