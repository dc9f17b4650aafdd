"""Make buckets where they are not there yet, versioned unless L2DM_VERSIONED is "no".

Usage: `buckets.py NAME ...`.
"""

import os
import sys

import boto3


def main(names: list[str]) -> None:
    """Raises botocore's ClientError for a name that belongs to somebody else."""
    s3 = boto3.client("s3")
    known = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in names:
        if name not in known:
            s3.create_bucket(Bucket=name)
        if os.environ.get("L2DM_VERSIONED", "yes") != "no":
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


if __name__ == "__main__":
    main(sys.argv[1:])
