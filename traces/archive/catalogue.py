"""The catalogue: what all manifests say, in SQLite. A copy, made up to date from the names of the manifests there are.

A manifest's name holds the hash of its content, so a name that is in the catalogue needs no second look. Losing the
catalogue loses nothing: the manifests are the truth.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from machine.errors import ArchiveError
from traces.archive.manifest import Divergence, Facts, Manifest, decode_manifest, tape_of
from traces.archive.store import TAPES, Store
from traces.reader import Progress

_SCHEMA_VERSION: Final = 1
_BATCH: Final = 64
"""Manifests fetched at once; a store far away fetches them side by side."""
_NUMBERS: Final = frozenset(("format", "cpus", "seed", "steps", "events", "exit_status"))
_FACTS: Final = tuple(field.name for field in fields(Facts))
_SCHEMA: Final = f"""
CREATE TABLE entries (name TEXT PRIMARY KEY, tape TEXT, time REAL, file TEXT, note TEXT, damage TEXT);
CREATE INDEX entries_tape ON entries (tape);
CREATE TABLE tags (entry TEXT, tag TEXT, PRIMARY KEY (entry, tag));
CREATE TABLE blobs (entry TEXT, blob TEXT, size_bytes INTEGER, PRIMARY KEY (entry, blob));
CREATE INDEX blobs_blob ON blobs (blob);
CREATE TABLE tapes (tape TEXT PRIMARY KEY, size_bytes INTEGER, signature TEXT, failure TEXT, diagnosis_note TEXT,
  {", ".join(_FACTS)});
CREATE INDEX tapes_signature ON tapes (signature);
CREATE TABLE divergences (tape TEXT, counter TEXT, function TEXT, file TEXT, line INTEGER, step INTEGER);
CREATE INDEX divergences_tape ON divergences (tape);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What tapes to list: those for which everything holds that is not None or empty.

    Names are compared as they are or, where they contain `*` or `?`, as patterns.

    Attributes:
        tape: the first digits of the tape's SHA-256.
        image: the first digits of its guest image's SHA-256.
        signature: the failure signature.
        failed: whether there is a failure signature.
        function: where a counter of it first diverged.
        counter: a counter that diverged.
        tags: all of these.
        text: occurs in a note, the failure or the name of the file, whatever the case.
        since, until: archived from this time on, before this time (seconds since 1970).
    """

    tape: str | None = None
    scenario: str | None = None
    variant: str | None = None
    configuration: str | None = None
    image: str | None = None
    strategy: str | None = None
    seed: int | None = None
    stop: str | None = None
    exit_status: int | None = None
    signature: str | None = None
    failed: bool | None = None
    function: str | None = None
    counter: str | None = None
    tags: tuple[str, ...] = ()
    text: str | None = None
    since: float | None = None
    until: float | None = None
    unfinished: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A tape in the catalogue.

    Attributes:
        tape: its SHA-256, in hexadecimal; what one calls it by, or its first digits.
        manifests: their names.
        time: when it was first archived, in seconds since 1970.
        files: the names it was archived under.
        tags, notes: of all times it was archived.
    """

    tape: str
    size_bytes: int
    facts: Facts
    signature: str | None
    failure: str | None
    diagnosis_note: str
    divergences: tuple[Divergence, ...]
    time: float
    files: tuple[str, ...]
    tags: tuple[str, ...]
    notes: tuple[str, ...]
    manifests: tuple[str, ...]


