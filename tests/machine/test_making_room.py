"""Runs that make room in their store buffer by themselves: flag ROOM, and what the log of choices says about it."""

import struct

import pytest
from programs import Bare, columns, drain, record, run
from random_programs import random_plan
from test_replay import final, machine_of, run_all

from machine import _core

HELD, ROOMY = _core.HOLD, _core.HOLD | _core.ROOM
# Stores one after the other, one over two cache lines, a read-modify-write, pushes, a locked instruction, a fence.
TEXT = """
again: incl %eax
movl %eax, 0x8000(,%eax,4)
movl %eax, 0x803e
movl 0x8004, %ebx
addl %eax, 0x8010
push %eax
push %ebx
pop %ecx
movb %al, 0x8100
lock incl 0x8200
movl %eax, 0x8204
movl %eax, 0x8208
testl $3, %eax
jnz again
mfence
jmp again
"""
STEPS = 400


def rows_of(plan: bytes) -> list[tuple[int, int, int, int]]:
    """(op, cpu, flags, arg) of each record."""
    return [(op, cpu, flags, arg) for op, cpu, flags, _, arg in struct.iter_unpack("<BBHIQ", plan)]


def one_cpu(store_buffer: int = 3) -> Bare:
    return Bare(TEXT, store_buffer=store_buffer)


def spelled_out(choices: bytes, steps: list[int], kinds: list[int]) -> bytes:
    """The same choices without ROOM: a DRAIN for each step whose only event is a drain."""
    found: dict[int, list[int]] = {}
    for step, kind in zip(steps, kinds, strict=True):
        found.setdefault(step, []).append(kind)
    drained = {step for step, what in found.items() if what == [_core.EVENT_KINDS["drain"]]}
    rows = rows_of(choices)
    plan, step = [], 0
    for op, cpu, flags, arg in rows:
        count = arg if op in (_core.RUN, _core.DRAIN) else 1
        if not flags & _core.ROOM:
            plan.append(record(op, arg, cpu, flags))
            step += count
            continue
        for at in range(step, step + count):
            plan.append(drain(1, cpu) if at in drained else record(op, 1, cpu, flags & ~_core.ROOM))
        step += count
    return b"".join(plan)


def ended(bare: Bare) -> tuple:
    """The state, the step, and the rows of the tap."""
    return (*final(bare.machine), columns(bare.machine))


def test_one_record_tells_it_all() -> None:
    bare = one_cpu()
    assert bare.execute(run(STEPS, hold=True)) == "plan"
    assert len(bare.events("drain")) > STEPS // 4
    end, choices = ended(bare), bare.machine.choices_take()
    assert rows_of(choices) == [(_core.RUN, 0, ROOMY, STEPS)]

    again = one_cpu()
    assert again.execute(choices, exact=True) == "plan"
    assert ended(again) == end
    assert again.machine.choices_take() == choices

    _, steps, *_, kinds, _, _, _ = bare.machine.events()
    literal = one_cpu()
    explicit = spelled_out(choices, list(steps), list(kinds))
    assert literal.execute(explicit, exact=True) == "plan"
    assert ended(literal) == end


def test_without_the_flag_a_full_buffer_blocks() -> None:
    bare = one_cpu()
    assert bare.execute(record(_core.RUN, STEPS, flags=HELD), exact=True) == "blocked"
    assert len(bare.machine.store_buffer_entries(0)) == 3
    assert not bare.events("drain")
    # It goes on from there, flag or not: the choices are of steps, not of runs.
    taken = bare.machine.step
    assert bare.execute(record(_core.RUN, STEPS - taken, flags=ROOMY), exact=True) == "plan"
    end = ended(bare)
    whole = one_cpu()
    assert whole.execute(record(_core.RUN, STEPS, flags=ROOMY), exact=True) == "plan"
    assert ended(whole) == end
    assert rows_of(bare.machine.choices_take()) == rows_of(whole.machine.choices_take())


