"""The parts of a line's report; `l2dm.reporting.report` puts them together.

story     what the history says in numbers
numbers   matrices and forgetting
pictures  what the model draws, task by task
charts    heat maps, interval bars, curves
page      the page itself
"""
