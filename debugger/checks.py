"""What a hunt looks at when a run is over, besides how it ended: the scenario's zone counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from debugger.ghosts import Counter
from debugger.zones import ZoneLayout, read_places
from machine import Machine, images
from machine.symbols import Symbols
from recorder.hunt import Check, Failure
from recorder.record import Prepared


@dataclass
class _Counted:
    """One zone's counter, and what the ledger has for it; `off`: by how much they differed at first."""

    counter: Counter
    zone: int
    item: int
    never_negative: bool
    off: int = 0

    def value(self, machine: Machine) -> int:
        read_places(self.counter.places, machine)
        return self.counter.value

    def has_ghost(self, machine: Machine) -> bool:
        return machine.ledger_sum(self.zone, self.item) is not None

    def ghost(self, machine: Machine) -> int:
        return machine.ledger_sum(self.zone, self.item) or 0


class CounterCheck:
    """Fails a run after which a zone's counter, with every CPU's differential and every held store, is negative, or is
    not what the guest's ghosts say (docs/platform.md): it has changed otherwise since this was made than they have.

    Nobody may be about to count when a run is over. Whether a counter was ever wrong in between, and where it first
    was, is for `first-divergence` to say.

    Raises ExpressionError, UsageError: the image has no zones as Linux has them, or no such counters.
    """

    def __init__(self, machine: Machine, image: bytes, names: Sequence[str], more: Sequence[str] = ()) -> None:
        """`more`: counters of which only the ghosts are asked."""
        symbols = Symbols(image, lambda address, size: machine.read_linear(0, address, size))
        layout = ZoneLayout(symbols, machine.cpus, lambda address: machine.translate(0, address))
        self._counters: list[_Counted] = []
        for name in (*names, *more):
            target = layout.target(name)
            assert target.item is not None, name
            for counter in layout.counters(target.item, None, whole=False):
                if counter.zone is not None:
                    row = _Counted(counter, counter.zone, target.item[0], name in names)
                    row.off = row.value(machine) - row.ghost(machine)
                    self._counters.append(row)

    def __call__(self, machine: Machine) -> Failure | None:
        wrong = None
        for row in self._counters:
            name, value, ghost = row.counter.name, row.value(machine), row.ghost(machine)
            if row.never_negative and value < 0:
                return Failure(f"{name} is negative", f"{name} is {value} when the run is over")
            if wrong is None and row.has_ghost(machine) and value != ghost + row.off:
                text = f"{name} is {value} when the run is over, but there are {ghost + row.off} such pages"
                wrong = Failure(f"{name} is wrong", text)
        return wrong


def scenario_counters(prepared: Prepared) -> Sequence[Check]:
    """The check of a bundled scenario's own counters (`counters` of guest/scenarios.toml)."""
    return counter_checks(images.scenario(prepared.scenario), prepared.machine, prepared.image)


def counter_checks(scenario: images.Scenario, machine: Machine, image: bytes) -> Sequence[Check]:
    """The same on any machine on which the guest has just become ready. Raises ExpressionError, UsageError."""
    return [CounterCheck(machine, image, scenario.counters, scenario.counters_more)] if scenario.counters else []
