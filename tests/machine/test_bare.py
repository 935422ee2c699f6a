"""The bare machine's own promises: mapping, addresses, registers, errors, rows of events."""

import itertools

import pytest

from machine import BareMachine
from machine.assembler import assemble
from machine.bare_paging import SHAPES, Paging
from machine.bare_tables import KERNEL_CODE, TSS, USER_CODE_32, USER_CODE_64, USER_DATA
from machine.errors import UsageError

HIGH = 0xFFFF_8000_0000_0000
KINDS: list[tuple[int, Paging]] = [(64, "4-level"), (32, "2-level"), (32, "pae"), (16, "2-level"), (16, "pae")]
SIZES = [(bits, paging, size) for bits, paging in KINDS if bits != 16 for size in SHAPES[paging].page_bytes]


@pytest.mark.parametrize(("bits", "paging", "page_bytes"), SIZES)
def test_pages_of_every_size_are_used_as_mapped(bits: int, paging: Paging, page_bytes: int) -> None:
    m = BareMachine(bits, paging=paging, ram_bytes=3 << 30)
    m.map(0x1000)
    addr = 0x4000_0000
    phys = m.map(addr, 2 * page_bytes if page_bytes < 1 << 30 else page_bytes, page_bytes=page_bytes)
    assert phys % page_bytes == 0
    last = addr + page_bytes - 4
    m.load(0x1000, f"movl $0x12345678, {last:#x}; mov {last:#x}, %eax")
    m.set(rip=0x1000)
    run = m.step(2)
    assert (run.reason, m.get("eax")) == ("plan", 0x12345678)
    assert m.machine.read(phys + page_bytes - 4, 4) == bytes.fromhex("78563412")
    (store,) = run.of("store")
    assert (store.addr, store.phys, store.value, store.size, store.marks) == (
        last,
        phys + page_bytes - 4,
        0x12345678,
        4,
        ("drained",),
    )
    fills = [event for event in run.of("tlb_fill") if event.addr == addr]
    assert [1 << event.size for event in fills] == [page_bytes]


@pytest.mark.parametrize(("bits", "paging"), KINDS)
def test_rights_are_those_of_the_page(bits: int, paging: Paging) -> None:
    """Error codes: SDM vol. 3, 4.7. Without EFER.NXE (two levels) every page can be executed."""
    for rights, user, kind in itertools.product(("r", "rw", "rx", "rwx"), (False, True), ("read", "write", "fetch")):
        m = BareMachine(bits, paging=paging)
        m.map(0x1000, user=True)
        m.map(0x5000, rights=rights, user=True)
        m.map(0x6000, rights=rights)
        target = 0x5000 if user else 0x6000
        m.load(0x1000, {"read": "mov (%bx), %al", "write": "mov %al, (%bx)", "fetch": "jmp *%bx"}[kind], bits=16)
        if bits != 16:
            reg = "%rbx" if bits == 64 else "%ebx"
            text = {"read": f"mov ({reg}), %al", "write": f"mov %al, ({reg})", "fetch": f"jmp *{reg}"}[kind]
            m.load(0x1000, text)
        m.write(target, b"\x90")
        m.set(cs=USER_CODE_64 if bits == 64 else USER_CODE_32, ss=USER_DATA, ds=USER_DATA, rip=0x1000, rbx=target)
        if bits == 16:
            m.set(cs=3)
        faults = m.step(2 if kind == "fetch" else 1).of("fault")
        forbidden = {
            "read": False,
            "write": "w" not in rights,
            "fetch": "x" not in rights and paging != "2-level",
        }[kind]
        if user and not forbidden:
            assert faults == [], (rights, kind)
        else:
            fetch_bit = 16 if kind == "fetch" and paging != "2-level" else 0
            error = 5 | (2 if kind == "write" else 0) | fetch_bit
            assert (faults[0].info, faults[0].addr, faults[0].value) == (14, target, error), (rights, user, kind)


def test_frames_are_given_once_and_never_under_named_ones() -> None:
    m = BareMachine(ram_bytes=1 << 20)
    m.map(0x1000, phys=0x80000)
    given = {m.map(0x1000_0000 + 0x1000 * n) for n in range(200)}
    assert len(given) == 200
    assert not given & {0, 0x80000, m.get("cr3")}
    with pytest.raises(UsageError, match="do not fit"):
        m.map(0x2000_0000, 1 << 20)
    m.map(0x3000_0000, phys=0x4000_0000)  # behind the end of RAM: a hole
    with pytest.raises(UsageError, match="not mapped to RAM"):
        m.read(0x3000_0000, 1)
    with pytest.raises(UsageError, match="not mapped to RAM"):
        m.write(0x3000_0000, b"x")


def test_a_write_over_pages_lands_in_each_or_in_none() -> None:
    m = BareMachine()
    m.map(0x2000, phys=0x9000)
    m.map(0x3000, phys=0x7000)
    m.write(0x2FFE, b"abcd")
    assert (m.machine.read(0x9FFE, 2), m.machine.read(0x7000, 2)) == (b"ab", b"cd")
    assert m.read(0x2FFE, 4) == b"abcd"
    with pytest.raises(UsageError, match="0x4000 "):
        m.write(0x3FFE, b"efgh")
    assert m.read(0x3FFE, 2) == bytes(2)


