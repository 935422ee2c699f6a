"""What the answers of `racetape matrix seed` stand on: searches of single cells, and what the tape of one schedule of
each shows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from debugger.divergence import first_divergence
from debugger.ghosts import TRACE
from debugger.report import Balance, family
from debugger.zones import ZoneLayout, read_places
from machine import Machine, images
from machine.symbols import Symbols
from racetape.matrix import cell_of
from recorder.hunt import Check, Checks, Failure, Hunt, Verdict, hunt
from recorder.record import Prepared
from replayer import Timeline
from traces import Tape

CLASSES: Final = ("NR_ISOLATED_ANON", "NR_ISOLATED_FILE")
SCHEDULES_MAX: Final = 1_000_000

CellName = tuple[str, str, str]
"""Scenario, variant, configuration."""
Cells = Mapping[CellName, dict[str, Any]]


class SignatureCheck:
    """Fails a run after which a zone counts isolated pages, as nobody holds any then.

    The cause is what kind of accounting failure that looks like, of both classes of pages together.
    """

    def __init__(self, machine: Machine, image: bytes) -> None:
        symbols = Symbols(image, lambda address, size: machine.read_linear(0, address, size))
        layout = ZoneLayout(symbols, machine.cpus, lambda address: machine.translate(0, address))
        names = [None, *(row.name for row in layout.zones)]
        self._counters = [
            [
                (names[0 if row.zone is None else row.zone + 1], row)
                for row in layout.counters((layout.items[name], name), None, whole=False)
            ]
            for name in CLASSES
        ]

    def __call__(self, machine: Machine) -> Failure | None:
        balances = []
        for rows in self._counters:
            for _zone, counter in rows:
                read_places(counter.places, machine)
            balances.append([Balance(counter.name, zone, counter.value, 0) for zone, counter in rows])
        return signature(*balances)


def signature(anon: Sequence[Balance], file: Sequence[Balance]) -> Failure | None:
    """What is wrong in the end, of both classes; the cause is in two words, "mixed" if the classes differ."""
    texts = [text for text in (family(anon, file), family(file, anon)) if text is not None]
    if not texts:
        return None
    causes = sorted({text.partition(":")[0] for text in texts})
    return Failure(causes[0] if len(causes) == 1 else "mixed", "; ".join(texts))


def search_cell(name: CellName, bound: int, *, every: bool, checks: Checks) -> dict[str, Any]:
    """All schedules of a cell with up to `bound` deviations, or up to the first that fails.

    `complete` says whether all were made, `tape` what one of them shows, of scenarios that count isolated pages: the
    first that fails, else the default one. Raises KeyboardInterrupt.
    """
    scenario, variant, configuration = name
    isolates = set(CLASSES) <= set(images.scenario(scenario).counters)

    def all_checks(prepared: Prepared) -> list[Check]:
        own: list[Check] = [SignatureCheck(prepared.machine, prepared.image)] if isolates else []
        return [*own, *checks(prepared)]

    verdict = hunt(
        Hunt(
            scenario,
            variant,
            configuration,
            strategy="bounded",
            bound=bound,
            schedules=SCHEDULES_MAX,
            every=every,
            checks=all_checks,
        )
    )
    if verdict.interrupted:
        raise KeyboardInterrupt
    assert verdict.extent is not None
    done = verdict.extent.deviations == bound and not verdict.extent.cut and not verdict.tally.stops["steps"]
    cell = cell_of(verdict) | {"complete": verdict.exhausted and done}
    return cell | {"tape": _seen(verdict)} if isolates else cell


def _seen(verdict: Verdict) -> dict[str, Any]:
    found = verdict.found[0] if verdict.found else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cell.tape")
        verdict.prepared.record(path, made=verdict.made[found.number] if found else None)
        timeline = Timeline(Tape(path))
        return {
            "schedule": found.number + 1 if found else 1,
            "isolated": _isolated(timeline),
            "stalls": _stalls(timeline),
            "counters": {name: _counter(timeline, name) for name in CLASSES},
        }


def _counter(timeline: Timeline, name: str) -> dict[str, Any]:
    """How far each zone's counter is off in the end, and where that began."""
    report = first_divergence(timeline, name)
    zones = {row.zone: row.error for row in report.balances if row.zone is not None}
    first = report.first_divergence
    return {
        "errors": {zone: error for zone, error in zones.items() if error},
        "sum": sum(row.error for row in report.balances if row.zone is None),
        "first": first and {"function": first.function, "file": first.file, "line": first.line, "zone": first.zone},
        "notes": list(report.notes),
    }


def _traces(timeline: Timeline, name: str) -> list[tuple[int, int]]:
    """Both values of every tracepoint of that name."""
    symbols = Symbols(timeline.image)
    number = next(number for number, known in symbols.tracepoints().items() if known == name)
    found = []
    for events in timeline.events_in_windows(timeline.ready_step, timeline.last_step):
        rows = events[(events.kind == TRACE) & np.equal(events.phys, number)].rows()
        found += [(row.value, row.addr) for row in rows]
    return found


def _isolated(timeline: Timeline) -> dict[str, int]:
    """How many pages were isolated as what."""
    items = Symbols(timeline.image).enumerators("zone_stat_item")
    deltas = [(addr >> 24, addr & 0xFFFFFF) for _page, addr in _traces(timeline, "ghost")]
    return {name: sum(d for item, d in deltas if item == items[name] and d < 0x800000) for name in CLASSES}


def _stalls(timeline: Timeline) -> int:
    """How often a reader found too many pages isolated and slept."""
    return len(_traces(timeline, "stall"))
