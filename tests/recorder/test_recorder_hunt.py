"""Hunting: schedules by number, what fails one, verdicts that do not depend on who ran what."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from multiprocessing import parent_process
from pathlib import Path

import mini
import pytest

from machine import Machine
from machine.errors import RacetapeError, UsageError
from machine.symbols import Frame
from recorder import Prepared
from recorder.hunt import Check, Failure, Hunt, Search, Tally, ending_failure, hunt, schedule_seed
from recorder.hunt.trial import Trial
from recorder.schedule import auto
from recorder.strategies import Pct, Portfolio, Pos, RandomWalk, Surw
from replayer.verify import verify
from traces import Tape
from traces.schema import RecordArray

SMALL = {"scenario": "wrong-zone-small", "configuration": "smp2-2level", "strategy": "random-walk"}
FIX = "fix-7454f4ba40b4"
OOPS = "Oops: vector 0000000e code 00000002 ip c0100000 cr2 00100104 task c07f033c\n"
CRASH_SEED = 3
"""With this seed the first crash comes after some hundred schedules."""


def contents(tally: Tally) -> tuple[object, ...]:
    return tally.schedules, tally.steps, dict(tally.stops), tally.found, tally.states, tally.interrupted


def test_seeds_are_those_of_splitmix64() -> None:
    """The first numbers of the reference implementation (Vigna, prng.di.unimi.it/splitmix64.c) from state 0."""
    assert [schedule_seed(0, n) for n in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert len({schedule_seed(seed, n) for seed in range(20) for n in range(500)}) == 10_000


@pytest.mark.parametrize(
    ("stop", "status", "console", "cause"),
    [
        ("exit", 0, "kernel BUG at mm/vmscan.c:105\n", None),
        ("exit", 0, "ok\nWARNING: at mm/page_alloc.c:12 free_it()\n", "mm/page_alloc.c:12"),
        ("exit", 0, "[    0.5] WARNING: lost 3 pages\n", "WARNING: lost # pages"),
        ("exit", 0, "no WARNING: here\n", None),
        ("steps", 0, "", None),
        ("exit", 0x42, "hello\nkernel BUG at mm/vmscan.c:105\n", "mm/vmscan.c:105"),
        ("exit", 0x42, "hello 12\n", "hello #"),
        ("exit", 0x42, "", "status 0x42"),
        (
            "exit",
            0x43,
            "Oops: vector 0000000e code 00000002 ip c0100000 cr2 00100104 task c07f033c\n",
            "exception 14 in f",
        ),
        ("shutdown", 0, "", "triple fault"),
        ("idle", 0, "", "deadlock"),
    ],
)
def test_endings(stop: str, status: int, console: str, cause: str | None) -> None:
    failure = ending_failure(stop, status, console, lambda address: Frame("f", "mm/a.c", address & 0xFF, False))
    assert (failure and failure.cause) == cause


def test_the_crash_is_found_and_its_tape_shows_it(tmp_path: Path) -> None:
    verdict = hunt(Hunt(**SMALL, seed=CRASH_SEED))
    assert verdict.result == "failed"
    (found,) = verdict.found
    assert verdict.tally.schedules == found.number + 1
    assert found.failure.cause == "exception 14 in __list_del"
    prepared = mini.wrong_zone("smp2-2level")
    summary = prepared.record(tmp_path / "a.tape", strategy="random-walk", seed=found.seed)
    assert (summary.outcome, summary.steps) == ("failed", found.steps)
    assert "Oops" in summary.console
    with Tape(tmp_path / "a.tape") as tape:
        assert verify(tape).ok


def test_the_fix_is_clean_over_the_same_search() -> None:
    verdict = hunt(Hunt(**SMALL, seed=CRASH_SEED, variant=FIX, schedules=300))
    assert (verdict.result, verdict.tally.schedules, dict(verdict.tally.stops)) == ("budget", 300, {"exit": 300})
    assert 0.009 < verdict.rate_ruled_out(0.95) < 0.011  # some 3/300


@pytest.mark.parametrize("every", [False, True])
def test_the_verdict_does_not_depend_on_the_number_of_processes(every: bool) -> None:
    one, two = (hunt(Hunt(**SMALL, seed=CRASH_SEED, schedules=220, every=every, jobs=jobs)) for jobs in (1, 2))
    assert contents(one.tally) == contents(two.tally)
    assert one.result == two.result == "failed"
    assert one.tally.schedules == (220 if every else one.found[0].number + 1)


def test_every_cause_counts_once_and_the_first_stays() -> None:
    verdict = hunt(Hunt(**SMALL, seed=CRASH_SEED, schedules=250, every=True))
    numbers = [row.number for row in verdict.found]
    assert numbers == sorted(numbers)
    assert len(numbers) == len({row.failure.cause for row in verdict.found}) >= 2
    assert verdict.found[0] == hunt(Hunt(**SMALL, seed=CRASH_SEED)).found[0]


def test_a_run_without_an_end_is_inconclusive() -> None:
    verdict = hunt(Hunt(**SMALL, schedules=5, step_max=110_000))
    assert verdict.tally.stops == {"steps": 5}
    assert verdict.result == "budget"
    assert verdict.rate_ruled_out(0.95) == 1.0


def test_blocks_add_up_to_the_whole() -> None:
    search = Search(mini.prepared(2, "L"), "random-walk", 5)
    whole = search.block(0, 20, every=True)
    parts = Tally()
    for first, count in ((0, 7), (7, 1), (8, 12)):
        parts.add(search.block(first, count, every=True))
    assert contents(whole) == contents(parts)
    assert len(whole.states) > 1


def test_checks_are_asked_once_a_run_is_over() -> None:
    search = Search(mini.prepared(1), "random-walk", 5, [lambda machine: Failure("odd", f"step {machine.step}")])
    tally = search.block(0, 20, every=False)
    assert tally.schedules == 1
    assert tally.found["odd"].failure.text == f"step {tally.found['odd'].steps}"


def test_an_interrupted_hunt_keeps_what_it_has() -> None:
    def stop(tally: Tally) -> None:
        if tally.schedules >= 64:
            raise KeyboardInterrupt

    verdict = hunt(Hunt(**SMALL, variant=FIX, schedules=1000), stop)
    assert verdict.interrupted
    assert verdict.tally.schedules == 64


def test_ctrl_c_is_not_lost_in_a_run_of_one_batch() -> None:
    """While the core executes, Python only notes the signal; the run may have ended when somebody looks."""

    class Signalled:
        name, exact, stop = "signalled", False, "steps"

        def new_run(self, machine: Machine, seed: int) -> None:
            pass

        def choose(self, machine: Machine) -> RecordArray:
            batch = auto()
            assert machine.execute(batch.tobytes(), step_max=2_000_000)[0] == "exit"
            signal.raise_signal(signal.SIGINT)
            return batch

        def answer(self, machine: Machine, cpu: int) -> int:
            return 0

    prepared = mini.wrong_zone("smp2-2level")
    ended = Trial(prepared).run(Signalled(), 0)
    assert (ended.stop, ended.failure) == ("interrupted", None)


@pytest.mark.parametrize("delay", [0.3, 0.31, 0.32])
def test_ctrl_c_ends_a_hunt_of_short_runs(delay: float) -> None:
    sent = []

    def interrupt(tally: Tally) -> None:
        if not sent:
            sent.append(threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)))
            sent[0].start()

    what = Hunt(**{**SMALL, "strategy": "pct"}, variant=FIX, schedules=10**6, seconds=30)
    verdict = hunt(what, interrupt)
    sent[0].join()
    assert verdict.interrupted
    assert verdict.seconds < 10


def test_a_portfolio_draws_who_plans_each_run() -> None:
    prepared = mini.prepared(2, "L")
    chosen, alone = Portfolio(), {"pct": Pct(), "pos": Pos(), "surw": Surw(), "random-walk": RandomWalk()}
    names = Counter()
    for strategy in (chosen, *alone.values()):
        prepared.introduce(strategy)
    for seed in range(40):
        prepared.machine.restore(prepared.at_ready)
        chosen.new_run(prepared.machine, seed)
        names[chosen.chosen.name] += 1
        other = alone[chosen.chosen.name]
        other.new_run(prepared.machine, seed)
        assert chosen.choose(prepared.machine).tobytes() == other.choose(prepared.machine).tobytes()
    assert set(names) == set(alone)
    assert names.total() == 40


@pytest.mark.parametrize("strategy", ["pct", "portfolio"])
def test_a_crash_found_by_each_strategy_is_recorded_again(strategy: str, tmp_path: Path) -> None:
    verdict = hunt(Hunt(**{**SMALL, "strategy": strategy}, schedules=2000))
    (found,) = verdict.found
    prepared = mini.wrong_zone("smp2-2level")
    summary = prepared.record(tmp_path / "a.tape", strategy=strategy, seed=found.seed)
    assert (summary.outcome, summary.steps) == ("failed", found.steps)


def test_time_is_a_budget_too() -> None:
    verdict = hunt(Hunt(**SMALL, variant=FIX, schedules=10**6, seconds=0.5))
    assert 0 < verdict.tally.schedules < 10**5
    assert verdict.result == "budget"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "nonsense"}, "unknown strategy"),
        ({"strategy": "default"}, "no random choice"),
        ({"schedules": 0}, "at least one"),
        ({"scenario": "nonsense", "configuration": None}, "no such scenario"),
        ({"variant": "nonsense"}, "no such variant"),
    ],
)
def test_bad_hunts(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        hunt(Hunt(**{**SMALL, **change}))  # type: ignore[arg-type]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_does_not_exist_is_said_whoever_would_run_it(jobs: int) -> None:
    with pytest.raises(UsageError, match="no such scenario"):
        hunt(Hunt("nonsense", jobs=jobs))


def test_a_process_that_dies_is_one_error() -> None:
    with pytest.raises(RacetapeError, match="a process of the hunt died"):
        hunt(Hunt(**SMALL, variant=FIX, schedules=200, jobs=2, checks=die_elsewhere))


def die_elsewhere(prepared: Prepared) -> list[Check]:
    """Checks of a hunt: ends every process but the one that started it."""
    if parent_process() is not None:
        os._exit(3)
    return []


def test_a_budget_of_schedules_takes_no_memory_of_its_own() -> None:
    verdict = hunt(Hunt(**SMALL, variant=FIX, schedules=1 << 62, seconds=0.3, jobs=2))
    assert verdict.result == "budget"
    assert verdict.tally.schedules > 0
