"""racetape's side: each function runs one guest, or times one call, and returns plain numbers."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.guests import Guest
from machine import _core, images
from machine._core import Machine
from recorder.record import prepare_image, ready_identifier

Figures = dict[str, float]
"""seconds of CPU time, instructions, and what else a measurement has to say."""

SLICE_INSTRUCTIONS: Final = 100
TOUCHED_PAGES: Final = 100
POPULATED_PAGES: Final = 4096
PAGE_BYTES: Final = 4096
STEP_MAX: Final = 1 << 40
RUN_STEPS_MAX: Final = 1 << 30
"""A run that takes longer hangs."""
_CALLS: Final = 20_000
_SNAPSHOTS: Final = 50
_PIECE_BYTES: Final = 1 << 20


def _record(op: int, cpu: int, flags: int, argument: int) -> bytes:
    return struct.pack("<BBHIQ", op, cpu, flags, 0, argument)


_ALONE: Final = _record(_core.AUTO, 0, 0, STEP_MAX)
_INTERLEAVED: Final = 5000 * b"".join(_record(_core.RUN, cpu, _core.HOLD, SLICE_INSTRUCTIONS) for cpu in (0, 1))


def boot(folder: Path, guest: Guest) -> Machine:
    """A machine about to execute the guest's first instruction."""
    image = (folder / f"{guest.name}.elf").read_bytes()
    machine = Machine(cpus=guest.cpus, ram_bytes=guest.ram_bytes)
    images.boot(machine, image, guest.command_line)
    if guest.stop == "trace":
        machine.stop_at_trace = ready_identifier(image)
    return machine


def _run(folder: Path, guest: Guest, plan: bytes, *, tap: bool) -> Figures:
    """From reset to the guest's end; every full buffer of events, and the log of choices with it, is dropped."""
    machine = boot(folder, guest)
    machine.tap = tap
    events = index = done = before = 0
    started = time.process_time()
    while True:
        reason, index, done = machine.execute(plan, index=index, done=done, step_max=RUN_STEPS_MAX)
        if reason == "events":
            events += machine.events()[0]
            machine.events_clear()
        elif reason == "plan":
            if machine.step == before:
                raise RuntimeError(f"{guest.name}: no CPU can go on at step {machine.step}")
            before = machine.step
            index = done = 0
        else:
            break
        machine.choices_take()
    seconds = time.process_time() - started
    if reason != guest.stop:
        raise RuntimeError(f"{guest.name} stopped with {reason} at step {machine.step}")
    events += machine.events()[0] if tap else 0
    retired = sum(machine.registers(cpu)["retired"] for cpu in range(machine.cpus))
    return {"seconds": seconds, "instructions": retired, "steps": machine.step, "events": events}


def quiet(folder: Path, guest: Guest) -> Figures:
    """No events."""
    return _run(folder, guest, _ALONE, tap=False)


def tap(folder: Path, guest: Guest) -> Figures:
    """Every event in memory."""
    return _run(folder, guest, _ALONE, tap=True)


def interleaved_quiet(folder: Path, guest: Guest) -> Figures:
    """Two CPUs in turn, 100 steps each, stores held in their buffers; no events."""
    return _run(folder, guest, _INTERLEAVED, tap=False)


def interleaved_tap(folder: Path, guest: Guest) -> Figures:
    """The same with every event in memory."""
    return _run(folder, guest, _INTERLEAVED, tap=True)


def tape(folder: Path, guest: Guest) -> Figures:
    """Recorded as `racetape record` does it, from the tracepoint `ready` on: in one thread, then with the second one.

    `seconds` are CPU time of the first; adds `wall_seconds` of the second, and `tape_bytes`.
    """
    alone = _recorded(folder, guest, background=False)
    together = _recorded(folder, guest, background=True)
    if alone["tape_bytes"] != together["tape_bytes"]:
        raise RuntimeError(f"{guest.name}: the second thread makes another tape")
    return alone | {"wall_seconds": together["wall_seconds"]}


