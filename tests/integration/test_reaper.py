"""Servers go when whoever started them goes, however that happens. Needs no server installed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration import servers

START = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from tests.integration.servers import Servers
folder = Path(sys.argv[1])
folder.mkdir()
servers = Servers(folder)
for name in ("one", "two"):
    servers.add(name, ["sleep", "99"])
print(*(process.pid for process in servers._running.values()), flush=True)
time.sleep(99)
"""


def alive(process: int) -> bool:
    """Opening fails when it is gone, reading when it goes in between: the errors are two."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_whoever_started_it(tmp_path: Path, signal_: signal.Signals) -> None:
    folder = tmp_path / "servers"
    with subprocess.Popen(
        [sys.executable, "-c", START, str(folder)],
        cwd=Path(servers.__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        processes = [int(word) for word in starter.stdout.readline().split()]
        assert len(processes) == 2 and all(alive(process) for process in processes)
        starter.send_signal(signal_)
    until = time.monotonic() + 20
    while (any(map(alive, processes)) or folder.exists()) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(alive, processes))
    assert not folder.exists()


def test_a_server_is_killed_and_started_again(tmp_path: Path) -> None:
    (folder := tmp_path / "servers").mkdir()
    started = servers.Servers(folder)
    port = servers.free_port()
    serve = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    started.add("web", serve)
    url = f"http://127.0.0.1:{port}"
    started.wait("web", lambda: servers.answers(url))
    started.kill("web")
    assert not servers.answers(url)
    started.start("web")
    started.wait("web", lambda: servers.answers(url))
    started.stop()
    assert not servers.answers(url)
    assert not folder.exists()


def test_a_server_that_does_not_start_shows_its_last_words(tmp_path: Path) -> None:
    (folder := tmp_path / "servers").mkdir()
    started = servers.Servers(folder)
    started.add("broken", [sys.executable, "-c", "import os; raise SystemExit('no such disk')"])
    with pytest.raises(RuntimeError, match="broken ended:\nno such disk"):
        started.wait("broken", lambda: False)
    started.stop()
    assert not folder.exists()


def test_what_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(RuntimeError, match=r"not installed: ceph-mon, .*; run make test-integrat"):
        servers.require_programs()
