"""The image that steps run in; the local runner uses the interpreter that is there instead."""

IMAGE = "l2dm:latest-python3.11"
