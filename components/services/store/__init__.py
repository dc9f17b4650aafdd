"""Objects in a folder or a bucket, and where a home is.

It never knows what an object means.
"""
