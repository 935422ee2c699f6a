"""Finding one's way in the choices of a tape, with one or two chunks of them in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from machine import Machine, images
from machine.errors import DivergenceError, ReplayError
from traces import Choices, Tape
from traces.chunks import Chunk
from traces.schema import STATE_VERSION, RecordArray, U64Array, describe_record, step_counts

_CACHED_CHUNKS: Final = 4


def boot(tape: Tape, image: bytes | None = None) -> Machine:
    """A machine as the tape's was at position 0, with the tape's image or another one in its place.

    Raises TapeError, ImageError, and ReplayError if the tape is from a core whose state hashes cannot be compared.
    """
    header = tape.header
    if header.state_version != STATE_VERSION:
        raise ReplayError(
            f"{tape.path} was recorded by {header.tool}, whose machine state has version {header.state_version}; "
            f"this one has {STATE_VERSION} and cannot replay it: use that racetape, or record again"
        )
    machine = Machine(cpus=header.cpus, ram_bytes=header.ram_bytes, store_buffer=header.store_buffer, pc=header.pc)
    images.boot(machine, tape.image() if image is None else image, header.command_line)
    machine.choices_enabled = False
    return machine


@dataclass(frozen=True, eq=False)
class Place:
    """Where a step stands in the choices: record `index` of `choices`, of which `done` steps come before it.

    Damaged choices, followed on purpose, may end before the step: then `index` is behind the last and `done` is 0.
    """

    choices: Choices
    index: int
    done: int

    @property
    def record(self) -> np.void:
        record: np.void = self.choices.records[self.index]
        return record


class Cursor:
    """Looks up steps in the choices of a tape, and lets a machine follow them.

    Args:
        tape: must stay open.
        replaced: file offset of a choices chunk -> what to take instead of its content, to see what a damaged one does.
    """

    def __init__(self, tape: Tape, replaced: Mapping[int, Choices] | None = None) -> None:
        self.tape = tape
        self._replaced = replaced or {}
        self._ends = [c.end_step for c in tape.choices_chunks]
        self._cache: OrderedDict[int, tuple[Choices, U64Array]] = OrderedDict()

    def chunk_of(self, step: int) -> Chunk:
        """The choices chunk that makes step `step`. Raises ReplayError if the tape does not go so far."""
        number = bisect_right(self._ends, step)
        if step < 0 or number == len(self._ends):
            raise ReplayError(f"step {step} is outside the tape, which has steps 0 to {self.tape.end_step - 1}")
        return self.tape.choices_chunks[number]

    def place(self, step: int) -> Place:
        """Where step `step` stands. Raises ReplayError, TapeDamagedError."""
        choices, ends = self._load(self.chunk_of(step))
        inside = step - choices.first_step
        index = int(np.searchsorted(ends, np.uint64(inside), side="right"))
        done = inside - (int(ends[index - 1]) if index else 0)
        return Place(choices, index, done if index < len(ends) else 0)

    def follow(self, machine: Machine, stop_step: int, *, checked: bool = True) -> None:
        """Let `machine` take the tape's choices up to position `stop_step` or the end of their chunk.

        Stops early if the tap is full. Raises DivergenceError if the choices do not apply, or if the state at the end
        of a chunk is another one than when it was recorded (unless `checked` is False); TapeDamagedError.
        """
        place = self.place(machine.step)
        choices = place.choices
        stop = min(stop_step, choices.end_step)
        reason, index, _ = machine.execute(
            choices.records, index=place.index, done=place.done, step_max=stop, exact=True
        )
        if checked and machine.step == choices.end_step and machine.state_hash() != choices.state_hash:
            raise state_differs(choices, machine.state_hash())
        if machine.step != stop and reason != "events":
            raise impossible(choices.records, index, machine, reason)

    def _load(self, chunk: Chunk) -> tuple[Choices, U64Array]:
        """A chunk's choices and the running sum of their steps."""
        found = self._cache.get(chunk.offset)
        if found is None:
            choices = self._replaced.get(chunk.offset) or self.tape.read_choices(chunk)
            found = self._cache[chunk.offset] = (choices, step_ends(choices.records))
            while len(self._cache) > _CACHED_CHUNKS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(chunk.offset)
        return found


def step_ends(records: RecordArray) -> U64Array:
    """The running sum of the records' steps: ascending, whatever a damaged chunk claims. Shape (len(records),)."""
    ends = np.cumsum(step_counts(records))
    wrapped = np.flatnonzero(ends[1:] < ends[:-1])
    if len(wrapped):
        ends[wrapped[0] + 1 :] = np.iinfo(np.uint64).max
    return ends


def impossible(records: RecordArray, index: int, machine: Machine, reason: str) -> DivergenceError:
    """The error for choice `index`, which the machine cannot make where it stands."""
    step = machine.step
    record = records[index] if index < len(records) else None
    wanted = describe_record(record) if record is not None else "another choice"
    cpu = int(record["cpu"]) if record is not None else -1
    got = {"diverged": "that choice does not apply", "blocked": "that CPU cannot execute"}.get(reason, reason)
    return DivergenceError(
        f"replay differs at step {step}: the tape says `{wanted}`, but {got}",
        step=step,
        cpu=cpu,
        expected=wanted,
        got=got,
    )


def state_differs(choices: Choices, got: int) -> DivergenceError:
    """The error for a chunk after which the machine is not as it was."""
    first, last = choices.first_step, choices.end_step - 1
    return DivergenceError(
        f"replay differs somewhere in steps {first} to {last}: the state behind them has hash {got:016x}, recorded is "
        f"{choices.state_hash:016x}",
        step=first,
        cpu=int(choices.records["cpu"][0]),
        expected=f"state hash {choices.state_hash:016x} at position {choices.end_step}",
        got=f"state hash {got:016x}",
    )
