"""The fewest switches and held stores: what the minimiser comes to is what trying everything comes to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from agent_threads import machine, word

from debugger.checks import scenario_counters
from machine import Machine, _core
from machine.bare import BareMachine
from recorder import Prepared, prepare
from recorder.ending import ending
from recorder.fewest import Cost, Fewest
from recorder.hunt import Failure
from recorder.hunt.trial import Ended, Trial
from recorder.minimise import Minimiser, script_records
from recorder.profile import Manner
from recorder.schedule import FOREVER, auto, pick, plan
from recorder.strategies.script import Script, parse_script, script_line
from traces.schema import HOLD, ON, Op, RecordArray, records_of

STEP_MAX = 1 << 16
BAD = Failure("bad", "bad")


class Bare:
    """A trial of threads on a bare machine, which fail if `bad` holds when all have halted."""

    def __init__(self, threads: tuple[str, ...], bad: Callable[[BareMachine], bool]) -> None:
        self.bare = machine(*threads)
        self.machine: Machine = self.bare.machine
        self.bad, self.start = bad, self.machine.snapshot()

    def run(self, strategy: Script, seed: int) -> Ended:
        self.machine.restore(self.start)
        self.machine.choices_enabled = False
        plan_ = np.concatenate([strategy.records, auto()])
        stop = self.machine.execute(plan_.tobytes(), step_max=STEP_MAX)[0]
        return Ended(stop, self.machine.step, self.judge(stop), self.machine.state_hash())

    def judge(self, stop: str) -> Failure | None:
        assert (stop, ending(self.machine)) == ("idle", "idle")
        return BAD if self.bad(self.bare) else None

    def fewest(self, runs_max: int = 100_000) -> Fewest:
        return Fewest(self.machine, self.start, step_max=STEP_MAX, judge=self.judge, runs_max=runs_max)

    def random(self, seed: int) -> RecordArray | None:
        """The choices of a random run by visible steps, if it fails."""
        self.machine.restore(self.start)
        self.machine.choices_enabled = True
        self.machine.choices_take()
        policy = (_core.PICK_WALK, _core.PICK_POS)[seed % 2]
        stop = self.machine.execute(pick(policy, seed, Manner()).tobytes(), step_max=STEP_MAX)[0]
        log = records_of(self.machine.choices_take())
        return script_records(log) if self.judge(stop) else None


def eax(m: BareMachine, *values: int) -> bool:
    return all(m.get("eax", cpu=cpu) == value for cpu, value in enumerate(values))


INCREMENT = "mov 0x8000, %eax; inc %eax; mov %eax, 0x8000; hlt"
TWICE = "mov 0x8000, %eax; mov 0x8000, %ebx; hlt"
PROGRAMS: dict[str, tuple[tuple[str, ...], Callable[[BareMachine], bool]]] = {
    "lost update": ((INCREMENT, INCREMENT), lambda m: word(m) != 2),
    "store buffering": (
        ("movl $1, 0x8000; mov 0x8040, %eax; hlt", "movl $1, 0x8040; mov 0x8000, %eax; hlt"),
        lambda m: eax(m, 0, 0),
    ),
    "store buffering, and on": (
        ("movl $1, 0x8000; mov 0x8040, %eax; mfence; hlt", "movl $1, 0x8040; mov 0x8000, %eax; mfence; hlt"),
        lambda m: eax(m, 0, 0),
    ),
    "second first": (("mov 0x8000, %eax; hlt", "movl $1, 0x8000; hlt"), lambda m: eax(m, 1)),
    "in between": (
        (TWICE, "movl $1, 0x8000; movl $2, 0x8000; hlt"),
        lambda m: (m.get("eax", cpu=0), m.get("ebx", cpu=0)) == (0, 1),
    ),
    "there and back": (
        ("mov 0x8000, %eax; mov 0x8040, %ebx; hlt", "movl $1, 0x8000; mov 0x8080, %eax; movl $1, 0x8040; hlt"),
        lambda m: (m.get("eax", cpu=0), m.get("ebx", cpu=0)) == (1, 0),
    ),
}


@cache
def brute_force(name: str) -> tuple[int, int]:
    """(switches, held) of the least of all scripts of up to four runs, of single steps or until the CPU waits."""
    trial = Bare(*PROGRAMS[name])
    fewest = trial.fewest()
    rows = [(Op.RUN, cpu, steps, ON | hold) for cpu in (0, 1) for steps in (1, 2, 3) for hold in (0, HOLD)]
    rows += [(Op.RUN, cpu, FOREVER, hold) for cpu in (0, 1) for hold in (0, HOLD)]
    rows += [(Op.DRAIN, cpu, 1, 0) for cpu in (0, 1)]
    best = (9, 9)
    for length in range(5):
        for some in itertools.product(rows, repeat=length):
            if any(a[:2] == b[:2] and a[0] == Op.RUN for a, b in itertools.pairwise(some)):
                continue
            records = plan(*some) if some else plan((Op.RUN, 0, 0, ON))
            held = sum(bool(row[3] & HOLD) or row[0] == Op.DRAIN for row in some)
            if (0, held) < best and trial.run(Script(records), 0).failure is not None:
                best = min(best, fewest.cost(records)[:2])
    return best


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_few_as_brute_force(name: str) -> None:
    """From twenty random failing schedules each, and it is known that there are no fewer."""
    trial = Bare(*PROGRAMS[name])
    failing = [found for seed in range(2000) if (found := trial.random(seed)) is not None][:20]
    assert len(failing) == 20
    for records in failing:
        minimal = Minimiser(trial, fewest=trial.fewest()).minimise(records)
        said = list(map(script_line, minimal.records))
        assert minimal.cost is not None
        assert minimal.cost[:2] == brute_force(name), said
        assert minimal.proved
        assert minimal.complete
        assert trial.run(Script(minimal.records), 0).failure == BAD


@cache
def fails_without_held_stores(name: str) -> bool:
    """By running every list of up to six runs."""
    trial = Bare(*PROGRAMS[name])
    rows = [(Op.RUN, cpu, steps, ON) for cpu in (0, 1) for steps in (1, 2, 3, 4)]
    return any(
        trial.run(Script(plan(*some)), 0).failure is not None
        for length in range(1, 6)
        for some in itertools.product(rows, repeat=length)
        if all(a[1] != b[1] for a, b in itertools.pairwise(some))
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_is_known_whether_stores_have_to_be_held(name: str) -> None:
    trial = Bare(*PROGRAMS[name])
    records = next(found for seed in range(2000) if (found := trial.random(seed)) is not None)
    minimal = Minimiser(trial, fewest=trial.fewest()).minimise(records)
    if minimal.held:
        assert (minimal.without_held is not None) == fails_without_held_stores(name)
        if minimal.without_held is None:
            assert minimal.without_held_deviations >= 3
        else:
            assert minimal.without_held.held == 0
            assert minimal.without_held > minimal.cost
    else:
        assert fails_without_held_stores(name)
        assert (minimal.without_held, minimal.without_held_deviations) == (None, -1)


def test_programs_of_both_kinds_are_among_them() -> None:
    held = {name: fails_without_held_stores(name) for name in PROGRAMS}
    assert held["lost update"]
    assert not held["store buffering"]


def test_what_is_least_is_what_one_would_say() -> None:
    expected = {
        "lost update": (0, 1),  # the first one has halted before its store drains
        "store buffering": (0, 1),
        "store buffering, and on": (1, 1),
        "second first": (1, 0),
        "in between": (1, 2),  # the second one has halted, and its stores drain one by one
        "there and back": (1, 2),
    }
    assert {name: brute_force(name) for name in PROGRAMS} == expected


def window_choices(seed: int) -> RecordArray | None:
    """Of a random run of the scenario, if it fails."""
    prepared, trial = window()
    core = prepared.machine
    core.restore(prepared.at_ready)
    core.choices_enabled = True
    core.choices_take()
    policy = (_core.PICK_WALK, _core.PICK_POS, _core.PICK_PCT)[seed % 3]
    stop = core.execute(pick(policy, seed, Manner(), depth=3, steps=8).tobytes(), step_max=prepared.step_max)[0]
    log = records_of(core.choices_take())
    return script_records(log) if trial.failure(stop, core.console_take().decode()) else None


@cache
def window() -> tuple[Prepared, Trial]:
    prepared = prepare("window", None, "smp2-2level")
    prepared.profile(visible=True)
    return prepared, Trial(prepared, scenario_counters(prepared))


def test_window_takes_one_switch_whatever_was_found() -> None:
    """And it does take one: with none, however stores are held, nothing is lost."""
    prepared, trial = window()
    failing = [found for seed in range(1000) if (found := window_choices(seed)) is not None][:20]
    assert len(failing) == 20
    results = set()
    for records in failing:
        fewest = Fewest(
            prepared.machine,
            prepared.at_ready,
            step_max=prepared.step_max,
            judge=lambda stop: trial.failure(stop, prepared.machine.console_take().decode()),
            runs_max=20_000,
        )
        minimal = Minimiser(trial, fewest=fewest).minimise(records)
        assert minimal.cost is not None
        assert minimal.cost[:2] == (1, 0)
        assert minimal.proved
        results.add("; ".join(map(script_line, minimal.records)))
    assert len(results) == 1  # the earliest, too
    for first, second in itertools.product((0, HOLD), repeat=2):
        row = plan((Op.RUN, 0, FOREVER, first), (Op.RUN, 1, FOREVER, second))
        assert trial.run(Script(row), 0).failure is None


def test_cost() -> None:
    trial = Bare(*PROGRAMS["lost update"])
    fewest = trial.fewest()
    for text, cost in {
        "cpu0 runs 2": (0, 0, 2, 1),
        "cpu1 runs 2": (2, 0, 2, 1),
        "cpu1 runs until it waits": (1, 0, 4, 1),
        "cpu0 runs 4; cpu1 runs 4": (0, 0, 8, 2),
        "cpu0 runs 2; cpu1 runs until it waits": (1, 0, 6, 2),
        "cpu0 runs 2; cpu1 runs 2; cpu0 runs 2": (2, 0, 6, 3),
        "cpu0 runs 3, stores held; cpu1 runs 4; cpu0 drains 1": (1, 2, 8, 3),
    }.items():
        assert fewest.cost(parse_script(text, 2)) == Cost(*cost), text


def test_without_the_runs_for_it_nothing_is_proved() -> None:
    trial = Bare(*PROGRAMS["store buffering, and on"])
    records = next(found for seed in range(2000) if (found := trial.random(seed)) is not None)
    minimal = Minimiser(trial, fewest=trial.fewest(2)).minimise(records)
    assert not minimal.proved
    assert minimal.deviations <= 0
    assert minimal.enumerated <= 2 * (2 + 1)  # two questions
