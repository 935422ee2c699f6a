"""A schedule's exact choices in words that outlive changes of the guest: places and names where there are any.

Each is tried: where the words do not lead to exactly the same schedule, the exact choice is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from machine import Machine, Snapshot
from machine.symbols import Symbols
from recorder.places import STEPS_MAX, Places
from recorder.strategies.script import Choice, Exact, RunInstructions, RunTo, StoreDrains
from traces.schema import HOLD, ON, RECORD, Op, RecordArray

_STEPS_BACK: Final = 64
"""So far behind a place a run may end and still be said to end so many instructions behind it."""
_TIMES_MAX: Final = 100
"""A place that is come to more often than this is no good name for a moment."""
_PLACES_MAX: Final = 12
"""Of the nearest ones so many are tried."""
_COMMENT_COLUMN: Final = 32


@dataclass(frozen=True, slots=True)
class Worded:
    """What one record is in words.

    Attributes:
        place: where its CPU stands behind it ("" if that is of no interest).
        function: in which function that is, if it is not in the place's name.
    """

    choices: tuple[Choice, ...]
    place: str
    function: str = ""

    def __str__(self) -> str:
        text = "; ".join(map(str, self.choices))
        exact = all(isinstance(choice, Exact) for choice in self.choices)
        comment = f"to {self.place}" if exact else f"in {self.function}" if self.function not in text else ""
        return f"{text:<{_COMMENT_COLUMN - 2}}  # {comment}" if self.place and comment else text


@dataclass(frozen=True, slots=True)
class _Moment:
    """Behind `steps` steps of a run: what the CPU executes next, and how many instructions it has completed."""

    steps: int
    rip: int
    retired: int


class Wording:
    """Finds words for choices that are made from `start` on.

    Args:
        symbols: of the guest, reading the machine's memory.
    """

    def __init__(self, machine: Machine, start: Snapshot, symbols: Symbols) -> None:
        self._machine, self._start, self._symbols = machine, start, symbols
        self._places = Places(machine, symbols)
        self._names = {address: f"{file}:{line}" for (file, line), at in symbols.statements().items() for address in at}

    def words(self, records: RecordArray) -> list[Worded]:
        """The records in words, one by one."""
        self._machine.tap = False
        self._machine.restore(self._start)
        out = []
        for record in records:
            exact = Exact(tuple(record.tolist()))
            choices = self._try(record) or (exact,)
            self._machine.execute(np.array([record], RECORD).tobytes(), step_max=self._machine.step + STEPS_MAX)
            stands = self._stands(int(record["cpu"])) if record["op"] == Op.RUN else ("", "")
            out.append(Worded(choices, *stands))
        self._machine.console_take()
        return out

    def _try(self, record: np.void) -> tuple[Choice, ...] | None:
        if record["op"] == Op.DRAIN:
            return self._store(record)
        if record["op"] == Op.RUN and record["flags"] & ON:
            return self._run(record)
        return None

    def _store(self, record: np.void) -> tuple[Choice, ...] | None:
        cpu, count = int(record["cpu"]), int(record["arg"])
        entries = self._machine.store_buffer_entries(cpu)
        if not 0 < count <= len(entries):
            return None
        addr, _phys, size, _value, _pc = entries[count - 1]
        name = self._symbols.name_of_data(addr, size)
        if name is None or self._places.store_to(cpu, name) != count:
            return None
        return (StoreDrains(cpu, name),)

    def _run(self, record: np.void) -> tuple[Choice, ...] | None:
        """A place from which it is not far to the end; one that is come to only once if there is one."""
        cpu, hold, steps = int(record["cpu"]), bool(record["flags"] & HOLD), int(record["arg"])
        moments = self._last_moments(cpu, steps, hold)
        if not moments or moments[-1].steps != steps:
            return None  # it ends before, because the CPU waits
        found: list[tuple[int, tuple[Choice, ...]]] = []
        tried = 0
        for moment in reversed(moments):
            for place in self._names_of(moment.rip):
                tried += 1
                times = self._times(cpu, place, moment.steps, hold)
                behind = moments[-1].retired - moment.retired
                if times is None:
                    continue
                choices: tuple[Choice, ...] = (RunTo(cpu, place, times, hold),)
                if moment.steps != steps:
                    choices += (RunInstructions(cpu, behind, hold),)
                if self._leads_to(choices, cpu, steps):
                    found.append((behind + 2 * (times > 1) * times, choices))
            if tried >= _PLACES_MAX:
                break
        return min(found, key=lambda row: row[0])[1] if found else None

    def _last_moments(self, cpu: int, steps: int, hold: bool) -> list[_Moment]:
        """Of a run, the last ones, without its beginning."""
        machine, moments = self._machine, []
        with self._places.ahead():
            first = machine.step
            self._places.run(cpu, max(steps - _STEPS_BACK, 0), hold=hold)
            while machine.step - first < steps:
                before = machine.step
                if before != first:
                    moments.append(self._moment(cpu, first))
                self._places.run(cpu, 1, hold=hold)
                if machine.step == before:
                    return []
            moments.append(self._moment(cpu, first))
        return moments

    def _moment(self, cpu: int, first: int) -> _Moment:
        registers = self._machine.registers(cpu)
        return _Moment(self._machine.step - first, registers["rip"], registers["retired"])

    def _names_of(self, address: int) -> list[str]:
        frame = self._symbols.frames(address)[0]
        names = [frame.function] if address in self._symbols.entries(frame.function) else []
        return [*names, self._names[address]] if address in self._names else names

    def _times(self, cpu: int, place: str, steps: int, hold: bool) -> int | None:
        """How often the place has been come to after so many steps, if just then it is come to again."""
        with self._places.ahead():
            for number, at in enumerate(self._places.arrivals(cpu, self._places.addresses(place), hold=hold), 1):
                if at == steps:
                    return number
                if at > steps or number == _TIMES_MAX:
                    return None
        return None

    def _leads_to(self, choices: tuple[Choice, ...], cpu: int, steps: int) -> bool:
        """Whether the choices are so many steps, made one after the other."""
        with self._places.ahead():
            first = self._machine.step
            for choice in choices:
                row = choice.record(self._places)
                if row is not None:
                    self._machine.execute(np.array([row], RECORD).tobytes())
            return self._machine.step - first == steps

    def _stands(self, cpu: int) -> tuple[str, str]:
        """The line, and the function that it is part of; what headers have, everybody has."""
        frames = self._symbols.frames(self._machine.registers(cpu)["rip"])
        inner = next((frame for frame in frames if not frame.file.endswith(".h")), frames[-1])
        return frames[0].function + (f", {frames[0].place}" if frames[0].place else ""), inner.function
