"""Freed pages: who touches one between tracepoints page_free and page_alloc ends the run, and nothing else changes."""

import random

import pytest
from programs import CODE, Bare, assemble, auto, columns, drain, irq, record, run
from random_programs import CODE as PROGRAM
from random_programs import DATA, RAM, STACKS, TABLE, build, random_plan
from test_replay import final, run_all

from machine import BareMachine, _core

ALLOC, FREE = 10, 11
PAGES, PAGE_BYTES, FIRST, COUNT = 0xC0500000, 40, 0x40, 0x20
PAGE = 0x48000
"""The page most tests are about."""
NUMBER = (PAGE >> 12) - FIRST


def said(identifier: int, page: int = PAGE, order: int = 0) -> str:
    """The guest frees or allocates a page. Clobbers ebp and edi."""
    where = PAGES + ((page >> 12) - FIRST) * PAGE_BYTES
    return f"movl ${where}, %ebp; movl ${order}, %edi; nopl {0x52540000 | identifier:#x}(%ebp,%edi,1)\n"


def pooled(text: str, cpus: int = 1, *, pool: bool = True, tap: bool = True, store_buffer: int = 8) -> Bare:
    bare = Bare(text, cpus=cpus, store_buffer=store_buffer)
    bare.machine.tap = tap
    if pool:
        bare.machine.page_pool(PAGES, PAGE_BYTES, FIRST, COUNT, ALLOC, FREE)
    if cpus > 1:
        bare.machine.write(0x70000, assemble("movl $0xc0610, 0xfee00300"))  # start-up IPI to all but itself
        bare.machine.set_register(0, "rip", 0x70000)
        bare.execute(run(1))
    for cpu in range(cpus):
        bare.machine.set_register(cpu, "rip", CODE)
    return bare


def used(bare: Bare) -> tuple[str, int, int, int]:
    """(access, cpu, addr, phys) of the use that ended the run."""
    use = bare.machine.freed_use()
    assert use is not None
    return use[0], use[1], use[3], use[4]


ACCESSES = {
    "load": ("movl 0x48010, %eax", "load", 0x48010),
    "store": ("movl %eax, 0x48010", "store", 0x48010),
    "add": ("addl %eax, 0x48010", "load", 0x48010),
    "locked": ("lock incl 0x48010", "load", 0x48010),
    "over a line": ("movl 0x4803e, %eax", "load", 0x4803E),
    "over the page": ("movl %eax, 0x47ffe", "store", 0x48000),
    "push": ("movl $0x48ff0, %esp; push %eax", "store", 0x48FEC),
    "string": ("movl $0x48010, %edi; movl $4, %ecx; rep stosl", "store", 0x48010),
    "jump": ("jmp 0x48020", "fetch", 0x48020),
    "call": ("movl $0x48ff0, %esp; call 0x30000", "store", 0x48FEC),
    "twice": (said(FREE), "free", PAGES + NUMBER * PAGE_BYTES),
}


@pytest.mark.parametrize("tap", [False, True])
@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("name", ACCESSES)
def test_an_access_ends_the_run_behind_its_step(name: str, touched: bool, tap: bool) -> None:
    text, access, addr = ACCESSES[name]
    before = "movl %eax, 0x48014; movl 0x48014, %ebx\n" if touched else ""  # it has been accessed directly
    bare = pooled(before + said(FREE) + "incl %eax\n" + text + "\n" + "incl %edx\n" * 9 + "hlt", tap=tap)
    assert bare.execute(auto()) == "freed"
    assert used(bare) == (access, 0, addr, addr if access != "free" else PAGE)
    use = bare.machine.freed_use()
    assert use is not None
    assert bare.machine.step == use[5] + 1
    assert use[6:] == (0, 4 if touched else 2)
    assert bare.register("rdx") == 0
    assert bare.execute(auto()) == "freed"  # nothing goes on
    assert bare.machine.step == use[5] + 1


def test_pages_that_are_handed_out_or_next_to_it_are_nobodys_business() -> None:
    near = "movl %eax, 0x47ffc; movl 0x49000, %eax; movl %eax, 0x3fffc; movl %eax, 0x60000\n"
    bare = pooled(said(FREE) + near + said(ALLOC) + "movl %eax, 0x48000; incl 0x48ffc; hlt")
    assert bare.execute(auto()) == "idle"
    assert bare.machine.freed_use() is None


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("at", [0, 1, 2, 8])
def test_an_order_is_so_many_pages(order: int, at: int) -> None:
    bare = pooled(said(FREE, order=order) + f"movl {PAGE + 0x1000 * at}, %eax; hlt")
    assert bare.execute(auto()) == ("freed" if at < 1 << order else "idle")


