"""Where a run gets to, by name: how many steps it is from where the machine stands to a line or a function.

The machine is run ahead for that, and put back: nothing of it is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from machine import Machine
from machine.errors import UsageError
from machine.symbols import Symbols
from traces.schema import HOLD, ON, RECORD, Op

STEPS_MAX: Final = 1 << 26
"""Where nobody gets to in so many steps is not come to."""
_HALT: Final = b"\xf4"
_LINE: Final = re.compile(r"(?P<file>.+):(?P<line>\d+)")


def guest_symbols(machine: Machine, image: bytes) -> Symbols:
    """Symbols of the image over what the machine's memory is at the time."""
    return Symbols(image, lambda address, size: machine.read_linear(0, address, size))


class Places:
    """Places in one image, found on one machine.

    Args:
        machine: has its memory as the image has put it there.
        symbols: of the image.
    """

    def __init__(self, machine: Machine, symbols: Symbols) -> None:
        self.machine, self.symbols = machine, symbols

    def addresses(self, place: str) -> tuple[int, ...]:
        """Where the code of `FILE:LINE`, or of a function, begins. Raises UsageError if there is none."""
        match = _LINE.fullmatch(place)
        if match is None:
            found = self.symbols.entries(place)
            if not found:
                raise UsageError(f"the image has no function {place!r} of its own (if it is inlined, name a line)")
            return found
        found = self.symbols.statements().get((match["file"], int(match["line"])), ())
        if not found:
            raise UsageError(f"no code begins at {place}")
        return found

    def steps_to(self, cpu: int, addresses: tuple[int, ...], times: int, *, hold: bool) -> int | None:
        """Steps of `cpu` until it comes to one of the addresses for the `times`-th time, None if it never does."""
        with self.ahead():
            found = None
            for number, steps in enumerate(self.arrivals(cpu, addresses, hold=hold), 1):
                found = steps
                if number == times:
                    return found
            return None

    def arrivals(self, cpu: int, addresses: tuple[int, ...], *, hold: bool) -> Iterator[int]:
        """After how many steps `cpu` comes to one of the addresses, each time. Moves the machine.

        Where it stands at first is not come to. A HLT is put at each address for a moment: the CPU runs up to it at
        full speed.
        """
        machine, first = self.machine, self.machine.step
        phys = [found for address in addresses if (found := machine.translate(cpu, address)) >= 0]
        while self._leave(cpu, hold):
            here, before = machine.snapshot(), machine.step
            for at in phys:
                machine.write(at, _HALT)
            self.run(cpu, STEPS_MAX, hold=hold)
            steps = machine.step - before - 1
            machine.restore(here)
            if steps < 0:
                return
            self.run(cpu, steps, hold=hold)
            if machine.registers(cpu)["rip"] not in addresses:
                return
            yield machine.step - first

    def steps_of(self, cpu: int, instructions: int, *, hold: bool) -> int:
        """Steps of `cpu` in which it completes so many instructions, or as many as it can."""
        machine = self.machine
        with self.ahead():
            first, end = machine.step, machine.registers(cpu)["retired"] + instructions
            while (left := end - machine.registers(cpu)["retired"]) > 0 and machine.step - first < STEPS_MAX:
                before = machine.step
                self.run(cpu, left, hold=hold)  # each takes a step at least
                if machine.step == before:
                    break
            return machine.step - first

    def store_to(self, cpu: int, name: str) -> int:
        """How many stores of `cpu` drain up to and including its oldest one to what `name` names; 0: there is none."""
        place = self.symbols.lvalue(name)
        for number, (addr, _phys, size, _value, _pc) in enumerate(self.machine.store_buffer_entries(cpu), 1):
            if addr < place.address + place.size_bytes and place.address < addr + size:
                return number
        return 0

    def run(self, cpu: int, steps: int, *, hold: bool) -> None:
        """Let `cpu` take so many steps, or as many as it can."""
        row = (Op.RUN, cpu, ON | HOLD if hold else ON, 0, steps)
        self.machine.execute(np.array([row], RECORD).tobytes(), step_max=self.machine.step + steps)

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """What is done to the machine inside is undone, and nothing is recorded."""
        machine = self.machine
        start, tap, choices = machine.snapshot(), machine.tap, machine.choices_enabled
        assert not machine.events()[0], "only where nothing has been recorded that nobody has taken"
        machine.tap = machine.choices_enabled = False
        try:
            yield
        finally:
            machine.restore(start)
            machine.console_take()
            machine.tap, machine.choices_enabled = tap, choices

    def _leave(self, cpu: int, hold: bool) -> bool:
        """Take the instruction at which `cpu` stands, which may take several steps. False if it cannot."""
        machine = self.machine
        before = machine.registers(cpu)
        while True:
            step = machine.step
            self.run(cpu, 1, hold=hold)
            if machine.step == step:
                return False
            now = machine.registers(cpu)
            if now["rip"] != before["rip"] or now["retired"] != before["retired"]:
                return True
