"""Perfetto traces, decoded with Perfetto's own definitions and compared with the tape."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debugger.perfetto import export
from machine.errors import TapeError, UsageError
from machine.symbols import Symbols
from machine.unwind import Unwinder
from racetape.cli import main
from recorder import prepare
from replayer import Timeline
from traces import Event, Events, Tape, strip
from traces.schema import AD_UPDATE, DEVICE, DRAIN, DRAINED, FORWARDED, KINDS, LOAD, STORE

definitions = pytest.importorskip(
    "perfetto.protos.perfetto.trace.perfetto_trace_pb2", reason="the Python package perfetto is not installed"
)

FLOWS_MANY = 20


@dataclass
class Slice:
    track: int
    name: str
    begin: int
    end: int
    depth: int
    flows: list[int]


@dataclass
class Trace:
    """What a viewer makes of a file."""

    tracks: dict[int, Any] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    instants: list[tuple[int, int, str, list[int], list[int]]] = field(default_factory=list)
    counters: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def numbers(self, prefix: str) -> set[int]:
        """Of the tracks whose name begins so."""
        return {number for number, row in self.tracks.items() if row.name.startswith(prefix)}


def decoded(path: Path) -> Trace:
    """As a viewer does it: names by their numbers, packets by time, ends with the last begin of their track."""
    whole = definitions.Trace()
    data = path.read_bytes()
    whole.ParseFromString(data)
    assert whole.SerializeToString(deterministic=True) == data or len(whole.SerializeToString()) == len(data)
    found = Trace()
    names, categories, keys, events = {}, {}, {}, []
    for number, packet in enumerate(whole.packet):
        assert packet.trusted_packet_sequence_id == 1
        assert bool(packet.sequence_flags & 1) == (number == 0)
        assert packet.sequence_flags & 2
        names |= {row.iid: row.name for row in packet.interned_data.event_names}
        categories |= {row.iid: row.name for row in packet.interned_data.event_categories}
        keys |= {row.iid: row.name for row in packet.interned_data.debug_annotation_names}
        if packet.HasField("track_descriptor"):
            row = packet.track_descriptor
            assert row.parent_uuid in found.tracks or not row.parent_uuid
            found.tracks[row.uuid] = row
        else:
            event = packet.track_event
            assert event.track_uuid in found.tracks, "a track is announced before it is used"
            assert all(iid in categories for iid in event.category_iids)
            assert all(note.name_iid in keys for note in event.debug_annotations)
            events.append((packet.timestamp, number, event))
    open_: dict[int, list[Slice]] = defaultdict(list)
    for step, _, event in sorted(events, key=lambda row: row[:2]):
        track, stack = event.track_uuid, open_[event.track_uuid]
        flows, ended = list(event.flow_ids), list(event.terminating_flow_ids)
        if event.type == definitions.TrackEvent.TYPE_SLICE_BEGIN:
            stack.append(Slice(track, names[event.name_iid], step, -1, len(stack), flows))
        elif event.type == definitions.TrackEvent.TYPE_SLICE_END:
            row = stack.pop()
            row.end = step
            assert row.begin <= row.end
            found.slices.append(row)
        elif event.type == definitions.TrackEvent.TYPE_INSTANT:
            found.instants.append((step, track, names[event.name_iid], flows, ended))
        else:
            assert event.type == definitions.TrackEvent.TYPE_COUNTER
            assert found.tracks[track].HasField("counter")
            found.counters[found.tracks[track].name].append((step, event.counter_value))
    assert not any(open_.values()), "every slice ends"
    return found


@pytest.fixture(scope="module")
def racy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with many held stores."""
    path = tmp_path_factory.mktemp("perfetto") / "racy.tape"
    prepare("exit-race", None, "smp2-2level").record(path, strategy="random-walk", seed=4)
    return path


def everything(tape: Tape, first: int = 0, end: int | None = None) -> Events:
    return tape.events[max(first, tape.header.ready_step) : tape.end_step if end is None else end]


