"""Recording a scenario: set it up once, then run it under a strategy as often as wanted, a tape each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Final

from machine import Machine, Snapshot, images
from machine.errors import ImageError, UsageError
from machine.pool import page_pool
from machine.symbols import Symbols, installed_source
from recorder.learning import profile_steps, profile_visible
from recorder.profile import Profile
from recorder.schedule import Profiled, Strategy
from recorder.session import Made, Session, Stretch
from recorder.strategies import Default
from recorder.strategies import strategy as strategy_named
from traces import Attachment, TapeHeader, TapeWriter
from traces.attach import SOURCE
from traces.reader import Progress
from traces.records import CUT_STOPS
from traces.schema import PLATFORM_PC, PLATFORM_PLAIN

READY: Final = "ready"
"""Name of the tracepoint at which set-up is over."""


@dataclass(frozen=True)
class Summary:
    """How a recording ended.

    Attributes:
        path: the tape.
        stop: why the run ended, as in the tape's footer.
        exit_status: what the guest wrote to its exit port, or None.
        ready_step, steps: positions of `ready` and of the end.
        events: number of events on the tape.
        state_hash, memory_hash: of the end.
        console: all that the guest printed.
        size_bytes: length of the tape.
    """

    path: Path
    stop: str
    exit_status: int | None
    ready_step: int
    steps: int
    events: int
    state_hash: int
    memory_hash: int
    console: str
    size_bytes: int

    @property
    def outcome(self) -> str:
        """ "ended" (clean exit), "failed" (guest BUG, triple fault, deadlock) or "inconclusive" (it did not end).

        Whether the guest's counters are true is not judged here: that is what `first-divergence` is for.
        """
        if self.stop in CUT_STOPS:
            return "inconclusive"
        return "ended" if self.stop == "exit" and self.exit_status == 0 else "failed"


@dataclass(eq=False)
class Prepared:
    """A scenario set up to its `ready`, from which any number of recordings can start.

    Not for two threads at once: all recordings use the one machine.
    """

    scenario: str
    variant: str
    configuration: str
    machine: Machine
    image: bytes
    command_line: str
    step_max: int
    ready_step: int
    boot: list[Stretch]
    boot_console: bytes
    at_reset: Snapshot
    at_ready: Snapshot
    _profile: Profile | None = None

    def introduce(self, strategy: Strategy) -> None:
        """Tell a strategy about the scenario what it wants to know. Moves the machine."""
        if isinstance(strategy, Profiled):
            strategy.expect(self.profile(visible=strategy.visible))
        elif strategy.visible:
            self.profile(visible=True)

    def profile(self, *, visible: bool) -> Profile:
        """What is known of the scenario's runs; with `visible` also which words are shared, which the machine is told.

        Learned when it is first asked for. Moves the machine.
        """
        machine, ready = self.machine, self.at_ready
        if self._profile is None:
            self._profile = profile_steps(machine, ready, self.step_max)
        if visible and not self._profile.runs:
            self._profile = profile_visible(machine, ready, self.step_max, Symbols(self.image), self._profile)
        return self._profile

    def header(self, strategy: str, seed: int, *, whole: bool) -> TapeHeader:
        """The tape header of a recording."""
        return TapeHeader(
            platform=PLATFORM_PC if self.machine.pc else PLATFORM_PLAIN,
            tool=tool(),
            scenario=self.scenario,
            variant=self.variant,
            configuration=self.configuration,
            cpus=self.machine.cpus,
            ram_bytes=self.machine.ram_bytes,
            store_buffer=self.machine.store_buffer,
            command_line=self.command_line,
            image_bytes=len(self.image),
            image_sha256=sha256(self.image).digest(),
            ready_step=self.ready_step,
            events_first=0 if whole else self.ready_step,
            strategy=strategy,
            seed=seed,
        )

    def _made(self, strategy: Strategy, seed: int, progress: Progress | None) -> Made:
        """The run that a strategy makes by visible steps, without its events: they are had by repeating its choices."""
        self.machine.restore(self.at_ready)
        self.machine.stop_at_trace = 0
        session = Session(self.machine, None, step_max=self.step_max, tap=False)
        strategy.new_run(self.machine, seed)
        return Made(session.run(strategy, progress), session.stretches)

    def record(
        self,
        path: str | os.PathLike[str],
        *,
        strategy: Strategy | str = "default",
        seed: int = 0,
        made: Made | None = None,
        whole: bool = False,
        layer_b: bool = True,
        background: bool = True,
        sources: bool = False,
        progress: Progress | None = None,
    ) -> Summary:
        """Record one run to `path`.

        Args:
            strategy: a strategy, or the name of one.
            seed: for the strategy, 0 to 2^64 - 1.
            made: record this run from `ready` on; `strategy` then only says how it was found.
            whole: record events from reset on, not only from `ready` on.
            layer_b: with False the tape holds the schedule only.
            background: compress and write in other threads; the tape is the same.
            sources: attach the guest's source files, for a tape that outlives them.
            progress: called now and then with (step, most steps).
        Raises:
            TapeError: the tape cannot be written; what was written before stays.
            UsageError: unknown strategy, or a seed out of range.
        """
        if not 0 <= seed < 1 << 64:
            raise UsageError(f"seed {seed} is out of range; it is 0 to 2^64 - 1")
        machine = self.machine
        if made is None:
            chosen = strategy_named(strategy) if isinstance(strategy, str) else strategy
            self.introduce(chosen)
            name = chosen.name
            made = self._made(chosen, seed, progress) if chosen.visible else None
        else:
            name = strategy if isinstance(strategy, str) else strategy.name
        with TapeWriter(path, background=background) as writer:
            writer.begin(self.header(name, seed, whole=whole), self.image)
            for attachment in guest_sources(self.image) if sources else ():
                writer.attach(attachment)
            machine.restore(self.at_reset if whole else self.at_ready)
            machine.stop_at_trace = 0
            session = Session(machine, writer, step_max=self.step_max, tap=layer_b)
            for stretch in self.boot:
                if whole:
                    session.replay(stretch)
                else:
                    writer.choices(stretch.records, stretch.end_step, stretch.state_hash)
            # Where the default schedule stood is no state, and exact choices do not bring it back: only this does.
            machine.restore(self.at_ready)
            if made is None:
                chosen.new_run(machine, seed)
                stop = session.run(chosen, progress)
            else:
                stop = session.repeat(made, progress)
            console = bytes(session.console) if whole else self.boot_console + bytes(session.console)
            footer = session.footer(stop, console)
            writer.finish(footer)
        machine.tap = False
        return Summary(
            path=Path(path),
            stop=stop,
            exit_status=footer.exit_status,
            ready_step=self.ready_step,
            steps=footer.steps,
            events=footer.events,
            state_hash=footer.state_hash,
            memory_hash=footer.memory_hash,
            console=console.decode("ascii", "replace"),
            size_bytes=writer.bytes_written,
        )


def prepare(
    scenario: str, variant: str | None = None, configuration: str | None = None, *, step_max: int | None = None
) -> Prepared:
    """Build the machine, boot the guest and run it by the default schedule up to its tracepoint `ready`.

    None means the scenario's own default: the variant and configuration in which the bug was reported, and its limit of
    steps. Raises UsageError for unknown names, ImageError if the image is missing or never gets ready.
    """
    row = images.scenario(scenario)
    chosen = row.configuration(configuration or "")
    image = images.image_bytes(row.image(chosen.name, variant or ""))
    machine = Machine(cpus=chosen.cpus, ram_bytes=row.ram_bytes)
    return prepare_image(
        machine,
        image,
        row.command_line,
        scenario=scenario,
        variant=variant or row.variants[0],
        configuration=chosen.name,
        step_max=step_max or row.step_max,
    )


def prepare_image(
    machine: Machine,
    image: bytes,
    command_line: str,
    *,
    scenario: str,
    variant: str,
    configuration: str,
    step_max: int,
) -> Prepared:
    """The same for any guest image on a fresh machine; the names only go to the tape. Raises ImageError."""
    images.boot(machine, image, command_line)
    at_reset = machine.snapshot()
    machine.stop_at_trace = ready_identifier(image)
    session = Session(machine, None, step_max=step_max, tap=False)
    stop = session.run(Default())
    if stop == "interrupted":
        raise KeyboardInterrupt
    if stop != "trace":
        raise ImageError(f"scenario {scenario} does not get ready: it stops at step {machine.step} ({stop})")
    machine.stop_at_trace = 0
    boot_console = bytes(session.console)
    if (pool := page_pool(machine, image)) is not None:
        # Where the pages are is known only now, and which of them are free only to whoever saw it: set up once more.
        machine.restore(at_reset)
        pool.tell(machine)
        again = Session(machine, None, step_max=step_max, tap=False)
        for stretch in session.stretches:
            again.replay(stretch)
    return Prepared(
        scenario=scenario,
        variant=variant,
        configuration=configuration,
        machine=machine,
        image=image,
        command_line=command_line,
        step_max=step_max,
        ready_step=machine.step,
        boot=session.stretches,
        boot_console=boot_console,
        at_reset=at_reset,
        at_ready=machine.snapshot(),
    )


def record(
    scenario: str,
    variant: str | None,
    configuration: str | None,
    path: str | os.PathLike[str],
    *,
    strategy: Strategy | str = "default",
    seed: int = 0,
    whole: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Record one run of a scenario to `path`: `prepare` and `Prepared.record` in one."""
    prepared = prepare(scenario, variant, configuration)
    return prepared.record(path, strategy=strategy, seed=seed, whole=whole, progress=progress)


def ready_identifier(image: bytes) -> int:
    """Identifier of the image's tracepoint `ready`. Raises ImageError if it has none."""
    for identifier, name in Symbols(image).tracepoints().items():
        if name == READY:
            return identifier
    raise ImageError("the guest image has no tracepoint `ready` (enumerator TP_READY of enum tracepoint)")


def guest_sources(image: bytes) -> Iterator[Attachment]:
    """The source files of an image's code, as far as they are installed."""
    for file in Symbols(image).files():
        with contextlib.suppress(ImageError):
            yield Attachment(name=file, type=SOURCE, data=installed_source(file))


def tool() -> str:
    """This program and its version."""
    try:
        return f"racetape {metadata.version('racetape')}"
    except metadata.PackageNotFoundError:
        return "racetape 0 (not installed)"
