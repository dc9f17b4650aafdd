"""The pipelines, each a page of wiring; in the rooms below: places to run, dispatcher, commands.

It never imports torch: what is computed is computed in steps.
"""
