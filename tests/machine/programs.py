"""Small guest programs in assembler, and a machine to put them in."""

import struct
from functools import cache

from native_layout import descriptor

from machine import _core, assembler

KIND_NAMES = {number: name for name, number in _core.EVENT_KINDS.items()}
GDT, IDT, TSS, CODE, STACK = 0x1000, 0x2000, 0x3000, 0x10000, 0x9000
"""Where `Bare` keeps its tables; each CPU's stack ends at STACK - 0x400 * cpu."""


@cache
def assemble(text: str, origin: int = CODE) -> bytes:
    """Machine code of 32-bit AT&T assembler, linked to run at `origin`."""
    return assembler.assemble(text, bits=32, origin=origin).data


def record(op: int, arg: int, cpu: int = 0, flags: int = 0) -> bytes:
    return struct.pack("<BBHIQ", op, cpu, flags, 0, arg)


def run(count: int, cpu: int = 0, hold: bool = False) -> bytes:
    return record(_core.RUN, count, cpu, _core.HOLD if hold else 0)


def drain(count: int = 1, cpu: int = 0) -> bytes:
    return record(_core.DRAIN, count, cpu)


def irq(vector: int, cpu: int = 0) -> bytes:
    return record(_core.IRQ, vector, cpu)


def auto(count: int = 1_000_000) -> bytes:
    return record(_core.AUTO, count)


def gate(offset: int, selector: int = 0x10, kind: int = 0x8E) -> bytes:
    return struct.pack("<HHBBH", offset & 0xFFFF, selector, 0, kind, offset >> 16)


class Bare:
    """A machine with flat segments in a GDT, an empty IDT and a TSS, about to execute `text` at CODE.

    Selectors: 10 and 18 code and data of the kernel, 23 and 2b of the user, 30 the TSS.
    """

    def __init__(
        self, text: str = "", *, cpus: int = 1, ram_bytes: int = 1 << 20, store_buffer: int = 8, pc: bool = False
    ) -> None:
        self.machine = m = _core.Machine(cpus=cpus, ram_bytes=ram_bytes, store_buffer=store_buffer, pc=pc)
        entries = [bytes(8), bytes(8), descriptor(0x9B), descriptor(0x93), descriptor(0xFB), descriptor(0xF3)]
        entries.append(descriptor(0x89, limit=0x67, base=TSS, flags=0))
        m.write(GDT, b"".join(entries))
        m.write(TSS + 4, struct.pack("<II", STACK, 0x18))
        for cpu in range(cpus):
            for name, value in (("gdt_base", GDT), ("gdt_limit", 0xFF), ("idt_base", IDT), ("idt_limit", 0x7FF)):
                m.set_register(cpu, name, value)
            m.set_register(cpu, "rsp", STACK - 0x400 * cpu)
            m.set_register(cpu, "rsi", 0)
        m.set_register(0, "rip", CODE)
        if text:
            m.write(CODE, assemble(text))
        m.tap = True

    def gate(self, vector: int, offset: int, selector: int = 0x10, kind: int = 0x8E) -> None:
        self.machine.write(IDT + vector * 8, gate(offset, selector, kind))

    def execute(self, *records: bytes, exact: bool = False) -> str:
        return self.machine.execute(b"".join(records), exact=exact)[0]

    def register(self, name: str, cpu: int = 0) -> int:
        return self.machine.registers(cpu)[name]

    def word(self, phys: int) -> int:
        return int.from_bytes(self.machine.read(phys, 4), "little")

    def events(self, *kinds: str) -> list[dict[str, int | str]]:
        """Events so far, of these kinds or all, as dictionaries of what is not zero."""
        return [row for row in events(self.machine) if not kinds or row["kind"] in kinds]


def events(machine: _core.Machine) -> list[dict[str, int | str]]:
    count, *columns = machine.events()
    names = ("step", "pc", "addr", "phys", "value", "kind", "cpu", "size", "info")
    rows = []
    for i in range(count):
        row: dict[str, int | str] = {name: column[i] for name, column in zip(names, columns, strict=True)}
        row["kind"] = KIND_NAMES[int(row["kind"])]
        rows.append({name: value for name, value in row.items() if value or name in ("step", "kind")})
    return rows


def columns(machine: _core.Machine) -> bytes:
    """All event columns as bytes, for comparison."""
    count, *views = machine.events()
    return b"".join(bytes(view) for view in views) + struct.pack("<I", count)
