"""The SQL prompt: history, completion, statements over several lines; Ctrl-C ends the query, not the prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from debugger.prompt import history
from debugger.sql.database import Answer, Database
from debugger.sql.views import FUNCTIONS, VIEWS, View
from machine.errors import RacetapeError

ROWS: Final = 100
"""Printed at the prompt unless the user says otherwise: a mistyped query should not flood the terminal."""
_KEYWORDS: Final = """
    SELECT FROM WHERE GROUP ORDER BY LIMIT HAVING JOIN ON USING AND OR NOT IN BETWEEN LIKE AS DISTINCT COUNT MIN MAX SUM
    AVG ASC DESC WITH UNION ALL CASE WHEN THEN ELSE END NULL IS OVER PARTITION DESCRIBE SHOW TABLES EXPLAIN CREATE TEMP
    TABLE VIEW
"""

Show = Callable[[Answer, int], int]
"""Prints an answer, so many rows at most; returns how many."""


def describe_views(views: Iterable[View]) -> str:
    """The views and their columns for people."""
    lines = []
    for view in views:
        lines += [f"{view.name}: {view.meaning}", ""]
        width = max(len(column.name) for column in view.columns)
        for column in view.columns:
            unit = "" if column.unit == "-" else f" ({column.unit})"
            lines.append(f"  {column.name:{width}}  {column.sql_type:8}  {column.meaning}{unit}")
        lines.append("")
    lines += [f"{name}: {meaning}" for name, meaning in FUNCTIONS.items()]
    return "\n".join(lines)


class SqlCompleter(Completer):
    """Completes views, their columns, functions and keywords; columns of the views that the statement names first."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Completions of the word before the cursor."""
        word = document.get_word_before_cursor()
        for found in completions(document.text, word):
            yield Completion(found, start_position=-len(word))


def completions(text: str, word: str) -> list[str]:
    """What `word`, the last of a statement's words that is being typed, can become."""
    said = set(text.lower().replace(",", " ").replace("(", " ").replace(")", " ").split())
    named = [view for view in VIEWS if view.name in said] or list(VIEWS)
    columns = [column.name for view in named for column in view.columns]
    candidates = [
        *columns,
        *(view.name for view in VIEWS),
        *(name.split("(")[0] for name in FUNCTIONS),
        *_KEYWORDS.split(),
    ]
    low = word.lower()
    return list(dict.fromkeys(row for row in candidates if low and row.lower().startswith(low) and row.lower() != low))


class Statements:
    """Cuts lines into statements at the semicolons that end a line."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @property
    def open(self) -> bool:
        """Whether a statement has begun."""
        return bool(self._lines)

    def take(self, line: str) -> str | None:
        """The statement that `line` completes, or None."""
        if not line.strip() and not self._lines:
            return None
        self._lines.append(line)
        if not line.rstrip().endswith(";"):
            return None
        return self.rest()

    def rest(self) -> str:
        """What has come so far, which is taken back."""
        text = "\n".join(self._lines)
        self._lines.clear()
        return text


def run_prompt(database: Database, show: Show, limit: int | None) -> None:
    """Answer statements from the terminal, or from standard input, until end of file.

    From a terminal, errors are printed and the next statement runs all the same; from a pipe the first error is raised.
    """
    if not sys.stdin.isatty():
        for statement in piped(sys.stdin):
            show(database.query(statement), limit if limit is not None else sys.maxsize)
        return
    names = ", ".join(view.name for view in VIEWS)
    print(f"{database.tape.path}: {names}. End statements with ';', the prompt with Ctrl-D.")
    session: PromptSession[str] = PromptSession(history=history("sql_history"), completer=SqlCompleter())
    statements = Statements()
    while True:
        try:
            line = session.prompt("   ...> " if statements.open else "racetape> ")
        except KeyboardInterrupt:
            statements.rest()
            continue
        except EOFError:
            return
        if (complete := statements.take(line)) is not None:
            answer_at_prompt(database, complete, show, ROWS if limit is None else limit)


def answer_at_prompt(database: Database, statement: str, show: Show, limit: int) -> None:
    """Run one statement; whatever goes wrong is one line on standard error."""
    try:
        answer = database.query(statement)
        if show(answer, limit) == limit and answer.fetchmany(1):
            print(f"(the first {limit:,} rows; LIMIT or --limit for more)")
    except RacetapeError as error:
        print(" ".join(str(error).split()), file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr, flush=True)


def piped(lines: Iterable[str]) -> Iterator[str]:
    """The statements in `lines`; the last one needs no semicolon."""
    statements = Statements()
    for line in lines:
        statement = statements.take(line.rstrip("\n"))
        if statement is not None:
            yield statement
    if statements.open and (text := statements.rest()).strip():
        yield text
