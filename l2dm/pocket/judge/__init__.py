"""The judge, and the measurements of what ships.

No method is ever trained on what they say.
"""
