"""One debugging session: a timeline, its symbols, the selected CPU, watches. Scripts use `Session.execute`.

A session never changes the tape. Every command either finishes or leaves the position where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import drgn

from debugger import commands as _commands  # noqa: F401  (fills the registry)
from debugger.frames import outside_headers
from debugger.progress import progress
from debugger.registry import REGISTRY
from debugger.state import Examination, Listing, Watch, signed
from debugger.telling import place_text
from machine.errors import RacetapeError, UsageError
from machine.symbols import Frame, Symbols
from machine.unwind import StackFrame, Unwinder
from replayer import Timeline
from traces import Tape

POSITIONS_MAX: Final = 1000
"""Positions that `back` remembers."""

_T = TypeVar("_T")


class Session:
    """State behind the prompt. It starts at the position `ready`, with the CPU selected that goes on there.

    Args:
        tape: an open tape; the session does not close it.
    Raises:
        RacetapeError: the tape cannot be replayed or its image not be read.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.timeline = Timeline(tape)
        self.cpu = 0
        self.watches: list[Watch] = []
        self.watch_next = 1
        self.listing = Listing()
        self.examination = Examination()
        self.finished = False
        # At position 0 paging is off and no name means anything yet; what was recorded starts at `ready`.
        self.travel("starting", lambda: self.timeline.seek(self.timeline.ready_step))
        self.positions: list[int] = [self.timeline.step]
        self.position_at = 0
        self._last_line = ""
        self.symbols = Symbols(self.timeline.image, self._read_memory, tape.sources)
        self.unwinder = Unwinder(self.symbols)

    # -- commands --

    def execute(self, line: str) -> str:
        """Run one command line and return its output.

        An empty line repeats the last command if that makes sense for it. Raises RacetapeError for anything wrong
        with the command; KeyboardInterrupt after returning to the position it started at.
        """
        line = line.strip()
        repeated = not line
        line = line or self._last_line
        if not line or line.startswith("#"):
            return ""
        command, arguments = REGISTRY.find(line)
        self._last_line = line if command.repeats else ""
        start = self.timeline.step
        try:
            output = command.run(self, "" if repeated and command.name in ("list", "x") else arguments)
        except BaseException:
            if self.timeline.step != start:
                self.timeline.seek(start)
            raise
        self._remember(start)
        return output

    def _remember(self, start: int) -> None:
        if self.timeline.step == start:
            return
        # `list` starts again where the machine is now.
        self.listing = Listing()
        if self.timeline.step == self.positions[self.position_at]:
            return
        del self.positions[self.position_at + 1 :]
        self.positions = [*self.positions, self.timeline.step][-POSITIONS_MAX:]
        self.position_at = len(self.positions) - 1

    def prompt(self) -> str:
        """The prompt as a clock: `cpu0 @81,204/106,331 76%> `."""
        step, last = self.timeline.step, self.timeline.last_step
        where = "start" if step == 0 else "end" if step == last else f"{100 * step // max(last, 1)}%"
        held = len(self.timeline.machine.store_buffer_entries(self.cpu))
        return f"cpu{self.cpu} @{step:,}/{last:,} {where}{f' [sb {held}]' if held else ''}> "

    # -- the moment --

    @property
    def cpus(self) -> int:
        """Number of CPUs."""
        return int(self.timeline.machine.cpus)

    def registers(self, cpu: int | None = None) -> dict[str, int]:
        """Registers of a CPU (default: the selected one) now."""
        return self.timeline.machine.registers(self.cpu if cpu is None else cpu)

    @property
    def pc(self) -> int:
        """Program counter of the selected CPU now."""
        return self.registers()["rip"]

    def _read_memory(self, address: int, size: int) -> bytes:
        """Linear memory as the selected CPU would load it now. Raises LookupError."""
        return self.timeline.machine.read_linear(self.cpu, address, size)

    def read_phys(self, phys: int, size: int) -> int:
        """A little-endian number in RAM now."""
        return int.from_bytes(self.timeline.machine.read(phys, size), "little")

    def backtrace(self) -> list[StackFrame]:
        """Frames of the selected CPU now, innermost first."""
        return self.unwinder.backtrace(self.registers())

    def frame(self) -> Frame:
        """Where the selected CPU is now: its innermost source frame that is not in a header."""
        return outside_headers(self.symbols.frames(self.pc))

    def integer(self, text: str) -> int:
        """The integer (or address) that an expression means now. Raises ExpressionError."""
        value = self.symbols.evaluate(text, self.registers())
        # Arrays and functions stand for their addresses, as in C.
        if value.type_.unaliased_kind() in (drgn.TypeKind.ARRAY, drgn.TypeKind.FUNCTION) and value.address_ is not None:
            return int(value.address_)
        return self.symbols.value(value)

    def travel(self, label: str, move: Callable[[], _T]) -> _T:
        """Run `move`, which changes the position, showing progress if it takes more than a second."""
        with progress(label, lambda: self.timeline.step, self.timeline.last_step):
            return move()

    def seek(self, step: int) -> None:
        """Go to position `step`. Raises UsageError outside the tape."""
        self.travel("seeking", lambda: self.timeline.seek(step))

    def position(self, text: str) -> int:
        """The step that a position means: `@81204`, `81,204`, `50%`, `cpu1#350`, `-30`, `start`, `end`, `ready`.

        Raises UsageError.
        """
        return self.travel("searching", lambda: self.timeline.position(text))

    def select(self, cpu: int) -> None:
        """Make `cpu` the selected CPU. Raises UsageError."""
        if not 0 <= cpu < self.cpus:
            raise UsageError(f"there is no cpu {cpu} (there are {self.cpus}: 0 to {self.cpus - 1})")
        self.cpu = cpu

    def stop_line(self) -> str:
        """Where we are: `@81204 cpu0 acct_isolated () at mm/compaction.c:231`."""
        return f"@{self.timeline.step} cpu{self.cpu} {self.place(self.pc)}"

    def place(self, pc: int) -> str:
        """An instruction's place: `acct_isolated () at mm/compaction.c:231 [atomic_add]`, helpers in brackets."""
        return place_text(self.symbols, pc)

    def watch_value(self, watch: Watch) -> int:
        """The watched value in RAM now, signed if its type is."""
        return signed(self.read_phys(watch.phys, watch.lvalue.size_bytes), watch.lvalue)


def describe(error: RacetapeError) -> str:
    """An error as the one line that is shown."""
    return " ".join(str(error).split())
