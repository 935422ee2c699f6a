"""Control registers, MSRs and paging as the kernel sees them.

Intel SDM vol. 3: 2.5, 4.1, 4.4.1, 4.10, 9.8.5; vol. 2: MOV to and from control registers, WRMSR.
"""

import pytest
from bare_world import GP, HANDLERS, KERNEL, PF, STACK, UD, World, faults

from machine import BareMachine
from machine.bare_paging import SHAPES, Paging
from machine.bare_tables import KERNEL_CODE, KERNEL_CODE_32

PE, MP, EM, TS, NE, WP, AM, NW, CD, PG = (1 << bit for bit in (0, 1, 2, 3, 5, 16, 18, 29, 30, 31))
TSD, DE, PSE, PAE, PGE = (1 << bit for bit in (2, 3, 4, 5, 7))
SCE, LME, LMA, NXE = 1, 1 << 8, 1 << 10, 1 << 11


def write(world: World, text: str, value: int) -> list[tuple[int, int]]:
    """Faults of moving a value into a control register."""
    world.stand()
    world.m.set(rax=value)
    world.load(text)
    return faults(world.step())


@pytest.mark.parametrize(
    ("bits", "paging", "register", "change", "allowed"),
    [
        (64, "4-level", "cr0", MP | TS | NE | AM, True),
        (64, "4-level", "cr0", CD, True),
        (64, "4-level", "cr0", CD | NW, True),
        (64, "4-level", "cr0", NW, False),
        (64, "4-level", "cr0", PG, False),
        (64, "4-level", "cr0", PG | PE, False),
        (64, "4-level", "cr0", PE, False),
        (64, "4-level", "cr0", 1 << 32, False),
        (64, "4-level", "cr0", 1 << 63, False),
        (32, "pae", "cr0", NW, False),
        (32, "none", "cr0", PE | PG, False),
        (64, "4-level", "cr4", TSD | DE, True),
        (64, "4-level", "cr4", PGE, True),
        (64, "4-level", "cr4", PAE, False),
        (32, "none", "cr4", PAE, True),
        (64, "4-level", "cr4", 1 << 12, False),
        (64, "4-level", "cr4", 1 << 17, False),
        (64, "4-level", "cr4", 1 << 20, False),
        (64, "4-level", "cr4", 1 << 32, False),
        (32, "pae", "cr4", 1 << 20, False),
        (64, "4-level", "cr3", 0x18, True),
        (64, "4-level", "cr3", 1 << 40, False),
        (64, "4-level", "cr3", 1 << 51, False),
        (64, "4-level", "cr3", 1 << 52, False),
        (64, "4-level", "cr3", 1 << 63, False),
        (64, "4-level", "cr8", 1, True),
        (64, "4-level", "cr8", 1 << 4, False),
        (64, "4-level", "cr8", 1 << 63, False),
        (64, "4-level", "cr2", 1 << 63 | 1, True),
    ],
)
def test_what_control_registers_take(bits: int, paging: Paging, register: str, change: int, allowed: bool) -> None:
    world = World(bits, paging)
    old = world.m.get(register)
    name = "rax" if bits == 64 else "eax"
    assert write(world, f"mov %{name},%{register}", old ^ change) == ([] if allowed else [(GP, 0)])
    assert world.m.get(register) == (old ^ change if allowed else old)


