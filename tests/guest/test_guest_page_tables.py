"""How each kind of page table is written, seen in recorded loads and stores: what Linux's pgtable-*.h promise."""

from __future__ import annotations

from collections import defaultdict
from functools import cache

import numpy as np
import pytest
from guest_state import PAGINGS, image_name
from machine_driver import boot_to_ready, random_plan

from machine import Machine, _core, images
from machine.symbols import Symbols

PRIMITIVES = ("set_pte", "set_pmd", "set_pud", "set_pgd", "native_get_and_clear", "pmd_clear", "native_pte_clear")
LOAD, STORE, WALK = (_core.EVENT_KINDS[name] for name in ("load", "store", "walk"))
Sequence = tuple[str, ...]


@cache
def _accesses(kind: str, paging: str) -> dict[str, set[Sequence]]:
    """Primitive -> the sequences of accesses that it made to one entry of a table that the walker has used.

    An access is written `R4`, `W8`, with `+` behind the offset where it is the upper half of an 8-byte entry, and `!`
    where it is locked.
    """
    name = image_name("small", kind, paging, "buggy")
    cpus = 2 if kind == "smp" else 1
    symbols = Symbols(images.image_bytes(name))
    primitive_of: dict[int, str] = {}
    found: dict[str, set[Sequence]] = defaultdict(set)

    def primitive(pc: int) -> str:
        if pc not in primitive_of:
            frames = [frame.function for frame in symbols.frames(pc)]
            primitive_of[pc] = next((row for row in frames if row in PRIMITIVES), "")
        return primitive_of[pc]

    for scenario in ("shootdown", "wrong-zone"):
        machine = boot_to_ready(name, cpus, f"scenario={scenario}")
        machine.tap_capacity(1 << 21)
        machine.tap = True
        assert machine.execute(random_plan(1, cpus))[0] == "exit"
        count, *columns = machine.events()
        _, pcs, _, phys, _, kinds, who, sizes, infos = (np.asarray(column)[:count] for column in columns)
        tables = np.unique(phys[kinds == WALK] >> 12)
        rows = np.nonzero(((kinds == LOAD) | (kinds == STORE)) & np.isin(phys >> 12, tables))[0]
        entry_bytes = 4 if paging == "2level" else 8
        running: dict[int, tuple[str, int]] = {}
        sequence: dict[int, list[str]] = defaultdict(list)
        for row in rows:
            cpu, key = int(who[row]), (primitive(int(pcs[row])), int(phys[row]) & -entry_bytes)
            text = f"{'RW'[int(kinds[row] == STORE)]}{sizes[row]}"
            text += "+" if phys[row] & (entry_bytes - 1) else ""
            text += "!" if infos[row] & _core.EVENT_LOCKED else ""
            if running.get(cpu) != key and cpu in running:
                found[running[cpu][0]].add(tuple(sequence.pop(cpu)))
            running[cpu] = key
            sequence[cpu].append(text)
        for cpu, (last, _) in running.items():
            found[last].add(tuple(sequence[cpu]))
    found.pop("", None)
    return dict(found)


def _only(kind: str, paging: str, primitive: str, *expected: Sequence) -> None:
    """Something was seen, and every sequence is one or more of the expected ones behind each other."""
    seen = _accesses(kind, paging)[primitive]
    assert seen
    left = set()
    for sequence in seen:
        rest = sequence
        while rest:
            match = next((row for row in expected if rest[: len(row)] == row), None)
            if match is None:
                left.add(sequence)
                break
            rest = rest[len(match) :]
    assert not left


@pytest.mark.parametrize("kind", ["up", "smp"])
@pytest.mark.parametrize(("paging", "size"), [("2level", 4), ("x86_64", 8)])
def test_one_word_one_store(kind: str, paging: str, size: int) -> None:
    for primitive in ("set_pte", "set_pmd"):
        _only(kind, paging, primitive, (f"W{size}",))
    if kind == "smp":
        _only(kind, paging, "native_get_and_clear", (f"R{size}!", f"W{size}!"))
    else:
        # The debug information gives some of the loads to the caller.
        _only(kind, paging, "native_get_and_clear", (f"R{size}", f"W{size}"), (f"W{size}",))


@pytest.mark.parametrize("kind", ["up", "smp"])
def test_pae_publishes_the_low_half_last_and_clears_it_first(kind: str) -> None:
    _only(kind, "pae", "set_pte", ("W4+", "W4"))
    _only(kind, "pae", "native_pte_clear", ("W4", "W4+"))
    cleared = ("R4!", "W4!", "R4+", "W4+") if kind == "smp" else ("R4", "R4+", "W4", "W4+")
    _only(kind, "pae", "native_get_and_clear", cleared)


@pytest.mark.parametrize(("kind", "lock"), [("up", ""), ("smp", "!")])
def test_pae_sets_upper_levels_whole(kind: str, lock: str) -> None:
    exchange = (f"R8{lock}", f"W8{lock}")
    _only(kind, "pae", "set_pmd", ("R4", "R4+", *exchange), ("R4+", "R4", *exchange))


@pytest.mark.parametrize("paging", PAGINGS)
def test_four_levels_have_tables_of_their_own(paging: str) -> None:
    """The walker reads them from memory on x86-64 only: PAE's four top entries are latched when CR3 is loaded."""
    upper = {"set_pud", "set_pgd"} & _accesses("up", paging).keys()
    assert upper == ({"set_pud", "set_pgd"} if paging == "x86_64" else set())


NX = 1 << 63


def _leaf(machine: Machine, address: int) -> int:
    """The entry that maps a linear address now, by CPU 0's tables of three or four levels."""
    registers = machine.registers(0)
    wide = registers["efer"] & 1 << 10
    table, entry = registers["cr3"] & ~0x1F, 0
    for shift in (39, 30, 21, 12) if wide else (30, 21, 12):
        entry = int.from_bytes(machine.read(table + (address >> shift & 511) * 8, 8), "little")
        assert entry & 1, hex(address)
        if shift < 30 and entry & 0x80:
            break
        table = entry & 0x000FFFFFFFFFF000
    return entry


@pytest.mark.parametrize("paging", ["pae", "x86_64"])
def test_only_the_kernel_is_executable(paging: str) -> None:
    name = image_name("linux", "up", paging, "buggy")
    machine = boot_to_ready(name)
    symbols = Symbols(images.image_bytes(name), lambda address, size: machine.read_linear(0, address, size))
    assert machine.registers(0)["efer"] & 1 << 11
    mem_map = symbols.value(symbols.evaluate("mem_map"))
    fixmap = 0xFFFFFFFFFFDFF000 if paging == "x86_64" else 0xFFFFF000
    assert not _leaf(machine, symbols.symbol("start_kernel").address) & NX
    assert _leaf(machine, mem_map) & NX
    assert _leaf(machine, fixmap) & NX
    if paging == "x86_64":
        assert _leaf(machine, 0xFFFF880000100000) & NX  # the kernel's own frames, in the direct mapping