@pytest.mark.parametrize(
    "operands",
    [(PAGES - PAGE_BYTES, 0), (PAGES + COUNT * PAGE_BYTES, 0), (PAGES + 1, 0), (PAGES, 6), (PAGES, 32), (PAGES, 64)],
)
def test_what_is_no_page_of_the_pool_is_passed_over(operands: tuple[int, int]) -> None:
    page, order = operands
    touch = "movl 0x40000, %eax; movl 0x60000, %eax; hlt"
    bare = pooled(f"movl ${page}, %ebp; movl ${order}, %edi; nopl 0x5254000b(%ebp,%edi,1)\n" + touch)
    assert bare.execute(auto()) == "idle"


def test_without_a_pool_nothing_is_noticed() -> None:
    bare = pooled(said(FREE) + "movl 0x48000, %eax; hlt", pool=False)
    assert bare.execute(auto()) == "idle"
    bare = pooled(said(FREE) + "movl 0x48000, %eax; hlt")
    bare.machine.page_pool(PAGES, PAGE_BYTES, FIRST, 0, ALLOC, FREE)
    assert bare.execute(auto()) == "idle"


def test_own_stores_from_before_may_drain_but_not_those_of_others() -> None:
    """Own ones are in front of whatever makes the page available; of another CPU nothing says that they are in time."""
    text = "movl %eax, 0x48010; movl %ecx, 0x30000\n" + said(FREE) + "movl %eax, 0x30004; hlt"
    bare = pooled(text)
    assert bare.execute(run(9, hold=True), drain(3)) == "plan"
    for drained in (1, 2):  # the second CPU has stored to the page; the first one frees it
        bare = pooled(text, cpus=2)
        assert bare.execute(run(2, 1, hold=True), record(_core.DRAIN, drained - 1, 1), run(9, 0, hold=True)) == "plan"
        assert bare.execute(drain(8, 0)) == "plan"
        assert bare.execute(drain(8, 1)) == ("freed" if drained == 1 else "plan")
        if drained == 1:
            use = bare.machine.freed_use()
            assert use is not None
            assert use[:5] == ("drain", 1, CODE, 0x48010, 0x48010)
            assert use[6] == 0
            assert bare.word(0x48010) == 0  # eax
            assert len(bare.machine.store_buffer_entries(1)) == 1


def test_drains_that_make_room_are_looked_at_too() -> None:
    filling = "".join(f"movl %eax, {0x30000 + 8 * i}\n" for i in range(24))
    bare = pooled("movl %eax, 0x48010\n" + said(FREE) + filling + "hlt", cpus=2, store_buffer=4)
    assert bare.execute(run(1, 1, hold=True), run(4, 0)) == "plan"
    assert bare.execute(run(60, 1, hold=True)) == "freed"
    assert used(bare)[:2] == ("free", 1)  # the same code frees the page again
    bare = pooled(
        "testl %esi, %esi; jnz 1f\n" + said(FREE) + "hlt\n1: movl %eax, 0x48010\n" + filling + "hlt",
        cpus=2,
        store_buffer=4,
    )
    bare.machine.set_register(1, "rsi", 1)
    assert bare.execute(run(3, 1, hold=True), run(5, 0)) == "plan"
    assert bare.execute(run(60, 1, hold=True)) == "freed"
    assert used(bare) == ("drain", 1, 0x48010, 0x48010)
    assert (
        bare.machine.step == 1 + 8 + 3 + 1
    )  # behind the start, three stores fill the buffer, the drain is the last step


def test_a_held_store_is_noticed_when_it_is_made() -> None:
    bare = pooled(said(FREE) + "movl %eax, 0x30000; movl %eax, 0x48010; hlt")
    assert bare.execute(run(20, hold=True)) == "freed"
    assert used(bare) == ("store", 0, 0x48010, 0x48010)
    assert len(bare.machine.store_buffer_entries(0)) == 2


