"""Which of several inlined functions people mean by "where it is"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from machine.symbols import Frame

HELPER_FOLDERS: Final = ("include/", "arch/x86/include/")
"""Headers hold atomic, list and accounting primitives: true, but not what a stop or a root cause is about."""
HELPER_FILES: Final = ("mm/vmstat.c",)
"""The same for counters, where they are no inline functions."""


def outside_headers(frames: Sequence[Frame]) -> Frame:
    """The innermost frame that is not in a header; the innermost of all if every one is."""
    return next((row for row in frames if not row.file.startswith(HELPER_FOLDERS)), frames[0])


def is_helper(file: str) -> bool:
    """Whether a file holds only primitives that count for others."""
    return file.startswith(HELPER_FOLDERS) or file in HELPER_FILES
