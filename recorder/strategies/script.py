"""Script: a schedule in words, a choice a line (or several with `;` between), and the default schedule behind the last.

    cpu0 runs to mm/compaction.c:412            up to where the code of that line begins, when it next comes there
    cpu0 runs to isolate_lru_pages, 3rd time    a function's beginning, and not the first time from here on
    cpu1 runs 3 instructions
    cpu1 runs until it waits                    halts, or says by PAUSE that it waits for others
    cpu0's store to shared.sum drains           its oldest to that variable reaches memory, after those before it

These say the same when the guest is compiled again and other code has changed. What follows is exact:

    cpu0 runs 1204            cpu0 takes 1204 steps, fewer if it has to wait before
    cpu1 drains 1             its oldest store reaches memory
    cpu0 takes interrupt 64
    cpu0 is answered 1        at the choice port
    cpu0 loses 0xc0101000     the translation of that page

With `, stores held` behind any `runs`, its stores stay in its buffer. What stands behind `#`, and empty lines, say
nothing. A choice that is impossible when its turn comes is passed over, as is a place that the CPU does not come to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from machine import Machine
from machine.errors import UsageError
from machine.symbols import Symbols
from recorder.places import STEPS_MAX, Places
from recorder.schedule import FOREVER, auto
from traces.schema import HOLD, ON, RECORD, Op, RecordArray

_HELD: Final = r"(?P<held>, stores held)?"
_EXACT: Final = (
    (Op.RUN, re.compile(r"runs (?P<arg>\d+)" + _HELD)),
    (Op.DRAIN, re.compile(r"drains (?P<arg>\d+)")),
    (Op.IRQ, re.compile(r"takes interrupt (?P<arg>\d+)")),
    (Op.CHOICE, re.compile(r"is answered (?P<arg>\d+)")),
    (Op.EVICT, re.compile(r"loses (?P<arg>0x[0-9a-f]+)")),
)
_WAITS: Final = re.compile(r"runs until it waits" + _HELD)
_TO: Final = re.compile(
    r"runs to (?P<place>[\w./+-]+:\d+|[A-Za-z_]\w*)(?:, (?P<times>[1-9]\d*)(?:st|nd|rd|th) time)?" + _HELD
)
_INSTRUCTIONS: Final = re.compile(r"runs (?P<count>\d+) instructions?" + _HELD)
_STORE: Final = re.compile(r"'s store to (?P<name>\S.*) drains")
_LINE: Final = re.compile(r"cpu(?P<cpu>\d+)(?P<rest>'s store .*| .*)")
_ARG_MAX: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class RunTo:
    """`cpu` runs until it comes to `place` (a function or file:line) for the `times`-th time."""

    cpu: int
    place: str
    times: int = 1
    hold: bool = False

    def __str__(self) -> str:
        times = f", {ordinal(self.times)} time" if self.times > 1 else ""
        return f"cpu{self.cpu} runs to {self.place}{times}{_held(self.hold)}"

    def record(self, places: Places) -> tuple[int, int, int, int, int] | None:
        """What it is where the machine stands now; None if nothing."""
        steps = places.steps_to(self.cpu, places.addresses(self.place), self.times, hold=self.hold)
        return (Op.RUN, self.cpu, _flags(self.hold), 0, steps) if steps else None


@dataclass(frozen=True, slots=True)
class RunInstructions:
    """`cpu` runs `count` instructions."""

    cpu: int
    count: int
    hold: bool = False

    def __str__(self) -> str:
        return f"cpu{self.cpu} runs {self.count} instruction{'' if self.count == 1 else 's'}{_held(self.hold)}"

    def record(self, places: Places) -> tuple[int, int, int, int, int] | None:
        """What it is where the machine stands now; None if nothing."""
        steps = places.steps_of(self.cpu, self.count, hold=self.hold)
        return (Op.RUN, self.cpu, _flags(self.hold), 0, steps) if steps else None


@dataclass(frozen=True, slots=True)
class StoreDrains:
    """The oldest held store of `cpu` to what `name` names drains, and those before it."""

    cpu: int
    name: str

    def __str__(self) -> str:
        return f"cpu{self.cpu}'s store to {self.name} drains"

    def record(self, places: Places) -> tuple[int, int, int, int, int] | None:
        """What it is where the machine stands now; None if nothing."""
        stores = places.store_to(self.cpu, self.name)
        return (Op.DRAIN, self.cpu, 0, 0, stores) if stores else None


@dataclass(frozen=True, slots=True)
class Exact:
    """One plan record."""

    row: tuple[int, int, int, int, int]

    @property
    def cpu(self) -> int:
        """Whose choice it is."""
        return self.row[1]

    def __str__(self) -> str:
        return script_line(np.array([self.row], RECORD)[0])

    def record(self, places: Places) -> tuple[int, int, int, int, int] | None:
        """Itself."""
        return self.row


Choice = RunTo | RunInstructions | StoreDrains | Exact


class Script:
    """See the module.

    Args:
        what: what to do first: choices, or records of dtype `RECORD`; RUN, DRAIN, IRQ, CHOICE and EVICT.
        symbols: of the guest, for choices that name a place.
    """

    name = "script"
    exact = False
    visible = False
    stop = "steps"

    def __init__(self, what: RecordArray | Sequence[Choice], symbols: Symbols | None = None) -> None:
        self._symbols = symbols
        self._choices: Sequence[Choice] = ()
        if isinstance(what, np.ndarray):
            self.records: RecordArray = what
        else:
            self.records = np.empty(0, RECORD)
            self._choices = what

    def new_run(self, machine: Machine, seed: int) -> None:
        """Find out where the places are, and start with the first line; the seed has no meaning."""
        if self._choices:
            self.records = resolve(machine, self._choices, self._symbols)
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


def resolve(machine: Machine, choices: Sequence[Choice], symbols: Symbols | None) -> RecordArray:
    """The records that the choices are from where the machine stands, which it does afterwards, too.

    Raises UsageError for a place that the image does not have.
    """
    if all(isinstance(choice, Exact) for choice in choices):
        return np.array([choice.row for choice in choices if isinstance(choice, Exact)], RECORD)
    if symbols is None:
        raise UsageError("the script names places: that takes the guest's symbols")
    places, rows = Places(machine, symbols), []
    with places.ahead():
        for choice in choices:
            row = choice.record(places)
            if row is not None:
                rows.append(row)
                machine.execute(np.array([row], RECORD).tobytes(), step_max=machine.step + STEPS_MAX)
    return np.array(rows, RECORD)


def parse_choices(text: str, cpus: int) -> list[Choice]:
    """What `text` says. Raises UsageError with the line that is wrong."""
    choices = []
    for number, said in _said(text):
        choice = _choice(said)
        if choice is None:
            raise UsageError(f"line {number} of the script: {said!r} is no choice; say `cpu0 runs 100` or the like")
        if choice.cpu >= cpus:
            raise UsageError(f"line {number} of the script: there is no cpu{choice.cpu}, the machine has {cpus}")
        value = _number(choice)
        if value >= _ARG_MAX:
            raise UsageError(f"line {number} of the script: {value} is out of range")
        choices.append(choice)
    return choices


def parse_script(text: str, cpus: int) -> RecordArray:
    """The records that `text` says, which names no places. Raises UsageError with the line that is wrong."""
    choices = parse_choices(text, cpus)
    for choice in choices:
        if not isinstance(choice, Exact):
            raise UsageError(f"{str(choice)!r} names a place: that is not known here")
    return np.array([choice.row for choice in choices if isinstance(choice, Exact)], RECORD)


def _said(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        for part in line.split("#")[0].split(";"):
            said = " ".join(part.split())
            if said:
                yield number, said


def _number(choice: Choice) -> int:
    """How much, or how often."""
    if isinstance(choice, Exact):
        return choice.row[4]
    if isinstance(choice, RunTo):
        return choice.times
    return choice.count if isinstance(choice, RunInstructions) else 0


def _choice(said: str) -> Choice | None:
    line = _LINE.fullmatch(said)
    if line is None or len(line["cpu"]) > 1:
        return None
    cpu, rest = int(line["cpu"]), line["rest"].removeprefix(" ")
    if match := _STORE.fullmatch(rest):
        return StoreDrains(cpu, match["name"])
    if match := _INSTRUCTIONS.fullmatch(rest):
        return RunInstructions(cpu, int(match["count"]), bool(match["held"]))
    if match := _TO.fullmatch(rest):
        return RunTo(cpu, match["place"], int(match["times"] or 1), bool(match["held"]))
    if match := _WAITS.fullmatch(rest):
        return Exact((Op.RUN, cpu, HOLD if match["held"] else 0, 0, FOREVER))
    for op, form in _EXACT:
        if match := form.fullmatch(rest):
            flags = _flags(bool(match["held"])) if op == Op.RUN else 0
            return Exact((op, cpu, flags, 0, int(match["arg"], 0)))
    return None


def script_line(record: np.void) -> str:
    """A record in words."""
    op, arg, flags = int(record["op"]), int(record["arg"]), int(record["flags"])
    runs = f"runs {arg}" if flags & ON or arg != FOREVER else "runs until it waits"
    what = {
        Op.RUN: runs + _held(bool(flags & HOLD)),
        Op.DRAIN: f"drains {arg}",
        Op.IRQ: f"takes interrupt {arg}",
        Op.CHOICE: f"is answered {arg}",
        Op.EVICT: f"loses {arg:#x}",
    }[Op(op)]
    return f"cpu{int(record['cpu'])} {what}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    tail = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{tail}"


def _held(hold: bool) -> str:
    return ", stores held" if hold else ""


def _flags(hold: bool) -> int:
    return ON | HOLD if hold else ON
