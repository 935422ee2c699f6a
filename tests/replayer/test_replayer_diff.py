"""`racetape diff`: on tapes whose difference is known, and beside what a plain loop over their events finds."""

from __future__ import annotations

import contextlib
import random
from functools import cache
from pathlib import Path

import mini
import numpy as np
import pytest

from machine import Machine
from machine.symbols import Symbols
from recorder import prepare
from recorder.record import Prepared, prepare_image
from recorder.strategies.script import Script
from replayer import Timeline
from replayer import diff as module
from replayer.diff import Difference, Value, first_choice
from replayer.streams import Splitter
from traces import Event, Events, Tape, TapeWriter, chunks, records, strip
from traces.schema import DRAINED, HOLD, IMPLICIT, KINDS, LOAD, RECORD, STORE, Op, RecordArray, step_counts


def run(prepared: Prepared, path: Path, *choices: tuple[int, ...], layer_b: bool = True) -> Path:
    """A tape of these choices from `ready` on, with the default schedule behind them."""
    rows: RecordArray = np.array([(*row, *(0,) * (5 - len(row))) for row in choices], RECORD)
    prepared.record(path, strategy=Script(rows), layer_b=layer_b)
    return path


def compare(a: Path | str, b: Path | str, **arguments: int) -> Difference:
    with Tape(a) as one, Tape(b) as other:
        return module.diff(one, other, **arguments)


def exact_steps(tape: Tape) -> list[tuple[int, ...]]:
    """(op, cpu, held, argument) of every step, one by one."""
    rows = []
    for part in tape.choices():
        for row, count in zip(part.records, step_counts(part.records).tolist(), strict=True):
            op = int(row["op"])
            arg = 0 if op in (Op.RUN, Op.DRAIN) else int(row["arg"])
            rows += [(op, int(row["cpu"]), int(row["flags"]) & HOLD, arg)] * count
    return rows


@cache
def window() -> Prepared:
    return prepare("window", None, "smp2-2level")


