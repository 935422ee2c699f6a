"""Every scenario in every configuration and variant: it ends well, in time, and its counters are what ghosts say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from guest_state import Layout, Read, to_physical
from machine_driver import run_default, step

from machine import Machine, _core, images
from machine.symbols import Symbols

LONG = ("thp-pressure-large",)
"""A hundred million events."""

CASES = [
    pytest.param(
        scenario.name,
        configuration,
        variant,
        marks=[pytest.mark.soak]
        if scenario.name in LONG or (scenario.flavour, variant) == ("linux", "seed-wmb")
        else [],
        id=f"{scenario.name}-{configuration}-{variant}",
    )
    for scenario in images.scenarios()
    for configuration in scenario.configurations
    for variant in scenario.variants
]


def _ghost_sums(machine: Machine, layout: Layout, read: Read, ghost: int) -> Counter[tuple[str, str]]:
    """(zone, item) -> sum of the deltas that the guest announces on its way to the end, by the default schedule."""
    sums: Counter[tuple[str, str]] = Counter()
    machine.tap_capacity(1 << 20)
    machine.tap = True
    plan, index, done, reason = step(_core.AUTO, 0, 1 << 40), 0, 0, "events"
    while reason == "events":
        reason, index, done = machine.execute(plan, index=index, done=done)
        count, *columns = machine.events()
        _, _, addr, phys, value, kinds, *_ = (np.asarray(column)[:count] for column in columns)
        for row in np.nonzero((kinds == _core.EVENT_KINDS["trace"]) & (phys == ghost))[0]:
            key, delta = layout.ghost(read, int(value[row]), int(addr[row]))
            sums[key] += delta
        machine.events_clear()
    assert reason == "exit"
    return sums


@pytest.mark.parametrize(
    ("name", "configuration", "variant"),
    [row for row in CASES if not (row.values[0] == "split" and row.id.endswith("buggy") and "smp" in row.id)],
)
def test_it_ends_well_and_its_counters_are_true(name: str, configuration: str, variant: str) -> None:
    scenario = images.scenario(name)
    image = images.image_bytes(scenario.image(configuration, variant))
    layout = Layout.of(image)
    names = {text: number for number, text in Symbols(image).tracepoints().items()}
    machine = Machine(cpus=scenario.configuration(configuration).cpus, ram_bytes=scenario.ram_bytes)

    def read(address: int, size: int) -> bytes:
        return machine.read(to_physical(address, layout.bits), size)

    images.boot(machine, image, scenario.command_line)
    machine.stop_at_trace = names["ready"]
    assert run_default(machine, scenario.step_max) == "trace"
    machine.stop_at_trace = 0
    expected = layout.counters(read)
    expected.update(_ghost_sums(machine, layout, read, names["ghost"]))
    assert (machine.exit_status, machine.console_take()) == (0, b"")
    assert machine.step < scenario.step_max

    counters = layout.counters(read)
    wrong = Counter(
        {key: counters[key] - expected[key] for key in {*expected, *counters} if counters[key] != expected[key]}
    )
    if name == "collapse" and variant == "buggy":
        # On SMP compaction takes one of the pages away first.
        count = -5 if configuration.startswith("up") else -1
        zone = "DMA32" if configuration.endswith("x86_64") else "HighMem"
        assert wrong == {(zone, "NR_ISOLATED_ANON"): count}
        return
    if name == "soft-offline" and variant == "buggy":
        zone = "DMA32" if configuration.endswith("x86_64") else "HighMem"
        assert wrong == {(zone, "NR_ISOLATED_ANON"): -1, (zone, "NR_ISOLATED_FILE"): -1}
        return
    if not name.startswith("wrong-zone") or variant.startswith("fix"):
        assert wrong == {}
        return
    # Counted for one zone and uncounted for the next: whatever one has too much, the other has too little.
    first, second, _ = layout.zone_names
    assert {zone for zone, _ in wrong} == {first, second}
    assert {item for _, item in wrong} <= {*scenario.counters, *scenario.counters_more}
    assert {item for _, item in wrong} >= set(scenario.counters)
    for item in {item for _, item in wrong}:
        assert wrong[first, item] == -wrong[second, item], item
