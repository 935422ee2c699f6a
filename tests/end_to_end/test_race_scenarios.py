"""Scenarios that need a schedule: a hunt with default settings finds the bug, and nothing once it is fixed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from debugger.checks import scenario_counters
from machine import images
from machine._core import Explorer
from racetape.cli import main
from recorder.hunt import Hunt, Verdict, hunt
from recorder.hunt.trial import Trial
from recorder.record import prepare
from recorder.strategies.script import Script, parse_script

TIMER_VECTOR = 0xEF
RESCHEDULE_VECTOR = 0xFD
HELD_DEVIATIONS = 4
"""So many are enough for held stores to make a dead task run again where a barrier is missing."""


@dataclass(frozen=True)
class Race:
    """A scenario with one bug.

    Attributes:
        text: how a failing run says what is wrong.
        schedules: so many find it, for almost any seed.
        safe: the builds that cannot have it.
        place: the function that must be interrupted in its middle, "" if it takes more than one.
        single: whether one preemption can be enough; takes_two: the builds in which it cannot.
        on_one_cpu: whether it is between tasks of one CPU, also where there are more.
        counter, culprit: what first-divergence names, and where it sees it go wrong.
    """

    text: str
    schedules: int
    safe: tuple[str, ...] = ()
    place: str = ""
    single: bool = True
    takes_two: tuple[str, ...] = ()
    on_one_cpu: bool = False
    counter: str = ""
    culprit: str = ""


RACES = {
    "class-flip": Race(
        "a page changed its class while isolated", 500, counter="NR_ISOLATED_FILE", culprit="putback_movable_pages"
    ),
    "compound-publish": Race("followed a first_page that is not its head", 5000, place="prep_compound_page"),
    "dirty-bit": Race("D is lost", 5000, safe=("up",), place="pmdp_invalidate"),
    "exit-race": Race("kernel BUG at kernel/fork.c", 3000, safe=("up",), single=False),
    "mremap-flush": Race("stores to page frame", 5000, place="mremap_main", takes_two=("smp2",)),
    "vmstat-lost-update": Race(
        "an update was overwritten",
        2000,
        safe=("up",),
        place="__inc_zone_state",
        on_one_cpu=True,
        counter="NR_FILE_DIRTY",
        culprit="__inc_zone_state",
    ),
    "window": Race("one of two additions to the shared word is lost", 3000, place="add_to_shared"),
}
CASES = [(name, configuration) for name in RACES for configuration in images.scenario(name).configurations]


def search(name: str, variant: str, configuration: str, schedules: int, seed: int = 0) -> Verdict:
    return hunt(
        Hunt(name, variant, configuration, seed=seed, schedules=schedules, checks=scenario_counters),
    )


@pytest.mark.parametrize(("name", "configuration"), CASES)
def test_it_is_found_and_its_fix_is_clean(name: str, configuration: str) -> None:
    race = RACES[name]
    buggy, fixed = images.scenario(name).variants[:2]
    safe = configuration.split("-")[0] in race.safe
    schedules = 1000
    if not safe:
        verdict = search(name, buggy, configuration, race.schedules)
        (found,) = verdict.found
        assert race.text in found.failure.text
        schedules = max(4 * verdict.tally.schedules, 400)
    for variant in (buggy, fixed) if safe else (fixed,):
        verdict = search(name, variant, configuration, schedules)
        assert (verdict.result, verdict.tally.schedules) == ("budget", schedules)
        assert set(verdict.tally.stops) == {"exit"}


def interrupted(name: str, variant: str, configuration: str) -> list[set[str]]:
    """Where CPU 0 stands, as the functions it is in, whenever the run fails if others take over just there."""
    prepared = prepare(name, variant, configuration)
    machine = prepared.machine
    trial = Trial(prepared, scenario_counters(prepared))
    if machine.cpus == 1 or RACES[name].on_one_cpu:
        others = f"cpu0 takes interrupt {TIMER_VECTOR}"
    else:
        others = f"cpu1 takes interrupt {RESCHEDULE_VECTOR}\ncpu1 runs 100000"
    steps = trial.run(Script(parse_script("", machine.cpus)), 0).steps - prepared.ready_step
    found = []
    for step in range(steps + 1):
        first = parse_script(f"cpu0 runs {step}", machine.cpus)
        failure = trial.run(Script(np.concatenate([first, parse_script(others, machine.cpus)])), 0).failure
        if failure is not None:
            assert RACES[name].text in failure.text
            machine.restore(prepared.at_ready)
            machine.execute(first.tobytes())
            found.append({frame.function for frame in trial.symbols.frames(machine.registers(0)["rip"])})
    return found


@pytest.mark.parametrize(
    ("name", "configuration"),
    [pytest.param(*row, marks=[] if row[1].endswith("2level") else [pytest.mark.soak]) for row in CASES],
)
def test_every_single_preemption(name: str, configuration: str) -> None:
    """Exhaustively: the bug is where it is meant to be and nowhere else, and its fix leaves nothing of it."""
    race = RACES[name]
    buggy, fixed = images.scenario(name).variants[:2]
    found = interrupted(name, buggy, configuration)
    assert bool(found) is (race.single and configuration.split("-")[0] not in race.safe + race.takes_two)
    if race.place:
        assert all(race.place in functions for functions in found)
    if name == "window":
        assert len(found) == 2  # behind the load and behind the add
    assert interrupted(name, fixed, configuration) == []


def within(variant: str, *, deviations: int, eager: bool) -> tuple[int, str]:
    """Schedules of `exit-race` with so many deviations: how many were made until one failed, and how ("": none did)."""
    prepared = prepare("exit-race", variant)
    machine = prepared.machine
    prepared.profile(visible=True)
    machine.restore(prepared.at_ready)
    machine.stop_at_trace = 0
    trial = Trial(prepared)
    explorer = Explorer(machine, bounded=True, eager=eager, bound=deviations, step_max=prepared.step_max)
    runs = 0
    while (stop := explorer.next()) is not None:
        if not stop:
            continue
        runs += 1
        if failure := trial.failure(stop, machine.console_take().decode()):
            return runs, failure.text
    assert not explorer.cut
    return runs, ""


def test_the_dead_task_needs_no_held_store() -> None:
    """The waiter must not have slept when the waker looks, and be dead when the waker stores: two deviations."""
    assert within("buggy", deviations=1, eager=False)[1] == ""
    assert "kernel BUG at kernel/fork.c" in within("buggy", deviations=2, eager=True)[1]


def test_the_barrier_of_the_fix_is_for_held_stores_only() -> None:
    """Without smp_mb() nothing fails if stores drain at once; if not, something does within the same bound."""
    runs, text = within("seed-no-mb", deviations=HELD_DEVIATIONS, eager=True)
    assert (runs > 1000, text) == (True, "")
    assert "kernel BUG at kernel/fork.c" in within("seed-no-mb", deviations=HELD_DEVIATIONS, eager=False)[1]
    runs, text = within("fix-b5740f4b2cb3", deviations=HELD_DEVIATIONS, eager=False)
    assert (runs > 1000, text) == (True, "")


@pytest.mark.soak
@pytest.mark.parametrize(("name", "configuration"), CASES)
def test_any_seed_finds_it(name: str, configuration: str) -> None:
    buggy, fixed = images.scenario(name).variants[:2]
    safe = configuration.split("-")[0] in RACES[name].safe
    for seed in range(100, 101 if safe else 120):
        assert bool(search(name, buggy, configuration, 20_000, seed).found) is not safe
    assert not search(name, fixed, configuration, 20_000).found


@pytest.mark.parametrize("name", RACES)
def test_from_the_command_line(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the default schedule nothing fails; the tape of a schedule that does is of use to the other commands."""
    assert main(["record", name, "-o", str(tmp_path / "clean.tape")]) == 0
    bug, small = str(tmp_path / "bug.tape"), str(tmp_path / "small.tape")
    assert main(["hunt", name, "--jobs", "1", "-o", bug]) == 1
    assert RACES[name].text in capfd.readouterr().out
    if RACES[name].counter:
        assert main(["first-divergence", bug, "--counter", RACES[name].counter]) == 1
        assert RACES[name].culprit in capfd.readouterr().out
    assert main(["minimise", bug, "-o", small, "--runs", "2000"]) == 0
    assert main(["verify", small]) == 0
