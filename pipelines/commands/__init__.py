"""The command line: one page a command, with its options, its work and what it prints.

`cli` assembles the pages. Nothing else imports them, and a page never imports another's work
without need: what several share is `options`, `target`, `output` and `progress`.
"""
