"""Where a test's variables lie in the machine's memory. Linear addresses are physical ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from recorder.litmus.errors import LitmusError
from recorder.litmus.operands import OperandError
from recorder.litmus.program import LINE_BYTES, AddressOf, LitmusTest, Value, Variable
from recorder.litmus.translate import variables_of

BASE: Final = 0x10000
"""Address of the first variable. Below it are page tables and start-up code."""

PAGE_BYTES: Final = 4096
STACK_BYTES: Final = 256
"""Room for each thread's stack, all in the page behind the variables."""

T = TypeVar("T")

DATA_BYTES_MAX: Final = 16 * PAGE_BYTES
"""Most memory for variables."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A variable with its address."""

    variable: Variable
    address: int

    @property
    def size_bytes(self) -> int:
        """Size of one cell."""
        return self.variable.size_bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """Addresses of all variables; they fill `data_bytes` (whole pages) from BASE on. The stacks' page comes next."""

    slots: dict[str, Slot]
    data_bytes: int

    @property
    def stack_page(self) -> int:
        """Address of the page with the stacks."""
        return BASE + self.data_bytes

    @property
    def code_page(self) -> int:
        """Address of the first page of code."""
        return self.stack_page + PAGE_BYTES

    def stack_top(self, thread: int) -> int:
        """Initial stack pointer of a thread."""
        return self.stack_page + (thread + 1) * STACK_BYTES

    def resolve(self, value: Value) -> int:
        """A value as a number."""
        return self.slots[value.variable].address if isinstance(value, AddressOf) else value

    def initial(self) -> bytes:
        """What the variables' pages hold at the start."""
        data = bytearray(self.data_bytes)
        for slot in self.slots.values():
            size, at = slot.size_bytes, slot.address - BASE
            for index, value in enumerate(slot.variable.values):
                number = self.resolve(value) & (1 << 8 * size) - 1
                data[at + index * size : at + (index + 1) * size] = number.to_bytes(size, "little")
        return bytes(data)


def lay_out(test: LitmusTest) -> Layout:
    """Place every variable that the test declares or uses, each on cache lines of its own. Raises LitmusError."""
    variables = dict(test.variables)
    for name in _addressed(test):
        variables.setdefault(name, Variable(name))
    for thread in test.threads:
        labels = {label for cell in thread for label in cell.labels}
        for cell in thread:
            for name, size_bytes in _names_in(test, cell.text, cell.line, labels):
                variable = variables.setdefault(name, Variable(name))
                if not variable.declared:
                    variable.size_bytes = max(variable.size_bytes, size_bytes)
    slots, address = {}, BASE
    for name, variable in sorted(variables.items()):
        slots[name] = Slot(variable, address)
        size_bytes = variable.size_bytes * len(variable.values)
        address += -(-size_bytes // LINE_BYTES) * LINE_BYTES
    data_bytes = max(-(-(address - BASE) // PAGE_BYTES), 1) * PAGE_BYTES
    if data_bytes > DATA_BYTES_MAX:
        raise LitmusError(test.path, 0, f"variables take {data_bytes:,} bytes; the most is {DATA_BYTES_MAX:,}")
    return Layout(slots, data_bytes)


def _addressed(test: LitmusTest) -> list[str]:
    """Variables whose address is an initial value."""
    values = [start.value for start in test.registers]
    values += [value for variable in test.variables.values() for value in variable.values]
    return [value.variable for value in values if isinstance(value, AddressOf)]


def _names_in(test: LitmusTest, text: str, line: int, labels: set[str]) -> list[tuple[str, int]]:
    if not text:
        return []
    return blamed(test.path, line, text, lambda: variables_of(text, test.bits, labels))


def blamed(path: str, line: int, text: str, work: Callable[[], T]) -> T:
    """Do `work` and turn an OperandError into a LitmusError at this instruction."""
    try:
        return work()
    except OperandError as error:
        raise LitmusError(path, line, f"`{text}`: {error}") from None
