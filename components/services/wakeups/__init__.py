"""Events that say «look now», from queues and webhooks.

They may be lost or doubled; nothing relies on one.
"""
