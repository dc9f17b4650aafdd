"""How each part of the pocket base is trained and exported.

Nothing here runs when the base is used.
"""
