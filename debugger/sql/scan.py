"""A view of a tape as a data set that DuckDB scans: it hands down columns and predicates and gets Arrow batches.

Only pieces that may hold wanted rows are read, by threads of their own (decoding lets other threads run), a few ahead
of what DuckDB has taken. Within a piece the predicate's parts are applied one after the other, cheap ones first, and
only what is left of the rows gets the columns that were asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from debugger.sql import predicate
from debugger.sql.predicate import EVERYTHING, Evaluator, Node, NotUnderstoodError, Ranges
from debugger.sql.rows import Context, Rows
from debugger.sql.source import Piece, Source, Wanted
from debugger.sql.views import View
from traces import Events
from traces.schema import COLUMNS, KIND_NAMES, BoolArray, U64Array

READERS: Final = 2
"""Threads that decode."""
_AHEAD: Final = 4
"""Pieces that are read before DuckDB asks for them."""


class Reader:
    """Reads one tape for all scans of a session.

    Args:
        skip: whether pieces are skipped; the answers are the same.
    Attributes:
        failure: the error that ended a scan, if one did: DuckDB passes on its text only.
        pieces_read: how many pieces all scans so far have read.
        position: end of the last piece that was handed over.
    """

    def __init__(self, context: Context, source: Source, *, skip: bool = True) -> None:
        self.context, self.source, self.skip = context, source, skip
        self.failure: BaseException | None = None
        self.pieces_read = 0
        self.position = 0
        self._threads = ThreadPoolExecutor(READERS, "racetape-sql")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def batches(self, wanted: Wanted, make: Callable[[Piece], pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """What `make` makes of each piece, in order. It is called by several threads."""
        pieces = self.source.pieces_that_may_hold(wanted) if self.skip else self.source.pieces
        waiting: deque[tuple[Piece, Future[pa.RecordBatch]]] = deque()
        left = iter(pieces)
        try:
            while True:
                while len(waiting) < _AHEAD and (piece := next(left, None)) is not None:
                    waiting.append((piece, self._threads.submit(make, piece)))
                if not waiting:
                    break
                piece, future = waiting.popleft()
                batch = future.result()
                self.pieces_read += 1
                self.position = piece.end_step
                if len(batch):
                    yield batch
            self.source.check_end(wanted)
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise
        finally:
            for _, future in waiting:
                future.cancel()


class ViewDataset(ds.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """One view as a pyarrow data set, for DuckDB only: `schema` and `scanner` are all that it calls."""

    def __init__(self, view: View, reader: Reader) -> None:
        # Not that of Dataset, which refuses to be called: it stands above so that DuckDB knows what this is.
        self._view, self._reader = view, reader

    @property
    def schema(self) -> pa.Schema:
        """Of the view."""
        return self._view.schema

    def scanner(self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None, **_: Any) -> Scan:
        """A scan of `columns` of the rows for which `filter` holds."""
        return Scan(self._view, self._reader, list(self.schema.names if columns is None else columns), filter)


class Scan:
    """One scan; `to_reader` starts it."""

    def __init__(self, view: View, reader: Reader, columns: list[str], filter: pc.Expression | None) -> None:
        self._view, self._reader, self._columns, self._filter = view, reader, columns, filter
        self._node = None if filter is None else predicate.parse(filter)
        parts = [] if self._node is None else predicate.conjuncts(self._node)
        self._parts = sorted(parts, key=self._is_costly)
        some = np.isin(np.arange(256), view.kinds)
        self._some_kinds = None if some[list(KIND_NAMES)].all() else some
        self._named: dict[str, Ranges] = {}  # addresses of what is asked for by name, by event column

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows, as a stream."""
        schema = pa.schema([(name, self._view.column(name).type) for name in self._columns])
        return pa.RecordBatchReader.from_batches(schema, self._stream())

    def _stream(self) -> Iterator[pa.RecordBatch]:
        try:
            wanted = self._wanted()
        except BaseException as error:
            self._reader.failure = error
            raise
        yield from self._reader.batches(wanted, self._make)

    def _wanted(self) -> Wanted:
        ranges: dict[str, Ranges] = {}
        for column in self._view.columns if self._node is not None else ():
            assert self._node is not None
            if column.names:
                found = predicate.ranges_of(self._node, column.name, self._places_named)
                self._named[column.names] = found
                _narrow(ranges, column.names, found)
            elif column.raw:
                _narrow(ranges, column.raw, predicate.ranges_of(self._node, column.name))
        if "addr" in ranges and (phys := self._reader.source.phys_of(ranges["addr"])) != EVERYTHING:
            _narrow(ranges, "phys", phys)
        of_pc = [part for part in self._parts if self._is_of(part, "pc")]
        return Wanted(self._kinds(), ranges, partial(self._may_be_at, of_pc) if of_pc else None)

    def _is_of(self, part: Node, column: str) -> bool:
        """Whether one event column alone decides a part of the predicate."""
        names = predicate.fields(part)
        return bool(names) and all(self._view.column(name).of == column for name in names)

    def _kinds(self) -> frozenset[int]:
        """The kinds for which the predicate can hold."""
        kinds = np.array(sorted(self._view.kinds), np.uint8)
        rows = self._rows_of("kind", kinds)
        for part in (part for part in self._parts if self._is_of(part, "kind")):
            rows = self._try(rows, part)
        return frozenset(rows.raw("kind").tolist())

    def _may_be_at(self, parts: list[Node], pcs: U64Array) -> bool:
        rows = self._rows_of("pc", pcs)
        for part in parts:
            rows = self._try(rows, part)
        return len(rows) > 0

    def _rows_of(self, column: str, values: npt.NDArray[Any]) -> Rows:
        """Rows of which no more than one event column is known."""
        blank = Events(*(np.zeros(len(values), dtype) for _, dtype in COLUMNS))
        return Rows(self._reader.context, self._view, replace(blank, **{column: values}))

    def _try(self, rows: Rows, part: Node) -> Rows:
        try:
            return rows.keep(_mask(Evaluator(rows).value(part), len(rows)))
        except NotUnderstoodError:
            return rows

    def _places_named(self, text: Any) -> Ranges | None:
        found = self._reader.context.names.range_of(text) if isinstance(text, str) else None
        return None if found is None else (found,)

    def _is_costly(self, part: Node) -> bool:
        return any(not self._view.column(name).raw for name in predicate.fields(part))

    # -- one piece --

    def _make(self, piece: Piece) -> pa.RecordBatch:
        events = self._reader.source.read(piece)
        behind = partial(self._reader.source.pc_behind, piece)
        rows = Rows(self._reader.context, self._view, events, behind=behind)
        if self._some_kinds is not None:
            rows = rows.keep(self._some_kinds[events.kind])
        if self._view.select is not None:
            rows = rows.keep(self._view.select(rows))
        return self._filtered(rows).batch(self._columns)

    def _filtered(self, rows: Rows) -> Rows:
        if self._filter is None:
            return rows
        for column, ranges in self._named.items():
            if ranges != EVERYTHING:
                rows = rows.keep(_inside(rows.raw(column), ranges))
        if not self._parts:
            return rows.keep(self._mask_by_arrow(rows))
        for part in self._parts:
            if not len(rows):
                break
            try:
                rows = rows.keep(_mask(Evaluator(rows).value(part), len(rows)))
            except NotUnderstoodError:
                return rows.keep(self._mask_by_arrow(rows))
        return rows

    def _mask_by_arrow(self, rows: Rows) -> BoolArray:
        batch = rows.batch(self._view.schema.names)
        found = ds.Scanner.from_batches([batch], schema=batch.schema, columns={"keep": self._filter}, use_threads=False)
        return _mask(found.to_table()["keep"].combine_chunks(), len(rows))


def _mask(found: Any, count: int) -> BoolArray:
    """Rows for which a predicate is true, neither false nor NULL."""
    if isinstance(found, pa.Scalar):
        return np.full(count, found.as_py() is True)
    mask: BoolArray = found.fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_, copy=False)
    return mask


def _narrow(ranges: dict[str, Ranges], column: str, found: Ranges) -> None:
    if found != EVERYTHING:
        ranges[column] = predicate.both(ranges.get(column, EVERYTHING), found)


def _inside(values: U64Array, ranges: Ranges) -> BoolArray:
    mask = np.zeros(len(values), np.bool_)
    for first, last in ranges:
        mask |= (values >= np.uint64(max(first, 0))) & (values <= np.uint64(min(last, (1 << 64) - 1)))
    return mask