def test_a_frame_on_a_freed_stack() -> None:
    bare = pooled("movl $0x48800, %esp\n" + said(FREE) + "sti; nop; nop; nop")
    bare.gate(0x40, 0x20000)
    m = bare.machine
    m.write(0x20000, b"\xf4")
    assert bare.execute(run(4)) == "plan"
    m.set_register(0, "rsp", 0x48800)
    bare.execute(run(2))
    state = m.snapshot()
    # A fixed IPI to itself, by the local APIC's command register, as a driver would write it.
    assert bare.execute(irq(0x40)) == "plan"
    assert m.freed_use() is None  # nothing is pending: it cannot come
    m.restore(state)
    m.write(CODE + 0x800, b"\xcd\x40")  # INT 40h
    m.set_register(0, "rip", CODE + 0x800)
    assert bare.execute(run(1)) == "freed"
    assert used(bare)[:2] == ("store", 0)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("level", [1, 2])
def test_a_walk_through_a_freed_table(bits: int, level: int) -> None:
    """The CPU that frees it runs elsewhere, where the TLB knows the way."""
    bare = BareMachine(bits, paging="4-level" if bits == 64 else "pae")
    bare.map(0x400000, 0x1000, rights="rw")
    bare.map(0x800000, 0x1000)
    bare.load(0x800000, "nopl 0x5254000b(%ebp,%edi,1)\n mov %ebx, 0x400000" if bits == 32 else
              "nopl 0x5254000b(%rbp,%rdi,1)\n mov %ebx, 0x400000")  # fmt: skip
    m = bare.machine
    m.page_pool(PAGES, 64, 1, m.ram_bytes // 4096 - 1, ALLOC, FREE)
    bare.set(rip=0x800000, rbp=0, rdi=0)
    m.tap = True
    before = m.snapshot()
    assert m.execute(run(2))[0] == "plan"
    count, _step, _pc, addr, phys, _value, kind, _cpu, _size, info = m.events()
    walk = _core.EVENT_KINDS["walk"]
    tables = {info[i] & 15: phys[i] for i in range(count) if kind[i] == walk and addr[i] == 0x400000}
    m.restore(before)
    bare.set(rbp=PAGES + 64 * ((tables[level] >> 12) - 1))
    assert m.execute(run(1))[0] == "plan"
    assert m.execute(run(1))[0] == "freed"
    use = m.freed_use()
    assert use is not None
    assert (use[0], use[2], use[3], use[4]) == (
        "walk",
        bare.get("rip") - (6 if bits == 32 else 7),
        0x400000,
        tables[level],
    )
    assert bare.read_int(0x400000) == bare.get("rbx")  # the step is made


def test_exact_choices_repeat_the_use_and_go_on() -> None:
    text = said(FREE) + "movl 0x48000, %eax; movl %eax, 0x48004; incl %eax; hlt"
    bare = pooled(text)
    assert bare.execute(auto()) == "freed"
    choices = bare.machine.choices_take()
    states = []
    for pool in (False, True):
        again = pooled(text, pool=pool)
        assert again.machine.execute(choices, exact=True)[0] == "plan"
        assert again.machine.freed_use() == (bare.machine.freed_use() if pool else None)
        states.append((again.machine.state_hash(), columns(again.machine)))
        assert again.machine.execute(run(2), exact=True)[0] == "plan"  # and on, past the second access
        use = again.machine.freed_use()
        assert (use is not None and use[0] == "store") is pool
    assert states == [(bare.machine.state_hash(), columns(bare.machine))] * 2


def test_snapshots_keep_the_set() -> None:
    bare = pooled(said(FREE) + "nop\n" + said(ALLOC) + said(FREE, PAGE + 0x1000) + "nop; jmp 0x30000; hlt")
    m = bare.machine
    m.write(0x30000, b"\xa1\x00\x80\x04\x00\xa1\x00\x90\x04\x00\xf4")  # load from both pages, HLT
    at_start = m.snapshot()
    bare.execute(run(4))
    first_freed = m.snapshot()
    bare.execute(run(6))
    second_freed = m.snapshot()

    def frame_at(snapshot: _core.Snapshot) -> int | None:
        m.restore(snapshot)
        m.set_register(0, "rip", 0x30000)
        bare.execute(auto(5))
        use = m.freed_use()
        return use[4] >> 12 if use else None

    expected = [(at_start, None), (first_freed, 0x48), (second_freed, 0x49)]
    for snapshot, frame in [*expected, *reversed(expected), expected[0], expected[2], expected[1]]:
        assert frame_at(snapshot) == frame
    m.restore(first_freed)
    m.state_load(m.state_save())  # a state says nothing of it
    assert bare.execute(auto(6)) == "plan"


def test_a_snapshot_from_before_the_pool_has_no_freed_pages() -> None:
    bare = pooled(said(FREE) + "movl 0x48000, %eax; hlt", pool=False)
    m = bare.machine
    start = m.snapshot()
    m.page_pool(PAGES, PAGE_BYTES, FIRST, COUNT, ALLOC, FREE)
    for _ in range(2):
        assert bare.execute(auto()) == "freed"
        m.restore(start)
        m.set_register(0, "rip", CODE + 0x100)
        m.write(CODE + 0x100, b"\xa1\x00\x80\x04\x00\xf4")
        assert bare.execute(auto()) == "idle"
        m.restore(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0, 1, 1, 2), "a page has bytes"),
        ((0, 4, 0, 257, 1, 2), "RAM has only 256 frames"),
        ((0, 4, 257, 0, 1, 2), "RAM has only 256 frames"),
        ((0, 4, 0, 1, 0, 2), "two tracepoints"),
        ((0, 4, 0, 1, 1, 1), "two tracepoints"),
        ((0, 4, 0, 1, 1, 1 << 16), "two tracepoints"),
    ],
)
def test_arguments_are_checked(arguments: tuple[int, int, int, int, int, int], message: str) -> None:
    m = _core.Machine(ram_bytes=1 << 20)
    with pytest.raises(ValueError, match=message):
        m.page_pool(*arguments)
    m.page_pool(0, 4, 256, 0, 1, 2)
    assert m.freed_use() is None


