"""What all tests have: Ctrl-C that works, and folders filled once by however many processes share the tests."""

import fcntl
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# A shell's background processes ignore Ctrl-C, and so would those that tests start to interrupt them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def made_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """(name, make, home=None) -> a folder that `make(folder)` has filled.

    Below `home` it is kept for later runs; without, it is one of this run, whose processes (pytest-xdist's) share it.
    """
    base = tmp_path_factory.getbasetemp()
    run = base.parent if hasattr(request.config, "workerinput") else base

    def made(name: str, make: Callable[[Path], object], home: Path | None = None) -> Path:
        folder = (home or run / "made-once") / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                half_made = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
                make(half_made)
                half_made.rename(folder)
        return folder

    return made
