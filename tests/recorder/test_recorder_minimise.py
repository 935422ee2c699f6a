"""Minimising: fewer choices, the same cause; and schedules in words."""

from __future__ import annotations

import itertools
from pathlib import Path

import mini
import numpy as np
import pytest

from machine import Machine
from machine.errors import UsageError
from recorder.hunt import Failure, Hunt, hunt
from recorder.hunt.trial import Trial
from recorder.minimise import Minimal, Minimiser, script_records
from recorder.schedule import plan
from recorder.strategies.script import Script, parse_script, script_line
from traces import Tape
from traces.schema import HOLD, ON, RECORD, Op, RecordArray

EVERY_FORM = """
# all that can be said
cpu0 runs 1204
cpu1  runs 3, stores held   # a comment
cpu1 drains 1
cpu0 takes interrupt 64

cpu0 is answered 1
cpu1 loses 0xc0101000
"""


def test_a_script_says_what_its_records_do() -> None:
    records = parse_script(EVERY_FORM, 2)
    assert [tuple(row) for row in records.tolist()] == [
        (Op.RUN, 0, ON, 0, 1204),
        (Op.RUN, 1, ON | HOLD, 0, 3),
        (Op.DRAIN, 1, 0, 0, 1),
        (Op.IRQ, 0, 0, 0, 64),
        (Op.CHOICE, 0, 0, 0, 1),
        (Op.EVICT, 1, 0, 0, 0xC0101000),
    ]
    again = parse_script("\n".join(map(script_line, records)), 2)
    assert again.tobytes() == records.tobytes()
    assert parse_script("\n # nothing\n", 1).tobytes() == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu0 runs", "line 1 of the script: 'cpu0 runs' is no choice"),
        ("\ncpu2 runs 5", "line 2 of the script: there is no cpu2, the machine has 2"),
        ("cpu0 runs -5", "is no choice"),
        ("cpu00 runs 5", "is no choice"),
        ("cpu0 runs 99999999999999999999999", "out of range"),
        ("cpu0 loses 12", "is no choice"),
        ("\x00\xff", "is no choice"),
    ],
)
def test_bad_scripts(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_script(text, 2)


def failing(seed: int, strategy: str, tmp_path: Path) -> tuple[Trial, RecordArray, str]:
    what = Hunt("wrong-zone-small", None, "smp2-2level", strategy=strategy, seed=seed, schedules=3000)
    (found,) = hunt(what).found
    prepared = mini.wrong_zone("smp2-2level")
    path = tmp_path / "a.tape"
    prepared.record(path, strategy=strategy, seed=found.seed)
    with Tape(path) as tape:
        records = np.concatenate([chunk.records for chunk in tape.choices(tape.header.ready_step)])
    return Trial(prepared), script_records(records), found.failure.cause


def fails(trial: Trial, records: RecordArray, cause: str) -> bool:
    failure = trial.run(Script(records), 0).failure
    return failure is not None and failure.cause == cause


@pytest.mark.parametrize(("strategy", "seed"), [("pct", 0), ("pct", 1), ("random-walk", 1)])
def test_crashes_become_a_few_lines(strategy: str, seed: int, tmp_path: Path) -> None:
    """1-minimal: nothing can be left out, let go or made a step shorter."""
    trial, records, cause = failing(seed, strategy, tmp_path)
    minimal = Minimiser(trial).minimise(records)
    assert minimal.complete
    assert minimal.failure.cause == cause
    assert len(records) == minimal.before
    assert len(minimal.records) <= min(8, len(records))
    assert len("\n".join(map(script_line, minimal.records))) < 1000
    assert fails(trial, minimal.records, cause)
    for i, row in enumerate(minimal.records):
        assert not fails(trial, np.delete(minimal.records, i), cause)
        changed = minimal.records.copy()
        if row["op"] == Op.RUN and row["arg"] > 1:
            changed["arg"][i] -= 1
            assert not fails(trial, changed, cause)
        if row["flags"] & HOLD:
            changed = minimal.records.copy()
            changed["flags"][i] &= ~np.uint16(HOLD)
            assert not fails(trial, changed, cause)


def test_a_recorded_schedule_is_the_same_as_a_script(tmp_path: Path) -> None:
    """The exact choices of a tape, taken as a script, lead to the same state, also past PAUSE."""
    prepared = mini.wrong_zone("smp2-2level")
    for seed in range(6):
        path = tmp_path / "a.tape"
        summary = prepared.record(path, strategy="random-walk", seed=seed)
        with Tape(path) as tape:
            records = np.concatenate([chunk.records for chunk in tape.choices(tape.header.ready_step)])
        again = prepared.record(tmp_path / "b.tape", strategy=Script(script_records(records)))
        assert (again.state_hash, again.steps) == (summary.state_hash, summary.steps)


class Abstract:
    """A trial that fails if a predicate holds of the choices, to compare with every sublist."""

    def __init__(self, predicate: object) -> None:
        self.predicate, self.runs = predicate, 0

    def run(self, strategy: Script, seed: int) -> object:
        from recorder.hunt.trial import Ended

        self.runs += 1
        bad = self.predicate(strategy.records)  # type: ignore[operator]
        return Ended("exit", 1, Failure("bad", "bad") if bad else None, 0)


def minimal_of(predicate: object, records: RecordArray, runs_max: int = 20_000) -> Minimal:
    return Minimiser(Abstract(predicate), runs_max=runs_max).minimise(records)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_as_small_as_the_smallest_sublist(seed: int) -> None:
    """Where leaving out is all there is to do, and failing is having some choices, the optimum is found."""
    r = np.random.default_rng(seed)
    rows = [(Op.IRQ, 0, 32 + number) for number in range(12)]
    needed = set(r.choice(12, size=int(r.integers(1, 5)), replace=False).tolist())

    def bad(records: RecordArray) -> bool:
        return needed <= {int(arg) - 32 for arg in records["arg"]}

    minimal = minimal_of(bad, plan(*rows))
    smallest = min(
        n for n in range(13) for some in itertools.combinations(rows, n) if bad(plan(*some) if some else EMPTY)
    )
    assert len(minimal.records) == smallest == len(needed)


EMPTY = np.empty(0, RECORD)


def test_switches_and_holds_that_are_not_needed_go() -> None:
    """Failing needs 100 steps of cpu0, then 50 of cpu1: of hundreds of runs two are left."""
    rows = [(Op.RUN, i % 2, 3, HOLD | ON if i % 3 else ON) for i in range(400)]

    def bad(records: RecordArray) -> bool:
        done = [0, 0]
        for row in records:
            if row["op"] == Op.RUN and (row["cpu"] == 0 or done[0] >= 100):
                done[int(row["cpu"])] += int(row["arg"])
        return done[0] >= 100 and done[1] >= 50

    minimal = minimal_of(bad, plan(*rows))
    assert list(map(script_line, minimal.records)) == ["cpu0 runs 100", "cpu1 runs 50"]
    assert (minimal.switches, minimal.held, minimal.before) == (1, 0, 400)


def test_a_held_store_that_is_needed_stays() -> None:
    rows = [(Op.RUN, 0, 5, HOLD | ON), (Op.RUN, 1, 5, ON), (Op.DRAIN, 0, 1)]
    minimal = minimal_of(lambda records: any(row["flags"] & HOLD for row in records), plan(*rows))
    assert list(map(script_line, minimal.records)) == ["cpu0 runs 1, stores held"]
    assert minimal.held == 1


def test_a_spent_budget_is_said() -> None:
    rows = [(Op.IRQ, 0, 32 + number) for number in range(60)]
    minimal = minimal_of(lambda records: len(records) >= 30, plan(*rows), runs_max=10)
    assert not minimal.complete
    assert minimal.runs == 10


def test_nothing_to_minimise() -> None:
    with pytest.raises(UsageError, match="nothing to minimise"):
        Minimiser(Trial(mini.prepared(1))).minimise(plan((Op.RUN, 0, 10, ON)))


def test_a_bug_that_needs_no_schedule_needs_no_choice() -> None:
    def always(machine: Machine) -> Failure:
        return Failure("always", "always")

    prepared = mini.prepared(1)
    minimal = Minimiser(Trial(prepared, [always])).minimise(plan((Op.RUN, 0, 10, ON), (Op.RUN, 0, 10, ON)))
    assert len(minimal.records) == 0
