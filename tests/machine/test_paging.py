"""Page walks, the TLB and page faults. Intel SDM vol. 3, chapter 4."""

import struct

import pytest
from programs import CODE, STACK, Bare, assemble, auto, drain, record, run

from machine import _core

DIRECTORY, TABLE, OTHER_TABLE = 0x20000, 0x21000, 0x22000
P, RW, US, A, D, PS, G = 1, 2, 4, 0x20, 0x40, 0x80, 0x100
PAGE, ELSEWHERE = 0x40000, 0x50000


class Paged(Bare):
    """`Bare` with paging on: the first megabyte maps to itself, for the kernel only unless told."""

    def __init__(
        self, text: str = "", *, cr0: int = 0x80010011, cr4: int = 0x10, user: int = 0, **options: int
    ) -> None:
        super().__init__(text, **options)
        self.machine.write(TABLE, struct.pack("<256I", *(page << 12 | P | RW | user for page in range(256))))
        self.machine.write(DIRECTORY, struct.pack("<I", TABLE | P | RW | US))
        for cpu in range(self.machine.cpus):
            self.machine.set_register(cpu, "cr3", DIRECTORY)
            self.machine.set_register(cpu, "cr4", cr4)
            self.machine.set_register(cpu, "cr0", cr0)

    def entry(self, addr: int, value: int | None = None) -> int:
        place = TABLE + (addr >> 12) * 4
        if value is not None:
            self.machine.write(place, struct.pack("<I", value))
        return self.word(place)


def test_walks_set_accessed_and_dirty_once() -> None:
    bare = Paged("mov 0x40010,%eax; mov 0x40020,%eax; mov %eax,0x40030; mov %eax,0x40040; hlt")
    bare.execute(run(1))
    fetch, data = bare.events("walk")[:2], bare.events("walk")[2:]
    assert [(row["addr"], row["phys"], row["value"], row["info"]) for row in fetch] == [
        (CODE, DIRECTORY, TABLE | P | RW | US, 2),
        (CODE, TABLE + 0x40, CODE | P | RW, 1),
    ]
    assert [(row["addr"], row["phys"], row["value"], row["info"]) for row in data] == [
        (0x40010, DIRECTORY, TABLE | P | RW | US | A, 2),
        (0x40010, TABLE + 0x100, PAGE | P | RW, 1),
    ]
    assert [(row["phys"], row["value"], row["info"]) for row in bare.events("ad_update")] == [
        (DIRECTORY, TABLE | P | RW | US | A, 2),
        (TABLE + 0x40, CODE | P | RW | A, 1),
        (TABLE + 0x100, PAGE | P | RW | A, 1),
    ]
    assert bare.events("tlb_fill")[1] == {
        "step": 0,
        "pc": CODE,
        "kind": "tlb_fill",
        "addr": PAGE,
        "phys": PAGE,
        "value": P | RW | A,
        "size": 12,
    }
    bare.machine.events_clear()
    bare.execute(run(1))
    assert [row["kind"] for row in bare.events()] == ["load"]
    bare.machine.events_clear()
    bare.execute(run(1))
    assert [row["kind"] for row in bare.events()] == ["walk", "walk", "ad_update", "tlb_fill", "store"]
    assert bare.entry(PAGE) == PAGE | P | RW | A | D
    bare.machine.events_clear()
    bare.execute(run(1))
    assert [row["kind"] for row in bare.events()] == ["store"]


