"""The peers: the unicorn emulator (QEMU's translator as a library) driven from C, and the CPU itself."""

from __future__ import annotations

import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import unicorn

from benchmarks.guests import Guest, gcc

DRIVER_SOURCE: Final = Path(__file__).with_name("unicorn_driver.c")
NATIVE_FACTOR: Final = 20
"""The native run is so much longer, since the system's clock for children counts in larger pieces."""


@dataclass(frozen=True)
class PeerRun:
    """CPU time of one run, and what its hooks saw (0 without)."""

    seconds: float
    instructions: int
    accesses: int


def build_driver(folder: Path) -> None:
    """Compile the driver against the library that the Python package ships. Raises RuntimeError."""
    package = Path(unicorn.__file__).parent
    library = next((package / "lib").glob("libunicorn.so*"))
    warnings = ["-Wall", "-Wextra", "-Werror"]
    gcc(["-O2", *warnings, f"-I{package / 'include'}", DRIVER_SOURCE, library, f"-Wl,-rpath,{library.parent}",
         "-o", folder / "unicorn_driver"])  # fmt: skip


def run_unicorn(folder: Path, guest: Guest, mode: str, dump: Path | None = None) -> PeerRun:
    """Run a guest from reset to its end; `mode` is "plain", "hooks" or "values" (see the driver).

    `dump` gets the RAM afterwards. Raises RuntimeError if the run goes astray.
    """
    assert guest.until
    command = [
        folder / "unicorn_driver",
        folder / f"{guest.name}.load",
        guest.ram_bytes,
        guest.entry,
        guest.until,
        mode,
    ]
    done = subprocess.run([*map(str, command), *([str(dump)] if dump else [])], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"unicorn on {guest.name}: {done.stderr.strip()[:300] or f'status {done.returncode}'}")
    seconds, instructions, accesses = done.stdout.split()
    return PeerRun(float(seconds), int(instructions), int(accesses))


def has_native(folder: Path) -> bool:
    """Whether this system runs 32-bit programs."""
    try:
        return subprocess.run([str(folder / "native"), "1"], check=False).returncode == 0
    except OSError:
        return False


def run_native(folder: Path, guest: Guest) -> float:
    """CPU seconds of the same C code as an ordinary process, for one run's length."""
    rounds = int(guest.command_line) * NATIVE_FACTOR
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([str(folder / "native"), str(rounds)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / NATIVE_FACTOR
