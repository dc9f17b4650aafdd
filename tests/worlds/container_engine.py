"""A container engine to test against, and an image of this machine's own shell: no registry."""

import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipelines.places.containers import engine
from pipelines.places.settings import Settings

TOOLS = ("sh", "cat", "id", "mktemp", "sleep", "touch", "mkdir", "env", "true", "df")


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """The engine that DOCKER_HOST names, or the default one."""
    if not _answers(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")):
        pytest.skip(
            "NOT TESTED: no container engine answers; start dockerd or podman's service and set "
            "DOCKER_HOST to its socket"
        )
    with engine(Settings()) as found:
        yield found


def _answers(address: str) -> bool:
    """Asked by hand, because docker leaves a socket open where nobody answers."""
    where = urlsplit(address)
    family = socket.AF_UNIX if where.scheme == "unix" else socket.AF_INET
    with socket.socket(family) as probe, suppress(OSError):
        probe.connect(where.path if where.scheme == "unix" else (where.hostname, where.port))
        return True
    return False


def shell_image(client: Any, tag: str, python: str) -> str:
    """An image with a few tools of this machine, and a `python3` that is this shell script."""
    name = f"l2dm-test-{tag}"  # podman takes no tag here
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path in sorted(set(_tools())):
            tar.add(os.path.realpath(path), arcname=path)
        script = f"#!/bin/sh\n{python}\n".encode()
        entry = tarfile.TarInfo("bin/python3")
        entry.size, entry.mode = len(script), 0o755
        tar.addfile(entry, io.BytesIO(script))
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    client.api.import_image_from_data(
        data.getvalue(), repository=name, tag="latest", changes=["ENV PATH=/bin"]
    )
    return f"docker.io/library/{name}:latest"  # what both engines mean by the short name


def _tools() -> Iterator[str]:
    """The tools under /bin, and the libraries that they are linked with under their own names."""
    for tool in TOOLS:
        path = f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}"
        yield f"/bin/{tool}"
        told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
        for word in told.stdout.split():
            if word.startswith("/"):
                yield word