@pytest.mark.parametrize(
    ("entry", "user", "write", "protect", "error"),
    [
        (0, False, False, True, 0),
        (0, False, True, True, 2),
        (0, True, False, True, 4),
        (0, True, True, True, 6),
        (P | US, True, True, True, 7),
        (P | RW, True, False, True, 5),
        (P | RW, True, True, True, 7),
        (P | US, False, True, True, 3),
        (P, False, True, True, 3),
        (P, False, True, False, None),
        (P | US, False, True, False, None),
        (P | US, True, True, False, 7),
        (P | US, True, False, True, None),
        (P | RW | US, True, True, True, None),
    ],
)
def test_error_codes(entry: int, user: bool, write: bool, protect: bool, error: int | None) -> None:
    access = "mov %eax,0x40ffe" if write else "mov 0x40ffc,%eax"
    enter = "pushl $0x2b; pushl $0x8000; pushl $2; pushl $0x23; pushl $1f; iret; 1: " if user else ""
    enter += "mov $0x2b,%eax; mov %eax,%ds;" if user else ""
    bare = Paged("mov $0x30,%eax; ltr %ax;" + enter + access, cr0=0x80010011 if protect else 0x80000011, user=US)
    bare.entry(PAGE, PAGE | entry)
    bare.gate(14, CODE + 0x800)
    bare.execute(run(8 + 2 * user if user else 2), run(1))
    faults = bare.events("fault")
    if error is None:
        assert not faults
        return
    assert [(row["info"], row.get("value", 0), row["addr"]) for row in faults] == [
        (14, error, 0x40FFE if write else 0x40FFC)
    ]
    assert bare.register("cr2") == faults[0]["addr"]
    assert bare.word(bare.register("rsp")) == error
    assert bare.entry(PAGE) == PAGE | entry  # a fault sets neither A nor D


def test_rights_of_the_directory_count_too() -> None:
    for rights, write, error in ((P | US, True, 3), (P | RW, False, None), (0, False, 0)):
        bare = Paged("mov %eax,0x440000" if write else "mov 0x440000,%eax")
        bare.machine.write(DIRECTORY + 4, struct.pack("<I", TABLE | rights))
        bare.gate(14, CODE + 0x800)
        bare.execute(run(1))
        assert [row.get("value", 0) for row in bare.events("fault")] == ([] if error is None else [error])


def test_a_fault_over_two_pages_names_the_first_byte_that_faults() -> None:
    for missing, addr in ((PAGE, 0x40FFE), (PAGE + 0x1000, 0x41000)):
        bare = Paged("mov %eax,0x40ffe")
        bare.entry(missing, 0)
        bare.gate(14, CODE + 0x800)
        bare.machine.set_register(0, "rax", 0xFFFFFFFF)
        bare.execute(run(1))
        assert bare.register("cr2") == addr
        assert not any(bare.machine.read(PAGE + 0xFF0, 0x20))


def test_large_pages() -> None:
    bare = Paged("mov 0x456788,%eax; mov %eax,0x456780; hlt")
    bare.machine.write(DIRECTORY + 4, struct.pack("<I", 0 | P | RW | PS))
    bare.machine.write(0x56788, b"\x11\x22\x33\x44")
    bare.execute(run(1))
    assert bare.register("rax") == 0x44332211
    assert bare.word(DIRECTORY + 4) == P | RW | PS | A
    assert (0x400000, 0, 4 << 20, P | RW | PS | A) in bare.machine.tlb_entries(0)
    bare.execute(run(1))
    assert bare.word(DIRECTORY + 4) == P | RW | PS | A | D
    assert bare.word(0x56780) == 0x44332211
    assert [row["size"] for row in bare.events("tlb_fill")][-1] == 22


@pytest.mark.parametrize("bit", range(13, 22))
def test_reserved_bits_of_large_pages_fault(bit: int) -> None:
    bare = Paged("mov 0x456788,%eax")
    bare.machine.write(DIRECTORY + 4, struct.pack("<I", P | RW | PS | 1 << bit))
    bare.gate(14, CODE + 0x800)
    bare.execute(run(1))
    assert [row["value"] for row in bare.events("fault")] == [9]


def test_without_pse_the_bit_means_nothing() -> None:
    bare = Paged("mov 0x440000,%eax; hlt", cr4=0)
    bare.machine.write(DIRECTORY + 4, struct.pack("<I", TABLE | P | RW | PS))
    bare.machine.write(PAGE, b"\x07")
    bare.execute(run(1))
    assert bare.register("rax") == 7


REMAP = f"mov 0x40000,%eax; movl ${ELSEWHERE | P | RW:#x},{TABLE + 0x100:#x}; mov 0x40000,%ebx;"