class Catalogue:
    """A catalogue at `path`, or in memory if `path` cannot be written. A context manager.

    Raises ArchiveError.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._db = self._open()

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def sync(self, store: Store, progress: Progress | None = None) -> None:
        """Take in manifests that came, drop those that went. Raises ArchiveError."""
        try:
            self._sync(store, progress)
        except sqlite3.OperationalError as error:
            raise ArchiveError(f"cannot write the catalogue {self._path}: {error}") from None
        except sqlite3.DatabaseError:
            # Somebody wrote over it. What it said is in the manifests.
            self._db.close()
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            self._db = self._open()
            self._sync(store, progress)

    def _open(self) -> sqlite3.Connection:
        if self._path is not None:
            for _ in range(2):
                with contextlib.suppress(OSError):
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    return self._connect(str(self._path))
                except sqlite3.OperationalError:
                    break  # Read-only, or no such folder.
                except sqlite3.DatabaseError:
                    self._path.unlink(missing_ok=True)
        return self._connect(":memory:")

    def _connect(self, where: str) -> sqlite3.Connection:
        db = sqlite3.connect(where, timeout=60, isolation_level=None)
        try:
            db.execute("PRAGMA trusted_schema = OFF")  # An archive may come from a stranger.
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
                for kind, name in db.execute("SELECT type, name FROM sqlite_master WHERE type = 'table'").fetchall():
                    db.execute(f'DROP {kind} "{name}"')
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        return db

    def _sync(self, store: Store, progress: Progress | None) -> None:
        with self._transaction():
            # Listed under the lock, so that the one who comes second does not take out what the first has just put in.
            there = {name for name in store.list(TAPES) if tape_of(name)}
            known = {name for (name,) in self._db.execute("SELECT name FROM entries")}
            for name in known - there:
                self._drop(name)
            new = sorted(there - known)
            for at in range(0, len(new), _BATCH):
                for name, data in store.read_many(TAPES, new[at : at + _BATCH]).items():
                    self._take(name, data)
                if progress is not None:
                    progress(at, len(new))
            self._db.execute("DELETE FROM tapes WHERE tape NOT IN (SELECT tape FROM entries WHERE damage IS NULL)")
            self._db.execute("DELETE FROM divergences WHERE tape NOT IN (SELECT tape FROM tapes)")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _drop(self, name: str) -> None:
        for table, column in (("entries", "name"), ("tags", "entry"), ("blobs", "entry")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))

    def _take(self, name: str, data: bytes) -> None:
        try:
            manifest = decode_manifest(name, data)
        except ArchiveError as error:
            self._db.execute("INSERT INTO entries VALUES (?, ?, 0, '', '', ?)", (name, tape_of(name), str(error)))
            return
        label, tape = manifest.label, manifest.tape
        self._db.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, NULL)", (name, tape, label.time, label.file, label.note)
        )
        self._db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", [(name, tag) for tag in label.tags])
        blobs = [(name, blob.name, blob.size_bytes) for blob in manifest.layout.blobs]
        self._db.executemany("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?)", blobs)
        self._take_facts(manifest)

    def _take_facts(self, manifest: Manifest) -> None:
        """Into the table, unless there is already what says more: somebody had the tape diagnosed."""
        tape, diagnosis = manifest.tape, manifest.diagnosis
        if diagnosis.note and self._db.execute("SELECT 1 FROM tapes WHERE tape = ?", (tape,)).fetchone():
            return
        facts = [_stored(value) for value in asdict(manifest.facts).values()]
        row = (tape, manifest.layout.size_bytes, diagnosis.signature, diagnosis.failure, diagnosis.note, *facts)
        self._db.execute(f"INSERT OR REPLACE INTO tapes VALUES ({', '.join('?' * len(row))})", row)
        self._db.execute("DELETE FROM divergences WHERE tape = ?", (tape,))
        self._db.executemany(
            "INSERT INTO divergences VALUES (?, ?, ?, ?, ?, ?)",
            [(tape, d.counter, d.function, d.file, _stored(d.line), _stored(d.step)) for d in diagnosis.divergences],
        )

    # -- questions --

    def damaged(self) -> list[tuple[str, str]]:
        """(name, what is wrong) of the manifests that cannot be read."""
        rows = self._db.execute("SELECT name, damage FROM entries WHERE damage IS NOT NULL ORDER BY name")
        return [(name, damage) for name, damage in rows]

    def search(self, wanted: Search = Search(), limit: int | None = None) -> list[Row]:
        """The tapes, those archived last first; at most `limit`."""
        where, values = _conditions(wanted)
        facts = ", ".join(f"t.{name}" for name in _FACTS)
        rows = self._db.execute(
            f"SELECT t.tape, t.size_bytes, t.signature, t.failure, t.diagnosis_note, min(e.time), {facts} "
            f"FROM tapes t JOIN entries e ON e.tape = t.tape AND e.damage IS NULL WHERE {where} "
            "GROUP BY t.tape ORDER BY min(e.time) DESC, t.tape LIMIT ?",
            (*values, -1 if limit is None else limit),
        ).fetchall()
        return [self._row(row) for row in rows]

    def _row(self, row: Sequence[Any]) -> Row:
        tape, size_bytes, signature, failure, note, time, *facts = row
        entries = self._db.execute(
            "SELECT name, file, note FROM entries WHERE tape = ? AND damage IS NULL ORDER BY time, name", (tape,)
        ).fetchall()
        tags = self._db.execute(
            "SELECT DISTINCT tag FROM tags JOIN entries ON entry = name WHERE tape = ? ORDER BY tag", (tape,)
        )
        divergences = self._db.execute(
            "SELECT counter, function, file, line, step FROM divergences WHERE tape = ? ORDER BY rowid", (tape,)
        )
        return Row(
            tape=tape,
            size_bytes=size_bytes,
            facts=Facts(**{name: _loaded(name, value) for name, value in zip(_FACTS, facts, strict=True)}),
            signature=signature,
            failure=failure,
            diagnosis_note=note,
            divergences=tuple(
                Divergence(counter=c, function=f, file=file, line=int(line), step=int(step))
                for c, f, file, line, step in divergences
            ),
            time=time,
            files=_each_once(file for _, file, _ in entries),
            tags=tuple(tag for (tag,) in tags),
            notes=_each_once(note for _, _, note in entries if note),
            manifests=tuple(name for name, *_ in entries),
        )

    def blobs_of(self, tape: str) -> list[tuple[str, int, int]]:
        """(name, length in bytes, how many other tapes have it) of a tape's blobs."""
        return self._db.execute(
            "SELECT b.blob, b.size_bytes, (SELECT count(DISTINCT oe.tape) FROM blobs o JOIN entries oe ON oe.name = "
            "o.entry WHERE o.blob = b.blob AND oe.tape != e.tape) FROM blobs b JOIN entries e ON e.name = b.entry "
            "WHERE e.tape = ? GROUP BY b.blob ORDER BY b.rowid",
            (tape,),
        ).fetchall()


