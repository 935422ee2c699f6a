"""Systematic search: as many schedules as there are classes, every outcome of a bound, and nothing cut short
silently."""

from __future__ import annotations

import numpy as np
import pytest
from agent_threads import STORE_BUFFERING, execute, machine, single_steps, word

from machine import Machine, _core
from machine.bare import BareMachine
from recorder.litmus import assemble, parse_file, reduce
from recorder.litmus.bundled import find
from recorder.litmus.multiprocessor import Multiprocessor
from recorder.profile import Manner
from recorder.schedule import pick, plan
from recorder.sharing import WORD_BYTES, bitmap
from traces.schema import Op

PLACES = (0x8000, 0x8040, 0x8080)
Outcome = tuple[int, ...]

# Without loads of what the CPU itself has written: there the hashes tell apart what is equivalent.
CLASSES = {"sb": 4, "mp": 3, "lb": 3, "iriw": 15, "wrc": 7, "rwc": 8, "s": 3, "r": 4, "22w": 3, "isa2": 7}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_makes_one_schedule_of_each_class(name: str) -> None:
    """The classes are counted twice: by the search, and by the hashes of many random runs."""
    (assembled,) = assemble([parse_file(path) for path in find(name)])
    reduction = reduce(assembled)
    assert (reduction.schedules, reduction.blocked, reduction.cut) == (CLASSES[name], 0, "")
    core = reduction.engine.machine
    start = Multiprocessor(assembled).machine.state_save()
    hashes = set()
    for seed in range(3000):
        core.state_load(start)
        for thread in assembled.layout.slots.values():
            core.write(thread.address, bytes(thread.size_bytes * len(thread.variable.values)))
        core.write(assembled.layout.code_page, assembled.code)
        for thread_code in assembled.threads:
            core.write(thread_code.end, b"\xf4")
        assert execute(core, pick(_core.PICK_WALK, seed, Manner())) == "idle"
        hashes.add(core.class_hash)
    assert len(hashes) == reduction.schedules


def outcome(m: Machine) -> Outcome:
    registers = [m.registers(cpu) for cpu in range(m.cpus)]
    return (*(row[name] for row in registers for name in ("rax", "rbx", "rdx")), *(word(m, at) for at in PLACES))


def search(m: BareMachine, **options: bool | int) -> tuple[_core.Explorer, set[Outcome]]:
    explorer = _core.Explorer(m.machine, **options)  # type: ignore[arg-type]
    outcomes = set()
    while (stop := explorer.next()) is not None:
        assert stop == "idle"
        outcomes.add(outcome(m.machine))
    return explorer, outcomes


class Brute:
    """Every schedule with so many deviations, without any pruning: each is made from the start, a step at a time."""

    def __init__(self, m: BareMachine, eager: bool) -> None:
        self.machine, self.eager = m.machine, eager
        self.start = self.machine.snapshot()
        self.agents = [*range(m.machine.cpus)]
        if not eager:
            self.agents += [_core.AGENT_DRAIN + cpu for cpu in range(m.machine.cpus)]
        self.schedules = 0

    def go(self, path: tuple[int, ...]) -> bool:
        """Whether all of `path` can be taken; the machine stands behind it."""
        self.machine.restore(self.start)
        for agent in path:
            before = sum(self.machine.visible_counts())
            row = plan((Op.STEP, 0, 1, agent))
            row["reserved"] = self.eager
            execute(self.machine, row)
            if sum(self.machine.visible_counts()) == before:
                return False
        return True

    def waits(self, path: tuple[int, ...], cpu: int) -> bool:
        """Whether a CPU waits for its own buffer."""
        self.go(path)
        row = plan((Op.STEP, 0, 1, 31))
        row["reserved"] = self.eager
        execute(self.machine, row)
        return self.machine.waiting(cpu) == "" and not self.go((*path, cpu))

    def outcomes(self, bound: int) -> set[Outcome]:
        found: set[Outcome] = set()
        self._all((), 0, frozenset(), bound, found)
        return found

    def _all(self, path: tuple[int, ...], current: int, held: frozenset[int], bound: int, found: set[Outcome]) -> None:
        able = [agent for agent in self.agents if self.go((*path, agent))]
        if not able:
            self.go(path)
            assert execute(self.machine, pick(_core.PICK_WALK, 0, Manner(eager=self.eager))) == "idle"
            found.add(outcome(self.machine))
            self.schedules += 1
            return
        held = frozenset(cpu for cpu in held if not self.waits(path, cpu))
        usual = self._usual(able, current, held)
        for agent in able:
            if agent != usual and not bound:
                continue
            now = held
            if agent != usual and usual >= _core.AGENT_DRAIN:
                now = now | {usual - _core.AGENT_DRAIN}
            if agent >= _core.AGENT_DRAIN:
                now = now - {agent - _core.AGENT_DRAIN}
            following = agent if agent < _core.AGENT_DRAIN else current
            self._all((*path, agent), following, now, bound - (agent != usual), found)

    def _usual(self, able: list[int], current: int, held: frozenset[int]) -> int:
        for agent in able:
            if agent >= _core.AGENT_DRAIN and agent - _core.AGENT_DRAIN not in held:
                return agent
        cpus = [(current + i) % 8 for i in range(8) if (current + i) % 8 in able]
        return cpus[0] if cpus else min(able)