def test_unmapping_needs_whole_pages() -> None:
    m = BareMachine()
    m.map(0x20_0000, 2 << 20, page_bytes=2 << 20)
    with pytest.raises(UsageError, match="unmap all of it"):
        m.unmap(0x20_1000)
    with pytest.raises(UsageError, match="large page"):
        m.map(0x20_1000)
    m.unmap(0x20_0000, 2 << 20)
    with pytest.raises(UsageError, match="not mapped"):
        m.entry_address(0x20_0000)
    m.map(0x20_1000)
    m.unmap(0x20_1000)
    with pytest.raises(UsageError, match="not mapped"):
        m.unmap(0x20_1000)


@pytest.mark.parametrize(
    ("addr", "size"),
    [(0x1001, 0x1000), (0x1000, 0x800), (0x1000, 0), (-0x1000, 0x1000), (1 << 47, 0x1000), ((1 << 64), 0x1000)],
)
def test_ranges_that_are_none(addr: int, size: int) -> None:
    with pytest.raises(UsageError):
        BareMachine().map(addr, size)


def test_linear_addresses_end_where_the_mode_says() -> None:
    m = BareMachine()
    m.map(HIGH)
    m.map((1 << 47) - 0x1000)
    m.map((1 << 64) - 0x1000)
    with pytest.raises(UsageError, match="no linear addresses of pae"):
        BareMachine(32, paging="pae").map(1 << 32)
    with pytest.raises(UsageError, match="has pages of 4096, 4194304 bytes"):
        BareMachine(32, paging="2-level").map(0, 2 << 20, page_bytes=2 << 20)
    with pytest.raises(UsageError, match="no paging"):
        BareMachine(32).map(0x1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 8}, "16, 32 or 64"),
        ({"bits": 64, "paging": "pae"}, "4-level, not pae"),
        ({"bits": 32, "paging": "4-level"}, "none or 2-level or pae"),
        ({"cpus": 9}, "cpus"),
        ({"ram_bytes": 5}, "ram_bytes"),
        ({"store_buffer": 0}, "store_buffer"),
    ],
)
def test_machines_that_cannot_be(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BareMachine(**arguments)  # type: ignore[arg-type]


def test_registers_and_flags() -> None:
    m = BareMachine(cpus=2)
    m.set(cpu=1, rax=-1, ebx=1 << 31, r15=7, cf=1, zf=1, if_=1, df=0)
    assert (m.get("rax", cpu=1), m.get("eax", cpu=1)) == ((1 << 64) - 1, (1 << 32) - 1)
    assert (m.get("r15", cpu=1), m.get("cf", cpu=1), m.get("rflags", cpu=1)) == (7, 1, 0x243)
    assert m.get("rax", cpu=0) == 0
    m.set(cpu=1, cf=0)
    assert m.get("eflags", cpu=1) == 0x242
    for name in ("cpl", "retired", "bits"):
        with pytest.raises(UsageError, match="cannot be set"):
            m.set(**{name: 1})
    with pytest.raises(UsageError, match="'flags'"):
        m.set(rax=5, flags=1)
    assert m.get("rax") == 0
    with pytest.raises(UsageError, match="no CPU 2"):
        m.get("rax", cpu=2)


@pytest.mark.parametrize("name", ["cf", "pf", "af", "zf", "sf", "tf", "if_", "df", "of", "nt", "rf", "ac", "id"])
def test_every_flag_is_its_bit(name: str) -> None:
    bits = {"cf": 0, "pf": 2, "af": 4, "zf": 6, "sf": 7, "tf": 8, "if_": 9, "df": 10, "of": 11, "nt": 14}
    m = BareMachine()
    m.set(**{name: 1})
    assert m.get("rflags") == 2 | 1 << {**bits, "rf": 16, "ac": 18, "id": 21}[name]
    assert m.get(name) == 1


@pytest.mark.parametrize(("bits", "paging"), [*KINDS, (32, "none"), (16, "none")])
@pytest.mark.parametrize("cpus", [1, 8])
def test_tables_for_every_cpu(bits: int, paging: Paging, cpus: int) -> None:
    m = BareMachine(bits, paging=paging, cpus=cpus)
    if paging != "none":
        m.map(0x10000, 0x20000)
    before = [m.registers(cpu=cpu) for cpu in range(cpus)]
    m.add_tables(0x10000, stack=0x20000)
    m.gate(0x21, 0x14000)
    m.load(0x12000, "int $0x21")
    m.load(0x14000, f"inc %ebx; iret{'q' if bits == 64 else 'l'}")
    for cpu in range(cpus):
        state = m.registers(cpu=cpu)
        assert (state["tr"], state["tr_base"]) == (TSS + 16 * cpu, 0x10800 + 128 * cpu)
        changed = {name for name in state if state[name] != before[cpu][name]}
        assert changed <= {"gdt_base", "gdt_limit", "idt_base", "idt_limit", "tr", "tr_base", "retired"}
        assert m.machine.tlb_entries(cpu) == []
        m.set(cpu=cpu, rip=0x12000, rsp=0x28000 - 0x400 * cpu)
        assert m.step(3, cpu=cpu).reason == "plan"
        assert (m.get("ebx", cpu=cpu), m.get("rip", cpu=cpu), m.get("cs", cpu=cpu)) == (1, 0x12002, KERNEL_CODE)


def test_tables_must_be_writable_memory() -> None:
    m = BareMachine()
    with pytest.raises(UsageError, match="not mapped"):
        m.add_tables(0x10000)
    with pytest.raises(UsageError, match="add_tables first"):
        m.gate(3, 0x1000)
    m.map(0x10000, 0x2000, rights="r")
    with pytest.raises(UsageError, match="rights rwx"):
        m.add_tables(0x10000)


def test_runs_end_for_a_reason() -> None:
    m = BareMachine(32)
    m.load(0x1000, "pause; nop; hlt; nop")
    m.set(rip=0x1000)
    assert (run := m.step(3)).reason == "plan"
    assert run.steps == 3  # PAUSE ends nothing here
    assert m.step(1).reason == "halt"
    n = BareMachine(32)
    n.load(0x2000, "mov $0x510,%dx; mov $2,%al; out %eax,%dx; in %dx,%eax; out %eax,$0xf4")
    n.set(rip=0x2000)
    assert n.run().reason == "choice"
    assert n.step(1).reason == "choice"
    assert n.play([("choice", 0, 1), ("run", 0, 2)]).reason == "exit"
    assert (n.machine.exit_status, n.step(1).reason) == (1, "off")


def test_plans_are_checked() -> None:
    m = BareMachine()
    with pytest.raises(UsageError, match="a plan has rows"):
        m.play([("walk", 0, 1)])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="no CPU 1"):
        m.play([("run", 1, 1)])
    with pytest.raises(UsageError, match=r"must be 0 to"):
        m.play([("run", 0, -1)])
    with pytest.raises(UsageError, match="no event is of kind 'loads'"):
        m.play([]).of("loads")


