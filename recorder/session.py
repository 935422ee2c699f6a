"""One recording in progress: a machine, a writer, and where to cut the run into chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from signal import SIGINT, getsignal, signal
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, Final

from machine import Machine
from machine.errors import DivergenceError
from recorder.ending import ending
from recorder.schedule import Strategy, plan
from traces import TapeFooter, TapeWriter
from traces.reader import Progress
from traces.schema import STATE_VERSION, Op, RecordArray, records_of

EVENTS_PER_CHUNK: Final = 1 << 17
"""In each chunk the codec learns the program anew, and each costs a state hash: half as many events cost 4 % more."""
CHUNK_STEPS: Final = 1 << 19
"""A chunk ends after so many steps even if they made few events, so that little is lost when the process dies."""
CHECKPOINT_STEPS: Final = 1 << 24

_IDLE_PLANS_MAX: Final = 64


@dataclass(frozen=True, eq=False)
class Stretch:
    """Choices that have been made but are on no tape yet: `records` lead to `end_step` with this state hash."""

    records: RecordArray
    end_step: int
    state_hash: int


@dataclass(frozen=True, eq=False)
class Made:
    """A run that was made without recording it: why it ended, and its choices."""

    stop: str
    stretches: list[Stretch]


class Session:
    """Runs a machine and cuts what happens into chunks.

    Args:
        machine: at the position where the recording goes on.
        writer: where chunks go; None keeps the choices in `stretches` (set-up, before there is a tape).
        step_max: position at which to give up.
        tap: whether events are recorded.
        keep: with False and without a writer, what happened is forgotten: nobody wants it but how it ended.
        on_events: without a writer and with the tap on, is given the events chunk by chunk, as `Machine.events` has
            them.
    """

    def __init__(
        self,
        machine: Machine,
        writer: TapeWriter | None,
        *,
        step_max: int,
        tap: bool,
        keep: bool = True,
        on_events: Callable[[tuple[Any, ...]], None] | None = None,
    ) -> None:
        self.machine = machine
        self._on_events = on_events
        self.writer = writer
        self.step_max = step_max
        self.stretches: list[Stretch] = []
        self.interrupted: list[bool] = []
        """Not empty after `run` if Ctrl-C came during it, also if the run had ended by then."""
        self._keep = keep or writer is not None
        self.console = bytearray()
        self.event_count = 0
        self._progress: Progress | None = None
        self._cut_step = machine.step
        self._checkpoint_step = machine.step + CHECKPOINT_STEPS
        self._checkpoints = False
        machine.choices_enabled = self._keep
        machine.choices_take()
        machine.console_take()
        machine.tap_capacity(EVENTS_PER_CHUNK)
        machine.tap = tap

    def run(self, strategy: Strategy, progress: Progress | None = None) -> str:
        """Follow `strategy` until the run ends; why it did: a stop of the tape's footer, or "trace".

        What the machine can tell comes first: a limit or Ctrl-C that falls on the step that ended the run did not end
        it, and neither did an exact strategy that has nothing more to say. Raises DivergenceError if an exact one does
        not apply, TapeError.
        """
        idle_plans = 0
        self._progress = progress
        with deferred_interrupt() as self.interrupted:
            interrupted = self.interrupted
            while True:
                before = self.machine.step
                batch = strategy.choose(self.machine)
                if not len(batch):
                    return self._end(strategy.stop if strategy.exact else "steps")
                reason = self._run_plan(batch, strategy.exact, interrupted)
                if reason == "choice":
                    self._answer(strategy, interrupted)
                elif reason != "plan":
                    return self._end(reason)
                idle_plans = idle_plans + 1 if self.machine.step == before else 0
                # Batches with an AUTO at their end find out for themselves that nothing can run.
                assert idle_plans < _IDLE_PLANS_MAX, f"strategy {strategy.name} plans nothing that can happen"

    def replay(self, stretch: Stretch) -> None:
        """Repeat exact choices, recording as the tap says. Raises DivergenceError if they lead elsewhere."""
        reason = self._run_plan(stretch.records, True, [])
        if self.machine.step != stretch.end_step:
            raise _diverged(self.machine, reason)
        if self.machine.state_hash() != stretch.state_hash:
            raise _diverged(self.machine, "another state")
        self._cut()

    def repeat(self, made: Made, progress: Progress | None = None) -> str:
        """Make a run again from where it began; returns its stop, or "interrupted".

        Raises DivergenceError if it goes another way, TapeError.
        """
        self._progress = progress
        with deferred_interrupt() as interrupted:
            for stretch in made.stretches:
                if interrupted:
                    return self._end("interrupted")
                self.replay(stretch)
        return made.stop

    def footer(self, stop: str, console: bytes) -> TapeFooter:
        """How the run ended; `console` is all that the guest printed from reset on."""
        machine = self.machine
        return TapeFooter(
            stop=stop,
            exit_status=machine.exit_status if stop == "exit" else None,
            steps=machine.step,
            state_hash=machine.state_hash(),
            memory_hash=machine.memory_hash(),
            events=self.event_count,
            console_sha256=sha256(console).digest(),
        )

    def _run_plan(self, batch: RecordArray, exact: bool, interrupted: list[bool]) -> str:
        """Execute one batch, cutting chunks on the way; "plan" when it is done, else why the run ended."""
        index = done = 0
        machine = self.machine
        while True:
            if interrupted:
                return "interrupted"
            if machine.step >= self.step_max:
                return "steps"
            stop = min(self._cut_step + CHUNK_STEPS, self.step_max)
            reason, index, done = machine.execute(batch, index=index, done=done, step_max=stop, exact=exact)
            if reason in ("diverged", "blocked"):
                raise _diverged(machine, reason)
            if reason == "events" or machine.step >= self._cut_step + CHUNK_STEPS:
                self._cut()
            if reason not in ("events", "steps"):
                return reason

    def _answer(self, strategy: Strategy, interrupted: list[bool]) -> None:
        """Answer the first CPU that waits at the choice port."""
        cpu = next(c for c in range(self.machine.cpus) if self.machine.waiting(c) == "choice")
        for answer in (strategy.answer(self.machine, cpu), 0):
            before = self.machine.step
            self._run_plan(plan((Op.CHOICE, cpu, answer)), False, interrupted)
            if self.machine.step != before or interrupted:
                return
        raise AssertionError(f"cpu{cpu} takes no answer")

    def _end(self, reason: str) -> str:
        self._cut()
        # At a tracepoint the machine can always go on.
        return reason if reason == "trace" else ending(self.machine) or reason

    def _cut(self) -> None:
        """End the chunk here."""
        machine = self.machine
        self.console += machine.console_take()
        if machine.step == self._cut_step:
            return
        if not self._keep:
            self._cut_step = machine.step
            if self._on_events is not None:
                self._on_events(machine.events_take())
            return
        records = records_of(machine.choices_take())
        state_hash = machine.state_hash()
        self._cut_step = machine.step
        if self._progress is not None:
            self._progress(machine.step, self.step_max)
        if self.writer is None:
            self.stretches.append(Stretch(records, machine.step, state_hash))
            return
        self.writer.choices(records, machine.step, state_hash)
        if machine.tap:
            tap = machine.events_take()
            self.event_count += tap[0]
            self.writer.tap(tap, machine.step, state_hash)
            del tap  # The machine fills the rows again as soon as the writer is done with them.
            if machine.step >= self._checkpoint_step:
                self._checkpoint(self.writer, state_hash)

    def _checkpoint(self, writer: TapeWriter, state_hash: int) -> None:
        machine = self.machine
        self._checkpoint_step = machine.step + CHECKPOINT_STEPS
        pages = machine.pages_take(not self._checkpoints)
        self._checkpoints = True
        writer.checkpoint(machine.step, machine.state_save(), STATE_VERSION, state_hash, pages)


def _diverged(machine: Machine, reason: str) -> DivergenceError:
    step = machine.step
    return DivergenceError(
        f"the recording cannot be followed at step {step}: its next choice is impossible there ({reason})",
        step=step,
        cpu=-1,
        expected="the tape's next choice",
        got=reason,
    )


@contextmanager
def deferred_interrupt() -> Iterator[list[bool]]:
    """Ctrl-C puts an element into the list instead of raising, so that nothing is torn; the second one raises.

    Only in the main thread, where Python allows it, and only if nobody has taken the signal for another use.
    """
    interrupted: list[bool] = []
    before = getsignal(SIGINT)
    if current_thread() is not main_thread() or before is None or not callable(before):
        yield interrupted
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupted and callable(before):
            before(number, frame)
        interrupted.append(True)

    signal(SIGINT, note)
    try:
        yield interrupted
    finally:
        signal(SIGINT, before)
