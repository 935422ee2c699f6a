"""Answers in SQL, compared with plain Python over the same events."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from machine.errors import ExpressionError, TapeDamagedError, UsageError
from replayer import Timeline
from traces import Event, Events, Tape, strip
from traces.schema import DEVICE, DRAINED, FORWARDED, IMPLICIT, KINDS, LOCKED, MERGED

pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'racetape[sql]'")
pytest.importorskip("pyarrow", reason="needs PyArrow: pip install 'racetape[sql]'")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_tapes import all_events, in_small_chunks

from debugger.divergence import first_divergence
from debugger.sql.database import Database
from debugger.sql.views import VIEWS

FREE_PAGES = "contig_page_data.node_zones[1].vm_stat[NR_FREE_PAGES]"


@pytest.fixture(scope="module")
def tape(wrong_zone: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tape]:
    """A run on two CPUs in chunks of some 400 events."""
    path = in_small_chunks(
        wrong_zone(configuration="smp2-2level", strategy="random-walk", seed=3),
        tmp_path_factory.mktemp("sql") / "small.tape",
    )
    with Tape(path) as tape:
        assert len(tape.events_chunks) > 50
        yield tape


@pytest.fixture(scope="module")
def events(tape: Tape) -> Events:
    return all_events(tape)


@pytest.fixture(scope="module")
def database(tape: Tape) -> Iterator[Database]:
    with Database(tape) as database:
        yield database


@pytest.fixture(scope="module")
def unskipping(tape: Tape) -> Iterator[Database]:
    """The same without skipping any chunk."""
    with Database(tape, skip=False) as database:
        yield database


def ordinals(events: Events) -> list[int]:
    found: list[int] = []
    before = -1
    for step in events.step.tolist():
        found.append(found[-1] + 1 if step == before else 0)
        before = step
    return found


def place(tape: Tape, pc: int) -> tuple[str | None, str | None, str | None, int | None]:
    """(function, outer function, file, line) as the symbols say."""
    frames = tape.symbols.frames(pc)
    if frames[0].function.startswith("0x"):
        return None, None, None, None
    return frames[0].function, frames[-1].function, frames[0].file or None, frames[0].line or None


def symbol(tape: Tape, row: Event) -> str | None:
    size = next(size for size in (8, 4, 2, 1) if size <= row.size)
    name = tape.symbols.symbolise(row.addr, size)
    return None if name.startswith("0x") else name


def signed(row: Event) -> int:
    top = 1 << (8 * row.size - 1)
    value = row.value & (2 * top - 1)
    return value - 2 * top if value & top else value


def head(tape: Tape, row: Event, ordinal: int) -> tuple[Any, ...]:
    return row.step, ordinal, row.cpu, row.pc, *place(tape, row.pc)


def access(tape: Tape, row: Event) -> tuple[Any, ...]:
    return row.addr, row.phys, symbol(tape, row), row.size, row.value, signed(row)


def flags(row: Event, *bits: int) -> tuple[bool, ...]:
    return tuple(bool(row.info & bit) for bit in bits)


def rows_of(tape: Tape, events: Events, view: str) -> list[tuple[Any, ...]]:
    """What the view must hold, one event after the other."""
    found = []
    names = tape.symbols.tracepoints()
    for row, ordinal in zip(events.rows(), ordinals(events), strict=True):
        first = head(tape, row, ordinal)
        what = row.name
        mark = names.get(row.phys) if what == "trace" else None
        if view == "events":
            named = symbol(tape, row) if what in ("load", "store", "drain") else None
            found.append((*first[:3], what, *first[3:], row.addr, row.phys, named, row.size, row.value, row.info, mark))
        elif view == "loads" and what == "load":
            found.append((*first, *access(tape, row), *flags(row, FORWARDED, MERGED, LOCKED, DEVICE, IMPLICIT)))
        elif view == "stores" and what == "store":
            found.append((*first, *access(tape, row), *flags(row, DRAINED, LOCKED, DEVICE, IMPLICIT)))
        elif view == "drains" and what == "drain":
            found.append((*first, *access(tape, row)))
        elif view == "walks" and what == "walk":
            buffered = (bool(row.info & FORWARDED << 4), bool(row.info & MERGED << 4))
            found.append((*first, "read", row.addr, row.phys, row.value, row.info & 15, *buffered))
        elif view == "walks" and what == "ad_update":
            found.append((*first, "update", row.addr, row.phys, row.value, row.info & 15, None, None))
        elif view == "tlb" and what == "tlb_fill":
            found.append((*first, "fill", row.addr, row.phys, row.value, 1 << row.size, None))
        elif view == "tlb" and what == "tlb_evict":
            found.append((*first, "evict", row.addr, None, None, None, None))
        elif view == "tlb" and what == "tlb_invalidate":
            scope = ("page", "all but global", "all")[row.info]
            found.append((*first, "invalidate", row.addr, None, None, None, scope))
        elif view == "faults" and what == "fault":
            assert row.info == 14, "the scenario's only faults are page faults"
            found.append((*first, 14, "#PF", row.value, row.addr))
        elif view == "switches" and mark == "sched_switch":
            found.append((*first, row.value, row.addr))
        elif view == "locks" and mark in ("lock_acquire", "lock_release"):
            lock = tape.symbols.symbolise(row.value, 4)
            found.append((*first, mark[5:], row.value, None if lock.startswith("0x") else lock))
    return found


@pytest.mark.parametrize("view", ["events", "loads", "stores", "drains", "walks", "tlb", "faults", "switches", "locks"])
def test_view_has_what_its_events_say(view: str, tape: Tape, events: Events, database: Database) -> None:
    answer = database.query(f"SELECT * FROM {view}")
    expected = rows_of(tape, events, view)
    assert answer.fetchall() == expected
    assert len(expected) > 0


def test_calls_are_what_the_machine_does(tape: Tape, database: Database, tmp_path: Path) -> None:
    """Of a stretch of the run, and of all indirect calls: the CPU's next instruction is where the call goes."""
    first = tape.header.ready_step
    (tmp_path / "image").write_bytes(tape.image())
    command = ["objdump", "-d", "--no-show-raw-insn", str(tmp_path / "image")]
    listing = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    calls = {int(row[1], 16) for row in re.finditer(r"^\s*([0-9a-f]+):\s+call", listing, re.M)}
    timeline = Timeline(tape)
    expected = []
    for step in range(first, first + 1500):
        timeline.seek(step)
        cpu = timeline.cpu_of(step)
        before = timeline.machine.registers(cpu)
        timeline.seek(step + 1)
        after = timeline.machine.registers(cpu)
        if before["rip"] in calls and after["retired"] > before["retired"]:
            frames, callee = tape.symbols.frames(before["rip"]), tape.symbols.frames(after["rip"])[-1].function
            names = (frames[0].function, frames[-1].function, callee)
            expected.append((step, cpu, before["rip"], *names, after["rip"], after["rsp"]))
    columns = "step, cpu, pc, caller, outer_caller, callee, callee_address, stack"
    found = database.query(f"SELECT {columns} FROM calls WHERE step < {first + 1500}").fetchall()
    assert found == expected
    assert len(expected) > 20
    rows = database.query("SELECT step, cpu, callee, callee_address FROM calls WHERE NOT direct").fetchall()
    assert rows
    for step, cpu, callee_name, address in rows:
        timeline.seek(step + 1)
        assert timeline.machine.registers(cpu)["rip"] == address
        assert tape.symbols.frames(address)[-1].function == callee_name