@pytest.mark.parametrize(
    ("number", "value", "allowed"),
    [
        (0xC0000080, LME | LMA | NXE | SCE, True),
        (0xC0000080, LME | NXE, True),  # LMA is not written
        (0xC0000080, NXE, False),  # LME may not change under paging
        (0xC0000080, LME | LMA | 1 << 1, False),
        (0xC0000080, LME | LMA | 1 << 32, False),
        (0xC0000081, (1 << 64) - 1, True),
        (0xC0000084, (1 << 32) - 1, True),
        (0xC0000084, 1 << 32, False),
        (0xC0000103, 1 << 32, False),
        (0xC0000100, 0xFFFF_8000_0000_0000, True),
        (0xC0000082, 0x0000_8000_0000_0000, False),
        (0xC0000083, 0x8000_0000_0000_0000, False),
        (0x277, 0x0007040600070406, True),
        (0x277, 0x0007040600070402, False),
        (0x277, 0x0807040600070406, False),
        (0x10, 5, True),
        (0x12345, 0, False),
    ],
)
def test_what_msrs_take(number: int, value: int, allowed: bool) -> None:
    world = World()
    world.m.set(rcx=number, rax=value & 0xFFFFFFFF, rdx=value >> 32)
    world.load("wrmsr; rdmsr")
    assert faults(world.step()) == ([] if allowed else [(GP, 0)])
    if allowed and number not in (0x10, 0xC0000080):
        world.m.set(rax=0, rdx=0)
        world.step()
        assert world.m.get("rdx") << 32 | world.m.get("rax") == value
    if number == 0xC0000080:
        assert world.m.get("efer") & (LME | LMA) == LME | LMA


def test_long_mode_needs_pae_and_32_bit_code() -> None:
    """SDM vol. 3, 9.8.5 and vol. 2, MOV to CR0: #GP for paging with LME but without PAE, or from a segment with L."""
    world = World(32, "none")
    world.m.set(efer=LME)
    assert write(world, "mov %eax,%cr0", world.m.get("cr0") | PG) == [(GP, 0)]
    world = World(32, "none")
    m = world.m
    # PML4 at 0x100000: 1 GB of itself through one pointer
    m.write_int(0x100000, 0x101003, 8)
    m.write_int(0x101000, 0x83, 8)
    m.write(0x10000 + 0x200, bytes.fromhex("ffff0000009baf00"))  # 64-bit code
    world.load(
        "mov %cr4,%eax; or $0x20,%eax; mov %eax,%cr4; mov $0x100000,%eax; mov %eax,%cr3;"
        "mov $0xc0000080,%ecx; xor %edx,%edx; mov $0x100,%eax; wrmsr;"
        "mov %cr0,%eax; or $0x80000000,%eax; mov %eax,%cr0; ljmp $0x200,$0x51000"
    )
    m.load(0x51000, "mov $0x123456789abcdef0,%rax; mov $0xc0000080,%ecx; rdmsr; hlt", bits=64)
    run = world.step(12)
    assert run.of("fault") == []
    assert (m.get("efer"), m.get("bits")) == (LME | LMA, 32)
    run = world.step(4)
    assert run.of("fault") == []
    assert (m.get("bits"), m.get("eax")) == (64, LME | LMA)
    # And out again, through compatibility mode: clearing PG clears LMA.
    m.load(0x51100, f"push ${KERNEL_CODE_32}; push $0x51200; lretq", bits=64)
    m.load(0x51200, "mov %cr0,%eax; and $0x7fffffff,%eax; mov %eax,%cr0; nop; hlt", bits=32)
    m.set(rip=0x51100, rsp=STACK)
    run = world.step(7)
    assert run.of("fault") == []
    assert (m.get("efer"), m.get("bits"), m.get("cr0") & PG) == (LME, 32, 0)


def test_cr8_is_the_task_priority() -> None:
    world = World()
    world.load("mov $11,%eax; mov %rax,%cr8; mov 0x70080,%ebx; movl $0x35,0x70080; mov %cr8,%rcx")
    world.step(5)
    assert (world.m.get("rbx"), world.m.get("rcx"), world.m.get("cr8")) == (0xB0, 3, 3)


def test_registers_that_are_none() -> None:
    for code in ("440f20c8", "0f20c8", "0f20e8", "0f22c8", "440f22c8", "f00f20c0"):
        world = World()
        world.load(bytes.fromhex(code))
        assert [vector for vector, _ in faults(world.step())] == [UD], code


def test_rdtsc_can_be_forbidden_to_the_user() -> None:
    world = World(user=True)
    world.load("rdtsc; rdtscp")
    assert world.step(2).of("fault") == []
    assert world.m.get("rax") == world.m.machine.step - 1
    world.m.set(cr4=world.m.get("cr4") | TSD)
    for text in ("rdtsc", "rdtscp"):
        world.stand()
        world.load(text)
        assert faults(world.step())[0] == (GP, 0)
        world.m.set(rip=world.code)


