"""What is measured: functions of feature tensors and of numbers, no files and no models.

alignment   how close generated pictures are to real ones, to their prompt, to the right identity
drift       how far class prompts moved from the base
forgetting  what became of a concept after later tasks
bootstrap   how sure a mean is
gate        whether a challenger may become the champion
"""