def test_a_locked_instruction_drains_what_is_left_behind() -> None:
    bare = Bare("movl $1, 0x8000; movl $2, 0x8004; lock incl 0x8000; movl $3, 0x8008; nop")
    assert bare.execute(record(_core.RUN, 2, flags=HELD), record(_core.RUN, 5, flags=_core.ROOM), exact=True) == "plan"
    assert [row["step"] for row in bare.events("drain")] == [2, 3]
    assert bare.machine.store_buffer_entries(0) == []
    assert (bare.word(0x8000), bare.word(0x8008)) == (2, 3)
    assert rows_of(bare.machine.choices_take()) == [(_core.RUN, 0, HELD, 2), (_core.RUN, 0, _core.ROOM, 5)]


@pytest.mark.parametrize("tap", [False, True])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("slice_steps", [1, 7])
def test_slices(slice_steps: int, exact: bool, tap: bool) -> None:
    """Cut anywhere, with and without a snapshot in between, the run and its log are the same."""
    whole = one_cpu()
    whole.machine.tap = tap
    plan = record(_core.RUN, STEPS, flags=ROOMY if exact else HELD)
    assert whole.execute(plan, exact=exact) == "plan"
    end = ended(whole)
    for snapshots in (False, True):
        bare = one_cpu()
        bare.machine.tap = tap
        index = done = 0
        while not index:
            limit = bare.machine.step + slice_steps
            _, index, done = bare.machine.execute(plan, index=index, done=done, step_max=limit, exact=exact)
            if snapshots:
                bare.machine.restore(bare.machine.snapshot())
        assert ended(bare) == end
        assert rows_of(bare.machine.choices_take()) == [(_core.RUN, 0, ROOMY, STEPS)]


@pytest.mark.parametrize("store_buffer", [1, 2, 3, 8, 56])
def test_events_change_nothing(store_buffer: int) -> None:
    """Watched, unwatched and step by step: the same states at the same steps, also with stores that are not held."""
    plan = b"".join(record(_core.RUN, 37, flags=ROOMY if n % 3 else _core.ROOM) for n in range(30))
    watched, unwatched, single = (one_cpu(store_buffer) for _ in range(3))
    unwatched.machine.tap = single.machine.tap = False
    place = 0, 0
    for index in range(30):
        for bare in (watched, unwatched):
            assert bare.execute(plan[16 * index : 16 * (index + 1)], exact=True) == "plan"
        while place[0] == index:
            _, *rest = single.machine.execute(
                plan, index=place[0], done=place[1], step_max=single.machine.step + 1, exact=True
            )
            place = rest[0], rest[1]
        assert final(watched.machine) == final(unwatched.machine) == final(single.machine)
        assert watched.machine.store_buffer_entries(0) == unwatched.machine.store_buffer_entries(0)


def test_held_page_tables_are_walked_and_overwritten_code_is_executed() -> None:
    """Stores ahead of memory into page tables and into code, long after a run began."""
    text = "xor %ecx, %ecx; again: incl %ecx; movl %ecx, 0x8000(,%ecx,4); cmpl $40, %ecx; jb again;"
    # A directory of 4 MB pages that maps the second one onto the first, switched on, changed while held, then walked.
    text += """
        movl $0x83, 0x40000; movl $0x83, 0x40004
        movl $0x40000, %eax; movl %eax, %cr3
        movl %cr4, %eax; orl $0x10, %eax; movl %eax, %cr4
        movl %cr0, %eax; orl $0x80000000, %eax; movl %eax, %cr0
        movl $7, 0x8000
        movl $0x83, 0x40008
        movl 0x808000, %ebx
        movl $0x1234, 0x808004
        movl 0x408004, %edx
        movb $0x42, patched
        nop; nop; nop
        patched: nop
        hlt"""
    plan = record(_core.RUN, 10_000, flags=HELD)
    ends = []
    for tap, step in ((True, 10_000), (False, 10_000), (False, 3)):
        bare = Bare(text)
        bare.machine.tap = tap
        index = done = 0
        while bare.machine.waiting(0) == "":
            limit = bare.machine.step + step
            _, index, done = bare.machine.execute(plan, index=index, done=done, step_max=limit)
        registers = bare.machine.registers(0)
        assert (registers["rbx"], registers["rdx"] & 0xFFFF) == (7, 0x1235)
        ends.append(final(bare.machine))
    assert ends[0] == ends[1] == ends[2]