def test_more_events_than_the_buffer_holds() -> None:
    m = BareMachine(32)
    m.machine.tap_capacity(1024)
    m.load(0x1000, "again: incl 0x5000; dec %ecx; jnz again; hlt")
    m.set(rip=0x1000, ecx=3000)
    run = m.step(9001)
    assert (run.reason, run.steps, len(run.of("load")), len(run.of("store"))) == ("plan", 9001, 3000, 3000)
    assert [event.value for event in run.of("store")] == list(range(1, 3001))
    assert [event.kind for event in run][-1] == "halt"
    assert len({(event.step, event.kind) for event in run}) == len(run.events)


def test_evictions_are_rows_of_a_plan() -> None:
    m = BareMachine()
    m.map(0x1000)
    m.map(0x2000)
    m.load(0x1000, "mov 0x2000,%eax; mov 0x2000,%eax")
    m.set(rip=0x1000)
    run = m.play([("run", 0, 1), ("evict", 0, 0x2000), ("run", 0, 1)])
    assert [event.kind for event in run if event.addr & -4096 == 0x2000 and event.kind.startswith("tlb")] == [
        "tlb_fill",
        "tlb_evict",
        "tlb_fill",
    ]


def test_labels_and_data_lie_where_the_text_says() -> None:
    code = assemble("a: mov $b, %eax; b: .long a, 5\n.data\nc: .long 7\n.set d, 0x99", bits=32, origin=0x5000)
    assert code.labels == {"a": 0x5000, "b": 0x5005, "c": 0x500D, "d": 0x99}
    assert code.data[:13] == bytes.fromhex("b805500000 00500000 05000000")
    assert code.data[13:] == bytes.fromhex("07000000")
    assert assemble("mov %cs, %ax; jmp .", bits=16).data == bytes.fromhex("8cc8ebfe")
    assert assemble(".intel_syntax noprefix\nmov rax, 1[rbx]", bits=64).data == bytes.fromhex("488b4301")
    assert assemble("", bits=64).data == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nop\nnop; jmp *%rax", "line 2: "),
        ("jmp nowhere", "undefined reference to `nowhere'"),
        ('.error "mine"', "line 1: mine"),
        ('.include "/none"', "line 1: "),
    ],
)
def test_text_that_does_not_assemble(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        assemble(text, bits=32)
    assert "\n" not in str(caught.value)


def test_without_binutils_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="`as` is missing: install binutils"):
        assemble("nop # unlike any other text", bits=32)


def test_what_was_set_up_is_no_choice_and_no_event() -> None:
    m = BareMachine(cpus=3)
    m.map(0x10000, 0x2000)
    assert m.machine.choices_take() == b""
    assert m.machine.events()[0] == 0
    assert [m.machine.waiting(cpu) for cpu in range(3)] == ["", "", ""]
