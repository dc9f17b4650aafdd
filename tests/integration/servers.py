"""Real servers on loopback, native and without containers: Ceph radosgw, PostgreSQL, MLflow.

`python tests/integration/servers.py [command ...]` starts them in a temporary folder, writes where
they are into the JSON file that L2DM_SERVERS names for the command, and stops them when it ends;
without a command they run until a key interrupts. A process of its own watches over them: they go
when this one goes, however it dies. `make test-integration` installs what is missing.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VARIABLE = "L2DM_SERVERS"
REAPER = Path(__file__).with_name("reaper.py")
START_SECONDS = 120
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "ceph", "ceph-authtool", "monmaptool")
BUCKET = "mlflow"  # MLflow's artifacts

CEPH = """\
[global]
fsid = {fsid}
mon host = {mon}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = {folder}
log file = {folder}/$name.log
admin socket =
pid file =
keyring = {folder}/keyring
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 1
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw data = {folder}/rgw
rgw thread pool size = 64
"""


@dataclass(frozen=True)
class Where:
    """What a test needs to reach the servers."""

    endpoint: str
    access_key: str
    secret_key: str
    database: str
    mlflow: str
    folder: str

    @property
    def aws(self) -> dict[str, str]:
        """The usual AWS settings for the object store."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


def told() -> Where | None:
    """Where the servers are that L2DM_SERVERS names; None when none were started."""
    path = os.environ.get(VARIABLE)
    return Where(**json.loads(Path(path).read_text())) if path else None


class Servers:
    """Processes by name, each in a session of its own, that a bench may kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._commands: dict[str, tuple[list[str], dict[str, str], str | None]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper = subprocess.Popen(
            [sys.executable, str(REAPER), str(folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def add(
        self, name: str, command: list[str], *, user: str | None = None, **environment: str
    ) -> None:
        """Start a server and remember how."""
        self._commands[name] = (command, environment, user)
        self.start(name)

    def start(self, name: str) -> None:
        """Start a server that is down."""
        command, environment, user = self._commands[name]
        with open(self.folder / f"{name}.out", "ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=os.environ | environment,
                user=user,
                start_new_session=True,
            )
        self._running[name] = process
        self._tell(f"+{process.pid}")

    def kill(self, name: str) -> None:
        """Kill a server with all its processes, at once."""
        process = self._running.pop(name)
        os.killpg(process.pid, 9)
        process.wait()
        self._tell(f"-{process.pid}")

    def wait(self, name: str, answers: Callable[[], bool]) -> None:
        """Until a server answers; its last words when it does not."""
        until = time.monotonic() + START_SECONDS
        while not answers():
            gone = name in self._running and self._running[name].poll() is not None
            if gone or time.monotonic() > until:
                words = (self.folder / f"{name}.out").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{name} {'ended' if gone else 'never answered'}:\n{words}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop everything and remove the folder: the reaper does it when its input ends."""
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        for process in self._running.values():
            process.wait()
        self._reaper.wait()

    def _tell(self, line: str) -> None:
        assert self._reaper.stdin is not None
        self._reaper.stdin.write(f"{line}\n".encode())
        self._reaper.stdin.flush()


@contextmanager
def running() -> Iterator[tuple[Servers, Where]]:
    """All servers, answering. Raises RuntimeError with what is not installed."""
    require_programs()
    folder = Path(tempfile.mkdtemp(prefix="l2dm-servers-"))
    folder.chmod(0o711)  # PostgreSQL's user has to pass
    servers = Servers(folder)
    try:
        mlflow_port = free_port()
        where = Where(
            endpoint=f"http://127.0.0.1:{free_port()}",
            access_key="integration",
            secret_key="integration-secret",
            database=start_postgres(servers),
            mlflow=f"http://127.0.0.1:{mlflow_port}",
            folder=str(folder),
        )
        start_mlflow(servers, where, mlflow_port)
        start_radosgw(servers, where)
        servers.wait("mlflow", lambda: answers(f"{where.mlflow}/health"))
        yield servers, where
    finally:
        servers.stop()


def require_programs() -> None:
    """Raises RuntimeError with every program that is missing."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if not postgres_programs():
        missing.append("initdb")
    if missing:
        raise RuntimeError(f"not installed: {', '.join(missing)}; run make test-integration")


def start_postgres(servers: Servers) -> str:
    """A new PostgreSQL that trusts loopback; its address for SQLAlchemy."""
    data, port = servers.folder / "postgres", free_port()
    data.mkdir(mode=0o700)
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        shutil.chown(data, user)
    programs = postgres_programs()
    subprocess.run(
        [f"{programs}/initdb", "--no-sync", "-A", "trust", "-U", "l2dm", "-E", "UTF8", "-D", data],
        user=user,
        cwd=data,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [f"{programs}/postgres", "-D", str(data), "-p", str(port), *flags]
    servers.add("postgres", command, user=user)
    reach = ["-h", "127.0.0.1", "-p", str(port), "-U", "l2dm"]
    servers.wait("postgres", lambda: ran(f"{programs}/createdb", *reach, "mlflow"))
    return f"postgresql+psycopg2://l2dm@127.0.0.1:{port}/mlflow"


def start_mlflow(servers: Servers, where: Where, port: int) -> None:
    """MLflow's server with artifacts in the object store."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    servers.add(
        "mlflow",
        [
            *command,
            *("--workers", "1"),  # a second worker adds 45 ms to every request
            *("--backend-store-uri", where.database),
            *("--artifacts-destination", f"s3://{BUCKET}/artifacts"),
        ],
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",  # eight processes and 2 GiB
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_S3_ENDPOINT_URL=where.endpoint,
        **where.aws,
    )


