"""Make buckets, versioned, where they are not there yet: `buckets.py NAME ...`."""

import sys

import boto3


def main(names: list[str]) -> None:
    """Raises botocore's ClientError for a name that belongs to somebody else."""
    s3 = boto3.client("s3")
    known = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in names:
        if name not in known:
            s3.create_bucket(Bucket=name)
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


if __name__ == "__main__":
    main(sys.argv[1:])
