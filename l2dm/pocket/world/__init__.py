"""The small world: scenes, how they are painted, and renders of many.

It needs Pillow and numpy only; no network library.
"""
