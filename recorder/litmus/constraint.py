"""What a litmus test asks at the end: `locations [...]`, `filter P`, then `exists P`, `~exists P` or `forall P`.

As in herd, `\\/` binds weakest, then `/\\`, then `=>` (to the right), then `~` or `not`. On the right of `=`, a plain
name is the address of that variable, `[x]` or `*x` what it holds.
"""

from __future__ import annotations

import re
from typing import Final

from recorder.litmus.condition import (
    Address,
    And,
    Equal,
    MemoryPlace,
    Not,
    Number,
    Or,
    Place,
    Proposition,
    RegisterPlace,
    Truth,
)
from recorder.litmus.program import Condition
from recorder.litmus.tokens import Tokens

DEPTH_MAX: Final = 100
"""Deepest nesting of a proposition."""


def parse_constraint(tokens: Tokens) -> tuple[list[tuple[Place, int]], Proposition | None, Condition]:
    """Locations to show with their lines, the filter, and the condition (`exists true` if there is none)."""
    locations = _locations(tokens)
    filter_ = _proposition(tokens, 0) if tokens.take_if("filter") else None
    return locations, filter_, parse_condition(tokens)


def parse_condition(tokens: Tokens) -> Condition:
    """A quantified proposition up to the end of the text. Raises LitmusError."""
    line = tokens.next.line
    if tokens.next.kind == "end":
        return Condition("exists", Truth(True), "exists true", line)
    quantifier = _quantifier(tokens)
    first = tokens.next.offset
    proposition = _proposition(tokens, 0)
    last = tokens.next.offset
    tokens.take_if(";")
    if tokens.next.kind != "end":
        raise tokens.error("nothing may follow the condition")
    return Condition(quantifier, proposition, f"{quantifier} {' '.join(tokens.text[first:last].split())}", line)


def _quantifier(tokens: Tokens) -> str:
    if tokens.take_if("exists", "final"):
        return "exists"
    if tokens.take_if("forall"):
        return "forall"
    if tokens.take_if("~", "not"):
        tokens.expect("exists")
        return "~exists"
    if tokens.next.text == "(":
        return "exists"
    raise tokens.error("expected exists, ~exists or forall")


def _locations(tokens: Tokens) -> list[tuple[Place, int]]:
    places: list[tuple[Place, int]] = []
    if not tokens.take_if("locations"):
        return places
    tokens.expect("[")
    while not tokens.take_if("]"):
        line = tokens.next.line
        places.append((_place(tokens), line))
        while tokens.next.kind == "name" or tokens.next.text == "*":
            tokens.take()  # a type says how herd prints the value: here every value is a number
        if tokens.next.text != "]":
            tokens.expect(";")
    return places


def _proposition(tokens: Tokens, depth: int) -> Proposition:
    if depth > DEPTH_MAX:
        raise tokens.error(f"nested deeper than {DEPTH_MAX}")
    parts = [_conjunction(tokens, depth)]
    while tokens.take_if("\\/"):
        parts.append(_conjunction(tokens, depth))
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def _conjunction(tokens: Tokens, depth: int) -> Proposition:
    parts = [_implication(tokens, depth)]
    while tokens.take_if("/\\"):
        parts.append(_implication(tokens, depth))
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _implication(tokens: Tokens, depth: int) -> Proposition:
    parts = [_negation(tokens, depth)]
    while tokens.take_if("=>"):
        parts.append(_negation(tokens, depth))
    return Or((*(Not(part) for part in parts[:-1]), parts[-1])) if len(parts) > 1 else parts[0]


def _negation(tokens: Tokens, depth: int) -> Proposition:
    negated = False
    while tokens.take_if("~", "not"):
        negated = not negated
    inner = _primary(tokens, depth)
    return Not(inner) if negated else inner


def _primary(tokens: Tokens, depth: int) -> Proposition:
    if tokens.take_if("("):
        inner = _proposition(tokens, depth + 1)
        tokens.expect(")")
        return inner
    if tokens.next.text in ("true", "false") and tokens.ahead(1).text not in ("=", "==", "!=", "<>"):
        return Truth(tokens.take().text == "true")
    if tokens.next.text in ("fault", "Fault"):
        raise tokens.error("conditions on faults are not supported")
    line = tokens.next.line
    place = _place(tokens)
    if tokens.take_if("!=", "<>"):
        return Not(Equal(place, _right(tokens), line))
    if not tokens.take_if("=="):
        tokens.expect("=")
    return Equal(place, _right(tokens), line)


def _place(tokens: Tokens) -> Place:
    if tokens.ahead(1).text == ":":
        if match := re.fullmatch(r"P?(\d+)", tokens.next.text):
            tokens.take()
            tokens.expect(":")
            return RegisterPlace(int(match[1]), tokens.name().lstrip("%").lower())
        raise tokens.error("expected a thread's number before `:`")
    if tokens.take_if("["):
        name = tokens.name()
        tokens.expect("]")
        return MemoryPlace(name)
    tokens.take_if("*")
    name = tokens.name()
    if tokens.next.text == "[" and tokens.ahead(1).kind == "number":
        tokens.take()
        index = tokens.number()
        tokens.expect("]")
        return MemoryPlace(name, index, True)
    return MemoryPlace(name)


def _right(tokens: Tokens) -> Place | Number | Address:
    if tokens.next.kind == "number" and tokens.ahead(1).text != ":":
        return Number(tokens.number())
    if tokens.take_if("&"):
        return Address(tokens.name())
    is_content = tokens.next.text in ("[", "*") or tokens.ahead(1).text in (":", "[")
    place = _place(tokens)
    if isinstance(place, MemoryPlace) and not is_content:
        return Address(place.variable)
    return place
