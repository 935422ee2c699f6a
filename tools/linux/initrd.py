"""An initrd with one program: an archive in cpio's newc format.

Documentation/driver-api/early-userspace/buffer-format.rst of the kernel has it.
"""

from __future__ import annotations

import sys
from pathlib import Path


def _entry(name: str, mode: int, number: int, data: bytes) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def initrd(init: bytes) -> bytes:
    """The archive of a program as `/init`; the kernel brings `/dev/console` itself."""
    return _entry("init", 0o100755, 1, init) + _entry("TRAILER!!!", 0, 0, b"")


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(initrd(Path(sys.argv[1]).read_bytes()))
