"""A line's report: one self-contained page. It reads doors and never draws, trains or decides.

report      the page and the summary
story       what the history says in numbers
numbers     matrices and forgetting
pictures    what the model draws, task by task
timeline    the checks
charts      heat maps, interval bars, curves
templating  fills `templates/`, which hold all HTML
"""
