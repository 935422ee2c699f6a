"""The tape: one run of the machine in a file. Format: docs/tape-format.md."""

from traces.columns import Event, Events
from traces.reader import Tape
from traces.records import Checkpoint, Choices, TapeFooter, TapeHeader
from traces.strip import strip
from traces.writer import TapeWriter

__all__ = ["Checkpoint", "Choices", "Event", "Events", "Tape", "TapeFooter", "TapeHeader", "TapeWriter", "strip"]
