"""Tapes of a hundred million events, beside SQLite rows, a Parquet file and plain zstd: `python -m benchmarks.tapes`.

Records the bundled scenario `thp-pressure-large` (133 million events; `--quick`: `thp-pressure`, 17 million). Every
peer gets the same events, the first ten million of them, in the same run. Times are by the wall clock, for several
threads take part; each question is asked in a process of its own, so that its memory can be told.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import zstandard

from machine.errors import RacetapeError
from recorder import prepare
from recorder.schedule import auto
from traces import Events, Range, Tape
from traces.columns import tap_of

PEER_EVENTS: Final = 10_000_000
SQLITE_EVENTS: Final = 2_000_000
"""Its rows take their time to be written; sizes and times of its questions hardly depend on their number."""
QUESTIONS: Final = 400
ROUNDS: Final = 5
COUNTERS: Final = ("NR_ISOLATED_ANON", "NR_ISOLATED_FILE")
GROUP_BY: Final = "SELECT kind, cpu, count(*), sum(size) FROM events WHERE step < {end} GROUP BY kind, cpu"


def recording(scenario: str, path: Path, rounds: int) -> dict[str, Any]:
    """Seconds to make the run with every event in memory, and to record it; each round does both."""
    prepared = prepare(scenario)
    machine = prepared.machine
    ratios, memory, disk = [], [], []
    for _ in range(rounds):
        machine.restore(prepared.at_ready)
        machine.stop_at_trace = 0
        machine.tap = True
        machine.events_clear()
        started = time.perf_counter()
        events = 0
        while True:
            reason = machine.execute(auto().tobytes(), step_max=prepared.step_max)[0]
            events += machine.events()[0]
            machine.events_clear()
            if reason != "events":
                break
        memory.append(time.perf_counter() - started)
        started = time.perf_counter()
        summary = prepared.record(path)
        disk.append(time.perf_counter() - started)
        if summary.events != events:
            raise RuntimeError(f"{events} events in memory, {summary.events} on the tape")
        ratios.append(memory[-1] / disk[-1])
    return {
        "events": summary.events,
        "steps": summary.steps - summary.ready_step,
        "memory_seconds": median(memory),
        "disk_seconds": median(disk),
        "disk_over_memory_speed": median(ratios),
    }


def sizes(path: Path) -> dict[str, Any]:
    """What the parts of the tape take."""
    with Tape(path) as tape:
        room: dict[str, int] = {}
        kinds: dict[int, int] = {}
        for chunk in tape.chunks:
            room[chunk.name] = room.get(chunk.name, 0) + chunk.payload_bytes
        for chunk in tape.events_chunks:
            index = tape.index_of(chunk)
            assert index is not None
            for kind, count in index.kinds.items():
                kinds[kind] = kinds.get(kind, 0) + count
        accesses = sum(kinds.get(kind, 0) for kind in (1, 2, 3, 5, 6))  # loads, stores, drains, walks, A/D updates
        return {
            "tape_bytes": path.stat().st_size,
            "columns_bytes": room["events"],
            "index_bytes": room["index"],
            "memory_events": accesses,
            "columns_bytes_per_memory_event": room["events"] / accesses,
            "index_over_columns": room["index"] / room["events"],
        }


def forget(path: Path) -> None:
    """Have the system forget the file's contents."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def asked(path: Path, ask: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """An answer from a process of its own, with the most memory that it took."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_asked, (path, ask))