@pytest.mark.parametrize("seed", range(6))
def test_the_first_choice_is_what_a_plain_loop_finds(seed: int, tmp_path: Path) -> None:
    """Schedules that are equal for a while, cut into other records and chunks."""
    chance = random.Random(seed)
    common = [(Op.RUN, chance.randrange(2), 0, 0, chance.randrange(1, 40)) for _ in range(10)]
    other = [(Op.RUN, chance.randrange(2), 0, 0, chance.randrange(1, 40)) for _ in range(4)]
    cut = [
        (op, cpu, flags, zero, n) for op, cpu, flags, zero, count in common for n in (count // 2, count - count // 2)
    ]
    paths = run(mini.prepared(2), tmp_path / "a", *common), run(mini.prepared(2), tmp_path / "b", *cut, *other)
    with Tape(paths[0]) as a, Tape(paths[1]) as b:
        one, two = exact_steps(a), exact_steps(b)
        expected = next((i for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y), None)
        if expected is None and len(one) != len(two):
            expected = min(len(one), len(two))
        assert first_choice(a, b, lambda now, total: None, held=True) == expected


def test_layer_b_makes_no_difference(tmp_path: Path) -> None:
    with Tape("gallery:window") as tape:
        strip(tape, tmp_path / "bare.tape")
    for pair in (("gallery:window", tmp_path / "bare.tape"), (tmp_path / "bare.tape", "gallery:window")):
        found = compare(*pair)
        assert found.same
        assert (found.images, found.values, found.parting, found.control) == ("same", (), None, None)


def test_full_debug_information_makes_no_difference(tmp_path: Path) -> None:
    """The gallery's image loads the same as the installed one: so do the runs, step for step."""
    path = tmp_path / "again.tape"
    with Tape("gallery:window") as tape:
        rows = np.concatenate([part.records for part in tape.choices(tape.header.ready_step)])
    window().record(path, strategy=Script(rows))
    found = compare(path, "gallery:window")
    assert found.same
    assert found.images == "alike"


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery's window, by the default schedule: both additions count."""
    path = tmp_path_factory.mktemp("diff") / "good.tape"
    window().record(path)
    return path


def plain_values(a: Tape, b: Tape, cpu: int) -> tuple[Event, Event]:
    """The first load or store of a CPU that differs: one by one, nothing but loads and stores, the last of a load that
    is repeated."""

    def rows(tape: Tape) -> list[Event]:
        found: list[Event] = []
        for row in tape.events[tape.header.ready_step :].rows():
            if row.cpu != cpu or row.kind not in (LOAD, STORE) or row.info & IMPLICIT:
                continue
            if found and row.kind == LOAD and (found[-1].pc, found[-1].addr) == (row.pc, row.addr):
                found.pop()
            found.append(row)
        return found

    for one, other in zip(rows(a), rows(b), strict=False):
        if (one.pc, one.value, one.addr) != (other.pc, other.value, other.addr):
            return one, other
    raise AssertionError("they do not differ")


def test_one_choice_more_and_what_it_does(raced: Path) -> None:
    """gallery:window runs the other CPU between the load and the store of an addition."""
    found = compare(raced, "gallery:window")
    with Tape(raced) as a, Tape("gallery:window") as b:
        one, other = exact_steps(a), exact_steps(b)
        parts = next(i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y)
        assert found.parting is not None
        assert found.parting.why == "choice"
        assert found.in_step
        assert found.parting.a is not None
        assert found.parting.b is not None
        assert (found.parting.a.step, found.parting.b.step) == (parts, parts)
        assert (found.parting.a.cpu, found.parting.b.cpu) == (one[parts][1], other[parts][1])
        assert found.parting.a.function == "add_to_shared"
        assert found.parting.a.place == "add_to_shared () at scenarios/window.c:35"
        for cpu in (0, 1):
            expected = plain_values(a, b, cpu)
            steps = [(row.a.where.step, row.b.where.step) for row in found.values if row.a.where.cpu == cpu]
            assert steps[0] == (expected[0].step, expected[1].step), cpu
    first = found.values[0]
    assert (first.kind, first.name, first.size_bytes) == ("load", "shared", 4)
    assert (first.a.value, first.b.value) == (1, 0)
    assert first.a.made is not None
    assert (first.a.made.function, first.a.made.cpu) == ("add_to_shared", 0)
    assert first.b.made is None
    assert found.control is not None


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 120), marks=pytest.mark.soak)], ids=["few", "many"])
def test_the_first_value_is_what_plain_loops_find(seeds: range, raced: Path, tmp_path: Path) -> None:
    """Under schedules drawn at random; of what several CPUs see, what both runs come to first."""
    differing = 0
    for seed in seeds:
        window().record(tmp_path / "drawn", strategy=("random-walk", "pct", "pos")[seed % 3], seed=seed)
        found = compare(raced, tmp_path / "drawn")
        pairs = []
        with Tape(raced) as a, Tape(tmp_path / "drawn") as b:
            for cpu in (0, 1):
                with contextlib.suppress(AssertionError):
                    pairs.append(plain_values(a, b, cpu))
        expected = sorted(((one.step, other.step) for one, other in pairs), key=max)
        shown = [(row.a.where.step, row.b.where.step) for row in found.values]
        assert shown[:1] == expected[:1], seed
        differing += bool(expected)
    assert differing >= len(seeds) // 2


def test_the_other_way_round_is_the_same(raced: Path) -> None:
    found, back = compare(raced, "gallery:window"), compare("gallery:window", raced)

    def turned(row: Value) -> tuple[object, ...]:
        return row.name, row.context, row.kind, row.b, row.a

    assert [turned(row) for row in back.values] == [
        (row.name, row.context, row.kind, row.a, row.b) for row in found.values
    ]
    assert found.parting is not None
    assert back.parting is not None
    assert (found.parting.a, found.parting.b) == (back.parting.b, back.parting.a)


def test_every_position_can_be_gone_to_and_shows_what_is_said(raced: Path) -> None:
    found = compare(raced, "gallery:window")
    for path, side in ((raced, "a"), ("gallery:window", "b")):
        with Tape(path) as tape:
            timeline = Timeline(tape)
            for row in found.values:
                access = getattr(row, side)
                timeline.seek(timeline.position(f"@{access.where.step}"))
                events = tape.events[access.where.step]
                assert timeline.cpu_of(access.where.step) == access.where.cpu
                assert (access.addr, access.value) in zip(events.addr.tolist(), events.value.tolist(), strict=True)
                if access.made is not None:
                    assert access.made.step < access.where.step
                    written = tape.events[access.made.step].writes(access.phys, row.size_bytes)
                    assert len(written)


def test_a_tick_is_left_out_of_what_the_task_does(tmp_path: Path) -> None:
    """class-flip on one CPU: the tasks are compared with themselves, not with who ran in their place."""
    prepare("class-flip").record(tmp_path / "good.tape")
    found = compare(tmp_path / "good.tape", "gallery:class-flip")
    assert found.parting is not None
    assert found.parting.b is not None
    assert found.parting.b.what == "cpu0 takes interrupt 239"
    names = [row.name for row in found.values]
    assert any(name.startswith("contig_page_data.node_zones[2].vm_stat[") for name in names)
    assert all("switch" not in row.a.where.function for row in found.values)
    flags = found.values[0]  # what the tick has left behind for the task that it came in
    assert flags.b.made is not None
    assert flags.b.made.function == "scheduler_tick"
    counts = next(row for row in found.values if row.a.where.function == "put_page")
    assert (counts.a.value, counts.b.value) == (1, 2)


