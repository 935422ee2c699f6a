"""Agents: visible steps in the core, and what chooses among them."""

from __future__ import annotations

import random
import struct

import pytest
from agent_threads import DATA, STORE_BUFFERING, execute, machine, word

from machine import _core
from recorder.profile import Manner
from recorder.schedule import pick, plan
from traces.schema import Op, RecordArray, records_of

E0, E1 = _core.AGENT_CPU, _core.AGENT_CPU + 1
D0, D1 = _core.AGENT_DRAIN, _core.AGENT_DRAIN + 1
POLICIES = (_core.PICK_WALK, _core.PICK_POS, _core.PICK_PCT)


def steps(*agents: int, eager: bool = False) -> RecordArray:
    """One visible step of each."""
    records = plan(*((Op.STEP, 0, 1, agent) for agent in agents))
    records["reserved"] = eager
    return records


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([E0, E1, D0, D1], (0, 0)),  # both loads before both drains
        ([D0, E0, E1, D1], (0, 1)),
        ([D1, D0, E0, E1], (1, 1)),
        ([E0, D0, D1, E1], (0, 1)),
    ],
)
def test_a_store_is_seen_when_its_buffer_drains(order: list[int], expected: tuple[int, int]) -> None:
    m = machine(*STORE_BUFFERING)
    assert execute(m, steps(*order)) == "plan"
    assert (m.get("eax", cpu=0), m.get("eax", cpu=1)) == expected
    assert (word(m), word(m, DATA + 0x40)) == (1, 1)


def test_local_instructions_belong_to_no_choice() -> None:
    """A hundred instructions on private memory, one visible load: one step of the agent gets all of it done."""
    m = machine("mov $100, %ecx; 1: push %ecx; pop %edx; loop 1b; mov 0x8000, %eax; mov $7, %ebx; hlt")
    assert execute(m, steps(E0)) == "plan"
    assert m.get("ecx") == 0
    assert m.get("ebx") == 0  # what follows is local to the next step
    execute(m, steps(E0))
    assert m.get("ebx") == 7


NOT_YET = (
    "incl 0x8000",
    "lock incl 0x8000",
    "xchg %eax, 0x8000",
    "cmpxchg %ebx, 0x8000",
    "btsl $3, 0x8000",
    "mov $0x8000, %edi; mov $3, %ecx; rep stosl",
    "mov $0x8000, %esi; mov $0x8780, %edi; mov $3, %ecx; rep movsl",
    "pushl 0x8000",
    "popl 0x8000",
    "call *0x8000",
    "movb $1, 0x8003",
)


def test_stops_before_the_instruction_and_leaves_no_trace_of_it() -> None:
    """Read-modify-write, repeated string, exchange: nothing of it is done when the run stops before it."""
    for text in NOT_YET:
        m = machine(f"{text}; hlt", "hlt")
        before = word(m), m.machine.read(DATA + 0x600, 0x200)
        execute(m, steps(E1, eager=True))  # lets CPU 0 run up to its first visible step, too
        assert (word(m), m.machine.read(DATA + 0x600, 0x200)) == before, text
        assert m.get("rsp", cpu=0) == 0x8800, text


def test_what_is_waited_for_is_no_choice() -> None:
    m = machine("movl $1, 0x8000; mfence; mov 0x8040, %eax; hlt", "hlt")
    execute(m, steps(E0))  # the fence waits for the drain
    assert m.machine.store_buffer_entries(0)
    execute(m, steps(D0, E0))
    assert not m.machine.store_buffer_entries(0)


def test_private_stores_drain_by_themselves() -> None:
    """They are in the way of a shared one only until somebody wants to see that; and a full buffer is no obstacle."""
    m = machine("mov $90, %ecx; 1: push %ecx; pop %edx; loop 1b; movl $1, 0x8000; mfence; hlt")
    assert execute(m, steps(D0)) == "plan"
    assert word(m) == 1
    m = machine("movl $1, 0x8000; mov $20, %ecx; 1: push %ecx; pop %edx; loop 1b; hlt")
    execute(m, steps(E0))
    assert word(m) == 0  # the oldest is shared: only its agent drains it
    execute(m, steps(D0))
    assert word(m) == 1


def test_spinning_waits_for_a_change() -> None:
    spin = "1: cmpl $0, 0x8000; je 1b; mov $1, %ebx; hlt"
    for policy in POLICIES:
        for seed in range(20):
            m = machine(spin, "mov $3000, %ecx; 1: push %ecx; pop %edx; loop 1b; movl $1, 0x8000; hlt")
            assert execute(m, pick(policy, seed, Manner(eager=bool(seed & 1)))) == "idle"
            assert m.get("ebx") == 1
            assert sum(m.machine.visible_counts()) < 16


