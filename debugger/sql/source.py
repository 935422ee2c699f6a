"""Where a scan's events come from: the chunks of the tape, and replay for what is not on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from debugger.sql.predicate import EVERYTHING, Ranges, either, overlaps
from machine.errors import UsageError
from machine.symbols import Segment
from replayer import Timeline
from replayer.timeline import WINDOW_STEPS
from traces import Events, Tape
from traces.chunks import Chunk, FormatError
from traces.columns import EVENTS_MAX
from traces.index import ChunkIndex
from traces.schema import DRAIN, KIND_NAMES, KINDS, U64Array

_ALL_KINDS: Final = frozenset(KIND_NAMES)
_OF_MEMORY: Final = frozenset(KINDS[name] for name in ("load", "store", "drain", "walk", "ad_update"))


@dataclass(frozen=True)
class Wanted:
    """What the rows of a scan have in common, as far as the predicate tells.

    Attributes:
        kinds: numbers of the event kinds.
        ranges: what an event column can be, by its name; what is not there can be anything.
        pcs: tells whether one of the instructions at some addresses, shape (n,), uint64, can be theirs; None: any can.
    """

    kinds: frozenset[int]
    ranges: Mapping[str, Ranges]
    pcs: Callable[[U64Array], bool] | None = None

    def of(self, column: str) -> Ranges:
        """What that event column can be."""
        return self.ranges.get(column, EVERYTHING)


@dataclass(frozen=True)
class Piece:
    """Some consecutive steps, `first_step` to `end_step` - 1, with all their events.

    Attributes:
        chunk: that has the events; None: they have to be made again.
    """

    first_step: int
    end_step: int
    chunk: Chunk | None


class Source:
    """The events of one tape, piece by piece. May be used by several threads.

    Args:
        first_step: of the first event; None: where the tape's begin. What comes before that is made again.
    """

    def __init__(self, tape: Tape, first_step: int | None = None) -> None:
        self._tape = tape
        self._buffers = threading.local()
        self._replay_lock: Final = threading.Lock()
        self._timeline: Timeline | None = None
        begin, end = tape.events_range
        taped = [Piece(c.first_step, c.end_step, c) for c in tape.events_chunks]
        # A cut tape may end between choices and their events; of a stripped one all are made again.
        before, behind = ((begin if first_step is None else first_step), begin), (end, tape.end_step)
        self.pieces: tuple[Piece, ...] = (*_windows(*before), *taped, *_windows(*behind))
        if tape.end_step >= 1 << 63:
            raise UsageError(f"{tape.path} claims {tape.end_step} steps, more than SQL can count")

    def pieces_that_may_hold(self, wanted: Wanted) -> tuple[Piece, ...]:
        """The pieces in which there may be such events, in order; no other piece has one."""
        return tuple(piece for piece in self.pieces if self._may_hold(piece, wanted))

    def _may_hold(self, piece: Piece, wanted: Wanted) -> bool:
        if not overlaps(wanted.of("step"), piece.first_step, piece.end_step - 1):
            return False
        asks_of_index = wanted.kinds != _ALL_KINDS or wanted.pcs is not None or "phys" in wanted.ranges
        index = self._tape.index_of(piece.chunk) if asks_of_index and piece.chunk is not None else None
        if index is None:
            return True
        try:
            return self._index_has(index, wanted)
        except FormatError:
            return True

    def _index_has(self, index: ChunkIndex, wanted: Wanted) -> bool:
        if wanted.kinds != _ALL_KINDS and wanted.kinds.isdisjoint(index.kinds):
            return False
        # Words are kept of what touches RAM, whatever it is; of other kinds `phys` is something else.
        phys = wanted.of("phys")
        in_ram = phys != EVERYTHING and phys[-1:] and phys[0][0] >= 0 and phys[-1][1] < self._tape.header.ram_bytes
        if in_ram and wanted.kinds <= _OF_MEMORY and not any(index.find(a, b - a + 1)[0] for a, b in phys):
            return False
        return wanted.pcs is None or wanted.pcs(index.pcs)

    def phys_of(self, ranges: Ranges) -> Ranges:
        """Where linear addresses of the image are in memory; EVERYTHING if some lie outside of the image."""
        found: Ranges = ()
        for low, high in ranges:
            row = next((r for r in self._segments() if r.vaddr <= low and high < r.vaddr + r.size_bytes), None)
            if row is None:
                return EVERYTHING
            found = either(found, ((row.paddr + low - row.vaddr, row.paddr + high - row.vaddr),))
        return found

    def _segments(self) -> list[Segment]:
        return self._tape.symbols.segments

    def check_end(self, wanted: Wanted) -> None:
        """Raise TapeDamagedError if such events may lie behind the first damage that opening the tape found."""
        damage = self._tape.damage
        if damage is None:
            return
        # Where the step is not known, it may be any.
        if overlaps(wanted.of("step"), min(damage.step or 0, self._tape.end_step), EVERYTHING[-1][1]):
            raise damage

    def read(self, piece: Piece, into: Events | None = None) -> Events:
        """All events of a piece, in a buffer of `EVENTS_MAX` rows if need be.

        Args:
            into: the buffer; None: one of the calling thread, which its next such call uses again.
        Raises TapeError, TapeDamagedError, DivergenceError.
        """
        into = self._buffer() if into is None else into
        if piece.chunk is not None:
            return self._tape.decode_events(piece.chunk, into)
        with self._replay_lock:
            if self._timeline is None:
                self._timeline = Timeline(self._tape)
                self._timeline.seek(piece.first_step)
            events = self._timeline.events(piece.first_step, piece.end_step - 1)
            self._timeline.seek(piece.end_step)
            return events

    def pc_behind(self, piece: Piece, cpu: int) -> int | None:
        """The pc of the first event behind a piece at which `cpu` is, not one of its drains; None if there is none."""
        for later in self.pieces[self.pieces.index(piece) + 1 :]:
            # Not into the thread's buffer: that has the piece.
            events = self.read(later, Events.buffer(EVENTS_MAX))
            own = np.flatnonzero((events.cpu == cpu) & (events.kind != DRAIN))
            if len(own):
                return int(events.pc[own[0]])
        return None

    def _buffer(self) -> Events:
        if not hasattr(self._buffers, "events"):
            self._buffers.events = Events.buffer(EVENTS_MAX)
        events: Events = self._buffers.events
        return events


def _windows(first: int, end: int) -> Iterator[Piece]:
    """The steps `first` to `end` - 1 in pieces that have to be made again, cut where the timeline's windows are."""
    while first < end:
        cut = min(first - first % WINDOW_STEPS + WINDOW_STEPS, end)
        yield Piece(first, cut, None)
        first = cut
