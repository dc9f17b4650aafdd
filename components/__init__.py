"""One file per pipeline step: a declaration and a call.

It never computes anything itself: the work is in `l2dm.steps`.
"""
