"""The strategies by visible steps: the bound that PCT promises, windows that are hit, locked updates that are not."""

from __future__ import annotations

from collections import Counter

import pytest
from agent_threads import STORE_BUFFERING, follow, introduced, machine, profile, word

from recorder.strategies import Pct, Pos, Surw, strategy

PRIVATE = "mov $200, %ecx; 1: push %ecx; pop %edx; loop 1b; "
WINDOW = PRIVATE + "mov 0x8000, %eax; inc %eax; mov %eax, 0x8000; " + PRIVATE.replace("1", "2") + "hlt"
LOCKED = PRIVATE + "lock incl 0x8000; " + PRIVATE.replace("1", "2") + "hlt"


def test_a_lost_update_is_hit_as_often_as_the_bound_promises() -> None:
    """A window of two instructions on each CPU, depth 2: be in the window, be overtaken."""
    m = machine(WINDOW, WINDOW).machine
    start, pct = m.snapshot(), Pct()
    pct.expect(profile(m))
    runs: Counter[tuple[int, bool]] = Counter()
    lost: Counter[tuple[int, bool]] = Counter()
    steps: dict[bool, int] = {}
    for seed in range(3000):
        m.restore(start)
        assert follow(m, pct, seed) == "idle"
        runs[pct.depth, pct.manner.eager] += 1
        steps[pct.manner.eager] = pct.steps
        lost[pct.depth, pct.manner.eager] += word(m) == 1
    for eager, agents in ((True, 2), (False, 4)):
        assert runs[2, eager] > 400
        assert lost[2, eager] / runs[2, eager] >= Pct.bound(agents, steps[eager], 2)
    assert lost[1, True] == 0  # without a change point nobody is overtaken
    assert lost[3, True] > 0


def test_store_buffering_has_depth_one() -> None:
    """Only priorities of buffers, no change point, show both zeros (exploration.md 2.2)."""
    m = machine(*STORE_BUFFERING)
    start, pct = m.machine.snapshot(), Pct()
    pct.expect(profile(m.machine))
    runs = hit = 0
    for seed in range(600):
        m.machine.restore(start)
        follow(m.machine, pct, seed)
        if pct.depth == 1 and not pct.manner.eager:
            runs += 1
            hit += (m.get("eax", cpu=0), m.get("eax", cpu=1)) == (0, 0)
    assert runs > 30
    assert hit / runs >= Pct.bound(4, 6, 1)


@pytest.mark.parametrize("name", ["pct", "pos", "surw"])
def test_a_narrow_window_between_long_private_stretches_is_hit(name: str) -> None:
    """Steps that nobody shares do not count: the window is as easy to hit as if there were nothing else."""
    m = machine(WINDOW, WINDOW).machine
    start = m.snapshot()
    chosen = introduced(m, strategy(name))
    first = []
    for hunt in range(20):
        for number in range(200):
            m.restore(start)
            follow(m, chosen, hunt << 32 | number)
            if word(m) == 1:
                first.append(number)
                break
    assert len(first) == 20
    assert max(first) < 60


@pytest.mark.parametrize("name", ["pct", "pos", "surw", "portfolio"])
def test_a_locked_update_is_never_lost(name: str) -> None:
    m = machine(LOCKED, LOCKED).machine
    start = m.snapshot()
    chosen = introduced(m, strategy(name))
    for seed in range(300):
        m.restore(start)
        assert follow(m, chosen, seed) == "idle"
        assert word(m) == 2


@pytest.mark.parametrize("made", [Pct, Pos, Surw])
def test_the_same_seed_is_the_same_schedule(made: type[Pct] | type[Pos] | type[Surw]) -> None:
    body = "mov $8, %ecx; 1: incl 0x8000; loop 1b; hlt"
    m = machine(body, body).machine
    start = m.snapshot()
    ends = []
    for _ in range(2):
        m.restore(start)
        chosen = introduced(m, made())
        for seed in range(20):
            m.restore(start)
            follow(m, chosen, seed)
            ends.append((m.step, m.state_hash()))
    assert ends[:20] == ends[20:]
    assert len(set(ends)) > 3