INCREMENT = "mov 0x8000, %eax; inc %eax; mov %eax, 0x8000; hlt"
PROGRAMS = (
    STORE_BUFFERING,
    (
        "movl $1, 0x8000; mov 0x8000, %eax; mov 0x8040, %ebx; hlt",
        "movl $2, 0x8040; mov 0x8000, %eax; movl $2, 0x8000; hlt",
    ),
    (INCREMENT, INCREMENT),
    ("lock incl 0x8000; mov 0x8040, %ebx; hlt", "movl $5, 0x8040; mov 0x8000, %eax; lock incl 0x8000; hlt"),
    (
        "movl $1, 0x8000; mfence; mov 0x8040, %eax; hlt",
        "movl $1, 0x8040; mov 0x8000, %eax; hlt",
        "mov 0x8000, %ebx; mov 0x8040, %edx; hlt",
    ),
)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("eager", [True, False])
def test_bounded_search_misses_no_outcome_of_its_bound(program: tuple[str, ...], eager: bool) -> None:
    core = machine(*program)
    execute(core, pick(_core.PICK_WALK, 0, Manner()))  # counts from here on
    core = machine(*program)
    brute = Brute(core, eager)
    for bound in range(3 if len(program) == 2 else 2):
        brute.schedules = 0
        expected = brute.outcomes(bound)
        core.machine.restore(brute.start)
        explorer, found = search(core, bounded=True, bound=bound, eager=eager)
        assert found == expected
        assert explorer.cut == ""
        assert explorer.runs <= brute.schedules
        if bound == 0:
            assert explorer.runs == 1


def test_both_zeros_of_store_buffering_take_one_deviation() -> None:
    m = machine(*STORE_BUFFERING)
    start = m.machine.snapshot()
    for bound, seen in ((0, False), (1, True)):
        m.machine.restore(start)
        explorer = _core.Explorer(m.machine, bounded=True, bound=bound)
        outcomes = []
        while explorer.next() is not None:
            outcomes.append((m.get("eax", cpu=0), m.get("eax", cpu=1)))
            assert explorer.deviations <= bound
        assert ((0, 0) in outcomes) is seen


LONG = (
    "mov $60, %ecx; 1: incl 0x8000; loop 1b; hlt",
    "mov $60, %ecx; 1: incl 0x8040; loop 1b; mov 0x8000, %eax; hlt",
)


def test_a_run_costs_what_is_new_of_it() -> None:
    """Beside the steps behind the last common state, at most those since the snapshot before it are made again."""
    m = machine(*LONG)
    explorer = _core.Explorer(m.machine, bounded=True, bound=1, eager=True)
    new, before = 0, b""
    while explorer.next() is not None:
        path = explorer.path()
        new += len(path) - next((i for i, pair in enumerate(zip(before, path, strict=False)) if pair[0] != pair[1]), 0)
        before = path
    assert explorer.runs > 50
    assert explorer.steps_made <= new + 32 * explorer.runs
    assert explorer.steps_shared > 0


def test_the_last_run_can_be_repeated_and_written_down() -> None:
    m = machine(*PROGRAMS[2]).machine
    start = m.snapshot()
    explorer = _core.Explorer(m)
    while explorer.next() is not None:
        ended, step = m.state_hash(), m.step
        m.choices_take()
        assert explorer.repeat() == "idle"
        log = m.choices_take()
        assert (m.state_hash(), m.step) == (ended, step)
        m.restore(start)
        m.execute(log, exact=True)
        assert (m.state_hash(), m.step) == (ended, step)
        assert len(explorer.path()) == explorer.depth


