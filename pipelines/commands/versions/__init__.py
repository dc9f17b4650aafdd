"""Commands about one version of a line: draw with it, measure it, export it, make it the champion.

They learn nothing.
"""
