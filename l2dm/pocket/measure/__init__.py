"""What the shipped base can do, measured: rates, a lesson taught by a probe, the table of bars.

No method is ever trained on what is measured here.
"""
