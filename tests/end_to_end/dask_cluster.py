"""A Dask cluster of real processes on this host, whose parts can be killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client

from machine.errors import RacetapeError
from recorder import Prepared
from recorder.hunt import Check

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 60


class LocalDask:
    """A scheduler at a fixed port, and workers.

    Args:
        deaths: so many workers may die on a block before it is given up.
    """

    def __init__(self, deaths: int) -> None:
        self._deaths = deaths
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._without = TemporaryDirectory()
        no_racetape(Path(self._without.name))
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """At the same address as the one before. It has no racetape, and needs none."""
        port = self.address.rpartition(":")[2]
        self.scheduler = _start(
            "scheduler", "--host", "127.0.0.1", "--port", port, before=(Path(self._without.name),), deaths=self._deaths
        )

    def start_worker(self, *before: Path) -> subprocess.Popen[bytes]:
        """One more worker; the folders `before` come first on its path. Returns when the scheduler knows it."""
        with Client(self.address, timeout=START_S, set_as_default=False) as client:
            known = len(client.nthreads())
            self.workers.append(_start("worker", self.address, "--nthreads", "1", "--no-nanny", before=before))
            client.wait_for_workers(known + 1, timeout=START_S)
        return self.workers[-1]

    def kill(self, *processes: subprocess.Popen[bytes]) -> None:
        """As `kill -9` does."""
        for process in processes:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End all of it."""
        self.kill(self.scheduler, *self.workers)
        self._without.cleanup()


def no_racetape(folder: Path) -> None:
    """Whoever has this folder before racetape on its path finds none."""
    for package in ("machine", "recorder"):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text("")


def _start(what: str, *arguments: str, before: tuple[Path, ...] = (), deaths: int = 3) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dask", what, *arguments, "--no-dashboard"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (*before, ROOT, Path(__file__).parent))),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(deaths),
    }
    # From another folder: with -m, the current one would come first on the path.
    return subprocess.Popen(command, cwd="/", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def local_dask(workers: int = 0, deaths: int = 3) -> Iterator[LocalDask]:
    """A cluster for a test."""
    dask = LocalDask(deaths)
    try:
        for _ in range(workers):
            dask.start_worker()
        yield dask
    finally:
        dask.close()


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Fails if it does not become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def die_on_a_worker(prepared: Prepared) -> list[Check]:
    """Checks of a hunt: ends every Dask worker."""
    if "pytest" not in sys.modules:
        os._exit(3)
    return []


def no_memory_on_a_worker(prepared: Prepared) -> list[Check]:
    """Checks of a hunt: fail on every Dask worker with something that is no error of racetape's."""
    if "pytest" not in sys.modules:
        raise MemoryError("no room for 1 GiB")
    return []


def refuse_on_a_worker(prepared: Prepared) -> list[Check]:
    """Checks of a hunt: fail on every Dask worker with one of racetape's errors."""
    if "pytest" not in sys.modules:
        raise RacetapeError("nothing to check here")
    return []
