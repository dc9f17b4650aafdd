"""What a line is, read from its records: ledger, leases, uploads, promotion, checks.

It never starts a run.
"""
