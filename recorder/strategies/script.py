"""Script: a schedule in words, one choice a line, and the default schedule behind the last.

    cpu0 runs 1204            cpu0 takes 1204 steps, fewer if it has to wait before
    cpu1 runs 3, stores held  its stores stay in its buffer
    cpu1 drains 1             its oldest store reaches memory
    cpu0 takes interrupt 64
    cpu0 is answered 1        at the choice port
    cpu0 loses 0xc0101000     the translation of that page

What stands behind `#`, and empty lines, say nothing. A choice that is impossible when its turn comes is passed over.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from machine import Machine
from machine.errors import UsageError
from recorder.schedule import auto
from traces.schema import HOLD, ON, RECORD, Op, RecordArray

_FORMS: Final = (
    (Op.RUN, HOLD | ON, re.compile(r"runs (?P<arg>\d+), stores held")),
    (Op.RUN, ON, re.compile(r"runs (?P<arg>\d+)")),
    (Op.DRAIN, 0, re.compile(r"drains (?P<arg>\d+)")),
    (Op.IRQ, 0, re.compile(r"takes interrupt (?P<arg>\d+)")),
    (Op.CHOICE, 0, re.compile(r"is answered (?P<arg>\d+)")),
    (Op.EVICT, 0, re.compile(r"loses (?P<arg>0x[0-9a-f]+)")),
)
_LINE: Final = re.compile(r"cpu(?P<cpu>\d+) +(?P<rest>.*)")


class Script:
    """See the module.

    Args:
        records: what to do first, dtype `RECORD`; RUN, DRAIN, IRQ, CHOICE and EVICT.
    """

    name = "script"
    exact = False
    visible = False
    stop = "steps"

    def __init__(self, records: RecordArray) -> None:
        self.records = records

    def new_run(self, machine: Machine, seed: int) -> None:
        """Start with the first line; the seed has no meaning."""
        self._begun = False

    def choose(self, machine: Machine) -> RecordArray:
        """All lines, then the default schedule."""
        if self._begun:
            return auto()
        self._begun = True
        return np.concatenate([self.records, auto()])

    def answer(self, machine: Machine, cpu: int) -> int:
        """Always the first alternative."""
        return 0


def parse_script(text: str, cpus: int) -> RecordArray:
    """The records that `text` says. Raises UsageError with the line that is wrong."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        said = " ".join(line.split("#")[0].split())
        if not said:
            continue
        row = _record(said)
        if row is None:
            raise UsageError(f"line {number} of the script: {said!r} is no choice; say `cpu0 runs 100` or the like")
        if row[1] >= cpus:
            raise UsageError(f"line {number} of the script: there is no cpu{row[1]}, the machine has {cpus}")
        if row[4] >= 1 << 62:
            raise UsageError(f"line {number} of the script: {row[4]} is out of range")
        rows.append(row)
    return np.array(rows, RECORD)


def _record(said: str) -> tuple[int, int, int, int, int] | None:
    line = _LINE.fullmatch(said)
    if line is None or len(line["cpu"]) > 1:
        return None
    for op, flags, form in _FORMS:
        if match := form.fullmatch(line["rest"]):
            return op, int(line["cpu"]), flags, 0, int(match["arg"], 0)
    return None


def script_line(record: np.void) -> str:
    """A record in words."""
    op, arg = int(record["op"]), int(record["arg"])
    what = {
        Op.RUN: f"runs {arg}" + (", stores held" if int(record["flags"]) & HOLD else ""),
        Op.DRAIN: f"drains {arg}",
        Op.IRQ: f"takes interrupt {arg}",
        Op.CHOICE: f"is answered {arg}",
        Op.EVICT: f"loses {arg:#x}",
    }[Op(op)]
    return f"cpu{int(record['cpu'])} {what}"