def test_who_ran_before_is_no_difference(tmp_path: Path) -> None:
    """finish_task_switch() looks at the task before, which is another one after a tick."""
    prepare("compound-publish").record(tmp_path / "good.tape")
    found = compare(tmp_path / "good.tape", "gallery:compound-publish")
    assert [row.a.where.file for row in found.values] == ["scenarios/compound_publish.c"]
    assert found.control is None


def events(*rows: tuple[str, int, int, int, int]) -> Events:
    """Events of (kind, cpu, pc, addr, value), a step each. `push` is a store that an interrupt makes."""
    return Events.from_rows(
        [
            Event(step, pc, addr, addr, value, KINDS.get(kind, STORE), cpu, 4, IMPLICIT if kind == "push" else 0)
            for step, (kind, cpu, pc, addr, value) in enumerate(rows)
        ]
    )


def split(rows: Events, cpus: int = 1, switch: int | None = None) -> dict[tuple[str, int, int], list[int]]:
    """The steps of each context's events."""
    splitter = Splitter(cpus, switch, lambda pc: pc, lambda pc: "schedule" if pc < 16 else "other", lambda pc: pc < 99)
    for at in range(0, len(rows), 3):  # the borders of windows do not matter
        splitter.take(rows[at : at + 3])
    splitter.finish()
    return {context: stream.all()[0].step.tolist() for context, stream in splitter.streams.items() if stream.count}


def test_a_handler_is_a_context_of_its_own() -> None:
    rows = events(
        ("store", 0, 50, 0x5000, 1),
        ("interrupt", 0, 51, 0, 0),
        ("push", 0, 51, 0x7100, 0x51),
        ("store", 0, 60, 0x70F8, 0),  # the handler's stack
        ("store", 0, 61, 0x9000, 0),
        ("iret", 0, 62, 0x51, 0),
        ("store", 0, 51, 0x70F8, 2),  # the same place of the stack, by the task
    )
    assert split(rows) == {("cpu", 0, 0): [0, 6], ("interrupt", 0, 0): [4]}


def test_of_a_load_that_is_repeated_the_last_one_counts() -> None:
    rows = events(*(("load", 0, 50, 0x5000, value) for value in (0, 0, 0, 1)), ("load", 0, 50, 0x5004, 1))
    assert split(rows) == {("cpu", 0, 0): [3, 4]}


def test_a_task_goes_from_cpu_to_cpu() -> None:
    """And is the same one. Between the announcement of a switch and the return from it nothing counts."""

    def switch(cpu: int, before: int, after: int) -> list[tuple[str, int, int, int, int]]:
        return [("trace", cpu, 2, after, before), ("load", cpu, 3, 0x6000, 7), ("load", cpu, 4, 0x6004, 50)]

    rows = [("store", 0, 50, 0x5000, 1), ("store", 1, 50, 0x5000, 1)]
    rows += switch(0, 100, 200) + switch(1, 300, 100)
    rows += [("store", 1, 51, 0x5000, 1), ("store", 0, 52, 0x5000, 1)]
    found = events(*rows)
    found.phys[found.kind == KINDS["trace"]] = 9
    # The announcement itself belongs to the task before.
    assert split(found, cpus=2, switch=9) == {
        ("cpu", 0, 0): [0, 2, 8],
        ("cpu", 1, 0): [1, 5],
        ("task", 200, 0): [9],
    }


def test_to_hold_a_store_is_seen_at_the_first_one(tmp_path: Path) -> None:
    paths = (
        run(mini.prepared(2), tmp_path / "a", (Op.RUN, 0, 0, 0, 60)),
        run(mini.prepared(2), tmp_path / "b", (Op.RUN, 0, HOLD, 0, 60)),
    )
    found = compare(*paths)
    with Tape(paths[0]) as tape:
        rows = tape.events[tape.header.ready_step :]
        stores = (rows.kind == STORE) & (rows.cpu == 0) & ((rows.info & DRAINED) != 0)
        expected = int(rows.step[int(np.argmax(stores))])
    assert found.parting is not None
    assert found.parting.a is not None
    assert (found.parting.why, found.parting.a.step) == ("event", expected)


