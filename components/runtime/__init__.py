"""What runs inside a step's container: its surroundings, its outcome, its base, the served model.

It never declares a component.
"""
