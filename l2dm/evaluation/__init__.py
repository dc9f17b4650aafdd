"""Fill the new row of every matrix: draw, measure, gather shards, make sheets.

It never decides what the scores mean; `metrics` and the gate do.
"""