def random_machine(seed: int, *, pool: bool) -> tuple[random.Random, _core.Machine]:
    """A random system, some of whose pages are free from the start; the same one with and without a pool."""
    r = random.Random(seed)
    m = _core.Machine(cpus=r.choice((1, 2, 2, 3)), ram_bytes=RAM, store_buffer=r.choice((1, 3, 8)))
    if pool:
        m.page_pool(PAGES, PAGE_BYTES, 0, RAM >> 12, ALLOC, FREE)
    m.write(0xF0000, assemble("nopl 0x5254000b(%ebp,%edi,1)"))
    frames = [DATA, DATA + 0x1000, STACKS, STACKS + 0x1000, TABLE, PROGRAM, PROGRAM + 0x1000, PROGRAM + 0x2000]
    for page in r.sample(frames, r.randrange(1, 4)):
        for name, value in (("rbp", PAGES + (page >> 12) * PAGE_BYTES), ("rdi", 0), ("rip", 0xF0000)):
            m.set_register(0, name, value)
        m.execute(run(1))
    m.choices_take()
    m.tap = True
    build(r, m, wild=False)
    return r, m


@pytest.mark.parametrize("seed", range(40))
def test_runs_are_the_same_with_and_without_a_pool(seed: int) -> None:
    """Repeated by exact choices: a whole run made without, and one up to a use made with it."""
    r, without = random_machine(seed, pool=False)
    plan = random_plan(r, without.cpus, 40)
    for maker, other in ((without, True), (random_machine(seed, pool=True)[1], False)):
        reason, events = run_all(maker, plan, exact=False)
        assert (reason == "freed") == (maker.freed_use() is not None)
        choices = maker.choices_take()
        again = random_machine(seed, pool=other)[1]
        stop, repeated = run_all(again, choices, exact=True)
        assert stop in ("plan", "exit", "shutdown", reason)
        assert repeated == events
        assert final(again) == final(maker)
        assert (again.freed_use() is None) or other
        if reason == "freed":
            use = maker.freed_use()
            assert use is not None
            assert use[5] == maker.step - 1


def test_random_runs_use_freed_pages_in_every_way() -> None:
    """Or the test above would show nothing."""
    found = set()
    for seed in range(40):
        r, m = random_machine(seed, pool=True)
        run_all(m, random_plan(r, m.cpus, 40), exact=False)
        use = m.freed_use()
        found.add(use[0] if use else "")
    assert found == {"", "load", "store", "fetch", "walk"}