def test_counts_are_those_of_the_tape(racy: Path, tmp_path: Path) -> None:
    with Tape(racy) as tape:
        done = export(tape, tmp_path / "out")
        events = everything(tape)
        tracepoints = tape.symbols.tracepoints()
    trace = decoded(tmp_path / "out")
    held = (events.kind == STORE) & ((events.info & DRAINED) == 0)
    entries = trace.numbers("entry ")
    assert sum(row.track in entries for row in trace.slices) == np.count_nonzero(held) == done.held_stores > FLOWS_MANY
    drains = sum(track in entries and name == "drain" for _, track, name, _, _ in trace.instants)
    assert drains == np.count_nonzero(events.kind == DRAIN)
    on_cpus = trace.numbers("cpu")
    named = Counter(name for _, track, name, _, _ in trace.instants if track in on_cpus)
    for kind in ("ipi", "halt", "port_out", "control", "exit", "tlb_invalidate"):
        assert named[kind] == np.count_nonzero(events.kind == KINDS[kind]), kind
    for number, name in tracepoints.items():
        seen = np.count_nonzero((events.kind == KINDS["trace"]) & (events.phys == number))
        assert named[name] == seen, name
    interrupts = Counter(row.name for row in trace.slices if row.name.startswith("interrupt"))
    expected = Counter(f"interrupt {info}" for info in events.info[events.kind == KINDS["interrupt"]].tolist())
    assert interrupts == expected
    assert sum(row.track in on_cpus for row in trace.slices) == done.slices
    assert sum(track in on_cpus for _, track, *_ in trace.instants) == done.instants
    assert (tmp_path / "out").stat().st_size == done.size_bytes
    assert all(done.first_step <= row.begin <= row.end <= done.end_step for row in trace.slices)


def readers(events: Events) -> dict[int, tuple[int, int, int | None, int | None]]:
    """By number of the held store: (step of its issue, of its drain, of its first reader, whose CPU that is), found one
    by one."""
    rows = list(events.rows())
    queues: dict[int, list[int]] = defaultdict(list)
    issued: dict[int, Event] = {}
    out = {}
    for index, row in enumerate(rows):
        if row.kind == STORE and not row.info & DRAINED:
            issued[len(issued) + 1] = row
            queues[row.cpu].append(len(issued))
        elif row.kind == DRAIN and queues[row.cpu]:
            number = queues[row.cpu].pop(0)
            out[number] = (issued[number].step, row.step, *reader(row, rows[index + 1 :]))
    return out


def reader(store: Event, rows: list[Event]) -> tuple[int | None, int | None]:
    """The first load of another CPU that sees `store`."""
    if store.info & DEVICE:
        return None, None
    for row in rows:
        if row.phys >= store.phys + store.size or row.phys + row.size <= store.phys:
            continue
        if row.kind == LOAD and row.cpu != store.cpu and not row.info & (FORWARDED | DEVICE):
            return row.step, row.cpu
        visible = row.kind in (DRAIN, AD_UPDATE) or (row.kind == STORE and row.info & DRAINED)
        if visible and row.phys <= store.phys and store.phys + store.size <= row.phys + row.size:
            break
    return None, None


def test_arrows_go_from_store_to_drain_to_first_reader(racy: Path, tmp_path: Path) -> None:
    with Tape(racy) as tape:
        done = export(tape, tmp_path / "out")
        expected = readers(everything(tape))
    trace = decoded(tmp_path / "out")
    entries, cpus = trace.numbers("entry "), {row.name: number for number, row in trace.tracks.items()}
    begins = {row.flows[0]: row.begin for row in trace.slices if row.track in entries}
    stores, drains, ends = {}, {}, {}
    for step, track, name, flows, ended in trace.instants:
        if name == "drain":
            drains[flows[0]] = step
        elif flows:
            stores[flows[0]] = step
        ends |= dict.fromkeys(ended, (step, track))
    assert stores == begins
    assert len(expected) > FLOWS_MANY
    assert {number: (stores[number], drains[number]) for number in drains} == {
        number: row[:2] for number, row in expected.items()
    }
    read = {number: (row[2], cpus[f"cpu{row[3]}"]) for number, row in expected.items() if row[2] is not None}
    assert ends == read
    assert done.read == len(read) > 5


@pytest.mark.parametrize("name", ["class-flip", "exit-race", "compound-publish"])
def test_functions_are_those_on_the_stack(name: str, tmp_path: Path) -> None:
    """At moments drawn at random, slices are what the unwinder finds: up to where it stops, which is at assembly."""
    with Tape(f"gallery:{name}") as tape:
        export(tape, tmp_path / "out")
        timeline = Timeline(tape)
        compared = compare_stacks(timeline, decoded(tmp_path / "out"), random.Random(name), 80)
    assert compared > 30


def test_an_exception_is_handled_by_its_handler(tmp_path: Path) -> None:
    """Not by whom it interrupts, although the CPU pushes the frame at that one's address."""
    with Tape("gallery:exit-race") as tape:
        export(tape, tmp_path / "out")
    trace = decoded(tmp_path / "out")
    (bug,) = (row for row in trace.slices if row.name == "exception 6")
    below = [row.name for row in trace.slices if row.depth == bug.depth + 1 and row.begin > bug.begin]
    assert below[0] == "exception_6"