@pytest.mark.parametrize(("configuration", "variant"), [("up-2level", "buggy"), ("smp2-2level", "fix-7454f4ba40b4")])
def test_ghosts_diverge_where_first_divergence_says(
    configuration: str, variant: str, wrong_zone: Callable[..., Path]
) -> None:
    with Tape(wrong_zone(variant, configuration)) as tape, Database(tape) as database:
        items = [row[0] for row in database.query("SELECT DISTINCT item FROM ghosts").fetchall()]
        assert len(items) > 3
        diverged = 0
        for item in items:
            query = (
                f"SELECT zone, counter, true_count FROM ghosts WHERE item = '{item}' AND counter <> true_count LIMIT 1"
            )
            found = database.query(query).fetchall()
            moment = first_divergence(tape, item).first_divergence
            if moment is None or moment.zone is None:
                assert found == [], item
            else:
                assert found == [(moment.zone, moment.value, moment.expected)], item
                diverged += 1
        assert (diverged > 0) == (variant == "buggy")


def test_ghosts_add_up(wrong_zone: Callable[..., Path]) -> None:
    """On one CPU, with nothing in flight: what was announced since the start is how far a true count has moved."""
    with Tape(wrong_zone()) as tape, Database(tape) as database:
        rows = database.query(
            "SELECT action, item, zone, delta, counter, true_count, page FROM ghosts WHERE item LIKE 'NR_ISOLATED%'"
        ).fetchall()
    sums: Counter[tuple[str, str]] = Counter()
    checks = 0
    for action, item, zone, delta, counter, true_count, page in rows:
        if action == "announce":
            sums[item, zone] += delta
            assert page is not None
            assert counter is true_count is None
        else:
            # A task that waits between its announcements and its check is not counted yet.
            checks += true_count == sums[item, zone]
            assert page is delta is None
    assert checks > 5
    assert all(count == 0 for count in sums.values())


