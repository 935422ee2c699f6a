"""TLB shoot-down: the scenario passes under any schedule, and fails for each of its reasons without the flush."""

from __future__ import annotations

import io
import re

import capstone
import pytest
from elftools.elf.elffile import ELFFile
from guest_state import PAGINGS, Layout, image_name, to_physical
from machine_driver import boot_to_ready, random_plan, run_default

from machine import Machine, _core, images

COMMAND_LINE = "scenario=shootdown"
VECTORS = range(0xE7, 0xEF)
"""INVALIDATE_TLB_VECTOR_START to _END with 8 CPUs."""


@pytest.mark.parametrize("paging", PAGINGS)
@pytest.mark.parametrize(("kind", "cpus", "seeds"), [("up", 1, 30), ("smp", 2, 60), ("smp", 4, 30), ("smp", 8, 10)])
def test_translations_go_before_what_they_translated_to(kind: str, cpus: int, seeds: int, paging: str) -> None:
    name = image_name("small", kind, paging, "buggy")
    machine = boot_to_ready(name, cpus, COMMAND_LINE)
    layout = Layout.of(images.image_bytes(name))
    ready = machine.snapshot()
    for seed in range(seeds):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, cpus))[0] == "exit", seed
        assert (machine.exit_status, machine.console_take()) == (0, b""), seed
        isolated = layout.isolated(lambda address, size: machine.read(to_physical(address, layout.bits), size))
        assert isolated == [(0, 0), (0, 0), (0, 0)], seed


@pytest.mark.parametrize("paging", PAGINGS)
def test_each_sender_has_its_own_vector(paging: str) -> None:
    """Interrupt events of a few schedules: CPUs flush each other, never themselves, by vectors that name the sender."""
    machine = boot_to_ready(image_name("small", "smp", paging, "buggy"), 4, COMMAND_LINE)
    ready = machine.snapshot()
    machine.tap_capacity(1 << 20)
    machine.tap = True
    interrupt = _core.EVENT_KINDS["interrupt"]
    seen = set()
    for seed in range(20):
        machine.restore(ready)
        assert machine.execute(random_plan(seed, 4))[0] == "exit"
        count, _, _, _, _, _, kind, cpu, _, info = machine.events()
        seen |= {(cpu[row], info[row]) for row in range(count) if kind[row] == interrupt and info[row] in VECTORS}
        machine.events_clear()
    senders = {(receiver, vector - VECTORS[0]) for receiver, vector in seen}
    assert all(receiver != sender for receiver, sender in senders)
    assert {sender for _, sender in senders} >= {0, 1, 2}
    assert {receiver for receiver, _ in senders} == {0, 1, 2, 3}


def _forgetful(image: bytes) -> bytes:
    """The image with an IPI handler that acknowledges, but leaves the TLB alone: CR3 loads and INVLPGs become NOPs."""
    elf = ELFFile(io.BytesIO(image))
    text = elf.get_section_by_name(".text")
    symbols = elf.get_section_by_name(".symtab").iter_symbols()
    handler = next(row for row in symbols if row.name == "smp_invalidate_interrupt")
    start = handler["st_value"] - text["sh_addr"]
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32 if elf.elfclass == 32 else capstone.CS_MODE_64)
    changed = bytearray(image)
    count = 0
    for row in decoder.disasm(text.data()[start : start + handler["st_size"]], text["sh_offset"] + start):
        if row.mnemonic == "invlpg" or row.op_str.startswith("cr3"):
            changed[row.address : row.address + row.size] = b"\x90" * row.size
            count += 1
    assert count >= 2
    return bytes(changed)


@pytest.mark.parametrize("paging", PAGINGS)
def test_a_forgotten_flush_is_noticed_in_three_ways(paging: str) -> None:
    """A store lost by migration, a load from a frame with another use, a child whose memory moves."""
    source = (images.GUEST / "scenarios/shootdown.c").read_text().splitlines()
    expected = {
        number
        for number, row in enumerate(source, 1)
        if re.search(r"BUG_ON\((USER_WORD\(area, self\) != i|value == POISON|now != before)", row)
    }
    assert len(expected) == 3
    image = _forgetful(images.image_bytes(image_name("small", "smp", paging, "buggy")))
    machine = Machine(cpus=2, ram_bytes=images.scenario("shootdown-small").ram_bytes)
    images.boot(machine, image, COMMAND_LINE)
    machine.stop_at_trace = 1
    assert run_default(machine) == "trace"
    machine.stop_at_trace = 0
    ready = machine.snapshot()
    found = set()
    for seed in range(60):
        machine.restore(ready)
        reason = machine.execute(random_plan(seed, 2))[0]
        text = machine.console_take().decode()
        match = re.fullmatch(r"kernel BUG at scenarios/shootdown\.c:(\d+)\n", text)
        assert (reason, machine.exit_status, bool(match)) == ("exit", 0x42, True), (seed, text)
        found.add(int(match[1]))  # type: ignore[index]
    assert found == expected
