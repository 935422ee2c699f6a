"""Replaying a whole tape, and checking it against everything that the tape says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from machine import Machine
from machine.errors import DivergenceError, ImageError, TapeDamagedError
from recorder.ending import ending
from replayer.compare import first_difference
from replayer.cursor import Cursor, boot
from replayer.damage import explain, unreadable
from traces import Choices, Events, Tape
from traces.chunks import CHOICES, IMAGE, Chunk
from traces.columns import EVENTS_MAX
from traces.reader import Progress
from traces.records import OPEN_STOPS, PAGE_BYTES
from traces.schema import STATE_VERSION


@dataclass(frozen=True)
class ReplayResult:
    """Where a replay ended.

    Attributes:
        steps: the last position.
        stop, exit_status: as in the tape's footer; None for an unfinished tape.
        state_hash, memory_hash: of the last position.
        console: all that the guest printed.
        hashes: number of state hashes compared on the way.
        unfinished: the tape was cut: this is its last whole chunk, not the end of the run.
    """

    steps: int
    stop: str | None
    exit_status: int | None
    state_hash: int
    memory_hash: int
    console: str
    hashes: int
    unfinished: bool


@dataclass
class VerifyReport:
    """What `verify` found.

    Attributes:
        steps: steps replayed.
        hashes: number of state hashes compared.
        events: number of events compared.
        checkpoints: number of checkpoints compared.
        unfinished: the tape is cut; what is there was verified. No fault of its own.
        damage: every damaged chunk, in order.
        divergence: the first step that the replay does otherwise, or None.
        repaired: the damage was a single bit, so that the steps it changes are known exactly.
    """

    steps: int = 0
    hashes: int = 0
    events: int = 0
    checkpoints: int = 0
    unfinished: bool = False
    damage: list[TapeDamagedError] = field(default_factory=list)
    divergence: DivergenceError | None = None
    repaired: bool = False

    @property
    def ok(self) -> bool:
        """Whether everything is as it was recorded."""
        return not self.damage and self.divergence is None

    @property
    def first_step(self) -> int | None:
        """The first step that differs or cannot be read, if it is known."""
        if self.divergence is not None:
            return self.divergence.step
        return self.damage[0].step if self.damage else None


def replay(tape: Tape, progress: Progress | None = None) -> ReplayResult:
    """Run the tape again from reset, checking the state hash of every choices chunk and of the footer.

    Raises DivergenceError, TapeDamagedError, TapeError.
    """
    if tape.damage is not None:
        raise tape.damage
    machine = boot(tape)
    cursor = Cursor(tape)
    console = bytearray()
    while machine.step < tape.end_step:
        cursor.follow(machine, tape.end_step)
        console += machine.console_take()
        if progress is not None:
            progress(machine.step, tape.end_step)
    _check_footer(tape, machine, bytes(console))
    footer = tape.footer
    return ReplayResult(
        steps=machine.step,
        stop=footer.stop if footer else None,
        exit_status=footer.exit_status if footer else None,
        state_hash=machine.state_hash(),
        memory_hash=machine.memory_hash(),
        console=console.decode("ascii", "replace"),
        hashes=len(tape.choices_chunks),
        unfinished=tape.unfinished,
    )


def verify(tape: Tape, progress: Progress | None = None) -> VerifyReport:
    """Check every byte of the tape, then run it again from reset and compare all that the tape says with what happens.

    Differences and damage are reported, not raised. Where the choices or the image are damaged, the report names the
    first step that the damage changes, as far as that can be found out. Raises TapeError if the file cannot be read, or
    is cut before anything could be replayed.
    """
    report = VerifyReport(unfinished=tape.unfinished)
    broken: Chunk | None = None
    for chunk in tape.chunks:
        try:
            tape.check_chunk(chunk)
        except TapeDamagedError as error:
            if error.offset not in [d.offset for d in report.damage]:
                report.damage.append(error)
            if broken is None and chunk.kind in (CHOICES, IMAGE):
                broken = chunk
    if tape.damage is not None and tape.damage.offset not in [d.offset for d in report.damage]:
        report.damage.append(tape.damage)
    try:
        if broken is not None:
            _verify_broken(tape, broken, report, progress)
        else:
            report.divergence = Comparison(tape, report, image=_image(tape, report)).run(tape.end_step, progress)
    except ImageError as error:
        if not report.damage:
            raise
        report.divergence = unreadable(0, str(error))
    except TapeDamagedError as error:
        # A damaged chunk ends the replay; most are in the list already.
        if error.offset not in [d.offset for d in report.damage]:
            report.damage.append(error)
    return report


def _image(tape: Tape, report: VerifyReport) -> bytes:
    """The tape's image, even if it is another one than the header says, which is then noted as damage."""
    try:
        return tape.image()
    except TapeDamagedError as error:
        report.damage.append(error)
        return tape.image(lenient=True)


def _verify_broken(tape: Tape, broken: Chunk, report: VerifyReport, progress: Progress | None) -> None:
    """Find the first step that the damage of a choices or image chunk changes."""
    explanation = explain(tape, broken)
    report.repaired = explanation.repaired
    report.divergence = explanation.divergence
    if explanation.choices is not None:
        comparison = Comparison(tape, report, replaced={broken.offset: explanation.choices})
        report.divergence = comparison.run(broken.end_step, progress)
    elif explanation.image is not None:
        report.divergence = Comparison(tape, report, image=explanation.image).run(tape.end_step, progress)


