"""A litmus test as data: what the file says, nothing computed yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from recorder.litmus.condition import Place, Proposition

ARCHITECTURES: Final = {"X86": 32, "X86_64": 64}
"""herd's name of an architecture -> width of its code in bits."""

LINE_BYTES: Final = 64
"""Size of a cache line: every variable starts on one of its own."""


@dataclass(frozen=True, slots=True)
class AddressOf:
    """The address of a shared variable, as a value."""

    variable: str


Value = int | AddressOf


@dataclass(slots=True)
class Variable:
    """A shared variable: `count` cells of `size_bytes` each (count 1: a scalar).

    `declared` is False where the test gives no type; the variable is then an int as in herd, or as wide as the widest
    access to it.
    """

    name: str
    size_bytes: int = 4
    is_array: bool = False
    values: list[Value] = field(default_factory=lambda: [0])
    declared: bool = False


@dataclass(frozen=True, slots=True)
class RegisterStart:
    """Initial value of a thread's register; `size_bytes` is that of its declared type, 0 without one."""

    thread: int
    register: str
    value: Value
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the table of instructions: its labels, its instruction (maybe none), its line in the file."""

    labels: tuple[str, ...]
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Condition:
    """What the test asks at the end. `quantifier` is "exists", "~exists" or "forall"."""

    quantifier: str
    proposition: Proposition
    text: str
    line: int


@dataclass(slots=True)
class LitmusTest:
    """One file, parsed. `threads[i]` is the thread that the file calls P`thread_names[i]`."""

    path: str
    name: str
    bits: int
    info: dict[str, str]
    variables: dict[str, Variable]
    registers: list[RegisterStart]
    thread_names: list[int]
    threads: list[list[Cell]]
    condition: Condition
    filter: Proposition | None
    locations: list[tuple[Place, int]]

    def thread_index(self, name: int) -> int | None:
        """Position of thread P`name`, or None."""
        return self.thread_names.index(name) if name in self.thread_names else None
