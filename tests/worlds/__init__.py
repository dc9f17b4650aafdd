"""Small worlds that many tests share: a tiny base, stores, servers that pretend.

Nothing here is a test.
"""
