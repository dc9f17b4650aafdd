"""A container engine with our images in it, for tests: `image_engine.py [command ...]`.

Starts a Docker engine of its own where it may, in a folder that goes when it ends; takes the base
image from its registry, or where none is reachable makes one from Debian's packages under the same
name; builds both images with `infra/image/build.sh` from the wheels that this machine's pip finds;
runs the command with DOCKER_HOST set. Without a command it stays until a key interrupts.
Where no engine can start it says why, and the command runs without: its tests skip.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
VARIABLE = "L2DM_CONTAINERS"  # environment of the command: DOCKER_HOST has our images
BASE = "python:3.11-slim-bookworm"
SPACE = 12 * 10**9  # bytes: base, wheels, layers of two images, what a run writes
START_SECONDS = 30


class NoEngine(RuntimeError):
    """Containers cannot be run here; says why."""


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """The address of a Docker engine that was started in a folder. Raises NoEngine."""
    require()
    address = f"unix://{folder}/socket"
    command = [
        *("dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/run"),
        *("--pidfile", f"{folder}/pid", "--host", address),
        # networks that a test makes are bridges all the same, ports are published by a process of
        # the engine: no firewall rules left behind
        *("--bridge=none", "--iptables=false", "--ip6tables=false"),
    ]
    with open(folder / "dockerd.log", "wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + START_SECONDS
        while not answers(address):
            if daemon.poll() is not None or time.monotonic() > until:
                words = (folder / "dockerd.log").read_text(errors="replace")[-1500:]
                raise NoEngine(f"dockerd does not start here:\n{words}")
            time.sleep(0.2)
        yield address
    finally:
        daemon.terminate()
        daemon.wait(60)
        unmount(folder)


def unmount(folder: Path) -> None:
    """What a stopped engine leaves mounted, or its folder would not go."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted((one for one in mounted if one.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", place], check=True)


def require() -> None:
    """Raises NoEngine with everything that is missing."""
    problems = []
    if os.geteuid() != 0:
        problems.append("an engine of its own needs root")
    missing = [name for name in ("dockerd", "mmdebstrap") if shutil.which(name) is None]
    if missing:
        problems.append(f"not installed: {', '.join(missing)}")
    if not client():
        problems.append("no docker client that can BuildKit (20.10 to 22, or with buildx)")
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < SPACE:
        problems.append(f"{free / 1e9:.0f} GB free in {tempfile.gettempdir()}, 12 are needed")
    if sys.version_info[:2] != (3, 11):
        problems.append(f"wheels are collected for the image's Python 3.11, this is {sys.version}")
    if problems:
        raise NoEngine("; ".join(problems))


def client() -> str:
    """The first docker client on the PATH whose `build` knows BuildKit; "" when there is none."""
    places = os.environ.get("PATH", "").split(os.pathsep)
    for found in filter(None, (shutil.which("docker", path=place) for place in places)):
        said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
        major = said.removeprefix("Docker version ").partition(".")[0]
        if major.isdigit() and int(major) < 23:
            return found
        if subprocess.run([found, "buildx", "version"], capture_output=True).returncode == 0:
            return found
    return ""


def docker(*command: str) -> str:
    """What a docker command says, on the engine that DOCKER_HOST names. Raises AssertionError."""
    environment = os.environ | {"DOCKER_BUILDKIT": "1"}
    done = subprocess.run([client(), *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers(address: str) -> bool:
    """Whether an engine answers there."""
    command = [client(), "--host", address, "info"]
    return subprocess.run(command, capture_output=True).returncode == 0


def provide_base(address: str, folder: Path) -> str:
    """The image that the Dockerfile begins with; says where it is from."""
    docker = [client(), "--host", address]
    pulled = subprocess.run([*docker, "pull", "-q", BASE], capture_output=True, timeout=600)
    if pulled.returncode == 0:
        return "its registry"
    tar = folder / "base.tar"
    packages = "--include=python3,python3-pip,ca-certificates"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", packages, "bookworm", str(tar)]
    subprocess.run(command, check=True)
    subprocess.run([*docker, "import", str(tar), BASE], check=True, stdout=subprocess.DEVNULL)
    tar.unlink()
    return "Debian's packages: no registry is reachable"


def build(address: str, folder: Path) -> None:
    """Both images, from the wheels that this machine's pip finds: whatever it has configured."""
    wheels = ROOT / "infra/image/wheels"
    before = set(wheels.iterdir())
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run(["sh", "infra/image/wheels.sh"], cwd=ROOT, check=True, env=environment)
    settings = {
        "ENGINE": client(),
        "DOCKER_HOST": address,
        "PIP_ARGS": "--no-index",
        "BUILD_ARGS": "--network=host --quiet",
        "PYTHON_IMAGE": BASE,
    }
    try:
        command = ["sh", "infra/image/build.sh"]
        subprocess.run(command, cwd=ROOT, check=True, env=os.environ | settings)
    finally:
        for path in set(wheels.iterdir()) - before:
            path.unlink()


@contextmanager
def images() -> Iterator[str]:
    """An engine that has our images, told on the way. Raises NoEngine."""
    folder = Path(tempfile.mkdtemp(prefix="l2dm-containers-"))
    try:
        with engine(folder) as address:
            began = time.monotonic()
            say(f"base from {provide_base(address, folder)}")
            build(address, folder)
            say(f"base and images made in {time.monotonic() - began:.0f} s")
            yield address
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def say(text: str) -> None:
    print(f"containers: {text}", flush=True)


def main(command: list[str]) -> int:
    """Run the command; its exit code."""
    try:
        with images() as address:
            environment = os.environ | {"DOCKER_HOST": address, VARIABLE: "yes"}
            if command:
                return subprocess.run(command, env=environment).returncode
            say(f"DOCKER_HOST={address}")
            input("return ends it")
            return 0
    except NoEngine as error:
        say(f"SKIPPED, no container was built or run: {error}")
        return subprocess.run(command).returncode if command else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