def remapped(text: str, **options: int) -> Paged:
    bare = Paged(REMAP + text, **options)
    bare.machine.write(PAGE, b"\x01")
    bare.machine.write(ELSEWHERE, b"\x02")
    return bare


@pytest.mark.parametrize(
    "flush", ["invlpg 0x40abc", "mov %cr3,%ecx; mov %ecx,%cr3", "mov %cr4,%ecx; xor $0x80,%ecx; mov %ecx,%cr4"]
)
def test_translations_go_stale_until_flushed(flush: str) -> None:
    bare = remapped(flush + "; mov 0x40000,%edx; hlt")
    assert bare.execute(auto()) == "idle"
    assert [bare.register(name) for name in ("rax", "rbx", "rdx")] == [1, 1, 2]


def test_invlpg_of_another_page_does_not_help() -> None:
    bare = remapped("invlpg 0x41000; mov 0x40000,%edx; hlt")
    bare.execute(auto())
    assert bare.register("rdx") == 1


def test_an_evicted_translation_is_read_again() -> None:
    bare = remapped("mov 0x40000,%edx; hlt")
    bare.execute(run(3))
    assert bare.execute(record(_core.EVICT, 0x60000), exact=True) == "diverged"
    step = bare.machine.step
    assert bare.execute(record(_core.EVICT, 0x40000), exact=True) == "plan"
    assert bare.machine.step == step + 1
    assert bare.events("tlb_evict")[-1] == {"step": 3, "pc": bare.register("rip"), "kind": "tlb_evict", "addr": PAGE}
    bare.execute(run(1))
    assert [bare.register(name) for name in ("rbx", "rdx")] == [1, 2]


def test_another_page_in_the_same_slot_evicts() -> None:
    bare = remapped("mov 0x240000,%ecx; mov 0x40000,%edx; hlt")
    bare.machine.write(TABLE + 0x240 * 4, struct.pack("<I", ELSEWHERE | P | RW))  # 512 pages further
    bare.execute(auto())
    assert [bare.register(name) for name in ("rbx", "rdx")] == [1, 2]


def test_global_pages_survive_cr3() -> None:
    bare = Paged(
        f"mov 0x40000,%eax; movl ${ELSEWHERE | P | RW:#x},{TABLE + 0x100:#x}; mov %cr3,%ecx; mov %ecx,%cr3;"
        "mov 0x40000,%ebx; mov %cr4,%ecx; xor $0x80,%ecx; mov %ecx,%cr4; mov 0x40000,%edx; hlt",
        cr4=0x90,
    )
    bare.entry(PAGE, PAGE | P | RW | G)
    bare.machine.write(PAGE, b"\x01")
    bare.machine.write(ELSEWHERE, b"\x02")
    bare.execute(auto())
    assert [bare.register(name) for name in ("rax", "rbx", "rdx")] == [1, 1, 2]


def test_not_present_is_never_cached() -> None:
    bare = Paged(f"mov 0x40000,%eax; movl ${PAGE | P | RW:#x},{TABLE + 0x100:#x}; mov 0x40000,%ebx; hlt")
    bare.entry(PAGE, 0)
    bare.machine.write(PAGE, b"\x05")
    handler = CODE + 0x800
    bare.machine.write(handler, assemble("pop %ecx; addl $5,(%esp); iret", handler))
    bare.gate(14, handler)
    assert bare.execute(auto()) == "idle"
    assert bare.register("rbx") == 5
    assert len(bare.events("fault")) == 1


def test_one_spurious_fault_after_rights_were_given() -> None:
    bare = Paged(
        f"mov 0x40000,%eax; movl ${PAGE | P | RW:#x},{TABLE + 0x100:#x}; mov %eax,0x40000; mov %eax,0x40004; hlt"
    )
    bare.entry(PAGE, PAGE | P)
    handler = CODE + 0x800
    bare.machine.write(handler, assemble("pop %ecx; inc %esi; iret", handler))
    bare.gate(14, handler)
    assert bare.execute(auto()) == "idle"
    assert (bare.register("rsi"), bare.register("rcx")) == (1, 3)
    assert bare.entry(PAGE) == PAGE | P | RW | A | D