def start_radosgw(servers: Servers, where: Where) -> None:
    """One monitor, one object daemon in memory, the S3 gateway, one user, MLflow's bucket."""
    folder = servers.folder / "ceph"
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    conf = write_ceph_configuration(folder, where.endpoint.rpartition(":")[2])

    def ceph(program: str, *arguments: str) -> str:
        command = [program, "-c", str(conf), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=START_SECONDS
        ).stdout

    keys = ("--keyring", f"{folder}/keyring")
    ceph("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{folder}/monmap", *keys)
    servers.add("ceph-mon", ["ceph-mon", "-c", str(conf), "-i", "a", "-f"])
    identity = (folder / "osd-uuid").read_text()
    ceph("ceph", "osd", "new", identity, "0")
    ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
    servers.add("ceph-osd", ["ceph-osd", "-c", str(conf), "-i", "0", "-f"])
    servers.add("radosgw", ["radosgw", "-c", str(conf), "-n", "client.rgw", "-f"])
    user = ("--uid=l2dm", "--display-name=l2dm", f"--access-key={where.access_key}")
    secret = f"--secret-key={where.secret_key}"
    ceph("radosgw-admin", "-n", "client.rgw", "user", "create", *user, secret)
    servers.wait("radosgw", lambda: answers(where.endpoint))
    make_bucket(where, BUCKET)


def write_ceph_configuration(folder: Path, port: str) -> Path:
    """ceph.conf, keys and the monitor's map; returns the path of ceph.conf."""
    fsid, v2, v1 = str(uuid.uuid4()), free_port(), free_port()
    mon = f"[v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]"
    conf = folder / "ceph.conf"
    conf.write_text(CEPH.format(fsid=fsid, mon=mon, folder=folder, port=port))
    identity = str(uuid.uuid4())
    (folder / "osd-uuid").write_text(identity)
    everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *")
    names = ("mon.", "client.admin", "client.rgw", "osd.0")
    for name in names:
        create = () if name != names[0] else ("--create-keyring",)
        keyring = ("ceph-authtool", str(folder / "keyring"), *create, "--gen-key", "-n", name)
        run(*keyring, *everything)
    for name in ("osd", "rgw"):  # daemons look for keys beside data; mkfs does it for the monitor
        shutil.copy(folder / "keyring", folder / name / "keyring")
    monmap = ("monmaptool", "--create", "--fsid", fsid, "--addv", "a", mon)
    run(*monmap, str(folder / "monmap"))
    return conf


def make_bucket(where: Where, bucket: str) -> None:
    """The first bucket takes seconds: its pools are made."""
    client(where).create_bucket(Bucket=bucket)


def client(where: Where) -> Any:
    """A bare boto3 client for the object store."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=where.endpoint,
        region_name="us-east-1",
        aws_access_key_id=where.access_key,
        aws_secret_access_key=where.secret_key,
        config=Config(request_checksum_calculation="when_required"),
    )


def postgres_programs() -> str:
    """The folder of the newest PostgreSQL's programs; empty when there is none."""
    found = [str(path.parent) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    newest = max(found, default="", key=lambda path: int(path.split("/")[-2]))
    return newest or str(Path(shutil.which("initdb") or "").parent).removeprefix(".")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(url: str) -> bool:
    """Whether an HTTP server answers with 200, whatever proxies are set."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def run(*command: str) -> None:
    """Raises CalledProcessError."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def ran(*command: str) -> bool:
    """Whether a command succeeded."""
    return subprocess.run(command, capture_output=True).returncode == 0


def main(command: list[str]) -> int:
    """Start, tell the command where, stop; returns the command's exit code."""
    began = time.monotonic()
    try:
        with running() as (_, where):
            file = Path(where.folder) / "servers.json"
            file.write_text(json.dumps(asdict(where)))
            print(f"servers answer after {time.monotonic() - began:.0f} s; {VARIABLE}={file}")
            sys.stdout.flush()
            if command:
                return subprocess.run(command, env=os.environ | {VARIABLE: str(file)}).returncode
            signal.pause()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
