"""What a hunt says of counters when a run is over: negative, or not what their ghosts say."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from debugger.checks import CounterCheck, scenario_counters
from debugger.zones import ZoneLayout
from machine.symbols import Symbols
from recorder import prepare
from recorder.hunt import Hunt, hunt
from recorder.record import Prepared
from recorder.schedule import auto
from traces import Tape
from traces.schema import KINDS

COUNTERS = ("NR_ISOLATED_ANON", "NR_ISOLATED_FILE")
MORE = ("NR_INACTIVE_ANON", "NR_ACTIVE_ANON", "NR_FREE_PAGES")
FIX = "fix-7454f4ba40b4"


@cache
def ready(configuration: str, variant: str = FIX) -> Prepared:
    return prepare("wrong-zone-small", variant, configuration)


def end(prepared: Prepared) -> None:
    prepared.machine.restore(prepared.at_ready)
    assert prepared.machine.execute(auto().tobytes(), step_max=prepared.step_max)[0] == "exit"


def place(prepared: Prepared, name: str, zone: int = 1) -> int:
    machine = prepared.machine
    symbols = Symbols(prepared.image, lambda address, size: machine.read_linear(0, address, size))
    layout = ZoneLayout(symbols, machine.cpus, lambda address: machine.translate(0, address))
    return layout.counters((layout.items[name], name), None, whole=False)[zone].places[0].phys


@pytest.mark.parametrize("configuration", ["up-2level", "smp2-2level", "smp2-x86_64"])
@pytest.mark.parametrize(("name", "delta"), [("NR_ISOLATED_FILE", 2), ("NR_FREE_PAGES", -1), ("NR_ACTIVE_ANON", 1)])
def test_a_counter_that_is_off_is_found(configuration: str, name: str, delta: int) -> None:
    """One that is too high, too: nobody would ever see it negative."""
    prepared = ready(configuration)
    prepared.machine.restore(prepared.at_ready)
    check = CounterCheck(prepared.machine, prepared.image, COUNTERS, MORE)
    end(prepared)
    assert check(prepared.machine) is None
    at = place(prepared, name)
    value = int.from_bytes(prepared.machine.read(at, 4), "little", signed=True)
    prepared.machine.write(at, (value + delta).to_bytes(4, "little", signed=True))
    failure = check(prepared.machine)
    assert failure is not None
    assert failure.cause.endswith(f"{name} is wrong")
    assert failure.text.startswith(failure.cause.removesuffix("wrong"))


def test_wrong_zone_is_wrong_on_both_sides() -> None:
    """Where negative values are not asked for, the first zone is the one that counts too many."""
    prepared = ready("up-2level", "buggy")
    prepared.machine.restore(prepared.at_ready)
    negative = CounterCheck(prepared.machine, prepared.image, COUNTERS, MORE)
    wrong = CounterCheck(prepared.machine, prepared.image, (), COUNTERS)
    end(prepared)
    causes = [failure.cause for check in (negative, wrong) if (failure := check(prepared.machine)) is not None]
    assert causes == ["Normal NR_ISOLATED_ANON is negative", "DMA NR_ISOLATED_ANON is wrong"]


def test_the_ledger_is_what_the_tape_announces(tmp_path_factory: pytest.TempPathFactory) -> None:
    prepared = ready("smp2-2level")
    machine = prepared.machine
    path = tmp_path_factory.mktemp("ghosts") / "run.tape"
    prepared.record(path, strategy="random-walk", seed=3)
    symbols = Symbols(prepared.image, lambda address, size: machine.read_linear(0, address, size))
    layout = ZoneLayout(symbols, machine.cpus, lambda address: machine.translate(0, address))
    ghost = next(number for number, name in symbols.tracepoints().items() if name == "ghost")
    after = {(z, i): machine.ledger_sum(z, i) for z in range(len(layout.zones)) for i in layout.items.values()}
    machine.restore(prepared.at_ready)
    before = {key: machine.ledger_sum(*key) for key in after}
    sums: Counter[tuple[int, int]] = Counter()
    with Tape(path) as tape:
        rows = tape.events[:]
        for row in rows[(rows.kind == KINDS["trace"]) & (rows.phys == ghost)].rows():
            zone, delta = layout.zone_of_page(row.value), row.addr & 0xFFFFFF
            assert zone is not None
            sums[zone, row.addr >> 24] += delta - (1 << 24) if delta & 0x800000 else delta
    assert len(sums) > 5
    assert sums == {key: (after[key] or 0) - (before[key] or 0) for key in sums}
    moved = {key for key in after if (after[key] or 0) != (before[key] or 0)}
    assert moved == {key for key, value in sums.items() if value}


@pytest.mark.parametrize("scenario", ["shootdown-small", "class-flip", "soft-offline", "collapse", "split"])
def test_fixed_variants_fit_their_ghosts(scenario: str) -> None:
    for configuration in ("up-2level", "smp2-2level"):
        variant = {"class-flip": "fix-fc280fe87144", "soft-offline": "fix-5db8a73a8d7c", "shootdown-small": FIX}
        what = Hunt(scenario, variant.get(scenario, "fixed"), configuration, schedules=40, checks=scenario_counters)
        assert hunt(what).result == "budget"