@pytest.mark.parametrize(
    "lock", ["xchg %eax, 0x8000; test %eax, %eax", "lock btsl $0, 0x8000; sbb %eax, %eax; test %eax, %eax"]
)
def test_a_lock_that_is_taken_is_waited_for(lock: str) -> None:
    thread = f"1: mov $1, %eax; {lock}; jnz 1b; incl 0x8040; movl $0, 0x8000; hlt"
    for seed in range(40):
        m = machine(thread, thread, thread)
        assert execute(m, pick(_core.PICK_POS, seed, Manner())) == "idle"
        assert word(m, DATA + 0x40) == 3


def test_deadlock_is_a_livelock_of_spinners() -> None:
    take = (
        "1: mov $1, %eax; xchg %eax, {a}; test %eax, %eax; jnz 1b; "
        "2: mov $1, %eax; xchg %eax, {b}; test %eax, %eax; jnz 2b; movl $0, {b}; movl $0, {a}; hlt"
    )
    threads = take.format(a="0x8000", b="0x8040"), take.format(a="0x8040", b="0x8000")
    ends = set()
    for seed in range(30):
        m = machine(*threads)
        ends.add(execute(m, pick(_core.PICK_POS, seed, Manner())))
    assert ends == {"idle", "livelock"}


def test_a_loop_with_a_counter_is_no_livelock() -> None:
    """A time-out that counts in memory looks like spinning by its registers; it is given time before it is called
    so."""
    thread = "movl $200, 0x8780; 1: cmpl $0, 0x8000; jne 2f; decl 0x8780; jnz 1b; 2: mov $5, %ebx; hlt"
    m = machine(thread, "hlt")
    assert execute(m, pick(_core.PICK_WALK, 1, Manner())) == "idle"
    assert m.get("ebx") == 5


RACING = (
    "mov $12, %ecx; 1: incl 0x8000; mov 0x8040, %eax; push %eax; pop %edx; loop 1b; hlt",
    "mov $10, %ecx; 1: incl 0x8040; mov 0x8000, %eax; lock incl 0x8080; loop 1b; hlt",
    "mov $9, %ecx; 1: mov 0x8000, %eax; mov %eax, 0x8040; push %eax; pop %ebx; loop 1b; mfence; hlt",
)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("eager", [True, False])
def test_the_choices_say_all_of_it(policy: int, eager: bool) -> None:
    m = machine(*RACING).machine
    start = m.snapshot()
    seen = set()
    for seed in range(40):
        m.restore(start)
        m.choices_take()
        assert execute(m, pick(policy, seed, Manner(eager=eager), depth=3, steps=100)) == "idle"
        log, ended, step = m.choices_take(), m.state_hash(), m.step
        assert {int(row["op"]) for row in records_of(log)} <= {_core.RUN, _core.DRAIN}
        for tap in (False, True):
            m.restore(start)
            m.tap = tap
            m.execute(log, exact=True)
            m.tap = False
            m.events_clear()
            assert (m.state_hash(), m.step) == (ended, step)
        seen.add(ended)
    assert len(seen) > (3 if policy == _core.PICK_PCT else 10)


@pytest.mark.parametrize("policy", POLICIES)
def test_it_does_not_matter_where_the_caller_stops(policy: int) -> None:
    m = machine(*RACING).machine
    start, r = m.snapshot(), random.Random(7)
    for _ in range(20):
        record = pick(
            policy, r.getrandbits(64), Manner(eager=bool(r.getrandbits(1))), depth=r.randrange(1, 5), steps=150
        )
        ends = []
        for size in (1 << 20, 1, 7):
            m.restore(start)
            m.choices_take()
            index, done, reason = 0, 0, "steps"
            while reason == "steps":
                reason, index, done = m.execute(record.tobytes(), index=index, done=done, step_max=m.step + size)
            ends.append((reason, m.step, m.state_hash(), m.choices_take(), m.class_hash))
        assert ends[0] == ends[1] == ends[2]


def test_needs_the_shared_words_and_no_tap() -> None:
    unwatched = machine(*RACING, watch=False)
    assert execute(unwatched, pick(_core.PICK_POS, 1, Manner())) == "diverged"
    with pytest.raises(ValueError, match="shared words"):
        _core.Explorer(unwatched.machine)
    m = machine(*RACING)
    m.machine.tap = True
    assert execute(m, pick(_core.PICK_POS, 1, Manner())) == "diverged"
    m.machine.tap = False
    assert m.machine.execute(pick(_core.PICK_POS, 1, Manner()).tobytes(), exact=True)[0] == "diverged"
    with pytest.raises(ValueError, match="4 bytes of RAM"):
        m.machine.watch(b"\0" * 8)
    m.machine.watch(None)
    assert execute(m, pick(_core.PICK_POS, 1, Manner())) == "diverged"
    with pytest.raises(ValueError, match="32 agents"):
        m.machine.weights([1])


