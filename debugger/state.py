"""The plain data of a session: what is watched, where `list` and `x` go on, why a run stopped."""

from __future__ import annotations

from dataclasses import dataclass, field

from machine.symbols import Lvalue
from traces import Event


@dataclass
class Watch:
    """A watched place in memory.

    Attributes:
        number: its name in commands.
        lvalue: the place as linear address.
        phys: physical address of its first byte when the watch was set; this is what is watched.
        hits: stops so far.
    """

    number: int
    lvalue: Lvalue
    phys: int
    hits: int = 0


@dataclass
class Listing:
    """Where `list` goes on: the next line of `file` forwards, and the first line shown last."""

    file: str = ""
    next_line: int = 0
    first_line: int = 0


@dataclass
class Examination:
    """What a bare `x` goes on with: gdb's count, format letter, unit in bytes, and the next address."""

    format: str = "x"
    size_bytes: int = 4
    address: int = 0


@dataclass
class Hit:
    """One stop at a watched place: the write, and the value before and after it."""

    watch: Watch
    event: Event
    old: int = 0
    new: int = 0


@dataclass
class Stop:
    """Why `continue` or `reverse-continue` ended: hits (several watches may share a write), or an end of the tape."""

    hits: list[Hit] = field(default_factory=list)


def signed(value: int, lvalue: Lvalue) -> int:
    """`value` as the type of `lvalue` shows it."""
    top = 1 << (8 * lvalue.size_bytes - 1)
    return value - 2 * top if lvalue.signed and value & top else value