def test_what_is_cut_short_is_said() -> None:
    explorer, _ = (_core.Explorer(machine(*LONG).machine, frames_max=20), None)
    assert explorer.next() == "steps"
    assert explorer.cut == "a run has too many visible steps"
    m = machine("1: incl 0x8000; jmp 1b", "hlt").machine
    endless = _core.Explorer(m, step_max=m.step + 1000)
    assert endless.next() == "steps"


@pytest.mark.parametrize("change", ["none", "other", "tap"])
@pytest.mark.parametrize("what", ["next", "repeat"])
def test_a_search_ends_when_its_shared_words_or_the_tap_change(change: str, what: str) -> None:
    m = machine(*STORE_BUFFERING).machine
    explorer = _core.Explorer(m)
    assert explorer.next() == "idle"
    if change == "tap":
        m.tap = True
    else:
        m.watch(None if change == "none" else bytes(m.ram_bytes // 32))
    with pytest.raises(ValueError, match="shared words as they were"):
        getattr(explorer, what)()


def test_behind_the_last_run_there_is_no_path() -> None:
    explorer, _ = search(machine(*STORE_BUFFERING))
    assert explorer.path() == b""
    assert explorer.next() is None


DEVICE = "movl $1, 0x8000; mov 0xfee00020, %ecx; mov 0x8040, %eax; hlt"


def test_stores_that_a_device_access_drains_are_seen() -> None:
    """They reach memory within that step, and not as the store buffer's own."""
    explorer, found = search(machine(DEVICE, "movl $1, 0x8040; mfence; mov 0x8000, %ebx; hlt"))
    assert explorer.cut == ""
    # As with a fence in its place: all but both zeros.
    assert {(row[0], row[4]) for row in found} == {(0, 1), (1, 0), (1, 1)}


def test_a_walk_that_drains_the_buffer_is_asked_about() -> None:
    """An accessed bit is set in an entry that is still buffered: older stores reach memory with it, in one step."""
    m = BareMachine(32, paging="2-level", cpus=2)
    core = m.machine
    code, table = 0x400000, 0x500000
    m.map(code, 0x2000)
    x, y = (m.map(0x410000 + at) for at in (0, 0x1000))
    directory = core.registers(0)["cr3"]
    m.map(table, phys=int.from_bytes(core.read(directory + 4, 4), "little") & ~0xFFF)
    core.tap = False
    m.load(code, f"movl $1, 0x410000; movl ${y | 7:#x}, {table + 4 * 0x20:#x}; mov 0x420000, %eax; hlt")
    m.load(code + 0x1000, "mov 0x410000, %ebx; hlt")
    for cpu in range(2):
        m.set(cpu=cpu, rip=code + 0x1000 * cpu)
    core.watch(bitmap(np.array([x, y], np.uint64) // WORD_BYTES, core.ram_bytes))
    explorer = _core.Explorer(core)
    read = []
    while explorer.next() == "idle":
        read.append(m.get("ebx", cpu=1))
    assert sorted(read) in ([0, 1], [0, 1, 1])  # the drain within the step, and before it, come to the same


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "incl 0x83fe; hlt",  # half of it is shared: where it stops the second time, its first load is made
        "incl 0xffffffff; hlt",  # a device, and RAM
        "mov $0x8008, %ebp; enter $8, $3; hlt",  # stops at a load behind its first push
        "mov $8, %esp; pusha; hlt",  # wraps around to where no RAM is
    ],
)
def test_what_is_done_of_an_instruction_that_is_asked_about_is_taken_back(text: str, eager: bool) -> None:
    m = machine(text, "movl $1, 0x83fc; mov 0x8000, %eax; hlt").machine
    start = m.snapshot()
    explorer = _core.Explorer(m, bounded=True, bound=1, eager=eager, step_max=m.step + 1000)
    while (stop := explorer.next()) is not None:
        assert stop in ("idle", "shutdown")
        ended = m.state_hash(), m.step
        m.choices_take()
        explorer.repeat()
        log = m.choices_take()
        m.restore(start)
        m.execute(log, exact=True)
        assert (m.state_hash(), m.step) == ended
    assert explorer.runs > 1


def test_a_loop_that_counts_in_private_memory_does_not_spin() -> None:
    """Taken for spinning it would be passed over until the other CPU is through, and the outcome 1 never be seen."""
    threads = (
        "1: mov 0x8000, %eax; incl 0xa000; cmpl $3, 0xa000; jne 1b; movl $1, 0x8040; hlt",
        "mov 0x8040, %ebx; hlt",
    )
    for options in ({}, {"bounded": True, "bound": 1, "eager": True}):
        m = machine(*threads)
        explorer = _core.Explorer(m.machine, **options)  # type: ignore[arg-type]
        seen = set()
        while explorer.next() is not None:
            seen.add(m.get("ebx", cpu=1))
        assert seen == {0, 1}
        assert explorer.cut == ""


def test_a_long_private_stretch_is_no_reason_to_pass_a_cpu_over() -> None:
    for options in ({}, {"bounded": True, "bound": 1}):
        m = machine("mov $100000, %ecx; 1: loop 1b; movl $1, 0x8000; hlt", "mov 0x8000, %ebx; hlt")
        explorer, found = search(m, **options)
        assert (explorer.cut, len(found)) == ("", 2)


def test_who_waits_for_a_word_that_nobody_knows_to_be_shared_is_passed_over() -> None:
    threads = ("1: cmpl $0, 0xa000; je 1b; hlt", "mov $50000, %ecx; 1: loop 1b; movl $1, 0xa000; hlt")
    explorer, found = search(machine(*threads))
    assert (explorer.cut, len(found)) == ("", 1)
    explorer = _core.Explorer(machine(threads[0]).machine)
    assert explorer.next() == "livelock"


STORES = "; ".join(f"movl $1, {0x8000 + 0x40 * at:#x}" for at in range(7))
FAULTS = {
    "fault": (f"{STORES}; ud2", "mov 0x8040, %eax; mov 0x8080, %ebx; mov 0x80c0, %edx; hlt"),
    "software interrupt": (f"{STORES}; int $6", "mov 0x8040, %eax; mov 0x8080, %ebx; mov 0x80c0, %edx; hlt"),
    "private ones first": (
        f"movl $1, 0xa000; {STORES}; ud2",
        "mov 0x8040, %eax; mov 0x8000, %ebx; hlt",
    ),
    "both": (f"{STORES}; mov 0x8200, %eax; ud2", "movl $1, 0x8200; mov 0x8000, %eax; ud2"),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_room_for_the_frame_of_a_fault_is_made_by_choice(name: str) -> None:
    """Whose drain lets others see a store before or after the fault; and what was made can be written down."""
    m = machine(*FAULTS[name])
    m.add_tables(0x20000)
    m.load(0x30000, "mov 0x8100, %ecx; hlt")
    m.gate(6, 0x30000)
    start = m.machine.snapshot()
    expected = single_steps(m.machine, outcome)
    m.machine.restore(start)
    explorer, found = search(m)
    assert explorer.cut == ""
    assert found == expected
    assert len(found) > 2
    m.machine.restore(start)
    explorer = _core.Explorer(m.machine, bounded=True, bound=2)
    while explorer.next() is not None:
        ended = m.machine.state_hash(), m.machine.step
        m.machine.choices_take()
        explorer.repeat()
        log = m.machine.choices_take()
        m.machine.restore(start)
        m.machine.execute(log, exact=True)
        assert (m.machine.state_hash(), m.machine.step) == ended
    assert explorer.cut == ""
    assert explorer.runs > 3


def test_a_run_that_waits_for_an_answer_is_not_complete() -> None:
    m = machine("mov $0x510, %dx; mov $2, %eax; out %eax, %dx; hlt", "mov 0x8000, %ebx; hlt")
    explorer = _core.Explorer(m.machine)
    assert explorer.next() == "choice"
    assert explorer.cut == "a CPU waits for an answer"


def test_dpor_says_that_it_does_not_know_of_freed_pages() -> None:
    """Who stores to a page and who frees it touch no word in common; `bounded` comes by both orders."""
    free = "movl $0xc0500000, %ebp; xorl %edi, %edi; nopl 0x5254000b(%ebp,%edi,1)"
    threads = f"movl $1, 0x8100; {free}; hlt", "movl 0x8104, %eax; movl %eax, 0x8000; hlt"
    ends = {}
    for bounded in (False, True):
        for pooled in (False, True):
            m = machine(*threads)
            if pooled:
                m.machine.page_pool(0xC0500000, 64, 8, 1, 10, 11)
            explorer = _core.Explorer(m.machine, bounded=bounded, eager=True, bound=2)
            stops = set()
            while (stop := explorer.next()) is not None:
                stops.add(stop)
            ends[bounded, pooled] = stops - {""}, explorer.cut
    assert ends[False, False] == ends[True, False] == ({"idle"}, "")
    assert ends[False, True][1] == "pages with shared words are freed"
    assert ends[True, True] == ({"idle", "freed"}, "")
