"""One page per published method, and what all pages share: contract, lesson, losses, text cache.

No page knows another one.
"""