def test_dropped_rights_stay_until_flushed() -> None:
    bare = Paged(
        f"mov %eax,0x40000; movl ${PAGE | P:#x},{TABLE + 0x100:#x}; mov %eax,0x40004; invlpg 0x40000; mov %eax,0x40008"
    )
    bare.gate(14, CODE + 0x800)
    bare.execute(run(4))
    assert not bare.events("fault")
    assert bare.entry(PAGE) == PAGE | P  # dirty already by the cached translation
    bare.execute(run(1))
    assert [row["value"] for row in bare.events("fault")] == [3]


def test_a_cleared_dirty_bit_comes_back_only_after_a_flush() -> None:
    clear = f"movl ${PAGE | P | RW:#x},{TABLE + 0x100:#x};"
    bare = Paged("mov %eax,0x40000;" + clear + "mov %eax,0x40000; invlpg 0x40000; mov %eax,0x40000; hlt")
    bare.execute(run(3))
    assert bare.entry(PAGE) == PAGE | P | RW
    bare.execute(run(2))
    assert bare.entry(PAGE) == PAGE | P | RW | A | D


def test_walks_see_the_own_store_buffer() -> None:
    bare = Paged(f"movl ${ELSEWHERE | P | RW | A | D:#x},{TABLE + 0x100:#x}; mov 0x40000,%eax; hlt", cpus=2)
    bare.entry(PAGE, 0)
    bare.machine.write(ELSEWHERE, b"\x02")
    bare.execute(run(2, hold=True))
    assert bare.register("rax") == 2
    assert bare.entry(PAGE) == 0
    assert [row["info"] for row in bare.events("walk") if row["addr"] == PAGE] == [2, 1 | _core.EVENT_FORWARDED << 4]
    assert bare.machine.read_linear(0, PAGE, 1) == b"\x02"
    assert bare.machine.translate(1, PAGE) == -1  # the other CPU cannot know yet
    bare.execute(drain())
    assert bare.machine.translate(1, PAGE) == ELSEWHERE


def test_setting_bits_in_an_entry_of_the_own_buffer_drains_it() -> None:
    bare = Paged(f"movl $5,0x8000; movl ${ELSEWHERE | P | RW:#x},{TABLE + 0x100:#x}; mov 0x40000,%eax; hlt")
    bare.entry(PAGE, 0)
    bare.execute(run(3, hold=True))
    assert bare.entry(PAGE) == ELSEWHERE | P | RW | A
    assert not bare.machine.store_buffer_entries(0)


def test_a_directory_that_maps_itself() -> None:
    bare = Paged("mov 0xfffff000,%eax; mov %eax,0xfffffffc; hlt")
    bare.machine.write(DIRECTORY + 0xFFC, struct.pack("<I", DIRECTORY | P | RW))
    bare.execute(run(1))
    assert bare.register("rax") == TABLE | P | RW | US | A
    assert bare.word(DIRECTORY + 0xFFC) == DIRECTORY | P | RW | A
    bare.machine.set_register(0, "rax", DIRECTORY | P | RW | A | D)
    bare.execute(run(1))
    assert bare.word(DIRECTORY + 0xFFC) == DIRECTORY | P | RW | A | D


def test_one_address_by_a_large_and_a_small_page() -> None:
    """A directory entry changed under a cached large page: what counts does not depend on what was derived before."""
    text = f"mov 0x440000,%eax; movl ${OTHER_TABLE | P | RW:#x},{DIRECTORY + 4:#x};"
    text += "mov %ecx,0x440004; mov 0x440000,%ebx; hlt"
    results = set()
    for restores in (False, True):
        bare = Paged(text)
        bare.machine.write(DIRECTORY + 4, struct.pack("<I", P | RW | PS))
        bare.machine.write(OTHER_TABLE + 0x100, struct.pack("<I", ELSEWHERE | P | RW))
        bare.machine.write(PAGE, b"\x01")
        bare.machine.write(ELSEWHERE, b"\x02")
        for _ in range(4):
            bare.execute(run(1))
            if restores:
                bare.machine.restore(bare.machine.snapshot())
        results.add((bare.register("rax"), bare.register("rbx"), bare.machine.state_hash()))
    assert len(results) == 1
    assert results.pop()[:2] == (1, 2)  # the write had to walk for the dirty bit