# --- PAE (SDM vol. 3, 4.4.1) ---


def pae_world() -> tuple[World, int]:
    """A page at 0x80000000, and the physical address of the pointer (PDPTE 2) to it."""
    world = World(32, "pae")
    world.m.map(0x80000000)
    world.m.write_int(0x80000000, 0x11)
    return world, world.m.get("cr3") + 2 * 8


def test_pointers_are_latched_when_cr3_is_loaded() -> None:
    world, pointer = pae_world()
    m = world.m
    world.load("mov 0x80000000,%eax; mov %cr3,%ecx; mov %ecx,%cr3; mov 0x80000000,%edx")
    old = m.machine.read(pointer, 8)
    m.machine.write(pointer, bytes(8))
    assert world.step().of("fault") == []
    assert m.get("eax") == 0x11
    m.play([("evict", 0, 0x80000000)])
    m.set(rip=KERNEL)
    run = world.step()  # no translation is cached, and the pointer still is
    assert run.of("fault") == []
    assert [event.info & 15 for event in run.of("walk")] == [2, 1]
    run = world.step(2)
    assert run.of("fault") == []
    assert faults(world.step()) == [(PF, 0)]
    assert m.get("cr2") == 0x80000000
    m.machine.write(pointer, old)
    world.stand()
    assert faults(world.step()) == [(PF, 0)]  # nor is it seen before the next load
    m.set(rip=KERNEL)
    m.load(KERNEL, "mov %cr3,%ecx; mov %ecx,%cr3; mov 0x80000000,%eax")
    assert world.step(3).of("fault") == []


@pytest.mark.parametrize("reload", ["cr3", "cr0", "cr4"])
@pytest.mark.parametrize(
    "bit",
    [1, 2, 5, 6, 7, 8, 40, 51, 52, 62, 63],
)
def test_reserved_bits_of_pointers_fault_at_the_load(reload: str, bit: int) -> None:
    """MOV to CR3, and to CR0 or CR4 where it changes CD, NW, PG, or PAE, PGE, PSE, SMEP."""
    world, pointer = pae_world()
    change = {"cr3": 0, "cr0": CD, "cr4": PGE}[reload]
    world.m.machine.write(
        pointer, (int.from_bytes(world.m.machine.read(pointer, 8), "little") | 1 << bit).to_bytes(8, "little")
    )
    old = world.m.get(reload)
    assert write(world, f"mov %eax,%{reload}", old ^ change) == [(GP, 0)]
    assert world.m.get(reload) == old
    # Not present, the other bits mean nothing.
    world.m.machine.write(pointer, (1 << bit).to_bytes(8, "little"))
    assert write(world, f"mov %eax,%{reload}", old ^ change) == []


def test_pae_pointers_can_be_anywhere_below_4_gb_in_steps_of_32() -> None:
    world = World(32, "pae")
    m = world.m
    m.map(0x90000, rights="rw")
    table = m.machine.translate(0, 0x90000) + 0xE0
    m.machine.write(table, m.machine.read(m.get("cr3"), 32))
    assert write(world, "mov %eax,%cr3", table) == []
    assert world.step(0).reason == "plan"
    m.load(KERNEL, "mov 0x51000,%eax")
    world.stand()
    assert world.step().of("fault") == []


# --- rights, large and global pages in all kinds ---


@pytest.mark.parametrize(("bits", "paging"), [(32, "2-level"), (32, "pae"), (64, "4-level")])
@pytest.mark.parametrize("protect", [True, False])
def test_write_protection_of_the_kernel(bits: int, paging: Paging, protect: bool) -> None:
    world = World(bits, paging)
    world.m.map(0x80000, rights="r")
    if not protect:
        world.m.set(cr0=world.m.get("cr0") & ~WP)
    world.load("movl $1,0x80000")
    assert faults(world.step()) == ([(PF, 3)] if protect else [])


