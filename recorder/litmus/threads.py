"""What both ways to run a test share: interned states, steps, runs of local instructions.

A state of the whole test is a key: a tuple of numbers, one for each thread and one for memory, each standing for the
exact registers, store buffer or bytes. Equal keys are equal states, so dropping a state already seen loses nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from recorder.litmus.assembler import ThreadCode
from recorder.litmus.instructions import Instruction, Kind

T = TypeVar("T", bound=Hashable)
Key = tuple[int, ...]


class Interned(Generic[T]):
    """Numbers for values: equal values, equal numbers."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []

    def number(self, value: T) -> int:
        """The number of a value, new if it has none."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __getitem__(self, number: int) -> T:
        return self._values[number]


class Store(NamedTuple):
    """A store on its way to memory."""

    address: int
    size_bytes: int
    value: int


class ThreadState(NamedTuple):
    """Exact state of a thread: instruction pointer, flags, general registers in order, held stores, oldest first.

    partial: what the instruction at `rip` has loaded in earlier steps.
    """

    rip: int
    rflags: int
    registers: tuple[int, ...]
    stores: tuple[Store, ...] = ()
    partial: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a schedule. `drained` is the store that reached memory, None for an instruction.

    partial: the instruction has made one of its loads and goes on in the thread's next step.
    """

    thread: int
    instruction: Instruction | None
    drained: Store | None = None
    partial: bool = False


class Runs:
    """For each instruction of a thread, how many from there on may run without a scheduling point.

    The run ends behind an instruction after which the machine must be looked at again: a branch, and in `split` mode
    also a store, which has to drain before the thread goes on.
    """

    def __init__(self, code: ThreadCode, *, stores: bool, split: bool) -> None:
        """`stores`: whether a plain store needs no scheduling point."""
        self._count: dict[int, int] = {}
        following = 0
        for address, row in reversed(code.instructions.items()):
            match row.kind:
                case Kind.LOCAL:
                    following += 1
                case Kind.BRANCH:
                    following = 1
                case Kind.STORE if stores:
                    following = 1 if split else following + 1
                case _:
                    following = 0
            self._count[address] = following

    def at(self, rip: int) -> int:
        """Length of the run of local instructions that begins at `rip`."""
        return self._count.get(rip, 0)
