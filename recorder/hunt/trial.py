"""One run of a prepared scenario under a strategy, judged; nothing of it is kept but how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from machine import Machine
from machine.symbols import Frame, Symbols
from recorder.hunt.checks import Check, Failure, ending_failure, freed_failure, livelock_failure
from recorder.record import Prepared
from recorder.schedule import Strategy
from recorder.session import Session


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: `stop` as in a tape's footer, its last position, what failed, hash of the final state."""

    stop: str
    steps: int
    failure: Failure | None
    state_hash: int


class Trial:
    """Runs one prepared scenario again and again, each time from `ready`.

    Args:
        checks: what else fails a run than its ending.
    """

    def __init__(self, prepared: Prepared, checks: Sequence[Check] = ()) -> None:
        self.prepared, self.checks = prepared, checks

    def run(self, strategy: Strategy, seed: int) -> Ended:
        """One run. Raises DivergenceError if an exact strategy does not apply."""
        prepared, machine = self.prepared, self.prepared.machine
        machine.restore(prepared.at_ready)
        machine.stop_at_trace = 0
        session = Session(machine, None, step_max=prepared.step_max, tap=False, keep=False)
        strategy.new_run(machine, seed)
        stop = session.run(strategy)
        if session.interrupted:  # a run that is one batch ends before anybody looks; the next one knows nothing of it
            stop = "interrupted"
        failure = None if stop == "interrupted" else self.failure(stop, session.console.decode("ascii", "replace"))
        return Ended(stop, machine.step, failure, machine.state_hash())

    def failure(self, stop: str, console: str) -> Failure | None:
        """What fails the run that has just ended, with the machine at its end; None if nothing does."""
        return failure_of_run(self.prepared.machine, lambda: self.symbols, stop, console, self.checks)

    @cached_property
    def symbols(self) -> Symbols:
        """Of the guest image."""
        return Symbols(self.prepared.image)


def failure_of_run(
    machine: Machine, symbols: Callable[[], Symbols], stop: str, console: str, checks: Sequence[Check]
) -> Failure | None:
    """What fails the run at whose end `machine` is; None if nothing does.

    Args:
        symbols: gives the guest image's, if they are needed.
        stop: as in a tape's footer.
        console: what the guest printed since it was ready.
        checks: made when it was ready.
    """

    def frames(address: int) -> Sequence[Frame]:
        return symbols().frames(address)

    if stop == "livelock":
        spinning = [cpu for cpu in range(machine.cpus) if not machine.waiting(cpu)]
        return livelock_failure([(cpu, frames(machine.registers(cpu)["rip"])) for cpu in spinning])
    if stop == "freed" and (use := machine.freed_use()) is not None:
        return freed_failure(use, frames)
    exit_status = machine.exit_status if stop == "exit" else 0
    failure = ending_failure(stop, exit_status, console, lambda address: frames(address)[0])
    if failure is not None or stop == "steps":
        return failure
    return next((found for check in checks if (found := check(machine)) is not None), None)
