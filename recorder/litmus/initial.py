"""The initial state of a litmus test: `{ int x; uint64_t y = 1; int64_t t[2] = {1, 2}; 0:rax=5; 1:rdi=x; }`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from recorder.litmus.errors import LitmusError
from recorder.litmus.program import AddressOf, RegisterStart, Value, Variable
from recorder.litmus.registers import part
from recorder.litmus.tokens import Token, Tokens

CELLS_MAX: Final = 1024
"""Most cells of an array."""

_SIZES: Final = {
    "char": 1, "short": 2, "int": 4, "__int128": 16, "__uint128": 16, "unsigned": 4, "signed": 4, "bool": 1, "_Bool": 1,
    "int8_t": 1, "int16_t": 2, "int32_t": 4, "int64_t": 8, "uint8_t": 1, "uint16_t": 2, "uint32_t": 4, "uint64_t": 8,
    "__int128_t": 16, "__uint128_t": 16, "atomic_int": 4, "atomic_char": 1, "atomic_short": 2,
}  # fmt: skip
_POINTER_WIDE: Final = {"long", "intptr_t", "uintptr_t", "size_t", "ptrdiff_t", "atomic_long"}
_IGNORED: Final = {"volatile", "const", "_Atomic", "static"}


def parse_initial(tokens: Tokens, bits: int) -> tuple[dict[str, Variable], list[RegisterStart]]:
    """Shared variables by name, and initial registers. Raises LitmusError."""
    variables: dict[str, Variable] = {}
    registers: dict[tuple[int, str], RegisterStart] = {}
    while tokens.next.kind != "end":
        if tokens.take_if(";"):
            continue
        line = tokens.next.line
        size_bytes = _type(tokens, bits)
        thread = _thread(tokens)
        if thread is not None:
            start = _register(tokens, thread, size_bytes, bits)
            before = registers.get((start.thread, start.register))
            if before and not size_bytes:
                start = replace(start, size_bytes=before.size_bytes)
            registers[start.thread, start.register] = start
        else:
            _variable(tokens, variables, size_bytes, bits // 8, line)
        if tokens.next.kind != "end":
            tokens.expect(";")
    return variables, list(registers.values())


def _type(tokens: Tokens, bits: int) -> int:
    """Takes the type in front; its size in bytes, 0 if there is none."""
    words: list[Token] = []
    while tokens.next.kind == "name" and _goes_on(tokens):
        words.append(tokens.take())
    names = [word.text for word in words if word.text not in _IGNORED]
    stars = 0
    while tokens.take_if("*"):
        stars += 1
    if stars:
        return bits // 8
    if not words:
        return 0
    if names == ["long", "long"] or names == ["unsigned", "long", "long"]:
        return 8
    sizes = []
    for word in words:
        if word.text in _IGNORED:
            continue
        size_bytes = bits // 8 if word.text in _POINTER_WIDE else _SIZES.get(word.text)
        if size_bytes is None:
            raise LitmusError(tokens.path, word.line, f"unknown type {word.text!r}")
        sizes.append(size_bytes)
    if not sizes:
        return 4
    plain = [size for size, name in zip(sizes, names, strict=True) if name not in ("unsigned", "signed", "int")]
    return plain[0] if plain else 4


def _goes_on(tokens: Tokens) -> bool:
    """Whether the name in front is a word of a type: what it types follows."""
    following, second = tokens.ahead(1), tokens.ahead(2)
    if following.kind == "name" or following.text == "*":
        return True
    if following.kind == "number":
        return second.text == ":"
    return following.text == "[" and second.kind == "name"


def _thread(tokens: Tokens) -> int | None:
    """Takes `0:` or `P0:`; the thread's number, or None if no register follows."""
    if tokens.ahead(1).text != ":":
        return None
    if tokens.next.kind == "number":
        number = tokens.number()
    elif match := re.fullmatch(r"P(\d+)", tokens.next.text):
        tokens.take()
        number = int(match[1])
    else:
        raise tokens.error("expected a thread's number before `:`")
    tokens.expect(":")
    return number


def _register(tokens: Tokens, thread: int, size_bytes: int, bits: int) -> RegisterStart:
    line = tokens.next.line
    name = tokens.name().lstrip("%")
    found = part(name, bits)
    if found is None or found.shift:
        raise LitmusError(tokens.path, line, f"{name!r} is no register of {bits}-bit code")
    value: Value = 0
    if tokens.take_if("="):
        value = _value(tokens)
    if isinstance(value, int):
        _check_range(tokens.path, line, name, value, found.size_bytes)
        value &= (1 << 8 * found.size_bytes) - 1
    return RegisterStart(thread, found.register, value, size_bytes)


def _variable(tokens: Tokens, variables: dict[str, Variable], size_bytes: int, pointer_bytes: int, line: int) -> None:
    bracket = tokens.take_if("[")
    name = tokens.name()
    if bracket:
        tokens.expect("]")
    variable = variables.setdefault(name, Variable(name))
    if size_bytes:
        variable.size_bytes, variable.declared = size_bytes, True
    if tokens.next.text == "[":
        tokens.take()
        count = tokens.number()
        tokens.expect("]")
        if not 1 <= count <= CELLS_MAX:
            raise LitmusError(tokens.path, line, f"array {name!r} must have 1 to {CELLS_MAX} cells")
        variable.is_array, variable.values = True, [0] * count
        variable.declared = True
        if tokens.take_if("="):
            variable.values = _braced(tokens)
            if len(variable.values) != count:
                raise LitmusError(tokens.path, line, f"array {name!r} has {count} cells, not {len(variable.values)}")
    elif tokens.take_if("="):
        variable.values = [_value(tokens)]
        if isinstance(variable.values[0], AddressOf) and not variable.declared:
            variable.size_bytes, variable.declared = pointer_bytes, True
    for value in variable.values:
        if isinstance(value, int):
            if not variable.declared and not -(1 << 31) <= value < 1 << 32:
                variable.size_bytes = 8
            _check_range(tokens.path, line, name, value, variable.size_bytes)


def _braced(tokens: Tokens) -> list[Value]:
    tokens.expect("{")
    values = [_value(tokens)]
    while tokens.take_if(","):
        values.append(_value(tokens))
    tokens.expect("}")
    return values


def _value(tokens: Tokens) -> Value:
    if tokens.next.kind == "number":
        return tokens.number()
    tokens.take_if("&")
    return AddressOf(tokens.name())


def _check_range(path: str, line: int, name: str, value: int, size_bytes: int) -> None:
    if not -(1 << 8 * size_bytes - 1) <= value < 1 << 8 * size_bytes:
        raise LitmusError(path, line, f"{value} does not fit into the {size_bytes} bytes of {name}")
