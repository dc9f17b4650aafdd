"""A release as a folder, a release that draws, and a release that is looked at again.

Aliases and versions are the registry's; nothing here moves one.
"""