def _recorded(folder: Path, guest: Guest, *, background: bool) -> Figures:
    image = (folder / f"{guest.name}.elf").read_bytes()
    machine = Machine(cpus=guest.cpus, ram_bytes=guest.ram_bytes)
    names = {"scenario": guest.name, "variant": "-", "configuration": "up-2level"}
    prepared = prepare_image(machine, image, guest.command_line, **names, step_max=STEP_MAX)
    path = folder / f"{guest.name}.tape"
    wall, started = time.perf_counter(), time.process_time()
    summary = prepared.record(path, background=background)
    seconds, wall_seconds = time.process_time() - started, time.perf_counter() - wall
    if summary.stop != guest.stop:
        raise RuntimeError(f"{guest.name} stopped with {summary.stop} at step {summary.steps}")
    path.unlink()
    return {
        "seconds": seconds,
        "wall_seconds": wall_seconds,
        "instructions": summary.steps - summary.ready_step,
        "events": summary.events,
        "tape_bytes": summary.size_bytes,
    }


def compare_end(folder: Path, guest: Guest, dump: Path) -> tuple[int, bool]:
    """Instructions of a run, and whether it ends with the memory that the file `dump` holds."""
    machine = boot(folder, guest)
    reason, _, _ = machine.execute(_ALONE)
    if reason != guest.stop:
        raise RuntimeError(f"{guest.name} stopped with {reason} at step {machine.step}")
    same = True
    with open(dump, "rb") as file:
        for at in range(0, machine.ram_bytes, _PIECE_BYTES):
            same = same and machine.read(at, _PIECE_BYTES) == file.read(_PIECE_BYTES)
    return machine.registers(0)["retired"], same


# -- calls --


def snapshot_and_restore(_folder: Path, _guest: Guest) -> Figures:
    """Microseconds of `snapshot`, and of `restore`, after the guest has written to 100 pages of 4096 in use."""
    machine = Machine(ram_bytes=(POPULATED_PAGES + 16) * PAGE_BYTES)
    for page in range(POPULATED_PAGES):
        machine.write(page * PAGE_BYTES, b"used")
    # again: mov %eax, (%edi); inc %eax; add $4096, %edi; cmp %esi, %edi; jb again; hlt
    code = bytes.fromhex("8907 40 81c700100000 39f7 72f3 f4")
    entry = POPULATED_PAGES * PAGE_BYTES
    machine.write(entry, code)

    def touch(value: int) -> None:
        for name, content in (("rip", entry), ("rax", value), ("rdi", 0), ("rsi", TOUCHED_PAGES * PAGE_BYTES)):
            machine.set_register(0, name, content)
        machine.execute(_record(_core.RUN, 0, 0, 5 * TOUCHED_PAGES))

    def timed(call: Callable[[], object]) -> float:
        started = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - started) / 1000

    takes, returns = [], []
    kept = machine.snapshot()
    for turn in range(_SNAPSHOTS):
        touch(1000 * turn)
        if machine.read((TOUCHED_PAGES - 1) * PAGE_BYTES, 4) == b"used":
            raise RuntimeError("the guest did not touch its pages")
        takes.append(timed(machine.snapshot))
        machine.restore(kept)
        touch(1000 * turn + 500)
        returns.append(timed(lambda: machine.restore(kept)))
    return {"snapshot_us": median(takes), "restore_us": median(returns)}


def call_overhead(_folder: Path, _guest: Guest) -> Figures:
    """Nanoseconds of CPU time of one `execute` from Python: an empty plan, and one step (a NOP)."""
    machine = Machine(ram_bytes=16 * PAGE_BYTES)
    machine.write(0, b"\x90" * 2048 + b"\xe9" + struct.pack("<i", -2053))  # NOPs in a circle
    machine.set_register(0, "rip", 0)
    machine.choices_enabled = False
    execute, one = machine.execute, _record(_core.RUN, 0, 0, 1)

    def per_call(plan: bytes) -> float:
        started = time.process_time_ns()
        for _ in range(_CALLS):
            execute(plan)
        return (time.process_time_ns() - started) / _CALLS

    result = {"empty_ns": per_call(b""), "step_ns": per_call(one)}
    if machine.step != _CALLS:
        raise RuntimeError(f"{machine.step} steps were taken, not {_CALLS}")
    return result


MEASUREMENTS: Final[dict[str, Callable[[Path, Guest], Figures]]] = {
    function.__name__: function
    for function in (quiet, tap, interleaved_quiet, interleaved_tap, tape, snapshot_and_restore, call_overhead)
}