def test_every_column_can_be_named(database: Database) -> None:
    """None is a reserved word, and each can stand alone, in a predicate and with others."""
    for view in VIEWS:
        for column in view.columns:
            database.query(f"SELECT {column.name} FROM {view.name} WHERE {column.name} IS NOT NULL LIMIT 1").fetchall()
            found = database.query(f"SELECT typeof({column.name}) FROM {view.name} LIMIT 1").fetchall()
            assert found == [(column.sql_type,)]


def test_groups_agree_with_numpy(events: Events, database: Database) -> None:
    found = database.query("SELECT cpu, kind, count(*), max(value), sum(size) FROM events GROUP BY ALL").fetchall()
    expected = []
    for cpu in (0, 1):
        for name, number in KINDS.items():
            mask = (events.cpu == cpu) & (events.kind == number)
            if mask.any():
                row = (cpu, name, int(mask.sum()), int(events.value[mask].max()), int(events.size[mask].sum()))
                expected.append(row)
    assert sorted(found) == sorted(expected)


def test_symbol_is_looked_up_where_it_lies(tape: Tape, events: Events, database: Database) -> None:
    before = database.reader.pieces_read
    found = database.query(f"SELECT step, signed FROM stores WHERE symbol = '{FREE_PAGES}'").fetchall()
    lvalue = tape.symbols.lvalue(FREE_PAGES)
    rows = events[(events.kind == KINDS["store"]) & (events.addr == np.uint64(lvalue.address))]
    assert found == [(row.step, signed(row)) for row in rows.rows()]
    assert found
    assert database.reader.pieces_read - before < len(tape.events_chunks) / 2
    assert database.query(f"SELECT step, signed FROM stores WHERE inside(addr, '{FREE_PAGES}')").fetchall() == found


def test_places_that_c_names(tape: Tape, database: Database) -> None:
    lvalue = tape.symbols.lvalue("contig_page_data")
    found = database.query("SELECT address_of('contig_page_data'), size_of('contig_page_data')").fetchall()
    assert found == [(lvalue.address, lvalue.size_bytes)]
    with pytest.raises(ExpressionError, match="no symbol 'nowhere'"):
        database.query("SELECT address_of('nowhere')").fetchall()


def test_steps_are_not_read_that_are_not_asked_for(tape: Tape, events: Events, database: Database) -> None:
    chunk = tape.events_chunks[20]
    before = database.reader.pieces_read
    query = f"SELECT count(*) FROM events WHERE step >= {chunk.first_step} AND step < {chunk.end_step}"
    assert database.query(query).fetchall() == [(len(tape.read_events(chunk)[1]),)]
    assert database.reader.pieces_read - before == 1


def test_kinds_and_functions_skip_by_index(tape: Tape, events: Events, database: Database) -> None:
    for query in ("SELECT count(*) FROM faults", "SELECT count(*) FROM events WHERE outer_function = 'schedule'"):
        before = database.reader.pieces_read
        assert database.query(query).fetchall()[0][0] > 0
        assert database.reader.pieces_read - before < len(tape.events_chunks) / 2


