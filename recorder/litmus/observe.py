"""What a test shows of its final states: which registers and variables, and whether a proposition holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recorder.litmus.assembler import Assembled
from recorder.litmus.condition import (
    Address,
    MemoryPlace,
    Number,
    Place,
    Proposition,
    RegisterPlace,
    equations,
    holds,
)
from recorder.litmus.errors import LitmusError
from recorder.litmus.explore import FinalState
from recorder.litmus.layout import BASE
from recorder.litmus.program import Condition
from recorder.litmus.registers import ALL, LEGACY, part, shown


@dataclass(frozen=True, slots=True)
class Location:
    """A register of a thread (`register` not "") or a cell of memory, with the label that results show."""

    label: str
    size_bytes: int
    thread: int = 0
    register: str = ""
    address: int = 0


class Observer:
    """Reads final states of one test."""

    def __init__(self, assembled: Assembled, condition: Condition) -> None:
        """Raises LitmusError if the condition, or the test's filter or locations, name what the test does not have."""
        self._assembled = assembled
        self._test = test = assembled.test
        self._names = LEGACY if test.bits == 32 else ALL
        self._widths = [self._register_widths(thread) for thread in range(len(test.threads))]
        named = {place for place, line in test.locations if self._check(place, line)}
        for proposition in (condition.proposition, test.filter):
            named |= self._check_all(proposition) if proposition else set()
        self.locations = (*self._registers(named), *self._cells())

    def _check_all(self, proposition: Proposition) -> set[Place]:
        """The places in a proposition. Raises LitmusError if the test does not have one of them."""
        places: set[Place] = set()
        for equation in equations(proposition):
            for side in (equation.place, equation.other):
                if isinstance(side, Address):
                    self._check(MemoryPlace(side.variable), equation.line)
                elif not isinstance(side, Number) and self._check(side, equation.line):
                    places.add(side)
        return places

    def values(self, state: FinalState) -> tuple[int, ...]:
        """The values of all locations: registers as signed numbers of the code's width, memory of its size."""
        return tuple(self._signed(self._raw(state, location), location.size_bytes) for location in self.locations)

    def holds(self, proposition: Proposition, state: FinalState) -> bool:
        """Whether a (checked) proposition is true in a state."""
        return holds(proposition, lambda side: self._read(state, side))

    def _check(self, place: Place, line: int) -> bool:
        """Always True. Raises LitmusError if the test does not have this place."""
        test = self._test
        if isinstance(place, RegisterPlace):
            if test.thread_index(place.thread) is None:
                raise LitmusError(test.path, line, f"there is no thread P{place.thread}")
            if part(place.name, test.bits) is None:
                raise LitmusError(test.path, line, f"{place.name!r} is no register of {test.bits}-bit code")
            return True
        slot = self._assembled.layout.slots.get(place.variable)
        if slot is None:
            raise LitmusError(test.path, line, f"the test has no variable {place.variable!r}")
        if place.index >= len(slot.variable.values):
            raise LitmusError(test.path, line, f"{place.variable} has {len(slot.variable.values)} cells")
        return True

    def _register_widths(self, thread: int) -> dict[str, int]:
        """How wide comparisons take each register that the thread writes or starts with, in bytes.

        A declared type decides; without one, a register is an int, as in herd, unless the thread uses all of it.
        """
        widths: dict[str, int] = {}
        for row in self._assembled.threads[thread].instructions.values():
            for register, size_bytes in row.writes.items():
                widths[register] = max(widths.get(register, 4), size_bytes)
        for start in self._test.registers:
            if self._test.thread_index(start.thread) != thread:
                continue
            if start.size_bytes:
                widths[start.register] = start.size_bytes
            elif not isinstance(start.value, int) or start.value >> 32:
                widths[start.register] = 8
        return widths

    def _registers(self, named: set[Place]) -> Iterator[Location]:
        """Registers to show: written by the code, given a number at the start, or named at the end."""
        test = self._test
        for name, thread in sorted((name, thread) for thread, name in enumerate(test.thread_names)):
            found = {register for row in self._rows(thread) for register in row if register != "rsp"}
            for start in test.registers:
                if test.thread_index(start.thread) == thread and isinstance(start.value, int):
                    found.add(start.register)
            for place in named:
                if isinstance(place, RegisterPlace) and place.thread == name:
                    known = part(place.name, test.bits)
                    assert known is not None, "checked"
                    found.add(known.register)
            for register in sorted(found):
                label = f"{name}:{shown(register, test.bits)}"
                yield Location(label, test.bits // 8, thread=thread, register=register)

    def _rows(self, thread: int) -> Iterator[dict[str, int]]:
        for row in self._assembled.threads[thread].instructions.values():
            yield row.writes

    def _cells(self) -> Iterator[Location]:
        for name, slot in sorted(self._assembled.layout.slots.items()):
            for index in range(len(slot.variable.values)):
                label = f"{name}[{index}]" if slot.variable.is_array else name
                yield Location(label, slot.size_bytes, address=slot.address + index * slot.size_bytes)

    def _raw(self, state: FinalState, location: Location) -> int:
        if location.register:
            return state.threads[location.thread].registers[self._names.index(location.register)]
        at = location.address - BASE
        return int.from_bytes(state.memory[at : at + location.size_bytes], "little")

    @staticmethod
    def _signed(value: int, size_bytes: int) -> int:
        value &= (1 << 8 * size_bytes) - 1
        return value - (1 << 8 * size_bytes) if value >> 8 * size_bytes - 1 else value

    def _read(self, state: FinalState, side: Place | Number | Address) -> tuple[int, int]:
        """(value, bytes that count) of one side of an equation."""
        layout = self._assembled.layout
        match side:
            case Number(value):
                return value, 16
            case Address(variable):
                return layout.slots[variable].address, 16
            case MemoryPlace(variable, index):
                slot = layout.slots[variable]
                at = slot.address - BASE + index * slot.size_bytes
                return int.from_bytes(state.memory[at : at + slot.size_bytes], "little"), slot.size_bytes
            case RegisterPlace(name, register):
                thread = self._test.thread_index(name)
                found = part(register, self._test.bits)
                assert thread is not None, "checked"
                assert found is not None, "checked"
                whole = state.threads[thread].registers[self._names.index(found.register)]
                width = self._widths[thread].get(found.register, self._test.bits // 8)
                is_whole = found.size_bytes * 8 == self._test.bits
                return whole >> found.shift, min(width, self._test.bits // 8) if is_whole else found.size_bytes
