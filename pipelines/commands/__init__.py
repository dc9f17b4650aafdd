"""The command line: one page a command, with its options, its work and what it prints.

Nothing else imports it.
"""
