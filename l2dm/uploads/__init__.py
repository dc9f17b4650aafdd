"""From a user's pictures to an upload in an inbox, and from an upload to pictures that fit.

It never learns or draws anything.
"""
