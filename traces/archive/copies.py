"""Copies of archived tapes, for whoever wants to open one by name."""

from __future__ import annotations

import contextlib
import os
from hashlib import file_digest
from pathlib import Path
from typing import Final

from traces.archive.location import cache, home, open_archive

COPIES_MAX: Final = 16
"""Copies that are kept when another one is made; those used last."""


def copy_of(digits: str) -> Path:
    """The file of a copy of the tape whose SHA-256 begins with these digits, of the archive at `home()`.

    Raises UsageError, ArchiveError, TapeError.
    """
    archive = open_archive(home())
    tape = archive.find(digits)
    path = cache("tapes") / f"{tape}.tape"
    if not _is_whole(path, tape):
        path.parent.mkdir(parents=True, exist_ok=True)
        archive.export(tape, path)
    os.utime(path)
    with contextlib.suppress(OSError):  # Somebody else is clearing up.
        old = sorted(path.parent.glob("*.tape"), key=lambda row: row.stat().st_mtime)[:-COPIES_MAX]
        for row in old:
            row.unlink()
    return path


def _is_whole(path: Path, tape: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file_digest(file, "sha256").hexdigest() == tape
    except OSError:
        return False
