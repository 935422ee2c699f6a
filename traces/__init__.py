"""The tape: one run of the machine in a file. Format: docs/tape-format.md."""

from traces.columns import Event, Events
from traces.reader import TapeFile
from traces.records import Attachment, Checkpoint, Choices, TapeFooter, TapeHeader
from traces.strip import strip
from traces.tape import Range, Selection, Tape
from traces.writer import TapeWriter

__all__ = [
    "Attachment",
    "Checkpoint",
    "Choices",
    "Event",
    "Events",
    "Range",
    "Selection",
    "Tape",
    "TapeFile",
    "TapeFooter",
    "TapeHeader",
    "TapeWriter",
    "strip",
]
