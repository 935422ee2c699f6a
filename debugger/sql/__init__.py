"""Questions to a tape in SQL (docs/sql.md). Needs DuckDB and PyArrow, which are in the extra `sql`.

Exports:
    sql: the answer to one query.
    require: that these packages are there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machine.errors import UsageError
from traces import Tape

if TYPE_CHECKING:
    from debugger.sql.database import Answer

__all__ = ["require", "sql"]


def require() -> None:
    """Raise UsageError unless the packages of the extra `sql` are there."""
    try:
        import duckdb  # noqa: F401
        import pyarrow.dataset  # noqa: F401
    except ImportError as error:
        raise UsageError(f"this needs DuckDB and PyArrow ({error}): pip install 'racetape[sql]'") from None


def sql(tape: Tape | str | os.PathLike[str], query: str, *, memory: str = "1GB") -> Answer:
    """The answer to a query in SQL about a tape, its rows made while they are taken. Close it, or use it in a `with`.

    Args:
        tape: an open one, or the path of one, which is then open until the answer is closed.
        memory: what the query may use.
    Raises:
        UsageError: the query is wrong, in DuckDB's words; the packages of the extra `sql` are not there.
        TapeError, TapeDamagedError, ReplayError: the tape cannot be read where it has to be; also while rows are taken.
    """
    require()
    from debugger.sql.database import Database

    given = isinstance(tape, Tape)
    opened = tape if isinstance(tape, Tape) else Tape(tape)
    database = None
    try:
        database = Database(opened, memory=memory)
        answer = database.query(query)
    except BaseException:
        if database is not None:
            database.close()
        if not given:
            opened.close()
        raise
    answer.closes = (database.close,) if given else (database.close, opened.close)
    return answer
