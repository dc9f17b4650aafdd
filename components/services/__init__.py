"""The outside world: objects, records, leases, tracking, registry, wake-ups.

It never imports torch or kfp, nor knows what a step computes.
"""