def test_a_small_page_hidden_by_a_large_one() -> None:
    text = (
        f"mov 0x441000,%eax; movl ${P | RW | PS:#x},{DIRECTORY + 4:#x}; mov 0x442000,%edx; mov 0x441000,%ebx;"
        "mov 0x441000,%ecx; hlt"
    )
    results = set()
    for restores in (False, True):
        bare = Paged(text)
        bare.machine.write(DIRECTORY + 4, struct.pack("<I", OTHER_TABLE | P | RW))
        bare.machine.write(OTHER_TABLE + 0x104, struct.pack("<I", ELSEWHERE | P | RW))
        bare.machine.write(0x41000, b"\x01")
        bare.machine.write(ELSEWHERE, b"\x02")
        for _ in range(5):
            bare.execute(run(1))
            if restores:
                bare.machine.restore(bare.machine.snapshot())
        results.add(tuple(bare.register(name) for name in ("rax", "rbx", "rcx")))
    assert len(results) == 1


def test_a_second_page_fault_leaves_its_address_too() -> None:
    bare = Paged("mov 0x40000,%eax")
    bare.entry(PAGE, 0)
    bare.entry(STACK - 0x1000, 0)
    bare.machine.set_register(0, "rsp", STACK - 0x800)
    bare.gate(14, CODE + 0x800)
    assert bare.execute(run(1)) == "shutdown"
    assert [row["info"] for row in bare.events("fault")] == [14, 8]
    assert bare.register("cr2") == STACK - 0x804


def test_a_fault_in_the_middle_of_a_repeated_string_keeps_what_is_done() -> None:
    bare = Paged("rep stosb; hlt")
    bare.entry(PAGE + 0x1000, 0)
    bare.gate(14, CODE + 0x800)
    for name, value in (("rdi", PAGE + 0xFF8), ("rcx", 20), ("rax", 0x77)):
        bare.machine.set_register(0, name, value)
    bare.execute(run(9))
    assert (bare.register("rcx"), bare.register("rdi"), bare.register("cr2")) == (12, PAGE + 0x1000, PAGE + 0x1000)
    assert bare.machine.read(PAGE + 0xFF8, 8) == b"\x77" * 8
    assert bare.word(bare.register("rsp") + 4) == CODE


def test_a_fetch_over_two_pages_faults_on_the_second() -> None:
    bare = Paged(f"jmp {PAGE + 0xFFE:#x}")
    bare.machine.write(PAGE + 0xFFE, b"\xb8\x01\x02\x03\x04")
    bare.entry(PAGE + 0x1000, 0)
    bare.gate(14, CODE + 0x800)
    bare.execute(run(2))
    fault = bare.events("fault")[0]
    assert (fault["addr"], fault.get("value", 0), fault["pc"]) == (PAGE + 0x1000, 0, PAGE + 0xFFE)


def test_two_addresses_of_one_code_page() -> None:
    """Code written through another address of its page is what runs next."""
    bare = Paged(f"movb $0x41,0x60000 + 1f - {CODE:#x}; 1: nop; hlt")
    bare.entry(0x60000, CODE | P | RW)
    bare.execute(auto())
    assert bare.register("rcx") == 1


def test_a_return_outwards_checks_its_code_segment_before_it_reads_the_outer_stack() -> None:
    for selector, vector in ((0x2B, 13), (0x23, 14)):
        bare = Paged("iret")
        bare.entry(STACK, 0)
        bare.machine.set_register(0, "rsp", STACK - 12)
        bare.machine.write(STACK - 12, struct.pack("<III", CODE, selector, 2))
        bare.execute(run(1))
        assert bare.events("fault")[0]["info"] == vector
