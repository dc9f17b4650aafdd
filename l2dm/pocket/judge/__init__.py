"""The judge: which things a picture shows, in which colours, in which order.

No method is ever trained on what it says.
"""
