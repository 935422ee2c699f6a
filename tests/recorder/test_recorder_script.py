"""Schedules in words: places, names and numbers of instructions are what single steps say they are."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from machine.errors import ExpressionError, UsageError
from machine.symbols import Symbols
from recorder import Prepared, prepare
from recorder.hunt.trial import Trial
from recorder.places import Places, guest_symbols
from recorder.schedule import FOREVER, plan
from recorder.strategies.script import (
    Exact,
    RunInstructions,
    RunTo,
    Script,
    StoreDrains,
    ordinal,
    parse_choices,
    parse_script,
    resolve,
)
from recorder.wording import Wording
from traces.schema import HOLD, ON, Op, RecordArray

FORMS = """
cpu0 runs to mm/compaction.c:412; cpu1 runs 3 instructions   # as an issue might say it
cpu0 runs to isolate_lru_pages, 3rd time, stores held
cpu1 runs 1 instruction, stores held
cpu0's store to zones[1].vm_stat[18] drains
cpu1 runs until it waits
cpu1 runs until it waits, stores held; cpu0 runs 7
"""


def test_forms() -> None:
    choices = parse_choices(FORMS, 2)
    assert choices == [
        RunTo(0, "mm/compaction.c:412"),
        RunInstructions(1, 3),
        RunTo(0, "isolate_lru_pages", 3, True),
        RunInstructions(1, 1, True),
        StoreDrains(0, "zones[1].vm_stat[18]"),
        Exact((Op.RUN, 1, 0, 0, FOREVER)),
        Exact((Op.RUN, 1, HOLD, 0, FOREVER)),
        Exact((Op.RUN, 0, ON, 0, 7)),
    ]
    assert parse_choices("; ".join(map(str, choices)), 2) == choices


def test_ordinals() -> None:
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 101, 112)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "101st", "112th"]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu0 runs to", "is no choice"),
        ("cpu0 runs to a b", "is no choice"),
        ("cpu0 runs to main, 0th time", "is no choice"),
        ("cpu0 runs to main; cpu2 runs to main", "line 1 of the script: there is no cpu2"),
        ("cpu0 runs 99999999999999999999999 instructions", "out of range"),
        ("cpu0's store to  drains", "is no choice"),
        ("cpu0 drains 1, stores held", "is no choice"),
    ],
)
def test_bad_forms(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_choices(text, 2)


def test_a_place_needs_symbols() -> None:
    with pytest.raises(UsageError, match="names a place"):
        parse_script("cpu0 runs to main", 2)
    with pytest.raises(UsageError, match="symbols"):
        resolve(window().machine, [RunTo(0, "main")], None)


@cache
def window() -> Prepared:
    return prepare("window", None, "smp2-2level")


@cache
def symbols() -> Symbols:
    return guest_symbols(window().machine, window().image)


def ready() -> Places:
    window().machine.restore(window().at_ready)
    return Places(window().machine, symbols())


def test_the_machine_stays_where_it_is() -> None:
    places = ready()
    machine = places.machine
    before = machine.state_hash(), machine.step
    machine.choices_take()
    machine.choices_enabled = True
    assert places.steps_to(1, places.addresses("add_to_shared"), 1, hold=False)
    assert (machine.state_hash(), machine.step) == before
    assert machine.choices_take() == b""
    assert machine.choices_enabled
    assert not machine.tap


def single_steps(cpu: int, hold: bool) -> list[tuple[int, int]]:
    """Where `cpu` stands behind each of its steps, until it waits, and how many instructions it has completed."""
    machine = ready().machine
    found = []
    while True:
        before = machine.step
        machine.execute(plan((Op.RUN, cpu, 1, ON | HOLD if hold else ON)).tobytes())
        if machine.step == before:
            return found
        registers = machine.registers(cpu)
        found.append((registers["rip"], registers["retired"]))


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize(
    ("place", "often"),
    [("add_to_shared", 1), ("schedule_timeout", 0), ("scenarios/window.c:27", 100), ("scenarios/window.c:35", 1)],
)
def test_places_are_where_single_steps_find_them(place: str, often: int, hold: bool) -> None:
    """A drain that makes room is a step that moves nobody."""
    for cpu in range(2):
        rows = [(0, 0), *single_steps(cpu, hold)]
        places = ready()
        addresses = places.addresses(place)
        at = [n for n, (before, row) in enumerate(pairwise(rows), 1) if row[0] in addresses and row != before]
        assert len(at) >= often
        for times, steps in enumerate(at[:30], 1):
            assert places.steps_to(cpu, addresses, times, hold=hold) == steps
        assert places.steps_to(cpu, addresses, len(at) + 1, hold=hold) is None


def test_instructions_are_not_steps_where_the_buffer_is_full() -> None:
    places = ready()
    steps = places.steps_of(0, 200, hold=True)
    retired = places.machine.registers(0)["retired"]
    places.run(0, steps, hold=True)
    assert places.machine.registers(0)["retired"] - retired == 200
    assert steps > 200  # rounds of loads and stores, of which the buffer holds eight
    assert ready().steps_of(0, 200, hold=False) == 200
    assert 0 < ready().steps_of(0, 1 << 40, hold=False) < 3000  # it halts


def test_what_is_not_there_is_said() -> None:
    places = ready()
    for place in ("no_such_function", "scenarios/window.c:1", "none.c:5"):
        with pytest.raises(UsageError, match=place):
            places.addresses(place)
    with pytest.raises(ExpressionError):
        places.store_to(0, "no_such_variable")


def test_a_store_is_found_by_its_name() -> None:
    places = ready()
    choices = [*parse_choices("cpu0 runs to add_to_shared, stores held; cpu0 runs 9 instructions, stores held", 2)]
    rows = resolve(places.machine, choices, symbols())
    places.machine.execute(rows.tobytes())
    held = [entry[0] for entry in places.machine.store_buffer_entries(0)]
    shared = symbols().lvalue("shared.sum").address
    assert held.index(shared) > 0
    assert places.store_to(0, "shared.sum") == places.store_to(0, "shared") == held.index(shared) + 1
    assert places.store_to(1, "shared.sum") == 0
    again = resolve(ready().machine, [*choices, StoreDrains(0, "shared.sum")], symbols())
    assert again[-1].tolist() == (Op.DRAIN, 0, 0, 0, held.index(shared) + 1)


def test_what_is_not_come_to_is_passed_over() -> None:
    rows = resolve(ready().machine, [RunTo(0, "schedule_timeout"), Exact((Op.RUN, 0, ON, 0, 3))], symbols())
    assert rows.tolist() == [(Op.RUN, 0, ON, 0, 3)]


def merged(rows: RecordArray) -> list[tuple[int, ...]]:
    out: list[tuple[int, ...]] = []
    for row in rows.tolist():
        if out and row[0] == Op.RUN and out[-1][:4] == row[:4]:
            out[-1] = (*row[:4], out[-1][4] + row[4])
        else:
            out.append(row)
    return out


def test_words_lead_to_the_same_schedule() -> None:
    """Random schedules of `window`, of runs with stores held or not and drains; most of them are said by places."""
    machine, trial = ready().machine, Trial(window())
    exact = 0
    for seed in range(25):
        r = np.random.default_rng(seed)
        rows = []
        for _ in range(int(r.integers(1, 6))):
            cpu, flags = int(r.integers(2)), ON | (HOLD if r.integers(2) else 0)
            rows.append((Op.RUN, cpu, int(r.integers(1, 700)), flags))
            if r.integers(2):
                rows.append((Op.DRAIN, cpu, int(r.integers(1, 4)), 0))
        records = plan(*rows)
        words = Wording(machine, window().at_ready, symbols()).words(records)
        said = parse_choices("\n".join(map(str, words)), 2)
        machine.restore(window().at_ready)
        assert merged(resolve(machine, said, symbols())) == merged(records)
        assert trial.run(Script(said, symbols()), 0) == trial.run(Script(records), 0)
        exact += all(isinstance(choice, Exact) for choice in said)
    assert exact < 5
