"""DPOR makes as many runs as others have published executions for, and random descents come to the same number."""

from __future__ import annotations

from statistics import mean, stdev

import pytest

from benchmarks.published import Program, programs, run_all
from machine import _core

PROGRAMS = {f"{program.source}: {program.name}": program for program in programs()}
QUICK = [name for name, program in PROGRAMS.items() if program.executions < 20_000]
DESCENTS = 3000


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_many_runs_as_published_executions(name: str) -> None:
    program = PROGRAMS[name]
    assert run_all(program).runs == program.executions


@pytest.mark.parametrize("name", QUICK)
def test_descents_estimate_the_number_of_runs(name: str) -> None:
    program = PROGRAMS[name]
    explorer = program.explorer()
    found = [explorer.descend(seed) for seed in range(DESCENTS)]
    error = stdev(found) / DESCENTS**0.5
    assert abs(mean(found) - program.executions) <= 4 * error
    assert error < program.executions / 4
    assert found == [explorer.descend(seed) for seed in range(DESCENTS)]
    # They leave no trace: the search makes its runs as without them.
    while explorer.next() is not None:
        pass
    assert explorer.runs == program.executions


def test_descents_come_before_the_first_run() -> None:
    explorer = PROGRAMS["Nidhugg, TSO_test: ROWE_1"].explorer()
    explorer.next()
    with pytest.raises(ValueError, match="before the first run"):
        explorer.descend(0)
    for seed in (-1, 1 << 64):
        with pytest.raises(ValueError, match="negative or has more than 64 bits"):
            explorer.descend(seed)


def test_a_comparison_that_fails_is_a_load() -> None:
    """Two that fail next to each other may change places; an exchange of what is there already counts as a store."""
    swap = "mov $1, %edx; xchg %edx, 0x8000"
    fails = "mov $5, %eax; lock cmpxchg %ecx, 0x8000"
    wide = "mov $5, %eax; lock cmpxchg8b 0x8000"
    for threads, runs in (((fails,) * 4, 1), ((wide,) * 4, 1), ((swap,) * 3, 6), ((swap, fails, wide), 4)):
        explorer = run_all(Program("", "", True, 0, threads))
        assert (explorer.runs, explorer.blocked) == (runs, 0)


def test_a_comparison_that_fails_still_drains_the_buffer() -> None:
    """As a fence between them would: store buffering has three outcomes left."""
    fails = "mov $5, %eax; lock cmpxchg %ecx, 0x8100"
    threads = (f"movl $1, 0x8000; {fails}; mov 0x8040, %ebx", f"movl $1, 0x8040; {fails}; mov 0x8000, %ebx")
    assert run_all(Program("", "", True, 0, threads)).runs == 3


def test_a_bounded_search_has_no_descents() -> None:
    program = PROGRAMS["Nidhugg, TSO_test: ROWE_1"]
    machine = program.machine()
    with pytest.raises(ValueError, match="bounded"):
        _core.Explorer(machine, bounded=True).descend(0)
