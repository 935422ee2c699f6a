"""What a hunt looks at when a run is over, besides how it ended: the scenario's zone counters."""

from __future__ import annotations

from collections.abc import Sequence

from debugger.ghosts import Counter
from debugger.zones import ZoneLayout, read_places
from machine import Machine, images
from machine.symbols import Symbols
from recorder.hunt import Check, Failure
from recorder.record import Prepared


class CounterCheck:
    """Fails a run after which a zone's counter, with every CPU's differential and every held store, is negative.

    Whether it ever was in between, or is wrong without being negative, is for `first-divergence` to say.

    Raises ExpressionError, UsageError: the image has no zones as Linux has them, or no such counters.
    """

    def __init__(self, machine: Machine, image: bytes, names: Sequence[str]) -> None:
        symbols = Symbols(image, lambda address, size: machine.read_linear(0, address, size))
        layout = ZoneLayout(symbols, machine.cpus, lambda address: machine.translate(0, address))
        self._counters: list[Counter] = []
        for name in names:
            target = layout.target(name)
            assert target.item is not None, name
            self._counters += [row for row in layout.counters(target.item, None, whole=False) if row.zone is not None]

    def __call__(self, machine: Machine) -> Failure | None:
        for counter in self._counters:
            read_places(counter.places, machine)
            if counter.value < 0:
                return Failure(f"{counter.name} is negative", f"{counter.name} is {counter.value} when the run is over")
        return None


def scenario_counters(prepared: Prepared) -> Sequence[Check]:
    """The check of a bundled scenario's own counters (`counters` of guest/scenarios.toml)."""
    row = images.scenario(prepared.scenario)
    return [CounterCheck(prepared.machine, prepared.image, row.counters)] if row.counters else []
