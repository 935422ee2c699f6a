"""SQL over one tape: DuckDB in memory, with the tape's views and with nothing else within its reach.

Tapes come from strangers, and so may queries: no files, no network, no settings, a bound on memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Final

import duckdb
import pyarrow as pa

from debugger.progress import progress
from debugger.sql.rows import Context
from debugger.sql.scan import Reader, ViewDataset
from debugger.sql.source import Source
from debugger.sql.views import VIEWS
from machine.errors import UsageError
from traces import Tape

MEMORY: Final = "1GB"
"""What a query may use beside what reading the tape takes."""
_BATCH_ROWS: Final = 2048
_ARROW_ROWS: Final = 1 << 17

_SETTINGS: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "''",
    "enable_external_access": "false",
    "lock_configuration": "true",  # last: nothing can be set after it
}


class Answer:
    """The rows of one query, made while they are taken; to be iterated or fetched once.

    Attributes:
        columns: their names.
        closes: what to call when it is closed.
    """

    def __init__(self, database: Database, columns: list[str]) -> None:
        self._database = database
        self.columns = columns
        self.closes: tuple[Callable[[], None], ...] = ()

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """No more rows; whatever was opened for this answer alone is closed."""
        for close in self.closes:
            close()
        self.closes = ()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Row by row, as Python values. Raises what `Database.query` raises, between rows."""
        while rows := self.fetchmany(_BATCH_ROWS):
            yield from rows

    def fetchmany(self, count: int) -> list[tuple[Any, ...]]:
        """The next rows, `count` at most; none: that was all."""
        rows: list[tuple[Any, ...]] = self._database.take(lambda connection: connection.fetchmany(count))
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that are left."""
        return list(self)

    def to_arrow(self) -> pa.Table:
        """All rows that are left as a pyarrow table."""
        # DuckDB would rather not have the rows of a connection's result so; a relation would make them all at once.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return self._database.take(lambda connection: connection.to_arrow_reader(_ARROW_ROWS).read_all())

    def to_pandas(self) -> Any:
        """All rows that are left as a pandas data frame. Raises UsageError without pandas."""
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise UsageError("a data frame needs pandas: pip install pandas") from None
        return self._database.take(lambda connection: connection.df())


class Database:
    """Asks one open tape in SQL. A context manager; one answer at a time: a new query ends the one before.

    Args:
        tape: stays open as long as this is used.
        memory: what DuckDB may use, as it writes sizes: "500MB", "4GB".
        skip: whether chunks that cannot hold a wanted row are skipped; the answers are the same.
    Raises:
        UsageError: `memory` is no size.
    """

    def __init__(self, tape: Tape, *, memory: str = MEMORY, skip: bool = True) -> None:
        self.tape = tape
        source = Source(tape)
        self.reader = Reader(Context(tape, source), source, skip=skip)
        self._connection = duckdb.connect(":memory:")
        self._thread = ThreadPoolExecutor(1, "racetape-sql-query")
        try:
            self._prepare(memory)
        except BaseException:
            self.close()
            raise

    def _prepare(self, memory: str) -> None:
        for view in VIEWS:
            self._connection.register(view.name, ViewDataset(view, self.reader))
        names = self.reader.context
        for function, of in (("address_of", names.address_of), ("size_of", names.size_of)):
            self._connection.create_function(
                function, self._noting_failure(of), ["VARCHAR"], "UBIGINT", side_effects=False
            )
        self._connection.execute(
            "CREATE TEMP MACRO inside(address, place) AS"
            " address >= address_of(place) AND address <= address_of(place) + (size_of(place) - 1)"
        )
        try:
            self._connection.execute("SET memory_limit = ?", [memory])
        except duckdb.Error as error:
            raise UsageError(f"--memory: {_one_line(error)}") from None
        for name, value in _SETTINGS.items():
            self._connection.execute(f"SET {name} = {value}")

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session. The tape stays open."""
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()
        self.reader.close()

    def query(self, text: str) -> Answer:
        """The answer to a query.

        Raises UsageError in DuckDB's words if it is wrong or asks for what it must not have, ExpressionError for places
        that do not exist, TapeError, TapeDamagedError, ReplayError if the tape cannot be read where it has to be.
        """
        self.reader.failure = None
        self.reader.position = 0
        columns = self.take(lambda connection: [row[0] for row in connection.execute(text).description or ()])
        return Answer(self, columns)

    def take(self, get: Callable[[Any], Any]) -> Any:
        """What `get` makes of the connection, with errors as `query` raises them. For `Answer`."""
        # In a thread of its own, because DuckDB does not look for signals while it works.
        future = self._thread.submit(get, self._connection)
        with progress("reading", lambda: self.reader.position, self.tape.end_step):
            try:
                try:
                    return future.result()
                except KeyboardInterrupt:
                    self._connection.interrupt()
                    wait([future])
                    raise
            except (duckdb.Error, RuntimeError, pa.ArrowException) as error:
                if self.reader.failure is not None:
                    raise self.reader.failure from None
                raise UsageError(_one_line(error)) from None

    def _noting_failure(self, function: Callable[[str], int]) -> Callable[[str], int]:
        def call(text: str) -> int:
            try:
                return function(text)
            except BaseException as error:
                self.reader.failure = error
                raise

        return call


def _one_line(error: BaseException) -> str:
    """DuckDB's message without what follows its first line: where in the query, and advice that does not apply here."""
    lines = str(error).strip().splitlines()
    text = " ".join(lines[0].split()) if lines else type(error).__name__
    if isinstance(error, duckdb.OutOfMemoryException):
        text += "; --memory allows more"
    return text