def test_a_run_ends_where_it_should_after_a_jump_out_of_the_block_that_was_to_end_it() -> None:
    """The run would end within `a`, which a branch leaves for a block that just fits, were it not for a drain."""
    text = """
        start: stc; nop; jmp a
        .fill 100, 1, 0x90
        a: nop; jc x
        .fill 120, 1, 0x90
        x: movl $3, 0x8200(,%ecx,4); inc %ecx; nop; nop; nop; nop; nop; jmp y
        .fill 64, 1, 0x90
        y: cmpl $10, %ecx; jb start; jmp y"""
    for steps in range(40, 80):
        whole, single = (Bare(text, store_buffer=2) for _ in range(2))
        for bare in (whole, single):
            assert bare.execute(record(_core.RUN, 48, flags=ROOMY), exact=True) == "plan"
        assert whole.execute(record(_core.RUN, steps, flags=ROOMY), exact=True) == "plan"
        for _ in range(steps):
            single.execute(record(_core.RUN, 1, flags=ROOMY), exact=True)
        assert whole.machine.step == single.machine.step == 48 + steps
        assert ended(whole) == ended(single)


@pytest.mark.parametrize("refreshed", [False, True])
def test_stores_behind_an_invalid_instruction_are_not_part_of_it(refreshed: bool) -> None:
    """Nothing was looked at behind the end of its page, whatever is known of the buffer."""
    bare = Bare("movl $1, 0x11004; movl $2, 0x18000; jmp 0x10ffe")
    bare.machine.write(0x10FFE, b"\x0f\xff")
    bare.gate(6, 0x12000)
    bare.execute(record(_core.RUN, 3, flags=HELD), exact=True)
    if refreshed:
        bare.machine.restore(bare.machine.snapshot())
    assert bare.execute(record(_core.RUN, 1, flags=HELD), exact=True) == "plan"
    assert bare.register("rip") == 0x12000
    assert len(bare.machine.store_buffer_entries(0)) == 5


@pytest.mark.parametrize("step_max", [1, 100])
def test_an_instruction_that_waits_may_be_another_after_each_drain(step_max: int) -> None:
    """The fence waits for both stores, of which the first replaces it."""
    bare = Bare("movl $0x90909090, fence; movl $7, 0x8000; jmp fence; .balign 4; fence: mfence; nop; inc %eax; jmp .")
    index = done = 0
    while not index:
        limit = bare.machine.step + step_max
        _, index, done = bare.machine.execute(record(_core.RUN, 9, flags=ROOMY), index=index, done=done, step_max=limit)
    assert bare.register("rax") == 1
    assert [row["value"] for row in bare.events("drain")] == [0x90909090]
    assert [entry[3] for entry in bare.machine.store_buffer_entries(0)] == [7]


def test_explicit_drains_stay_choices_of_their_own() -> None:
    bare = one_cpu(8)
    bare.execute(run(6, hold=True), drain(2), run(1, hold=True), run(30, hold=True))
    assert [row[::3] for row in rows_of(bare.machine.choices_take())] == [
        (_core.RUN, 6),
        (_core.DRAIN, 2),
        (_core.RUN, 31),
    ]


@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_random_systems(seed: int) -> None:
    """The log with ROOM and one with every drain written out make the same states and the same events."""
    roomy = 0
    for number in range(seed, seed + 10):
        r, machine, cpus = machine_of(number)
        start = machine.snapshot()
        _, events = run_all(machine, random_plan(r, cpus, 60), exact=False)
        end, choices = final(machine), machine.choices_take()
        roomy += sum(flags & _core.ROOM != 0 for _, _, flags, _ in rows_of(choices))
        steps = [int(step) for (step,) in struct.iter_unpack("<Q", events[0])]
        explicit = spelled_out(choices, steps, list(events[5]))
        machine.restore(start)
        run_all(machine, explicit, exact=True)
        assert final(machine) == end
        machine.restore(start)
        assert run_all(machine, explicit, exact=True)[1] == events
    assert roomy > 10
