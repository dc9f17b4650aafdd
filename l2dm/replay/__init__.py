"""Pictures that are seen again: class pictures of the bare base and the rainbow-memory bank.

Which of them a method uses is the method's choice.
"""
