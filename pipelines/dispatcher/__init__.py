"""The reconciler: look at a line, move it one step, look again.

It keeps nothing in memory that it could not read again.
"""
