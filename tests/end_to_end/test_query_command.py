"""`racetape query` and `tape.calls`: answers compared with the machine itself, stepped through."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from machine.errors import UsageError
from machine.symbols import Symbols
from racetape.cli import main
from replayer import Timeline
from traces import Tape, TapeWriter
from traces.chunks import CHOICES, EVENTS, HEADER, IMAGE
from traces.columns import encode_events
from traces.schema import KINDS

Run = Callable[..., tuple[int, str, str]]
COUNTER = "contig_page_data.node_zones[1].free_area[0].nr_free"


@pytest.fixture(scope="module")
def tape_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "small.tape"
    assert main(["record", "wrong-zone-small", "--config", "smp2-2level", "-o", str(path)]) == 0
    return path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="module")
def stepped(tape_path: Path) -> dict[int, list[tuple[int, int]]]:
    """Address -> (step, CPU) of every time an instruction there was executed, by single steps of the machine."""
    found: dict[int, list[tuple[int, int]]] = {}
    with Tape(tape_path) as tape:
        travel = Timeline(tape)
        travel.seek(travel.ready_step)
        machine = travel.machine
        while travel.step < travel.last_step:
            step = travel.step
            cpu = travel.cpu_of(step)
            before = machine.registers(cpu)
            travel.forward()
            if machine.registers(cpu)["retired"] != before["retired"]:
                found.setdefault(before["rip"], []).append((step, cpu))
    return found


def test_calls_are_those_that_the_machine_makes(tape_path: Path, stepped: dict[int, list[tuple[int, int]]]) -> None:
    functions = 0
    with Tape(tape_path) as tape:
        symbols = tape.symbols
        names = {row.name for row in symbols.program.symbols() if row.address in stepped and row.size}
        for name in sorted(names):
            entries = [site for site in symbols.entries(name) if site in stepped]
            try:
                calls = [call for call in tape.calls(name) if not call.inlined]
            except UsageError as error:
                assert "jumps before it touches memory" in str(error)  # noqa: PT017  (most functions must not come here)
                continue
            functions += 1
            wanted = sorted(row for entry in entries for row in stepped[entry])
            # The first memory access comes at most a few instructions after the entry, on the same CPU.
            assert len(calls) == len(wanted), name
            for call, (step, cpu) in zip(calls, wanted, strict=True):
                assert call.cpu == cpu, name
                assert step <= call.step < step + 200, name
        assert functions > 40


def test_return_addresses_and_inlined_calls(tape_path: Path) -> None:
    with Tape(tape_path) as tape:
        calls = list(tape.calls("putback_lru_page"))
        callers = {tape.symbols.frames(c.return_address - 1)[0].function for c in calls if c.return_address}
        assert {c.return_address is None for c in calls} == {False}
        assert callers == {"putback_lru_pages", "churn_main"}
        inlined = list(tape.calls("acct_isolated"))
        assert inlined
        assert all(c.inlined for c in inlined)
        for call in inlined:
            assert "acct_isolated" in {frame.function for frame in tape.symbols.frames(call.pc)}
        bare_calls = list(tape.calls("acct_isolated", inlined[0].step, inlined[0].step + 1))
        assert bare_calls == inlined[:1]
        with pytest.raises(UsageError, match="no function nothing_of_the_kind"):
            list(tape.calls("nothing_of_the_kind"))


def test_moving_places_are_refused(tape_path: Path) -> None:
    """Where a pointer leads is a question of the moment."""
    with Tape(tape_path) as tape, pytest.raises(Exception, match="depends on the moment"):
        tape.range_of("mem_map->flags")


def test_answers(tape_path: Path, run: Run) -> None:
    with Tape(tape_path) as tape:
        place = tape.range_of(COUNTER)
        written = tape.events[:].writes(place.phys, place.size_bytes)
    status, out, _ = run("query", "writes", tape_path, COUNTER, "--json")
    rows = json.loads(out)["rows"]
    assert (status, [row["step"] for row in rows]) == (0, written.step.tolist())
    assert {row["file"] for row in rows} == {"mm/page_alloc.c"}
    status, out, err = run("query", "writes", tape_path, COUNTER, "--limit", "1")
    assert (status, out.count("\n")) == (0, 1)
    assert f"--from @{int(written.step[1])}" in err
    last = json.loads(run("query", "last-write", tape_path, COUNTER, "--json")[1])["row"]
    assert last["step"] == int(written.step[-1])
    before = json.loads(run("query", "last-write", tape_path, COUNTER, "--before", f"@{last['step']}", "--json")[1])
    assert before["row"]["step"] == int(written.step[-2])
    following = json.loads(run("query", "next-write", tape_path, hex(place.phys) + "+4", "--json")[1])
    assert following["row"]["step"] == int(written.step[0])
    negative = written.value.astype("i4") < 0
    status, out, _ = run("query", "negative", tape_path, COUNTER, "--json")
    assert status == int(negative.any())
    assert (json.loads(out)["row"] or {"step": None})["step"] == (
        int(written.step[negative][0]) if negative.any() else None
    )


def test_events_and_steps(tape_path: Path, run: Run) -> None:
    with Tape(tape_path) as tape:
        events = tape.events[:]
        interrupts = events[events.kind == KINDS["interrupt"]]
        step = int(interrupts.step[0])
        choice = tape.at(step)
    out = run("query", "events", tape_path, "--kind", "interrupt", "--cpu", "0", "--limit", "100000", "--json")[1]
    assert [row["step"] for row in json.loads(out)["rows"]] == interrupts[interrupts.cpu == 0].step.tolist()
    answer = json.loads(run("query", "at", tape_path, f"@{step}", "--json")[1])
    assert (answer["cpu"], answer["choice"]) == (choice.cpu, choice.choice)
    assert "interrupt" in {row["kind"] for row in answer["events"]}


def test_locks_and_tasks(tape_path: Path, run: Run) -> None:
    with Tape(tape_path) as tape:
        numbers = {name: number for number, name in tape.symbols.tracepoints().items()}
        events = tape.events[:]
        traces = events[events.kind == KINDS["trace"]]
        lock = tape.symbols.lvalue("contig_page_data.node_zones[1].lru_lock").address
        of_lock = np.isin(traces.phys, [numbers["lock_acquire"], numbers["lock_release"]]) & (traces.value == lock)
        assert tape.traces("lock_acquire", lock).count() > 3
        with pytest.raises(UsageError, match="no tracepoint 'nothing'"):
            tape.traces("nothing")
        runs = list(tape.task_runs())
        first, end = tape.events_range
        switches = traces[traces.phys == numbers["sched_switch"]]
        for cpu in range(2):
            mine = [run for run in runs if run.cpu == cpu]
            assert [run.first_step for run in mine] == [first, *switches.step[switches.cpu == cpu].tolist()]
            assert [run.end_step for run in mine] == [*switches.step[switches.cpu == cpu].tolist(), end]
            assert [run.task for run in mine[1:]] == switches.addr[switches.cpu == cpu].tolist()
    out = run("query", "locks", tape_path, "contig_page_data.node_zones[1].lru_lock", "--limit", "100000", "--json")[1]
    assert [row["step"] for row in json.loads(out)["rows"]] == traces[of_lock].step.tolist()
    rows = json.loads(run("query", "tasks", tape_path, "--json")[1])["rows"]
    assert sum(row["steps"] for row in rows) == 2 * (end - first)
    assert {"thp", "swapper"} <= {row["name"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("writes", "nosuch"), "nosuch"),
        (("writes", "0x40000000000"), "no address of RAM"),
        (("writes", "0x2000+0"), "no range of memory"),
        (("writes", "0x2000+0xffffffffffffe000"), "beyond the end of RAM"),
        (("negative", "contig_page_data"), "no integer"),
        (("locks", "99999999999999999999999"), "no operand"),
        (("events", "--cpu", "7"), "no CPU 7"),
        (("events", "--kind", "foo"), "no kind of event"),
        (("at", "@99999999999"), "outside the tape"),
        (("calls", "nosuch"), "no function"),
    ],
)
def test_bad_questions(tape_path: Path, run: Run, arguments: tuple[str, ...], words: str) -> None:
    status, _, err = run("query", arguments[0], tape_path, *arguments[1:])
    assert status == 2
    assert words in err
    assert err.count("\n") == 1


def test_without_events(tape_path: Path, run: Run, tmp_path: Path) -> None:
    stripped = tmp_path / "s.tape"
    assert run("tape", "strip", tape_path, "-o", stripped)[0] == 0
    status, _, err = run("query", "writes", stripped, COUNTER)
    assert (status, "racetape tape rebuild" in err) == (2, True)


def test_call_sites_are_addresses_of_the_image(tape_path: Path) -> None:
    with Tape(tape_path) as tape:
        symbols = Symbols(tape.image())
    site = symbols.call_sites("putback_lru_pages")[0]
    assert site.function <= site.entry[0] < site.function_end
    assert symbols.is_code(site.entry[0])


def test_damage_is_said(tape_path: Path, run: Run, tmp_path: Path) -> None:
    """Behind a damaged header, without contents, nothing can be read: what is answered holds for the part before."""
    with Tape(tape_path) as tape:
        assert tape.footer is not None
        at = tape.events_chunks[-1].offset
        step = tape.events_chunks[0].first_step
    data = bytearray(tape_path.read_bytes())
    data[at + 20] ^= 1
    data[-20] ^= 1
    path = tmp_path / "bad.tape"
    path.write_bytes(data)
    status, out, err = run("query", "at", path, f"@{step}")
    assert (status, out.startswith(f"@{step} "), "damaged at byte" in err) == (2, True, True)


def test_steps_without_events_are_said_to_be(tape_path: Path, run: Run) -> None:
    status, out, err = run("query", "at", tape_path, "@10")
    assert (status, out.count("\n"), "--whole" in err) == (0, 1, True)


def test_calls_are_the_same_from_the_middle_on(tape_path: Path, tmp_path: Path) -> None:
    """Also of inlined functions, and where a chunk begins inside of one."""
    with Tape(tape_path) as tape, TapeWriter(tmp_path / "cut.tape") as writer:
        events = tape.events[:]
        inside = set()
        for site in (s for s in tape.symbols.call_sites("INIT_LIST_HEAD") if s.inlined):
            rows = np.flatnonzero((events.pc >= site.function) & (events.pc < site.function_end))
            enters = (events.pc[rows] >= site.entry[0]) & (events.pc[rows] < site.entry[1])
            # Loops come back to the entry without having left.
            again = enters[1:] & enters[:-1] & (events.cpu[rows[1:]] == events.cpu[rows[:-1]])
            inside.update(events.step[rows[1:][again]].tolist())
        assert inside
        low, high = tape.events_range
        for chunk in tape.chunks:
            if chunk.kind in (HEADER, IMAGE, CHOICES):
                writer.raw(chunk.kind, tape.payload(chunk), chunk.first_step, chunk.end_step)
        ends = [*sorted(inside), high]
        for first, end in zip([low, *ends], ends, strict=False):
            writer.raw(EVENTS, encode_events(events.between(first, end - 1), 0), first, end)
    with Tape(tmp_path / "cut.tape") as cut:
        assert cut.events[:] == events
        calls = list(cut.calls("INIT_LIST_HEAD"))
        for step in sorted(inside)[:10]:
            assert list(cut.calls("INIT_LIST_HEAD", step)) == [c for c in calls if c.step >= step]
            assert list(cut.calls("INIT_LIST_HEAD", 0, step)) == [c for c in calls if c.step < step]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_questions_show_how_far_they_are(tape_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, and rows take the line of the progress."""
    monkeypatch.setattr("debugger.progress.DELAY_S", 0)
    monkeypatch.setattr("debugger.progress.INTERVAL_S", 0.001)
    terminal = Terminal()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", terminal)
        patched.setattr("sys.stderr", terminal)
        assert main(["query", "writes", str(tape_path), COUNTER, "--limit", "3"]) == 0
    shown = terminal.getvalue()
    assert "looking @" in shown
    rows = [line for line in shown.split("\n") if " store " in line]
    assert len(rows) == 3
    assert all("\r\x1b[K@" in line for line in rows)