# -- predicates --

STEPS = st.integers(100_000, 165_000)
ADDRESSES = st.sampled_from(
    [f"address_of('{name}')" for name in ("contig_page_data", "vm_stat", FREE_PAGES, "runqueues", "current_task")]
)
WORDS = {
    "kind": ["load", "store", "drain", "fault", "walk", "nothing"],
    "function": ["schedule", "__raw_lock", "atomic_add", "nothing"],
    "outer_function": ["schedule", "thp_main", "nothing"],
    "file": ["kernel/sched.c", "include/linux/spinlock.h"],
    "symbol": [
        "current_task",
        "contig_page_data.node_zones[1].vm_stat[NR_FREE_PAGES]",
        "runqueues[0].lock",
        "nothing",
        "vm_stat[NR_FREE_PAGES]",
    ],
}
COMPARE = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])


@st.composite
def comparison(draw: st.DrawFn) -> str:
    which = draw(st.sampled_from(["step", "step", "number", "place", "word", "words", "like", "null", "flag"]))
    if which == "step":
        return f"step {draw(COMPARE)} {draw(STEPS)}"
    if which == "number":
        column = draw(st.sampled_from(["line", "size", "cpu", "value", "ordinal", "info"]))
        return f"{column} {draw(COMPARE)} {draw(st.integers(0, 60))}"
    if which == "place":
        return f"addr {draw(COMPARE)} {draw(ADDRESSES)}"
    column = draw(st.sampled_from(sorted(WORDS)))
    if which == "word":
        return f"{column} {draw(COMPARE)} '{draw(st.sampled_from(WORDS[column]))}'"
    if which == "words":
        words = draw(st.lists(st.sampled_from(WORDS[column]), min_size=1, max_size=3))
        listed = ", ".join(f"'{word}'" for word in words)
        return f"{column} {draw(st.sampled_from(['IN', 'NOT IN']))} ({listed})"
    if which == "like":
        return f"{column} LIKE '{draw(st.sampled_from(WORDS[column]))[:4]}%'"
    return f"{column} IS {draw(st.sampled_from(['', 'NOT ']))}NULL"


PREDICATES = st.recursive(
    comparison(),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from(["AND", "OR"]), part).map(lambda row: f"({' '.join(row)})"),
        part.map(lambda row: f"NOT ({row})"),
    ),
    max_leaves=5,
)


def check_predicate(where: str, database: Database, unskipping: Database) -> None:
    """By DuckDB itself, which cannot hand down what stands behind a CASE, and with and without skipping."""
    answers = [
        base.query(f"SELECT count(*), sum(hash(step, ordinal)) FROM events WHERE {condition}").fetchall()
        for base, condition in (
            (database, where),
            (unskipping, where),
            (unskipping, f"CASE WHEN random() < 2 THEN ({where}) END"),
        )
    ]
    assert answers[0] == answers[1] == answers[2], where


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=PREDICATES)
def test_predicates_are_applied_exactly(where: str, database: Database, unskipping: Database) -> None:
    check_predicate(where, database, unskipping)


@pytest.mark.soak
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=PREDICATES)
def test_many_predicates_are_applied_exactly(where: str, database: Database, unskipping: Database) -> None:
    check_predicate(where, database, unskipping)


# -- tapes that are not whole --


def test_stripped_tape_is_made_again(wrong_zone: Callable[..., Path], events: Events, tmp_path: Path) -> None:
    with Tape(wrong_zone(configuration="smp2-2level", strategy="random-walk", seed=3)) as whole:
        strip(whole, tmp_path / "stripped.tape")
    with Tape(tmp_path / "stripped.tape") as tape, Database(tape) as database:
        found = database.query("SELECT kind, count(*) FROM events GROUP BY kind").fetchall()
        timeline = Timeline(tape).events(tape.header.events_first, tape.end_step)
    assert dict(found) == Counter(row.name for row in events.rows()) == Counter(row.name for row in timeline.rows())