def _asked(path: Path, ask: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    answer = ask(path)
    # Not getrusage: what it gives begins with the most that the parent had.
    status = Path("/proc/self/status").read_text()
    answer["rss_bytes"] = int(status.split("VmHWM:")[1].split()[0]) * 1024
    return answer


def opening(path: Path) -> dict[str, Any]:
    """Opening a tape that the system has forgotten."""
    seconds = []
    for _ in range(ROUNDS):
        forget(path)
        started = time.perf_counter()
        Tape(path).close()
        seconds.append(time.perf_counter() - started)
    return {"seconds": median(seconds)}


def negative(path: Path) -> dict[str, Any]:
    """The first event that makes a zone's counter negative, cold: file forgotten, tape opened anew. There is none, so
    that the whole tape has to be looked through.
    """
    seconds = []
    for item in COUNTERS:
        for zone in range(2):
            forget(path)
            with Tape(path) as tape:
                place = tape.range_of(f"contig_page_data.node_zones[{zone}].vm_stat[{item}]")
                started = time.perf_counter()
                if tape.first_negative(place) is not None:
                    raise RuntimeError("this scenario's counters are never negative")
                seconds.append(time.perf_counter() - started)
    return {"seconds": median(seconds)}


def last_writes(path: Path) -> dict[str, Any]:
    """`last_write` of words that are written somewhere, before random steps; warm: each question asked before."""
    rng = np.random.default_rng(1)
    with Tape(path) as tape:
        questions = []
        for number in rng.integers(0, len(tape.events_chunks), QUESTIONS // 10):
            events = tape.read_events(tape.events_chunks[int(number)])[1]
            written = events.phys[events.is_write()]
            questions += [
                (Range(int(phys), 4, "a word"), int(rng.integers(tape.header.ready_step, tape.end_step)))
                for phys in rng.choice(written, 10)
            ]
        seconds: list[float] = []
        for warm in (False, True):
            seconds = []
            for place, before in questions:
                started = time.perf_counter()
                tape.last_write(place, before)
                seconds.append(time.perf_counter() - started)
            if not warm:
                cold = median(seconds)
        return {"seconds": median(seconds), "cold_seconds": cold, "worst_seconds": max(seconds)}


def peer_events(path: Path, count: int) -> Events:
    """The first events of the tape, so many."""
    parts, found = [], 0
    with Tape(path) as tape:
        for chunk in tape.events_chunks:
            parts.append(tape.read_events(chunk)[1])
            found += len(parts[-1])
            if found >= count:
                break
    return Events.concatenate(parts)[:count]


def group_by(path: Path) -> dict[str, Any]:
    """SQL over the first ten million events, through `racetape sql`."""
    from debugger.sql.database import Database

    with Tape(path) as tape:
        end = _end_of(tape, PEER_EVENTS)
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            with Database(tape) as database:
                rows = database.query(GROUP_BY.format(end=end)).fetchall()
            seconds.append(time.perf_counter() - started)
        return {"seconds": median(seconds), "rows": sum(row[2] for row in rows)}


def _end_of(tape: Tape, count: int) -> int:
    found = 0
    for chunk in tape.events_chunks:
        index = tape.index_of(chunk)
        assert index is not None
        found += sum(index.kinds.values())
        if found >= count:
            return chunk.end_step
    return tape.end_step


def zstd_peer(events: Events) -> dict[str, Any]:
    """The machine's rows of 48 bytes, and the same as columns, by plain zstd at its default level."""
    rows = tap_of(events)[1]
    assert not isinstance(rows, memoryview)
    packed = len(zstandard.compress(rows.base.tobytes(), 3)) if rows.base is not None else 0
    columns = sum(len(zstandard.compress(column.tobytes(), 3)) for column in events.columns())
    return {"rows_bytes_per_event": packed / len(events), "columns_bytes_per_event": columns / len(events)}


def parquet_peer(events: Events, folder: Path) -> dict[str, Any]:
    """A Parquet file (zstd, pyarrow's defaults) and DuckDB on it."""
    import duckdb
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / "events.parquet"
    names = ("step", "pc", "addr", "phys", "value", "kind", "cpu", "size", "info")
    table = pa.table(dict(zip(names, events.columns(), strict=True)))
    started = time.perf_counter()
    parquet.write_table(table, path, compression="zstd")
    writing = time.perf_counter() - started
    connection = duckdb.connect()
    connection.execute(f"CREATE VIEW events AS SELECT * FROM '{path}'")
    phys = events.phys[events.is_write()]
    rng = np.random.default_rng(1)
    groups, lasts = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        connection.execute(GROUP_BY.format(end=1 << 62)).fetchall()
        groups.append(time.perf_counter() - started)
        started = time.perf_counter()
        connection.execute(
            "SELECT * FROM events WHERE phys = ? AND kind IN (2, 3) ORDER BY step DESC LIMIT 1", [int(rng.choice(phys))]
        ).fetchall()
        lasts.append(time.perf_counter() - started)
    return {
        "bytes_per_event": path.stat().st_size / len(events),
        "write_seconds_per_million": writing / len(events) * 1e6,
        "group_by_seconds": median(groups),
        "last_write_seconds": median(lasts),
    }


def sqlite_peer(events: Events, folder: Path) -> dict[str, Any]:
    """A row for each event, with an index by (phys, step)."""
    path = folder / "events.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE events (step, pc, addr, phys, value, kind, cpu, size, info)")
    signed = [column.view(np.int64) if column.dtype == np.uint64 else column for column in events.columns()]
    started = time.perf_counter()
    connection.executemany(
        "INSERT INTO events VALUES (?,?,?,?,?,?,?,?,?)", zip(*(c.tolist() for c in signed), strict=True)
    )
    connection.execute("CREATE INDEX places ON events (phys, step)")
    connection.commit()
    writing = time.perf_counter() - started
    phys = events.phys[events.is_write()]
    rng = np.random.default_rng(1)
    lasts = []
    for _ in range(QUESTIONS):
        started = time.perf_counter()
        connection.execute(
            "SELECT * FROM events WHERE phys = ? AND kind IN (2, 3) ORDER BY step DESC LIMIT 1",
            (int(rng.choice(phys)),),
        ).fetchall()
        lasts.append(time.perf_counter() - started)
    started = time.perf_counter()
    connection.execute(GROUP_BY.format(end=1 << 62)).fetchall()
    grouping = time.perf_counter() - started
    connection.close()
    return {
        "bytes_per_event": path.stat().st_size / len(events),
        "write_seconds_per_million": writing / len(events) * 1e6,
        "group_by_seconds_per_ten_million": grouping / len(events) * 1e7,
        "last_write_seconds": median(lasts),
    }


def measure(scenario: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Everything."""
    path = folder / "a.tape"
    found: dict[str, Any] = {"scenario": scenario, "load": os.getloadavg()[0]}
    found["recording"] = recording(scenario, path, rounds)
    found["sizes"] = sizes(path)
    found["opening"] = asked(path, opening)
    found["negative"] = asked(path, negative)
    found["last_write"] = asked(path, last_writes)
    found["group_by"] = asked(path, group_by)
    events = peer_events(path, PEER_EVENTS)
    found["zstd"] = zstd_peer(events)
    found["parquet"] = parquet_peer(events, folder)
    found["sqlite"] = sqlite_peer(events[:SQLITE_EVENTS], folder)
    return found


def table(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(what, figure, target) for people."""

    def ms(name: str, key: str = "seconds", digits: int = 1) -> str:
        return f"{found[name][key] * 1e3:.{digits}f}"

    def figure(name: str, key: str, digits: int = 2) -> str:
        return f"{found[name][key]:.{digits}f}"

    r = found["recording"]
    memory = max(found[k]["rss_bytes"] for k in ("opening", "negative", "last_write", "group_by"))
    sqlite_group = f"{found['sqlite']['group_by_seconds_per_ten_million'] * 1e3:.0f}"
    writing = f"{r['disk_seconds'] / r['events'] * 1e6:.3f}"
    return [
        ("events", f"{r['events']:,}", ""),
        ("recording: speed to disk / in memory", figure("recording", "disk_over_memory_speed"), ">= 0.6"),
        ("  million events a second to disk", f"{r['events'] / r['disk_seconds'] / 1e6:.1f}", ""),
        ("columns, bytes a memory event", figure("sizes", "columns_bytes_per_memory_event", 3), "<= 1.5 (1.0)"),
        ("indexes / columns", figure("sizes", "index_over_columns"), "<= 1"),
        ("  plain zstd of the rows, bytes an event", figure("zstd", "rows_bytes_per_event"), ""),
        ("  plain zstd of the columns, bytes an event", figure("zstd", "columns_bytes_per_event"), ""),
        ("  Parquet, bytes an event", figure("parquet", "bytes_per_event"), ""),
        ("  SQLite rows with an index, bytes an event", figure("sqlite", "bytes_per_event"), ""),
        ("opening, cold, ms", ms("opening"), "< 200"),
        ("last_write, warm, ms", ms("last_write", digits=2), "< 1"),
        ("  asked for the first time, ms", ms("last_write", "cold_seconds", 2), ""),
        ("  the worst, warm, ms", ms("last_write", "worst_seconds"), ""),
        ("  DuckDB on Parquet, ms", ms("parquet", "last_write_seconds"), ""),
        ("  SQLite with an index, ms", ms("sqlite", "last_write_seconds", 3), ""),
        ("first negative (none: all looked through), cold, ms", ms("negative", digits=0), "< 200"),
        (f"SQL group by over {found['group_by']['rows']:,} events, ms", ms("group_by", digits=0), "< 300"),
        ("  DuckDB on Parquet, ms", ms("parquet", "group_by_seconds", 0), ""),
        ("  SQLite, scaled from fewer rows, ms", sqlite_group, ""),
        ("most memory of a reader, MB", f"{memory / 1e6:.0f}", "< 300"),
        ("writing a million events: tape, with the run, s", writing, ""),
        ("  Parquet, s", figure("parquet", "write_seconds_per_million", 3), ""),
        ("  SQLite, s", figure("sqlite", "write_seconds_per_million"), ""),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tapes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="17 million events instead of 133 million")
    parser.add_argument("--rounds", type=int, default=3, help="recordings (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="racetape-tapes-") as name:
        try:
            found = measure("thp-pressure" if arguments.quick else "thp-pressure-large", Path(name), arguments.rounds)
        except RacetapeError as error:
            raise SystemExit(f"benchmarks.tapes: {error}") from None
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for what, figure, target in table(found):
        print(f"{what:<58}{figure:>24}   {target}")


if __name__ == "__main__":
    main()
