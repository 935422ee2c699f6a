"""Reading command arguments: counts, format letters, completions. No commands here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from machine.errors import UsageError

if TYPE_CHECKING:
    from debugger.session import Session

COUNT_MAX: Final = 1 << 40
"""Largest count a command takes."""
UNITS: Final = {"b": 1, "h": 2, "w": 4, "g": 8}
"""gdb's unit letters: size in bytes."""

_FORMAT = re.compile(r"/(?P<count>\d*)(?P<letters>[a-z]*)(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Format:
    """What follows a slash: `4xw` is count 4, letter x, 4 bytes. None where it was not said."""

    count: int | None
    letter: str | None
    size_bytes: int | None


def count_of(text: str, command: str, default: int = 1) -> int:
    """A decimal count, `default` if there is none. Raises UsageError."""
    digits = text.strip().replace(",", "")
    if not digits:
        return default
    if not (digits.isascii() and digits.isdigit()) or not 1 <= int(digits) <= COUNT_MAX:
        raise UsageError(f"{command}: '{text.strip()}' is no count")
    return int(digits)


def take_format(text: str, letters: str, command: str) -> tuple[Format, str]:
    """(format, rest) of `/NFU rest`; `letters` are the format letters allowed. Raises UsageError."""
    if not text.startswith("/"):
        return Format(None, None, None), text
    match = _FORMAT.match(text)
    if match is None:
        raise UsageError(f"{command}: '{text.split()[0]}' is no format; write {command}/NFU as in {command}/8xw")
    letter: str | None = None
    size_bytes: int | None = None
    for char in match["letters"]:
        if char in UNITS:
            size_bytes = UNITS[char]
        elif char in letters:
            letter = char
        else:
            raise UsageError(f"{command}: no format '{char}'; formats are {' '.join(letters)}, units b h w g")
    return Format(int(match["count"]) if match["count"] else None, letter, size_bytes), text[match.end() :]


def nothing(text: str, command: str) -> None:
    """Raise UsageError if there are arguments."""
    if text.strip():
        raise UsageError(f"{command} takes no arguments; got '{text.strip()}'")


def complete_symbol(session: Session, word: str) -> Iterable[str]:
    """Names of variables and functions that begin like `word`."""
    return (name for name in session.symbols.symbol_names() if name.startswith(word)) if word else ()


def complete_position(_session: Session, _word: str) -> Iterable[str]:
    """The named positions."""
    return ("start", "ready", "end")
