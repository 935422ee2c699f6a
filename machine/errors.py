"""The one error hierarchy. It stands in the lowest layer so that every layer can raise from it.

Every message is one line that says what is wrong and, where there is something to do, what to do. The command line
prints it and exits with status 2; nothing here ever reaches a user as a traceback.
"""

from __future__ import annotations


class RacetapeError(Exception):
    """Base of everything racetape raises on purpose."""


class UsageError(RacetapeError):
    """You asked for something that does not exist or does not fit: an unknown scenario, variant or position."""


class ImageError(RacetapeError):
    """A guest image cannot be built, found or read: not an ELF file, wrong architecture, gcc missing."""


class ExpressionError(RacetapeError):
    """An expression over guest symbols does not parse or names something the image does not have."""


class TapeError(RacetapeError):
    """A tape cannot be read or written: missing, empty, no tape, wrong version, or the disk is full."""


class TapeDamagedError(TapeError):
    """A tape is damaged from `offset` (bytes) on; everything before stays readable.

    Attributes:
        offset: file offset in bytes of the first chunk that is damaged.
        step: first step that the damaged chunk covers, or None where the chunk does not say.
    """

    def __init__(self, message: str, *, offset: int, step: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset
        self.step = step


class ArchiveError(RacetapeError):
    """An archive cannot be read or written, or something in it is missing, damaged or not to be found."""


class ReplayError(RacetapeError):
    """A tape does not replay."""


class DivergenceError(ReplayError):
    """A replay left the recording: at `step` the tape says `expected`, the machine did `got`.

    Attributes:
        step: first step that differs.
        cpu: the CPU that took it, or -1 where it is not one CPU's.
        expected, got: what differs, as text.
    """

    def __init__(self, message: str, *, step: int, cpu: int, expected: str, got: str) -> None:
        super().__init__(message)
        self.step = step
        self.cpu = cpu
        self.expected = expected
        self.got = got