def compare_stacks(timeline: Timeline, trace: Trace, chance: random.Random, count: int) -> int:
    """At how many moments they were compared: the prologue of a function and the scheduler's switch are left out."""
    machine, cpu = timeline.machine, 0
    symbols = Symbols(timeline.image, lambda address, size: machine.read_linear(cpu, address, size))
    unwinder = Unwinder(symbols)
    tracks = {row.name: number for number, row in trace.tracks.items()}
    compared = 0
    for step in sorted(chance.sample(range(timeline.ready_step + 1, timeline.last_step), count)):
        timeline.seek(step)
        cpu = timeline.cpu_of(step)
        rows = [row for row in unwinder.backtrace(machine.registers(cpu)) if not row.inlined]
        if any("switch" in row.function or row.function == "schedule" for row in rows):
            continue
        functions = [row.function for row in takewhile(lambda row: row.file.endswith(".c"), rows)]
        shown = [
            row.name
            for row in sorted(trace.slices, key=lambda row: -row.depth)
            if row.track == tracks[f"cpu{cpu}"] and row.begin < step < row.end
        ]
        if symbols.program.symbol(rows[0].pc).address + 8 > rows[0].pc:
            continue  # it has done nothing yet that could be seen
        if shown[len(shown) - 1].startswith("task "):
            # It slept when the trace began: what it was in shows when it comes back to it.
            functions = functions[: len(shown) - 1]
        assert shown[: len(functions)] == functions, f"@{step}"
        compared += len(functions) > 1
    return compared


def test_counters_are_what_memory_holds(tmp_path: Path) -> None:
    with Tape("gallery:class-flip") as tape:
        export(tape, tmp_path / "out")
        trace = decoded(tmp_path / "out")
        timeline = Timeline(tape)
        symbols = Symbols(timeline.image, lambda address, size: timeline.machine.read_linear(0, address, size))
        name = "HighMem NR_ISOLATED_ANON"
        rows = trace.counters[name]
        assert len(rows) > 5
        for step, value in rows[1:]:
            timeline.seek(step + 1)
            item = symbols.evaluate("contig_page_data.node_zones[2].vm_stat[NR_ISOLATED_ANON]")
            assert symbols.value(item) == value
    assert rows[-1][1] == 1
    assert trace.counters[f"{name}, true count"][-1][1] == 0
    values = [value for _, value in rows]
    assert all(one != other for one, other in pairwise(values))


def test_a_part_shows_what_the_whole_shows_there(racy: Path, tmp_path: Path) -> None:
    with Tape(racy) as tape:
        ready = tape.header.ready_step
        first, end = ready + 700, ready + 1500
        export(tape, tmp_path / "whole")
        done = export(tape, tmp_path / "part", first=f"@{first}", end=f"+{end - first}")
        strip(tape, tmp_path / "bare.tape")
    assert (done.first_step, done.end_step) == (first, end)
    whole, part = decoded(tmp_path / "whole"), decoded(tmp_path / "part")

    def inside(trace: Trace, name: str) -> list[tuple[int, str]]:
        numbers = {number for number, row in trace.tracks.items() if row.name == name}
        return [row[:1] + row[2:3] for row in trace.instants if row[1] in numbers and first <= row[0] < end]

    for name in ("cpu0", "cpu1"):
        one, other = ([row for row in inside(t, name) if not row[1].startswith("load")] for t in (whole, part))
        assert one == other
    assert all(first <= row.begin <= row.end <= end for row in part.slices)
    with Tape(tmp_path / "bare.tape") as bare:
        export(bare, tmp_path / "again", first=f"@{first}", end=f"@{end}")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "part").read_bytes()


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.pftrace"
    assert main(["export", "gallery:window", "--perfetto", str(out)]) == 0
    assert "slices" in capfd.readouterr().out
    assert decoded(out).tracks[1].name == "window (buggy, smp2-2level); 1 ns is 1 step"
    for arguments, said in (
        ([], "say what to write"),
        (["--perfetto", str(out), "--from", "end"], "nothing lies between"),
        (["--perfetto", str(out), "--to", "nowhere"], "no position"),
        (["--perfetto", str(tmp_path / "no" / "folder")], "cannot write"),
    ):
        assert main(["export", "gallery:window", *arguments]) == 2
        error = capfd.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_half_a_trace_is_none(racy: Path, tmp_path: Path) -> None:
    """Neither after Ctrl-C nor on a full disk."""

    def interrupt(now: int, total: int) -> None:
        raise KeyboardInterrupt

    with Tape(racy) as tape:
        with pytest.raises(KeyboardInterrupt):
            export(tape, tmp_path / "out", progress=interrupt)
        assert not (tmp_path / "out").exists()
        with pytest.raises(TapeError, match=r"cannot write /dev/full: No space left"):
            export(tape, "/dev/full")
        assert Path("/dev/full").exists()


def test_a_tape_is_not_overwritten(racy: Path) -> None:
    with Tape(racy) as tape:
        with pytest.raises(TapeError, match="is the tape itself"):
            export(tape, racy)
        with pytest.raises(UsageError):
            export(tape, racy, first="@5", end="@5")