def test_runs_that_differ_in_independent_steps_only_are_of_one_class() -> None:
    m = machine("incl 0x8000; hlt", "incl 0x8040; hlt").machine
    start, hashes = m.snapshot(), set()
    for order in ([E0, E1], [E1, E0]):
        m.restore(start)
        execute(m, pick(_core.PICK_POS, 0, Manner(eager=True)))  # begins to count
        m.restore(start)
        execute(m, steps(*order, eager=True))
    for seed in range(30):
        m.restore(start)
        execute(m, pick(_core.PICK_WALK, seed, Manner(eager=True)))
        hashes.add(m.class_hash)
    assert len(hashes) == 1
    conflicting = machine("incl 0x8000; hlt", "incl 0x8000; hlt").machine
    start, hashes = conflicting.snapshot(), set()
    for seed in range(30):
        conflicting.restore(start)
        execute(conflicting, pick(_core.PICK_WALK, seed, Manner(eager=True)))
        hashes.add(conflicting.class_hash)
    assert len(hashes) == 2


def test_pairs_of_conflicting_instructions_are_met() -> None:
    m = machine("incl 0x8000; hlt", "incl 0x8000; hlt").machine
    start, pairs = m.snapshot(), []
    m.pairs_take()
    for order in ([E0, E1], [E1, E0]):
        m.restore(start)
        execute(m, pick(_core.PICK_PCT, 0, Manner(eager=True)))
        m.restore(start)
        execute(m, steps(*order, eager=True))
        pairs.append(int.from_bytes(m.pairs_take(), "little").bit_count())
    assert pairs[0] >= 1
    apart = machine("incl 0x8000; hlt", "incl 0x8040; hlt").machine
    execute(apart, pick(_core.PICK_WALK, 0, Manner(eager=True)))
    assert not any(apart.pairs_take())


def test_weights_say_how_probable_an_agent_is() -> None:
    """With the counts right all interleavings are equally probable: that CPU 0 comes last 1 in 11 times, not 1 in
    1024."""
    m = machine("incl 0x8000; hlt", "mov $10, %ecx; 1: mov 0x8000, %eax; loop 1b; hlt").machine
    start = m.snapshot()
    last = {}
    for weighted in (False, True):
        m.weights([1, 10] + [0] * 30 if weighted else [0] * 32)
        hits = 0
        for seed in range(600):
            m.restore(start)
            execute(m, pick(_core.PICK_WALK, seed, Manner(eager=True)))
            hits += m.registers(1)["rax"] == 0  # CPU 1 was through before
        last[weighted] = hits / 600
    assert last[False] < 0.02
    assert 0.05 < last[True] < 0.14


def test_ticks_come_as_often_as_they_were_asked_for() -> None:
    m = machine("sti; 1: mov 0x8000, %eax; cmp $1, %eax; jne 1b; hlt")
    assert (
        execute(m, pick(_core.PICK_WALK, 0, Manner(ticks=3))) == "livelock"
    )  # the timer is not armed: nothing can come
    log = m.machine.choices_take()
    assert all(row[0] != _core.IRQ for row in struct.iter_unpack("<BBHIQ", log))


def test_what_was_looked_up_for_an_instruction_that_is_not_executed_yet_is_taken_back() -> None:
    """Its translation is cached, and the accessed bit set, in the step that executes it."""
    m = machine("mov 0x5000, %ebx; mov 0x8000, %eax; hlt", "hlt")
    core = m.machine
    core.write(0x6000, struct.pack("<I", 0x3000 | 3))
    core.write(0x3000, struct.pack("<16I", *(page << 12 | 3 for page in range(16))))
    for cpu in (0, 1):
        m.set(cpu=cpu, cr3=0x6000)
        m.set(cpu=cpu, cr0=0x80000011)
    execute(core, steps(E1))  # CPU 0 stands before its visible load

    def entry(page: int) -> int:
        return int(struct.unpack("<I", core.read(0x3000 + 4 * page, 4))[0])

    assert m.get("rip", cpu=0) == 0x1006
    assert entry(5) & 0x20  # what came before it was executed
    assert not entry(8) & 0x20
    assert 0x8000 not in [page for page, *_ in core.tlb_entries(0)]
    execute(core, steps(E0))
    assert entry(8) & 0x20
    assert 0x8000 in [page for page, *_ in core.tlb_entries(0)]
