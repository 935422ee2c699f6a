"""Servers on this machine for archives elsewhere: OpenSSH's, and one that speaks S3. Started and ended by the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[str]:
    """An OpenSSH server that lets this user in from `folder`/home; yields the URL of an empty directory there."""
    server = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if server is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs OpenSSH's server (Debian: openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # It insists on it when root starts it.
    keys, data = folder / "home" / ".ssh", folder / "data"
    keys.mkdir(parents=True, mode=0o700)
    data.mkdir()
    for path in (folder / "host_key", keys / "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {keys}/id_ed25519.pub\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    known = (folder / "host_key.pub").read_text()
    (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}")
    process = subprocess.Popen([server, "-D", "-E", str(folder / "log"), "-f", str(folder / "config")])
    try:
        _wait(port, process, folder / "log")
        yield f"sftp://127.0.0.1:{port}{data}"
    finally:
        # A connection that is still open has processes of its own, which outlive the one that listens.
        connections = _children(process.pid)
        process.terminate()
        process.wait()
        for pid in connections:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [row for child in map(int, text.split()) for row in (child, *_children(child))]


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """A server that speaks S3; yields its URL."""
    pytest.importorskip("moto", reason="needs moto (pip install 'racetape[dev]')")
    process = subprocess.Popen(
        [sys.executable, "-c", _MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        port = next(int(line) for line in lines if line.strip().isdigit())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("sshd does not listen")