def test_another_constant_is_found_where_it_is_loaded(tmp_path: Path) -> None:
    """One initial value differs in the image; code and choices are the same."""
    whole = window()
    symbols = Symbols(whole.image)
    address = symbols.symbol("running").address
    (row,) = [row for row in symbols.segments if row.vaddr <= address < row.vaddr + len(row.data)]
    at = whole.image.index(row.data) + address - row.vaddr
    assert whole.image[at] == 2
    image = whole.image[:at] + b"\x03" + whole.image[at + 1 :]
    other = prepare_image(
        Machine(cpus=2, ram_bytes=whole.machine.ram_bytes),
        image,
        whole.command_line,
        scenario="window",
        variant="buggy",
        configuration="smp2-2level",
        step_max=whole.step_max,
    )
    whole.record(tmp_path / "a")
    other.record(tmp_path / "b")
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.images == "data"
    first = found.values[0]
    assert (first.kind, first.name, first.a.value, first.b.value) == ("load", "running", 2, 3)
    assert found.parting is not None
    assert found.parting.a is not None
    assert (found.parting.why, found.parting.a.step) == ("event", first.a.where.step)


def test_buggy_and_fixed_part_where_the_fix_is(tmp_path: Path) -> None:
    """Of different code, by function and line: mm/compaction.c around line 78 is what 7454f4ba40b4 changes."""
    prepare("wrong-zone-small", "fix-7454f4ba40b4").record(tmp_path / "fixed.tape")
    found = compare(tmp_path / "fixed.tape", "gallery:wrong-zone")
    assert (found.images, found.in_step) == ("code", False)
    assert found.parting is not None
    assert found.parting.b is not None
    assert (found.parting.b.function, found.parting.b.file) == ("isolate_freepages", "mm/compaction.c")
    # The task that has gone another way there is followed further: it comes together with itself again.
    first = found.values[0]
    assert (first.a.where.function, first.a.value, first.b.value) == ("compact_finished", 0x700, 0x710)
    assert found.control is not None
    assert first.context == found.control.context
    assert first.a.where.step > found.control.a.step
    misled = [row for row in found.values if row.a.where.function == "too_many_isolated"]
    assert [(row.name, row.a.value, row.b.value) for row in misled] == [
        ("contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_FILE]", 0, 0xFFFFFFFF)
    ]
    both = compare("gallery:wrong-zone", "gallery:wrong-zone")
    assert both.same


def test_one_that_ends_earlier(tmp_path: Path, raced: Path) -> None:
    """Choices of a run up to some chunk: a tape whose recording stopped there."""
    with Tape(raced) as tape:
        (*_, last) = tape.choices_chunks
        middle = last.first_step + 100
        with TapeWriter(tmp_path / "short.tape") as writer:
            for chunk in tape.chunks:
                if chunk is last:
                    break
                writer.raw(chunk.kind, tape.payload(chunk), chunk.first_step, chunk.end_step)
            rows = exact_records(tape, last.first_step, middle)
            writer.raw(chunks.CHOICES, records.encode_choices(rows, 0), last.first_step, middle)
    found = compare(raced, tmp_path / "short.tape")
    assert found.parting is not None
    assert found.parting.why == "end"
    assert found.parting.a is not None
    assert (found.parting.a.step, found.parting.b) == (middle, None)
    assert found.values == ()


def exact_records(tape: Tape, first: int, end: int) -> RecordArray:
    """The choices of steps `first` to `end` - 1, each step a record."""
    rows = [(op, cpu, held, 0, arg or 1) for op, cpu, held, arg in exact_steps(tape)[first:end]]
    return np.array(rows, RECORD)


def test_memory_is_bounded(raced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for its like in the other run is counted, and given up in words."""
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    monkeypatch.setattr(module, "BEHIND_STEPS", 1 << 60)
    assert "too far apart" in compare(raced, "gallery:window").incomplete


def test_other_machines_are_compared_by_what_their_tasks_do(tmp_path: Path) -> None:
    """The same image on two and four CPUs: no step is the same, what the scenario does is."""
    for configuration in ("smp2-2level", "smp4-2level"):
        prepare("wrong-zone-small", None, configuration).record(tmp_path / configuration, layer_b=False)
    found = compare(tmp_path / "smp2-2level", tmp_path / "smp4-2level")
    assert found.headers["cpus"] == (2, 4)
    assert (found.images, found.in_step) == ("same", False)
    assert not found.same


def test_values_are_as_many_as_asked_for(raced: Path) -> None:
    assert len(compare(raced, "gallery:window", values_max=1).values) == 1
