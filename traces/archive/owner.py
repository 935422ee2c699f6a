"""Who left something in an archive, so that what the dead left can be told from what the living need."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> dict[str, Any]:
    """What stands in an intent or mark of this process."""
    return {"host": socket.gethostname(), "world": _world(), "pid": os.getpid(), "start": _start(os.getpid())}


def is_dead(owner: Any) -> bool:
    """Whether that process has certainly ended: it ran here, where one can look. False for all that is far away."""
    if not isinstance(owner, dict) or not owner.get("world") or owner["world"] != _world():
        return False
    return isinstance(owner.get("pid"), int) and _start(owner["pid"]) != owner.get("start")


def _world() -> str:
    """Where a process number means a process: this boot of this machine and this name space. "" if unknown."""
    try:
        return f"{_BOOT.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start(pid: int) -> str | None:
    """When a process began, so that a later one with its number is not taken for it; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]
