"""From a user's pictures to an upload in a folder, and from an upload to pictures that fit.

It never learns or draws anything, and it never commits an upload to a line.
"""