def test_damage_is_never_a_partial_answer(tape: Tape, tmp_path: Path) -> None:
    chunk = tape.events_chunks[30]
    data = bytearray(tape.path.read_bytes())
    data[chunk.offset + 80] ^= 4
    (tmp_path / "damaged.tape").write_bytes(data)
    with Tape(tmp_path / "damaged.tape") as damaged, Database(damaged) as database:
        with pytest.raises(TapeDamagedError, match="wrong checksum") as caught:
            database.query("SELECT count(*) FROM events").fetchall()
        assert caught.value.offset == chunk.offset
        answer = database.query("SELECT step FROM events")
        with pytest.raises(TapeDamagedError):
            answer.fetchall()
        before = database.query(f"SELECT count(*) FROM events WHERE step < {chunk.first_step}").fetchall()
    assert before == [(sum(len(tape.read_events(c)[1]) for c in tape.events_chunks[:30]),)]


def test_damage_that_hides_what_follows(tape: Tape, tmp_path: Path) -> None:
    """A header that is not readable ends the list of chunks: whoever asks for what may come behind is told."""
    chunk = tape.events_chunks[30]
    data = tape.path.read_bytes()[: tape.events_chunks[-1].offset]  # without the table of contents
    broken = bytearray(data)
    broken[chunk.offset + 9] ^= 4
    (tmp_path / "broken.tape").write_bytes(broken)
    with Tape(tmp_path / "broken.tape") as damaged, Database(damaged) as database:
        assert damaged.damage is not None
        with pytest.raises(TapeDamagedError):
            database.query("SELECT count(*) FROM events").fetchall()
        found = database.query(f"SELECT count(*) FROM events WHERE step < {tape.events_chunks[10].first_step}")
        assert found.fetchall() == [(sum(len(tape.read_events(c)[1]) for c in tape.events_chunks[:10]),)]


# -- what a query must not do --

FORBIDDEN = [
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM '{file}'",
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM glob('{folder}/*')",
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "ATTACH '{folder}/out.db'",
    "EXPORT DATABASE '{folder}/out'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET memory_limit = '100GB'",
    "SET temp_directory = '{folder}'",
    "RESET lock_configuration",
    "PRAGMA profiling_output = '{folder}/out.json'",
    "CREATE PERSISTENT SECRET s (TYPE s3)",
    "SELECT * FROM caller_table",
]


@pytest.mark.parametrize("query", FORBIDDEN)
def test_query_reaches_nothing_but_the_tape(query: str, database: Database, tmp_path: Path) -> None:
    import pyarrow as pa

    caller_table = pa.table({"a": [1]})  # DuckDB would find it by its name
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(UsageError) as caught:
        database.query(query.format(file=tmp_path / "secret.txt", folder=tmp_path)).fetchall()
    assert "secret\n" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [row.name for row in tmp_path.iterdir()] == ["secret.txt"]
    assert len(caller_table) == 1


def test_memory_is_bounded(tape: Tape) -> None:
    with Database(tape, memory="30MB") as database:
        with pytest.raises(UsageError, match=r"Out of Memory Error.*--memory"):
            database.query("SELECT list(range) FROM range(20000000)").fetchall()
        assert database.query("SELECT count(*) FROM loads").fetchall()[0][0] > 0
    with pytest.raises(UsageError, match="--memory"):
        Database(tape, memory="a lot")


def test_bad_sql_is_one_line_of_duckdbs(database: Database) -> None:
    with pytest.raises(UsageError, match=r"^Parser Error: syntax error at or near") as caught:
        database.query("SELECT count(*)\nFRM events\nWHERE")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="Conversion Error"):
        database.query("SELECT CAST(kind AS INTEGER) FROM events").fetchall()


def test_answer_comes_as_arrow_and_pandas(database: Database, events: Events) -> None:
    answer = database.query("SELECT step, kind FROM events")
    assert answer.columns == ["step", "kind"]
    table = answer.to_arrow()
    assert np.array_equal(table["step"].to_numpy(), events.step.astype(np.int64))
    pytest.importorskip("pandas")
    frame = database.query("SELECT step, kind FROM events").to_pandas()
    assert np.array_equal(frame["step"].to_numpy(), events.step.astype(np.int64))
