"""Rows of a view while they are made, and what all scans of a tape share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from debugger.sql.ghosts import Ghosts
from debugger.sql.names import Names
from debugger.sql.source import Source
from debugger.sql.views import View
from traces import Events, Tape
from traces.schema import BoolArray, U64Array


class Context:
    """What columns need to know about the tape beside its events. The image is read when it is first needed."""

    def __init__(self, tape: Tape, source: Source) -> None:
        self.tape = tape
        self.ghosts = Ghosts(tape, source)
        self._lock = threading.Lock()
        self._names: Names | None = None

    @property
    def names(self) -> Names:
        """Of the tape's image. Raises ImageError, TapeError, TapeDamagedError."""
        with self._lock:
            if self._names is None:
                self._names = Names(self.tape.symbols)
            return self._names

    def address_of(self, text: str) -> int:
        """Linear address of the place that a C expression names. Raises ExpressionError."""
        return self.names.place_of(text).address

    def size_of(self, text: str) -> int:
        """Its size in bytes. Raises ExpressionError."""
        return self.names.place_of(text).size_bytes

    def is_tracepoint(self, identifiers: U64Array, names: Sequence[str]) -> BoolArray:
        """Which are identifiers of tracepoints of these names."""
        known = [number for number, name in self.names.tracepoints.items() if name in names]
        return np.isin(identifiers, np.array(known, np.uint64))

    def tracepoint_names(self, identifiers: U64Array, texts: Mapping[str, str] | None = None) -> pa.Array:
        """A column of the tracepoints' names, or of what `texts` has for them; NULL for others."""
        rows = [(number, name if texts is None else texts.get(name)) for number, name in self.names.tracepoints.items()]
        known = sorted((number, text) for number, text in rows if number > 0 and text is not None)
        numbers = np.array([number for number, _ in known] or [0], np.uint64)
        index = np.searchsorted(numbers, identifiers).clip(max=len(numbers) - 1)
        mask = (numbers[index] != identifiers) | (not known)
        return pa.DictionaryArray.from_arrays(
            pa.array(index.astype(np.int32), mask=mask), pa.array([text for _, text in known], pa.string())
        )


class Rows:
    """Some rows of a view out of one piece of the tape.

    Args:
        events: all events of the piece.
        index: which of them are rows, ascending; None: all.
        behind: the pc of a CPU's first event behind the piece, None if it has none.
        owned: whether the columns must stay as they are when `events` is used for the next piece.
    """

    def __init__(
        self,
        context: Context,
        view: View,
        events: Events,
        index: npt.NDArray[np.intp] | None = None,
        *,
        behind: Callable[[int], int | None] = lambda cpu: None,
        owned: bool = False,
    ) -> None:
        self.context, self.view, self.events, self.index = context, view, events, index
        self.behind = behind
        self._owned = owned
        self._raw: dict[str, npt.NDArray[Any]] = {}
        self._columns: dict[str, pa.Array] = {}

    def __len__(self) -> int:
        return len(self.events) if self.index is None else len(self.index)

    def raw(self, name: str) -> npt.NDArray[Any]:
        """The event column of that name."""
        if name not in self._raw:
            column = getattr(self.events, name)
            if self.index is not None:
                column = column[self.index]
            elif self._owned:
                column = column.copy()
            self._raw[name] = column
        return self._raw[name]

    def ordinals(self) -> npt.NDArray[np.int32]:
        """Number of each event within its step. All events of a step are in one piece."""
        step = self.events.step
        place = np.arange(len(step), dtype=np.int32)
        first = np.zeros(len(step), np.int32)
        changed = np.flatnonzero(step[1:] != step[:-1]) + 1
        first[changed] = changed
        ordinals = place - np.maximum.accumulate(first)
        return ordinals if self.index is None else ordinals[self.index]

    def column(self, name: str) -> pa.Array:
        """A column of the view."""
        if name not in self._columns:
            self._columns[name] = self.view.column(name).make(self)
        return self._columns[name]

    def keep(self, mask: BoolArray) -> Rows:
        """Those for which `mask`, of shape (len,), is set."""
        if mask.all():
            return self
        index = np.flatnonzero(mask)
        return self._chosen(index if self.index is None else self.index[index])

    def batch(self, names: Sequence[str]) -> pa.RecordBatch:
        """The columns of these names, independent of `events`."""
        rows = self._chosen(self.index, owned=True)
        schema = pa.schema([(name, self.view.column(name).type) for name in names])
        if not names:
            return pa.RecordBatch.from_struct_array(pa.array([{}] * len(self), pa.struct([])))
        return pa.RecordBatch.from_arrays([rows.column(name) for name in names], schema=schema)

    def _chosen(self, index: npt.NDArray[np.intp] | None, *, owned: bool = False) -> Rows:
        return Rows(self.context, self.view, self.events, index, behind=self.behind, owned=owned)