def _stored(value: Any) -> Any:
    """SQLite's integers have 63 bits; a seed may have 64, and is kept as text then."""
    return str(value) if isinstance(value, int) and value >= 1 << 63 else value


def _loaded(name: str, value: Any) -> Any:
    if name in ("unfinished", "damaged"):
        return bool(value)
    return int(value) if name in _NUMBERS and value is not None else value


def _each_once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _conditions(wanted: Search) -> tuple[str, list[Any]]:
    """What stands behind WHERE, and its values."""
    terms: list[str] = ["1"]
    values: list[Any] = []

    def add(term: str, *more: Any) -> None:
        terms.append(term)
        values.extend(more)

    for name in ("scenario", "variant", "configuration", "strategy", "stop", "signature"):
        if (value := getattr(wanted, name)) is not None:
            add(*_compared(f"t.{name}", value))
    for name in ("seed", "exit_status", "unfinished"):
        if (value := getattr(wanted, name)) is not None:
            add(f"t.{name} = ?", _stored(value))
    for column, prefix in (("t.tape", wanted.tape), ("t.image_sha256", wanted.image)):
        if prefix is not None:
            add(f"substr({column}, 1, ?) = ?", len(prefix), prefix.lower())
    if wanted.failed is not None:
        add(f"t.signature IS {'NOT ' if wanted.failed else ''}NULL")
    for column, value in (("function", wanted.function), ("counter", wanted.counter)):
        if value is not None:
            term, *more = _compared(column, value)
            add(f"t.tape IN (SELECT tape FROM divergences WHERE {term})", *more)
    for tag in wanted.tags:
        term, *more = _compared("tag", tag)
        add(f"t.tape IN (SELECT tape FROM entries JOIN tags ON entry = name WHERE {term})", *more)
    if wanted.text is not None:
        found = "SELECT tape FROM entries WHERE instr(lower(note), lower(?)) OR instr(lower(file), lower(?))"
        add(f"(t.tape IN ({found}) OR instr(lower(coalesce(t.failure, '')), lower(?)))", *[wanted.text] * 3)
    first = "(SELECT min(time) FROM entries WHERE tape = t.tape AND damage IS NULL)"
    if wanted.since is not None:
        add(f"{first} >= ?", wanted.since)
    if wanted.until is not None:
        add(f"{first} < ?", wanted.until)
    return " AND ".join(terms), values


def _compared(column: str, value: str) -> tuple[str, str]:
    """A term that compares a column with a name or pattern."""
    if not any(c in "*?" for c in value):
        return f"{column} = ?", value
    return f"{column} GLOB ?", value.replace("[", "[[]")
