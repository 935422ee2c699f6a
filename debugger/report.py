"""What `first-divergence` answers, as data, as JSON and as text for kernel engineers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine.unwind import StackFrame


@dataclass(frozen=True)
class Moment:
    """One event that matters, with the source it belongs to.

    Attributes:
        step: position to seek to: the machine stands before the event, on its instruction.
        cpu: whose event it is.
        function, file, line: innermost source function that is no accounting helper of a header or mm/vmstat.c.
        zone: name of the zone whose counter it is; None for a sum over zones and for other counters.
        value: the counter's value; for a reader, as it sees it.
        expected: the true count, None where there is no ghost.
        pc: linear address of the instruction.
        source: text of the source line, "" if not installed.
        via: helpers between `function` and the instruction, innermost first.
        backtrace: all frames, innermost first.
    """

    step: int
    cpu: int
    function: str
    file: str
    line: int
    zone: str | None
    value: int
    expected: int | None
    pc: int
    source: str = ""
    via: Sequence[StackFrame] = ()
    backtrace: Sequence[StackFrame] = ()

    def json(self) -> dict[str, Any]:
        """Plain data; `expected` only where there is a ghost."""
        found: dict[str, Any] = {
            "step": self.step,
            "cpu": self.cpu,
            "function": self.function,
            "file": self.file,
            "line": self.line,
            "zone": self.zone,
            "value": self.value,
        }
        if self.expected is not None:
            found["expected"] = self.expected
        found["pc"] = self.pc
        found["source"] = self.source
        found["via"] = [frame_json(row) for row in self.via]
        found["backtrace"] = [frame_json(row) for row in self.backtrace]
        return found


@dataclass(frozen=True, slots=True)
class Balance:
    """A counter at the end of the tape: value, true count (None without ghost)."""

    name: str
    zone: str | None
    value: int
    expected: int | None

    @property
    def error(self) -> int:
        """Value minus true count."""
        return 0 if self.expected is None else self.value - self.expected


@dataclass(frozen=True)
class DivergenceReport:
    """The whole answer.

    Attributes:
        counter: as asked for.
        tape: path of the tape.
        smp: whether the guest is an SMP build.
        cpus, steps: of the tape.
        has_ghost: whether the true value is known; without it only negative values can be found.
        ending: why the tape ends before the run does ("the tape is cut"); None: the run ended.
        scope: the one row of `balances` that was asked for ("the global sum", "zone DMA"); None: all of them.
        first_divergence, first_negative, first_misled_reader: None where there is none.
        balances: counters at the end of the tape.
        notes: sentences: the family of the failure, what readers see, what could not be checked.
    """

    counter: str
    tape: Path
    smp: bool
    cpus: int
    steps: int
    first_divergence: Moment | None
    first_negative: Moment | None
    first_misled_reader: Moment | None
    balances: Sequence[Balance] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    has_ghost: bool = True
    ending: str | None = None
    scope: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the tape holds the run to its end."""
        return self.ending is None

    @property
    def found(self) -> bool:
        """Whether anything is wrong."""
        return any((self.first_divergence, self.first_negative, self.first_misled_reader))

    def json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`."""
        moments = (self.first_divergence, self.first_negative, self.first_misled_reader)
        divergence, negative, misled = (row.json() if row else None for row in moments)
        return {
            "counter": self.counter,
            "first_divergence": divergence,
            "first_negative": negative,
            "first_misled_reader": misled,
            "complete": self.complete,
            "has_ghost": self.has_ghost,
            "steps": self.steps,
            "final": [
                {"name": row.name, "zone": row.zone, "value": row.value, "expected": row.expected}
                for row in self.balances
            ],
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """The report as people read it."""
        lines = [*self._headline(), ""]
        lines += self._moment("first divergence", self.first_divergence, self._divergence_values)
        lines += self._moment("first negative", self.first_negative, self._divergence_values)
        lines += self._moment("first misled reader", self.first_misled_reader, self._reader_values)
        lines += self._table()
        lines += [f"note: {row}" for row in self.notes]
        return "\n".join(lines)

    def _headline(self) -> list[str]:
        build = f"{'SMP' if self.smp else 'UP'} build, {self.cpus} CPU{'s' if self.cpus > 1 else ''}"
        on = f"on {self.tape} ({build}, {self.steps:,} steps)"
        until = "" if self.complete else f" up to @{self.steps}, where {self.ending},"
        subject = f"{self.counter}: {self.scope}" if self.scope else self.counter
        if self.found:
            lines = [f"{self.counter} goes wrong {on}"]
            if not self.complete:
                lines.append(f"this is what is known up to @{self.steps}, where {self.ending}")
            return lines
        if not self.has_ghost:
            return [f"no negative value of {self.counter} found (its true value is not known){until} {on}"]
        lines = [f"{subject} stays true {on}" if self.complete else f"{subject} is true{until} {on}"]
        if self.scope:
            others = "zones" if self.scope == "the global sum" else "other rows"
            lines.append(f"(only {self.scope} was asked for; the {others} shown may differ)")
        return lines

    def _moment(self, title: str, moment: Moment | None, values: Any) -> list[str]:
        if moment is None:
            return [f"{title}: none"]
        place = f" at {moment.file}:{moment.line}" if moment.file else ""
        lines = [f"{title}: @{moment.step} cpu{moment.cpu} {moment.function} (){place}", f"    {values(moment)}"]
        if moment.source:
            lines.append(f"    {moment.line:>5}  {moment.source.strip()}")
        if moment.via:
            helpers = ", ".join(f"{row.function} ({row.place})" for row in moment.via)
            lines.append(f"    through {helpers}")
        if title == "first divergence":
            lines += [f"    {row}" for row in backtrace_lines(moment.backtrace)]
        lines.append(f"    racetape debug {shlex.quote(str(self.tape))} -ex 'seek {moment.step}'")
        return lines

    @staticmethod
    def _divergence_values(moment: Moment) -> str:
        where = f"zone {moment.zone}: " if moment.zone else ""
        if moment.expected is None:
            return f"{where}counter {moment.value}"
        error = moment.value - moment.expected
        return f"{where}counter {moment.value}, true count {moment.expected} ({error:+})"

    @staticmethod
    def _reader_values(moment: Moment) -> str:
        where = f"zone {moment.zone}: " if moment.zone else ""
        return f"{where}it reads {moment.value}, true count {moment.expected}"

    def _table(self) -> list[str]:
        if not self.balances:
            return []
        title = "at the end:" if self.complete else f"at @{self.steps}:"
        width = max(len(title), *(len(row.name) for row in self.balances))
        lines = ["", f"{title:<{width}}  counter  true count"]
        for row in self.balances:
            truth = "-" if row.expected is None else str(row.expected)
            error = f"  ({row.error:+})" if row.error else ""
            lines.append(f"{row.name:<{width}}  {row.value:>7}  {truth:>10}{error}")
        return [*lines, ""]


def frame_json(row: StackFrame) -> dict[str, Any]:
    """One frame as plain data."""
    return {"function": row.function, "file": row.file, "line": row.line, "inlined": row.inlined, "pc": row.pc}


def backtrace_lines(frames: Sequence[StackFrame]) -> list[str]:
    """A backtrace as gdb prints it."""
    lines = []
    for number, row in enumerate(frames):
        where = "(inlined) in " if row.inlined else f"{row.pc:#010x} in "
        lines.append(f"#{number:<2} {where}{row.function} ()" + (f" at {row.place}" if row.place else ""))
    return lines


def family(balances: Sequence[Balance], partners: Sequence[Balance]) -> str | None:
    """The kind of accounting failure that the final errors look like; None if nothing is left to see.

    Args:
        balances: zones first, then the global sum (zone None).
        partners: the same of the other class (anonymous for file, file for anonymous), if there is one.
    """
    zones = [row for row in balances if row.zone is not None]
    whole = sum(row.error for row in balances if row.zone is None)
    wrong = [row for row in zones if row.error]
    other = {row.zone: row.error for row in partners}
    if not wrong:
        return None
    shown = ", ".join(f"{row.zone} {row.error:+}" for row in wrong)
    if any(abs(row.error) >= 1 << 31 for row in wrong):
        return f"sign or width error: {shown}; an unsigned amount was widened before it was subtracted"
    if all(other.get(row.zone, 0) == -row.error for row in wrong):
        return f"class flip: {shown}, the other class the other way round; counted in as one class and out as the other"
    if sum(row.error for row in wrong) == 0 and whole == 0:
        return (
            f"wrong zone: {shown}, global sum exact; pages were counted into one zone and out of another "
            "(Linux: 7454f4ba40b4, dc9086004b3d)"
        )
    units = [unit for unit in (1023, 511) if all(row.error % unit == 0 for row in wrong)]
    if units:
        return f"unit mismatch: {shown} (multiples of {units[0]}); a huge page was counted as one page on one side"
    if all(row.error < 0 for row in wrong):
        return f"missing increment: {shown}, global sum {whole:+}; counted out without having been counted in"
    if all(row.error > 0 for row in wrong):
        return f"missing decrement: {shown}, global sum {whole:+}; counted in and never out"
    return f"mixed: {shown}, global sum {whole:+}"
