"""Propositions over final states: their form and their truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RegisterPlace:
    """Register `name` (lower case, any part of a register) of the thread the file calls P`thread`."""

    thread: int
    name: str


@dataclass(frozen=True, slots=True)
class MemoryPlace:
    """Cell `index` of a shared variable; `is_cell` where the file writes the index."""

    variable: str
    index: int = 0
    is_cell: bool = False


Place = RegisterPlace | MemoryPlace


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: int


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a shared variable."""

    variable: str


@dataclass(frozen=True, slots=True)
class Equal:
    """`place` holds the value that `other` is or holds, in as many bytes as both have."""

    place: Place
    other: Place | Number | Address
    line: int


@dataclass(frozen=True, slots=True)
class Truth:
    """True or false whatever the state."""

    value: bool


@dataclass(frozen=True, slots=True)
class Not:
    """Negation."""

    inner: Proposition


@dataclass(frozen=True, slots=True)
class And:
    """Conjunction."""

    parts: tuple[Proposition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Disjunction."""

    parts: tuple[Proposition, ...]


Proposition = Equal | Truth | Not | And | Or

Reader = Callable[[Place | Number | Address], tuple[int, int]]
"""Gives (value, size in bytes) of a place in some state; the size of a constant is 16."""


def equations(proposition: Proposition) -> Iterator[Equal]:
    """Every equation in a proposition."""
    match proposition:
        case Equal():
            yield proposition
        case Not(inner):
            yield from equations(inner)
        case And(parts) | Or(parts):
            for part in parts:
                yield from equations(part)
        case Truth():
            pass


def holds(proposition: Proposition, read: Reader) -> bool:
    """Whether a proposition is true in the state that `read` reads."""
    match proposition:
        case Truth(value):
            return value
        case Not(inner):
            return not holds(inner, read)
        case And(parts):
            return all(holds(part, read) for part in parts)
        case Or(parts):
            return any(holds(part, read) for part in parts)
        case Equal(place, other):
            (one, one_size), (two, two_size) = read(place), read(other)
            return not (one - two) & ((1 << 8 * min(one_size, two_size)) - 1)