@pytest.mark.parametrize(("bits", "paging"), [(32, "pae"), (64, "4-level")])
def test_without_nxe_the_bit_is_reserved(bits: int, paging: Paging) -> None:
    world = World(bits, paging)
    world.m.map(0x80000, rights="r")
    world.m.set(efer=world.m.get("efer") & ~NXE)
    # Our own pages without the bit first: stacks are not executable either.
    for at in range(STACK - 0x2000, STACK + 0xA000, 0x1000):
        world.m.map(at)
    world.load("mov 0x80000,%eax")
    assert faults(world.step()) == [(PF, 9)]


@pytest.mark.parametrize(
    ("bits", "paging", "level"),
    [
        (bits, paging, level)
        for bits, paging in ((32, "2-level"), (32, "pae"), (64, "4-level"))
        for level in range(1, len(SHAPES[paging].page_bytes) + 1)
    ],
)
def test_global_pages_and_invlpg(bits: int, paging: Paging, level: int) -> None:
    """SDM vol. 3, 4.10.2.4 and 4.10.4.1: MOV to CR3 keeps global translations, INVLPG and CR4.PGE drop them."""
    size = SHAPES[paging].page_bytes[level - 1]
    addr = 0x4000_0000
    for flush, global_page, stale in (
        ("", True, True),
        ("mov %rcx,%cr3", True, True),
        ("mov %rcx,%cr3", False, False),
        (f"mov ${addr + size - 1:#x},%esi; invlpg (%rsi)", True, False),
        (f"mov ${addr - 1:#x},%esi; invlpg (%rsi)", True, True),
        (f"mov ${addr + size:#x},%esi; invlpg (%rsi)", True, True),
        ("mov %rbx,%cr4; mov %rdx,%cr4", True, False),
    ):
        m = BareMachine(bits, paging=paging, ram_bytes=3 << 30)
        m.map(KERNEL)
        first = m.map(addr, size, page_bytes=size, global_page=global_page)
        m.machine.write(first, b"\x01")
        if size < 1 << 30:
            second = m.map(0x8000_0000, size, page_bytes=size)
        else:
            second = 0x8000_0000
            m.unmap(addr, size)
            m.map(addr, size, page_bytes=size, global_page=global_page, phys=first)
        m.machine.write(second, b"\x02")
        text = f"mov {addr:#x},%al; nop; {flush}; mov {addr:#x},%ah"
        m.load(KERNEL, text if bits == 64 else text.replace("%r", "%e"))
        m.set(rip=KERNEL, rcx=m.get("cr3"), rdx=m.get("cr4"), rbx=m.get("cr4") & ~PGE)
        assert m.step(2).of("fault") == []
        m.map(addr, size, page_bytes=size, global_page=global_page, phys=second)
        steps = 1 + (len(flush.split(";")) if flush else 0)
        assert m.step(steps).of("fault") == []
        assert m.get("rax") >> 8 & 255 == (1 if stale else 2), flush
        assert m.get("rax") & 255 == 1


def test_the_handler_of_a_page_fault_can_map_the_page_and_go_on() -> None:
    for bits in (32, 64):
        world = World(bits)
        m = world.m
        m.map(0x80000)
        entry = m.entry_address(0x80000)
        m.map(0x90000, phys=entry & -4096)
        old = m.machine.read(entry, 8)
        m.unmap(0x80000)
        handler = HANDLERS + 0x1000
        r = "r" if bits == 64 else "e"
        m.load(
            handler,
            f"mov %cr2,%{r}cx; pop %{r}dx; movl ${int.from_bytes(old[:4], 'little'):#x},{0x90000 + entry % 4096:#x};"
            f"iret{'q' if bits == 64 else ''}",
        )
        m.gate(PF, handler)
        world.load("movl $0x55,0x80123; nop")
        world.step(6)
        assert (m.get("rip"), m.get("rcx"), m.get("rdx")) == (world.code + (11 if bits == 64 else 10), 0x80123, 2)
        assert m.read_int(0x80123) == 0x55
        assert m.get("cs") == KERNEL_CODE