class Comparison:
    """A replay beside the tape.

    Args:
        report: counts what was compared.
        replaced, image: to be taken instead of what the tape says (to see what damage does).
    """

    def __init__(
        self,
        tape: Tape,
        report: VerifyReport,
        *,
        replaced: Mapping[int, Choices] | None = None,
        image: bytes | None = None,
    ) -> None:
        self.tape = tape
        self.report = report
        self.machine = boot(tape, image)
        self._cursor = Cursor(tape, replaced)
        self._console = bytearray()
        self._parts: list[Events] = []
        self._checkpoints = {c.first_step: c for c in tape.checkpoint_chunks}

    def run(self, end_step: int, progress: Progress | None) -> DivergenceError | None:
        """Replay up to `end_step`; the first difference, or None."""
        chunks = [c for c in self.tape.events_chunks if c.first_step < c.end_step]
        machine = self.machine
        while machine.step < end_step:
            while chunks and chunks[0].end_step <= machine.step:
                chunks.pop(0)
            chunk = chunks[0] if chunks else None
            inside = chunk is not None and chunk.first_step <= machine.step
            machine.tap = inside
            stop = end_step if chunk is None else min(chunk.end_step if inside else chunk.first_step, end_step)
            try:
                self._cursor.follow(machine, stop)
            except DivergenceError as error:
                # The events may show that the difference lies further back.
                self._collect()
                return self._compare(chunk, complete=False) or error if inside and chunk else error
            self._collect()
            if chunk is not None and inside and (machine.step == chunk.end_step or self._too_many()):
                found = self._compare(chunk, complete=machine.step == chunk.end_step)
                if found is not None:
                    return found
            found = self._compare_checkpoint()
            if found is not None:
                return found
            self.report.steps = machine.step
            if progress is not None:
                progress(machine.step, end_step)
        self.report.hashes = sum(c.end_step <= machine.step for c in self.tape.choices_chunks)
        if machine.step == self.tape.end_step:
            try:
                _check_footer(self.tape, machine, bytes(self._console))
            except DivergenceError as error:
                return error
        return None

    def _collect(self) -> None:
        machine = self.machine
        self._console += machine.console_take()
        if machine.tap:
            self._parts.append(Events.from_tap(machine.events()))
            machine.events_clear()

    def _too_many(self) -> bool:
        """More events than any chunk has: they must differ, and need no more memory to show it."""
        return sum(map(len, self._parts)) > EVENTS_MAX

    def _compare(self, chunk: Chunk, *, complete: bool) -> DivergenceError | None:
        got = Events.concatenate(self._parts)
        self._parts = []
        try:
            state_hash, expected = self.tape.read_events(chunk)
        except TapeDamagedError:
            return None  # Reported as damage already.
        found = first_difference(expected, got, complete=complete)
        if found is None and complete:
            self.report.events += len(got)
            if self.machine.state_hash() != state_hash:
                return _differs(self.machine, f"state hash {state_hash:016x}", f"{self.machine.state_hash():016x}")
        return found

    def _compare_checkpoint(self) -> DivergenceError | None:
        machine = self.machine
        chunk = self._checkpoints.pop(machine.step, None)
        if chunk is None:
            return None
        try:
            checkpoint = self.tape.read_checkpoint(chunk)
            if checkpoint.state_version != STATE_VERSION:
                return None
            pages = dict(self.tape.checkpoint_pages(checkpoint))
        except TapeDamagedError:
            return None  # Reported as damage already.
        zero = bytes(PAGE_BYTES)
        same = checkpoint.state == machine.state_save() and checkpoint.state_hash == machine.state_hash()
        for frame in {*machine.pages_written(), *pages}:
            same = same and machine.read(frame * PAGE_BYTES, PAGE_BYTES) == pages.get(frame, zero)
        self.report.checkpoints += 1
        return None if same else _differs(machine, "the state of the checkpoint", "another one")


def _check_footer(tape: Tape, machine: Machine, console: bytes) -> None:
    """Raise DivergenceError unless the run ended as the footer says, with as many events as layer B has."""
    footer = tape.footer
    if footer is None:
        return
    stop = ending(machine)
    if stop is None and footer.stop in OPEN_STOPS:
        stop = footer.stop  # Who or what ended the recording is nothing that a replay could see.
    count = tape.event_count()
    found = {
        "state hash": (footer.state_hash, machine.state_hash()),
        "memory hash": (footer.memory_hash, machine.memory_hash()),
        "stop": (footer.stop, stop or "a machine that could go on"),
        "exit status": (footer.exit_status, machine.exit_status if stop == "exit" else None),
        "number of events": (footer.events, footer.events if count is None else count),
    }
    for name, (expected, got) in found.items():
        if expected != got:
            raise _differs(machine, f"{name} {expected}", f"{got}")
    if sha256(console).digest() != footer.console_sha256:
        raise _differs(machine, "the console output of the recording", "another one")


def _differs(machine: Machine, expected: str, got: str) -> DivergenceError:
    step = max(machine.step - 1, 0)
    return DivergenceError(
        f"replay differs at or before step {step}: recorded {expected}, replayed {got}",
        step=step,
        cpu=-1,
        expected=expected,
        got=got,
    )
