"""Time travel over a tape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from machine import Machine
from machine.errors import DivergenceError, TapeDamagedError, TapeError, UsageError
from replayer.cursor import Cursor, boot
from replayer.position import parse_position
from replayer.snapshots import Snapshots
from traces import Event, Events, Range, Tape
from traces.chunks import Chunk
from traces.index import WRITTEN
from traces.records import PAGE_BYTES
from traces.schema import STATE_VERSION

WINDOW_STEPS: Final = 1 << 16
"""Events that are not on the tape are made again for so many steps at a time."""
_CACHED_WINDOWS: Final = 8
_CHECKPOINT_GAIN_STEPS: Final = 1 << 20


class Timeline:
    """A machine that can be put at any position of a tape.

    A position is the number of steps taken: at position s the next step is step s. `first_step` and `last_step` are
    the first and the last position. The tape must stay open as long as the timeline is used.

    Raises TapeError, TapeDamagedError if the tape's image cannot be had.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.image = tape.image()
        self.machine: Machine = boot(tape, self.image)
        self.first_step = 0
        self.last_step = tape.end_step
        self.ready_step = min(tape.header.ready_step, self.last_step)
        self._cursor = Cursor(tape)
        self._snapshots = Snapshots(self.machine)
        self._windows: OrderedDict[int, Events] = OrderedDict()

    # -- moving --

    @property
    def step(self) -> int:
        """The position."""
        return self.machine.step

    def seek(self, step: int) -> None:
        """Go to position `step`.

        Raises UsageError outside the tape, TapeDamagedError if the way there is damaged, DivergenceError if the replay
        differs from the recording. After an error the position is somewhere on the way.
        """
        if not self.first_step <= step <= self.last_step:
            raise UsageError(f"position {step} is outside the tape, which goes from 0 to {self.last_step}")
        base = self._snapshots.before(step)
        if not base <= self.step <= step:
            self._snapshots.restore(base)
        self._enter(step)
        for stop in (*self._snapshots.stops(step), step):
            self._run_to(stop)
            if stop != step or stop % self._snapshots.interval_steps == 0:
                self._snapshots.take()
        self.machine.console_take()

    def forward(self, count: int = 1) -> int:
        """Go `count` steps forward, at most to the end; how many it were."""
        before = self.step
        self.seek(min(before + count, self.last_step))
        return self.step - before

    def back(self, count: int = 1) -> int:
        """Go `count` steps back, at most to the start; how many it were."""
        before = self.step
        self.seek(max(before - count, self.first_step))
        return before - self.step

    def position(self, text: str) -> int:
        """The position that `text` names: `@81204`, `81,204`, `50%`, `cpu1#350`, `-30`, `+30`, `start`, `end`, `ready`.

        Relative ones start at the current position. Raises UsageError.
        """
        return parse_position(
            text,
            current=self.step,
            last=self.last_step,
            ready=self.ready_step,
            cpus=self.machine.cpus,
            retired=self.retired_position,
        )

    def retired_position(self, cpu: int, count: int) -> int | None:
        """The first position at which `cpu` has completed `count` instructions; None if it never does."""
        here = self.step
        low, high = self.first_step, self.last_step
        self.seek(high)
        found = self.machine.registers(cpu)["retired"] >= count
        while found and low < high:
            middle = (low + high) // 2
            self.seek(middle)
            if self.machine.registers(cpu)["retired"] >= count:
                high = middle
            else:
                low = middle + 1
        self.seek(here)
        return low if found else None

    def cpu_of(self, step: int) -> int:
        """The CPU that takes step `step`; for a drain or interrupt, the CPU whose it is. Raises ReplayError outside."""
        return int(self._cursor.place(step).record["cpu"])

    # -- events --

    def events(self, first_step: int, last_step: int) -> Events:
        """The events of steps `first_step` to `last_step`, both included, from the tape or made again by replay.

        Takes memory for all of them; `events_in_windows` does not. The position stays.
        """
        return Events.concatenate(list(self.events_in_windows(first_step, last_step)))

    def events_in_windows(
        self, first_step: int, last_step: int, *, backwards: bool = False, written: Range | None = None
    ) -> Iterator[Events]:
        """The same, some at a time: ascending parts, the last part first if `backwards`.

        With `written`, what the tape's indexes say not to write there is left out.
        """
        first, end = max(first_step, 0), min(last_step + 1, self.last_step)
        taped_first, taped_end = self.tape.events_range
        parts = [
            (first, min(end, taped_first), False),
            (max(first, taped_first), min(end, taped_end), True),
            (max(first, taped_end), end, False),
        ]
        for low, high, taped in reversed(parts) if backwards else parts:
            if low < high:
                yield from self._taped(low, high, backwards, written) if taped else self._made(low, high, backwards)

    def writes(self, phys: int, size_bytes: int, first_step: int, last_step: int) -> Events:
        """All writes to any of `size_bytes` bytes of RAM at `phys` that become visible in these steps, both included.

        A store counts at the step at which it reaches memory: its own if info has DRAINED, else that of its drain.
        """
        windows = self.events_in_windows(first_step, last_step, written=_range(phys, size_bytes))
        return Events.concatenate([w.writes(phys, size_bytes) for w in windows])

    def last_write_before(self, phys: int, size_bytes: int, step: int) -> Event | None:
        """The last write to these bytes that becomes visible in a step before `step`, or None."""
        for window in self.events_in_windows(0, step - 1, backwards=True, written=_range(phys, size_bytes)):
            found = window.writes(phys, size_bytes)
            if len(found):
                return found.row(-1)
        return None

    def next_write_after(self, phys: int, size_bytes: int, step: int) -> Event | None:
        """The first write to these bytes that becomes visible in a step after `step`, or None."""
        for window in self.events_in_windows(step + 1, self.last_step, written=_range(phys, size_bytes)):
            found = window.writes(phys, size_bytes)
            if len(found):
                return found.row(0)
        return None

    # -- helpers --

    def _run_to(self, stop: int) -> None:
        while self.step < stop:
            chunk = self._cursor.chunk_of(self.step)
            try:
                self._cursor.follow(self.machine, stop)
            except DivergenceError:
                # The machine left the recording somewhere in this chunk: nothing from there on may be gone on from.
                self._snapshots.forget_behind(chunk.first_step)
                self._snapshots.restore(self._snapshots.before(chunk.first_step))
                raise

    def _enter(self, step: int) -> None:
        """Load a checkpoint of the tape if that saves much of the way to `step`."""
        usable = [c for c in self.tape.checkpoint_chunks if c.first_step <= step]
        if usable and usable[-1].first_step - self.step >= _CHECKPOINT_GAIN_STEPS:
            self._load_checkpoint(usable[-1])

    def _load_checkpoint(self, chunk: Chunk) -> None:
        """Put the machine at a checkpoint of the tape; if that is no good, leave it where it is.

        Raises DivergenceError if the checkpoint reads well but is of another state; the machine stays then, too.
        """
        step = chunk.first_step
        here = self.machine.snapshot()
        try:
            checkpoint = self.tape.read_checkpoint(chunk)
            if checkpoint.state_version != STATE_VERSION:
                return
            zero = bytes(PAGE_BYTES)
            for frame in self.machine.pages_written():
                self.machine.write(frame * PAGE_BYTES, zero)
            for frame, page in self.tape.checkpoint_pages(checkpoint):
                self.machine.write(frame * PAGE_BYTES, page)
            self.machine.state_load(checkpoint.state)
            if self.step != step or self.machine.state_hash() != checkpoint.state_hash:
                raise DivergenceError(
                    f"the tape's checkpoint at position {step} does not have the state that was recorded there",
                    step=step,
                    cpu=-1,
                    expected=f"state hash {checkpoint.state_hash:016x}",
                    got=f"state hash {self.machine.state_hash():016x}",
                )
        except (TapeError, ValueError):
            # Layer B is a convenience: without it the way is only longer.
            self.machine.restore(here)
            return
        except BaseException:
            # Ctrl-C comes here, too. A machine half loaded must never be taken for one of the tape's positions.
            self.machine.restore(here)
            raise
        self._snapshots.take()

    def _taped(self, first: int, end: int, backwards: bool, written: Range | None) -> Iterator[Events]:
        """Events of steps `first` to `end` - 1 that are on the tape."""
        touched = [c for c in self.tape.events_chunks if c.end_step > first and c.first_step < end]
        for chunk in reversed(touched) if backwards else touched:
            low, high = max(chunk.first_step, first), min(chunk.end_step, end)
            if written is not None and not self.tape.may_hold(chunk, written, WRITTEN):
                continue
            try:
                events = self.tape.read_events(chunk)[1]
            except TapeDamagedError:
                yield from self._made(low, high, backwards)  # Layer B can always be made again.
            else:
                yield events.between(low, high - 1)

    def _made(self, first: int, end: int, backwards: bool) -> Iterator[Events]:
        """Events of steps `first` to `end` - 1 made again, window by window."""
        numbers = range(first // WINDOW_STEPS, (end - 1) // WINDOW_STEPS + 1)
        for number in reversed(numbers) if backwards else numbers:
            yield self._window(number).between(first, end - 1)

    def _window(self, number: int) -> Events:
        found = self._windows.get(number)
        if found is None:
            first = number * WINDOW_STEPS
            found = self._windows[number] = self._make(first, min(first + WINDOW_STEPS, self.last_step))
            while len(self._windows) > _CACHED_WINDOWS:
                self._windows.popitem(last=False)
        self._windows.move_to_end(number)
        return found

    def _make(self, first: int, end: int) -> Events:
        """Replay steps `first` to `end` - 1 with the tap on."""
        machine = self.machine
        here = machine.snapshot()
        parts: list[Events] = []
        try:
            self.seek(first)
            machine.events_clear()
            machine.tap = True
            while machine.step < end:
                self._cursor.follow(machine, end)
                parts.append(Events.from_tap(machine.events()))
                machine.events_clear()
        finally:
            machine.tap = False
            machine.events_clear()
            machine.console_take()
            machine.restore(here)
        return Events.concatenate(parts)


def _range(phys: int, size_bytes: int) -> Range:
    return Range(phys, size_bytes, f"{phys:#x}")
