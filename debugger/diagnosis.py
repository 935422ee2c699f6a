"""What a tape shows, for those who search for it later: failure signature, where its counters first went wrong."""

from __future__ import annotations

from functools import cache

from debugger.checks import counter_checks
from debugger.divergence import first_divergence
from machine import Machine, images
from machine.errors import RacetapeError, TapeDamagedError
from machine.pool import page_pool
from machine.symbols import Symbols
from recorder.hunt import Failure
from recorder.hunt.trial import failure_of_run
from replayer import Timeline
from replayer.cursor import Cursor, boot
from traces import Tape
from traces.archive import Diagnosis, Divergence
from traces.reader import Progress


def diagnose(tape: Tape, progress: Progress | None = None) -> Diagnosis:
    """Replay a tape and say what it shows. `progress` is called with (step, last step).

    The signature is what a hunt tells causes apart by: of a tape that a hunt recorded, the cause that it reported. A
    tape that cannot be replayed here has none, and its note says why. Raises TapeDamagedError.
    """
    if tape.damage is not None:
        raise tape.damage
    if tape.unfinished or tape.footer is None:
        return Diagnosis(note="the tape is cut, so nobody knows how its run ends")
    if tape.footer.stop == "interrupted":
        return Diagnosis(note="the recording was interrupted, so nobody knows how its run ends")
    try:
        failure = _failure(tape, tape.footer.stop, progress)
        return Diagnosis(
            signature=failure.cause if failure else None,
            failure=failure.text if failure else None,
            divergences=_divergences(tape),
        )
    except TapeDamagedError:
        raise
    except RacetapeError as error:
        return Diagnosis(note=str(error))


def _scenario(tape: Tape) -> images.Scenario | None:
    """The bundled scenario of the name that the tape gives; a guest of somebody's own has none."""
    return next((row for row in images.scenarios() if row.name == tape.header.scenario), None)


def _failure(tape: Tape, stop: str, progress: Progress | None) -> Failure | None:
    """As a hunt judges a run, on a machine that knows what a hunt's does."""
    ready_step, image, scenario = tape.header.ready_step, tape.image(), _scenario(tape)
    machine = boot(tape)
    _follow(tape, machine, ready_step, progress)
    if (pool := page_pool(machine, image)) is not None:
        # Where the guest keeps its pages is known only now, and which of them are free only to whoever saw it.
        del machine
        machine = boot(tape)
        pool.tell(machine)
        _follow(tape, machine, ready_step, progress)
    checks = counter_checks(scenario, machine, image) if scenario else []
    console = _follow(tape, machine, tape.end_step, progress)
    symbols = cache(lambda: Symbols(image))
    return failure_of_run(machine, symbols, stop, console.decode("ascii", "replace"), checks)


def _follow(tape: Tape, machine: Machine, end_step: int, progress: Progress | None) -> bytes:
    """Replay up to a position; what the guest printed meanwhile."""
    cursor, console = Cursor(tape), bytearray()
    while machine.step < end_step:
        cursor.follow(machine, end_step)
        console += machine.console_take()
        if progress is not None:
            progress(machine.step, tape.end_step)
    return bytes(console)


def _divergences(tape: Tape) -> tuple[Divergence, ...]:
    scenario = _scenario(tape)
    if scenario is None or not scenario.counters or tape.end_step <= tape.header.ready_step:
        return ()
    timeline, found = Timeline(tape), []
    for counter in scenario.counters:
        moment = first_divergence(timeline, counter).first_divergence
        if moment is not None:
            found.append(
                Divergence(
                    counter=counter,
                    function=moment.function,
                    file=moment.file,
                    line=moment.line,
                    step=moment.step,
                )
            )
    return tuple(sorted(found, key=lambda row: (row.step, row.counter)))
