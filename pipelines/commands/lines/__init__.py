"""Commands about lines as a whole: how they stand, what happened, repair after a restore.

They learn nothing.
"""
