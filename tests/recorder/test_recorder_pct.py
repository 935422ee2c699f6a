"""PCT: ranks in the core, and the bound that the paper promises."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

from machine import _core
from machine.bare import BareMachine
from recorder.session import Session
from recorder.strategies.pct import AGENT_DRAIN, Pct, rank_record
from traces.schema import records_of

CODE, DATA = 0x1000, 0x8000
E0, E1, D0, D1 = 0, 1, AGENT_DRAIN, AGENT_DRAIN + 1


def machine(*threads: str) -> BareMachine:
    m = BareMachine(32, cpus=len(threads))
    for cpu, text in enumerate(threads):
        m.load(CODE + cpu * 0x2000, text)
        m.set(cpu=cpu, rip=CODE + cpu * 0x2000, rsp=DATA + 0x800 + cpu * 0x100)
    return m


def run(m: BareMachine, order: list[int], steps: int = 10_000) -> str:
    return m.machine.execute(rank_record(order, steps).tobytes())[0]


STORE_BUFFERING = (
    "movl $1, 0x8000; mov 0x8040, %eax; hlt",
    "movl $1, 0x8040; mov 0x8000, %eax; hlt",
)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([E0, E1, D0, D1], (0, 0)),  # both stores wait for both CPUs
        ([E1, E0, D1, D0], (0, 0)),
        ([D0, D1, E0, E1], (0, 1)),  # at once
        ([D0, D1, E1, E0], (1, 0)),
        ([E0, D0, E1, D1], (0, 1)),  # when its CPU is through
        ([E0, E1], (0, 0)),  # whom nobody names comes last
    ],
)
def test_stores_drain_where_their_buffer_ranks(order: list[int], expected: tuple[int, int]) -> None:
    m = machine(*STORE_BUFFERING)
    assert run(m, order) == "idle"
    assert (m.get("eax", cpu=0), m.get("eax", cpu=1)) == expected
    assert (m.read_int(DATA), m.read_int(DATA + 0x40)) == (1, 1)


def test_the_highest_that_can_goes_on() -> None:
    m = machine("1: incl 0x8000; cmpl $50, 0x8000; jb 1b; hlt", "1: incl 0x8040; cmpl $50, 0x8040; jb 1b; hlt")
    run(m, [D0, D1, E1, E0], 90)
    assert (m.read_int(DATA), m.read_int(DATA + 0x40)) == (0, 30)
    run(m, [D0, D1, E0, E1], 90)
    assert (m.read_int(DATA), m.read_int(DATA + 0x40)) == (30, 30)
    assert m.machine.auto_cpu == 0


def test_who_spins_is_passed_over_until_another_got_on() -> None:
    m = machine("1: pause; cmpl $0, 0x8000; je 1b; hlt", "mov $1000, %ecx; 1: loop 1b; movl $1, 0x8000; hlt")
    assert run(m, [D0, D1, E0, E1]) == "idle"
    assert m.read_int(DATA) == 1


def test_all_spin_in_turn() -> None:
    m = machine("1: pause; incl 0x8000; jmp 1b", "1: pause; incl 0x8040; jmp 1b")
    assert run(m, [E0, E1, D0, D1], 3000) == "plan"
    counts = m.read_int(DATA, forward=True), m.read_int(DATA + 0x40, cpu=1, forward=True)
    assert min(counts) > 100


def test_what_ranks_did_is_logged_exactly() -> None:
    for order in ([E0, E1, D0, D1], [D1, E1, E0, D0], [E1, D1, E0, D0]):
        m = machine(*(f"mov $7, %ecx; 1: incl {at:#x}; mov 0x8000, %eax; loop 1b; hlt" for at in (0x8000, 0x8000)))
        start = m.machine.snapshot()
        m.machine.choices_take()
        run(m, order)
        log, ended, step = m.machine.choices_take(), m.machine.state_hash(), m.machine.step
        assert {int(row["op"]) for row in records_of(log)} <= {_core.RUN, _core.DRAIN}
        m.machine.restore(start)
        assert m.machine.execute(log, exact=True)[0] == "plan"
        assert (m.machine.state_hash(), m.machine.step) == (ended, step)
        assert m.machine.execute(rank_record(order, 5).tobytes(), exact=True)[0] == "diverged"


def test_a_rank_record_goes_on_where_it_stopped() -> None:
    plan = rank_record([E0, D1, E1, D0], 60).tobytes()
    m = machine(*(f"1: incl {at}; jmp 1b" for at in ("0x8000", "0x8040"))).machine
    first, reason, index, done = m.step, "", 0, 0
    while reason != "plan":
        reason, index, done = m.execute(plan, index=index, done=done, step_max=m.step + 7)
    assert m.step == first + 60
    with pytest.raises(ValueError, match="done is more"):
        m.execute(plan, index=0, done=61)


def test_steps_of_a_record_have_eleven_significant_bits() -> None:
    for steps in (0, 1, 2047, 2048, 1000, 123_456_789, (1 << 41)):
        (row,) = rank_record([E0], steps)
        flags = int(row["flags"])
        kept = (flags >> 5) << (flags & 31)
        assert kept <= steps
        assert steps - kept <= steps >> 10


def hits(threads: tuple[str, str], lost: int, seeds: int, steps: int) -> Counter[tuple[int, bool]]:
    """How often DATA ends as `lost`, by (depth, whether stores drain at once), and how many runs there were."""
    m = machine(*threads).machine
    m.choices_enabled = False
    start, strategy = m.snapshot(), Pct()
    strategy.expect(steps)
    found: Counter[tuple[int, bool]] = Counter()
    for seed in range(seeds):
        m.restore(start)
        strategy.new_run(m, seed)
        assert Session(m, None, step_max=1 << 30, tap=False, keep=False).run(strategy) == "idle"
        if struct.unpack("<I", m.read(DATA, 4))[0] == lost:
            found[strategy.depth, strategy.eager] += 1
        found[0, strategy.eager] += strategy.depth == 2
    return found


def test_a_lost_update_is_hit_as_often_as_the_bound_promises() -> None:
    """A window of two instructions on each CPU, depth 2: be in the window, be overtaken."""
    body = "mov $8, %ecx; 1: loop 1b; mov 0x8000, %eax; inc %eax; mov %eax, 0x8000; mov $8, %ecx; 2: loop 2b; hlt"
    steps = 2 * 23
    found = hits((body, body), 1, 3000, steps)
    for eager, agents in ((True, 2), (False, 4)):
        runs, hit = found[0, eager], found[2, eager]
        assert runs > 400
        assert hit / runs >= Pct.bound(agents, steps + steps // 4, 2)
    assert found[1, True] == 0  # without a change point nobody is overtaken
    assert found[3, True] > 0


def test_a_locked_update_is_never_lost() -> None:
    body = "mov $8, %ecx; 1: loop 1b; lock incl 0x8000; mov $8, %ecx; 2: loop 2b; hlt"
    found = hits((body, body), 1, 1500, 2 * 20)
    assert all(depth == 0 for depth, _ in found)


def test_store_buffering_has_depth_one() -> None:
    """Only priorities of buffers, no change point, show both zeros (exploration.md 2.2)."""
    m = machine(*STORE_BUFFERING)
    start, strategy = m.machine.snapshot(), Pct()
    strategy.expect(6)
    runs = hit = 0
    for seed in range(600):
        m.machine.restore(start)
        strategy.new_run(m.machine, seed)
        Session(m.machine, None, step_max=1 << 30, tap=False, keep=False).run(strategy)
        if strategy.depth == 1 and not strategy.eager:
            runs += 1
            hit += (m.get("eax", cpu=0), m.get("eax", cpu=1)) == (0, 0)
    assert runs > 30
    assert hit / runs >= Pct.bound(4, 6, 1)


def test_the_same_seed_is_the_same_schedule() -> None:
    body = "mov $8, %ecx; 1: incl 0x8000; loop 1b; hlt"
    m = machine(body, body).machine
    start = m.snapshot()
    ends = []
    for _ in range(2):
        strategy = Pct()
        strategy.expect(40)
        for seed in range(20):
            m.restore(start)
            strategy.new_run(m, seed)
            Session(m, None, step_max=1 << 30, tap=False, keep=False).run(strategy)
            ends.append((m.step, m.state_hash()))
    assert ends[:20] == ends[20:]
    assert len(set(ends)) > 3


def test_ranks_do_not_depend_on_where_the_caller_stops() -> None:
    """As a full tap would make it: events must not change the schedule."""
    threads = (
        "mov $40, %ecx; 1: pause; incl 0x8000; loop 1b; hlt",
        "mov $30, %ecx; 1: incl 0x8040; mov 0x8000, %eax; loop 1b; mov $9, %ecx; 2: pause; loop 2b; hlt",
        "mov $90, %ecx; 1: incl 0x8080; loop 1b; lock incl 0x8000; hlt",
    )
    m = machine(*threads).machine
    start, r = m.snapshot(), random.Random(7)
    for _ in range(60):
        order = [r.choice([E0, E1, 2, D0, D1, AGENT_DRAIN + 2]) for _ in range(16)]
        plan = rank_record(order, r.choice([100, 400, 2000])).tobytes()
        ends = []
        for size in (1 << 20, 1, 7):
            m.restore(start)
            m.choices_take()
            index, done, reason = 0, 0, "steps"
            while reason == "steps":
                reason, index, done = m.execute(plan, index=index, done=done, step_max=m.step + size)
            ends.append((reason, m.step, m.state_hash(), m.choices_take()))
        assert ends[0] == ends[1] == ends[2]
