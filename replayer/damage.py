"""What a damaged piece of layer A does to a replay.

A single flipped bit, the usual damage, is located by the chunk's CRC and the repair proven by its hash; then the
damaged choices or image are compared with the true ones. Other damage is followed as it stands, and the rest of the
tape tells where that goes wrong.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from machine import Machine, Snapshot
from machine.errors import DivergenceError, ImageError, TapeDamagedError
from replayer.compare import first_difference
from replayer.cursor import Cursor, boot
from traces import Choices, Events, Tape
from traces.chunks import IMAGE, Chunk, FormatError, flipped_bit, hash_of, zstd_unpack
from traces.schema import Op, RecordArray, describe_record, step_counts

_WINDOW_STEPS: Final = 1 << 14


@dataclass(frozen=True, eq=False)
class Explanation:
    """What is known about a damaged chunk.

    Attributes:
        divergence: the first step that it changes; None if it changes none, or that is not known yet.
        repaired: the true content is known, so `divergence` is final.
        choices, image: the damaged content, to be followed, where the true one is not known.
    """

    divergence: DivergenceError | None = None
    repaired: bool = False
    choices: Choices | None = None
    image: bytes | None = None


def explain(tape: Tape, chunk: Chunk) -> Explanation:
    """What the damage of a choices or image chunk does. TapeDamagedError if another needed chunk is damaged, too."""
    payload = tape.payload(chunk, lenient=True)
    true_payload = repair(chunk, payload)
    if chunk.kind == IMAGE:
        return _explain_image(tape, chunk, payload, true_payload)
    try:
        damaged = tape.decode_choices(chunk, payload, lenient=True)
    except TapeDamagedError as error:
        return Explanation(unreadable(chunk.first_step, str(error)), repaired=true_payload is not None)
    if true_payload is None:
        return Explanation(choices=damaged)
    return Explanation(compare_choices(tape.decode_choices(chunk, true_payload), damaged), repaired=True)


def repair(chunk: Chunk, payload: bytes) -> bytes | None:
    """The true payload if at most one bit of it, of its hash or of its CRC is wrong, proven by the other two."""
    crc = zlib.crc32(payload)
    proven = hash_of(replace(chunk, payload_crc=crc).covered(), payload)
    wrong_bits = int.from_bytes(proven, "little") ^ int.from_bytes(chunk.hash, "little")
    if wrong_bits == 0 or (crc == chunk.payload_crc and wrong_bits.bit_count() == 1):
        return payload
    bit = flipped_bit(payload, chunk.payload_crc)
    if bit is None:
        return None
    repaired = bytearray(payload)
    repaired[bit // 8] ^= 1 << bit % 8
    return bytes(repaired) if chunk.matches(bytes(repaired)) else None


def compare_choices(expected: Choices, got: Choices) -> DivergenceError | None:
    """The first step for which two lists of choices say different things; None if they say the same."""
    a, b = _merged(expected.records), _merged(got.records)
    count = min(len(a), len(b))
    differs = a[:count] != b[:count]
    at = int(np.argmax(differs)) if differs.any() else count
    if at == len(a) == len(b):
        return None
    step = expected.first_step + int(step_counts(a[:at]).sum())
    wanted, found = (describe_record(r[at]) if at < len(r) else "nothing" for r in (a, b))
    if at < count and _same_but_arg(a[at], b[at]) and int(a[at]["op"]) in (Op.RUN, Op.DRAIN):
        # The same thing, more or less often: it differs behind the shorter one.
        step += min(int(a[at]["arg"]), int(b[at]["arg"]))
    return DivergenceError(
        f"the damage changes the choices from step {step} on: `{wanted}` became `{found}`",
        step=step,
        cpu=int(a[at]["cpu"]) if at < len(a) else -1,
        expected=wanted,
        got=found,
    )


def _merged(records: RecordArray) -> RecordArray:
    """The same choices, with neighbouring runs and drains of one CPU in one record, and none that makes no step."""
    records = records[step_counts(records) > 0]
    if not len(records):
        return records
    goes_on = np.isin(records["op"][1:], (Op.RUN, Op.DRAIN))
    for name in ("op", "cpu", "flags", "reserved"):
        goes_on &= records[name][1:] == records[name][:-1]
    starts = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    merged = records[starts].copy()
    merged["arg"] = np.add.reduceat(records["arg"], starts)
    return merged


def _same_but_arg(a: np.void, b: np.void) -> bool:
    return all(a[name] == b[name] for name in ("op", "cpu", "flags", "reserved"))


def _explain_image(tape: Tape, chunk: Chunk, payload: bytes, true_payload: bytes | None) -> Explanation:
    try:
        pieces = [c for c in tape.chunks if c.kind == IMAGE]
        damaged = b"".join(zstd_unpack(tape.payload(c, lenient=True)) for c in pieces)
    except FormatError as error:
        return Explanation(unreadable(0, str(error)), repaired=true_payload is not None)
    try:
        machine = boot(tape, damaged)
    except (ImageError, ValueError) as error:
        return Explanation(unreadable(0, str(error)), repaired=true_payload is not None)
    if true_payload is None:
        return Explanation(image=damaged)
    true = b"".join(zstd_unpack(true_payload if c is chunk else tape.payload(c)) for c in pieces)
    return Explanation(compare_images(tape, boot(tape, true), machine), repaired=True)


def compare_images(tape: Tape, true: Machine, damaged: Machine) -> DivergenceError | None:
    """Follow the tape with two machines side by side; the first step in which they differ but for the memory they had
    from the start."""
    cursor = Cursor(tape)
    while true.step < tape.end_step:
        starts = true.snapshot(), damaged.snapshot()
        stop = min(true.step + _WINDOW_STEPS, tape.end_step)
        if _window(cursor, true, damaged, stop) is not None:
            return _narrow(cursor, true, damaged, starts, stop)
    return None


def _window(cursor: Cursor, true: Machine, damaged: Machine, stop: int) -> DivergenceError | None:
    """How the two differ up to position `stop`, or None."""
    expected = _events(cursor, true, stop)
    step = true.step
    try:
        got = _events(cursor, damaged, stop)
    except DivergenceError as error:
        return error
    found = first_difference(expected, got)
    if found is not None:
        return found
    for cpu in range(true.cpus):
        a, b = true.registers(cpu), damaged.registers(cpu)
        if a != b:
            name = next(key for key in a if a[key] != b[key])
            return DivergenceError(
                f"the damage shows first in step {step - 1} (cpu{cpu}): {name} becomes {b[name]:#x} instead of "
                f"{a[name]:#x}",
                step=step - 1,
                cpu=cpu,
                expected=f"{name} {a[name]:#x}",
                got=f"{name} {b[name]:#x}",
            )
    return None


def _narrow(
    cursor: Cursor, true: Machine, damaged: Machine, starts: tuple[Snapshot, Snapshot], stop: int
) -> DivergenceError:
    """The first step of the window that differs, found by single steps."""
    true.restore(starts[0])
    damaged.restore(starts[1])
    while true.step < stop:
        found = _window(cursor, true, damaged, true.step + 1)
        if found is not None:
            return found
    raise AssertionError("what differs in a window differs in one of its steps")


def _events(cursor: Cursor, machine: Machine, stop: int) -> Events:
    parts: list[Events] = []
    machine.tap = True
    machine.events_clear()
    while machine.step < stop:
        # The states at chunk ends differ in any case: the images do.
        cursor.follow(machine, stop, checked=False)
        parts.append(Events.from_tap(machine.events()))
        machine.events_clear()
        machine.console_take()
    return Events.concatenate(parts)


def unreadable(step: int, why: str) -> DivergenceError:
    """The error for bytes that cannot be followed at all."""
    return DivergenceError(
        f"nothing can be replayed from step {step} on: {why}",
        step=step,
        cpu=-1,
        expected="what was recorded",
        got="unreadable bytes",
    )
