"""Positions as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from machine.errors import UsageError

_FORMS: Final = "@81204, 81,204, 50%, cpu1#350, -30, +30, start, end or ready"
_NUMBER: Final = r"\d{1,3}(?:,\d{3})+|\d+"
_STEP: Final = re.compile(rf"@?({_NUMBER})", re.ASCII)
_RELATIVE: Final = re.compile(rf"([+-])({_NUMBER})", re.ASCII)
_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?)%", re.ASCII)
_RETIRED: Final = re.compile(rf"cpu(\d+)#({_NUMBER})", re.ASCII)


def parse_position(
    text: str, *, current: int, last: int, ready: int, cpus: int, retired: Callable[[int, int], int | None]
) -> int:
    """The position that `text` names on a tape with positions 0 to `last`.

    Args:
        current: where relative positions start.
        ready: position of `ready`.
        retired: (cpu, count) -> first position at which that CPU has completed so many instructions, or None.
    Raises UsageError if it does not parse or lies outside the tape.
    """
    word = text.strip()
    names = {"start": 0, "end": last, "ready": ready}
    if word in names:
        return _inside(word, names[word], last)
    if found := _STEP.fullmatch(word):
        return _inside(word, _number(found[1]), last)
    if found := _RELATIVE.fullmatch(word):
        count = _number(found[2])
        return _inside(word, current + count if found[1] == "+" else current - count, last)
    if found := _PERCENT.fullmatch(word):
        percent = float(found[1])
        if percent > 100:
            raise UsageError(f"position {word} is outside the tape")
        return min(round(last * percent / 100), last)
    if found := _RETIRED.fullmatch(word):
        cpu, count = int(found[1]), _number(found[2])
        if cpu >= cpus:
            raise UsageError(f"there is no cpu{cpu}; the tape has {cpus} CPU" + "s" * (cpus > 1))
        step = retired(cpu, count)
        if step is None:
            raise UsageError(f"cpu{cpu} does not complete {count} instructions on this tape")
        return step
    raise UsageError(f"no position: {text!r}; write {_FORMS}")


def _number(digits: str) -> int:
    return int(digits.replace(",", ""))


def _inside(word: str, step: int, last: int) -> int:
    if not 0 <= step <= last:
        raise UsageError(f"position {word} is outside the tape, which goes from 0 to {last}")
    return step
