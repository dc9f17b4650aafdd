"""Where runs are executed: in this process, beside it, in containers, on a cluster.

No place decides what to run.
"""
