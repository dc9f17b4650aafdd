"""The one training loop, the processes that share it, and the check of its gradients.

It never knows which method it runs.
"""
