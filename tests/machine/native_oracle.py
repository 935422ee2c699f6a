"""The two sides: the real CPU, and our machine in user mode under the same memory map and segments."""

import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from native_layout import (
    ARITHMETIC,
    CODE,
    CODE_PAGES,
    COMPARED,
    DATA_PAGES,
    FIXED,
    FS_BASE,
    GDT,
    GS_BASE,
    HEADER,
    IF,
    LDT,
    MAPPED,
    OUTCOME,
    REGISTERS,
    WINDOWS,
    WORLDS,
    Outcome,
    Vector,
    World,
    physical,
)

from machine import _core

# They store several times: where a later store faults, CPUs differ in what the earlier ones leave in memory below the
# stack pointer. Ours leave nothing.
PARTIAL_STORES = {"pushal", "enter", "lcall"}
SOFT_TRAPS = (3, 4)
TRAPS = (1, 3, 4)
"""Vectors of exceptions that come after the instruction."""


@cache
def host_flags() -> frozenset[str]:
    """What the host's CPU has, in the words of /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":")[1].split())
    return frozenset()


@cache
def host_maker() -> str:
    return "intel" if "GenuineIntel" in Path("/proc/cpuinfo").read_text() else "amd"


def build_runner(folder: Path) -> Path:
    runner = folder / "native_runner"
    flags = ["-nostdlib", "-static", "-ffreestanding", "-fno-pie", "-no-pie", "-fno-stack-protector", "-mno-red-zone"]
    flags += ["-mgeneral-regs-only", "-O2", "-Wall", "-Wextra", "-Werror"]
    source = Path(__file__).with_name("native_runner.c")
    subprocess.run(["gcc", *flags, str(source), "-o", str(runner)], check=True)
    return runner


def host_worlds(runner: Path) -> list[World]:
    """The worlds this host's kernel can make."""
    header = subprocess.run([str(runner)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    magic, has_ldt = HEADER.unpack(header)
    assert magic == 0x4E545652
    return [world for world in WORLDS if has_ldt or not world.needs_ldt]


def run_native(runner: Path, batch: Sequence[Vector]) -> list[Outcome]:
    done = subprocess.run([str(runner)], input=b"".join(v.pack() for v in batch), stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == 0, f"the runner ended with {done.returncode}"
    assert len(done.stdout) == HEADER.size + OUTCOME.size * len(batch)
    outcomes = []
    for fields in OUTCOME.iter_unpack(done.stdout[HEADER.size :]):
        trap = fields[18]
        outcomes.append(
            Outcome(
                gpr=fields[:16],
                flags=fields[16],
                ip=fields[17],
                trap=trap,
                error=fields[19],
                address=fields[20] if trap == 14 else 0,
                segments=fields[21:27],
                pages=fields[27],
                windows=fields[28:],
            )
        )
    return outcomes


# --- our machine ---

NX_ENABLE, ALIGNMENT_MASK = 1 << 11, 1 << 18
USER, WRITE, PRESENT = 4, 2, 1
TABLES, GDT_AT, LDT_AT, BOOT = 0x300000, 0x310000, 0x311000, 0x312000
LDT_SELECTOR = 0x50


def plan(op: int, arg: int, cpu: int = 0, flags: int = 0) -> bytes:
    return struct.pack("<BBHIQ", op, cpu, flags, 0, arg)


def mapped_pages() -> Iterable[tuple[int, int, int]]:
    """(linear, physical, rights) of every page."""
    for start, pages, writable, phys in MAPPED:
        for page in range(pages):
            yield start + page * 4096, phys + page * 4096, PRESENT | USER | (WRITE if writable else 0)
    for page in (GDT_AT, LDT_AT, BOOT):
        yield page, page, PRESENT | WRITE


def write_tables(m: _core.Machine, levels: int) -> None:
    """Page tables of 2 or 4 levels at TABLES."""
    entry_size, shift = (4, 10) if levels == 2 else (8, 9)
    free = TABLES + 4096
    for linear, phys, rights in mapped_pages():
        if levels == 2 and linear >> 32:
            continue
        table = TABLES
        for level in range(levels - 1, 0, -1):
            slot = table + (linear >> (12 + shift * level) & (1 << shift) - 1) * entry_size
            entry = int.from_bytes(m.read(slot, entry_size), "little")
            if not entry:
                entry = free | PRESENT | WRITE | USER
                free += 4096
                m.write(slot, entry.to_bytes(entry_size, "little"))
            table = entry & ~0xFFF
        slot = table + (linear >> 12 & (1 << shift) - 1) * entry_size
        m.write(slot, (phys | rights).to_bytes(entry_size, "little"))
    assert free <= GDT_AT


class MachineRunner:
    """A machine in user mode with the memory map of native_runner.c and Linux's user selectors.

    The interrupt table is empty: every exception ends in shutdown, with the registers as they were when it came.

    Args:
        long: whether 16- and 32-bit code run under long mode (as on the host), or as 32-bit protected mode has them.
    """

    def __init__(self, long: bool) -> None:
        self.long = long
        self.machine = m = _core.Machine(ram_bytes=4 << 20, store_buffer=8)
        m.tap_capacity(1024)
        write_tables(m, 4 if long else 2)
        limit = len(LDT) * 8 - 1
        ldt = struct.pack("<II", limit | (LDT_AT & 0xFFFF) << 16, LDT_AT >> 16 & 0xFF | 0x8200 | LDT_AT & 0xFF000000)
        m.write(GDT_AT, b"".join(GDT))
        m.write(GDT_AT + LDT_SELECTOR, ldt + bytes(8))
        m.write(LDT_AT, b"".join(segment.descriptor() for segment in LDT))
        for start in CODE_PAGES:
            m.write(physical(start), b"\xcc" * 0x2000)
        m.write(FIXED, bytes((i * 37 + 11) & 0xFF for i in range(4096)))
        if long:
            m.set_register(0, "cr3", TABLES)
            m.set_bits(0, 64)
            m.set_register(0, "efer", m.registers(0)["efer"] | NX_ENABLE)
        else:
            m.set_register(0, "cr3", TABLES)
            m.set_register(0, "cr0", 0x80010011)
        m.set_register(0, "cr0", m.registers(0)["cr0"] | ALIGNMENT_MASK)
        for name, value in (("gdt_base", GDT_AT), ("gdt_limit", 127), ("idt_limit", 0)):
            m.set_register(0, name, value)
        self.fresh = m.snapshot()
        self.starts: dict[World, _core.Snapshot] = {}
        self.go = plan(_core.RUN, 400) * 3  # PAUSE ends one

    def start(self, world: World) -> _core.Snapshot:
        """The moment before user code in `world`."""
        if world in self.starts:
            return self.starts[world]
        m = self.machine
        m.restore(self.fresh)
        code = b"\x66\xb8" + struct.pack("<H", LDT_SELECTOR) + b"\x0f\x00\xd0"  # lldt ax
        for selector, load in (
            (world.ds, b"\x8e\xd8"),
            (world.es, b"\x8e\xc0"),
            (world.fs, b"\x8e\xe0"),
            (world.gs, b"\x8e\xe8"),
        ):
            code += b"\x66\xb8" + struct.pack("<H", selector) + load
        entry = CODE + 0x100 - world.base("cs")
        for value in (world.ss, 0x800, 0x202, world.cs, entry):
            code += b"\x68" + struct.pack("<I", value)
        code += b"\x48\xcf" if self.long else b"\xcf"
        m.write(BOOT, code)
        m.set_register(0, "rsp", BOOT + 0x800)
        m.set_register(0, "rip", BOOT)
        m.execute(plan(_core.RUN, 16))
        state = m.registers(0)
        expected = (3, entry, *world.selectors)
        found = (state["cpl"], state["rip"], *(state[name] for name in ("cs", "ss", "ds", "es", "fs", "gs")))
        assert found == expected, (world, found, expected)
        if world.bits == 64:
            m.set_register(0, "fs_base", FS_BASE)
            m.set_register(0, "gs_base", GS_BASE)
        m.tap = True
        self.starts[world] = m.snapshot()
        m.tap = False
        return self.starts[world]

    def run(self, vector: Vector) -> Outcome:
        m = self.machine
        m.restore(self.start(vector.world))
        m.tap = True
        for name, value in zip(REGISTERS[: 16 if self.long else 8], vector.gpr, strict=False):
            m.set_register(0, name, value)
        m.set_register(0, "rflags", vector.flags | IF)
        m.set_register(0, "rip", vector.ip)
        at = physical(vector.entry)
        m.write(at, vector.code)
        for (start, _), content in zip(WINDOWS, vector.windows, strict=True):
            m.write(physical(start), bytes(content))
        m.events_clear()
        reason, _, _ = m.execute(self.go)
        assert reason == "shutdown", (reason, vector.text)
        trap = error = address = -1
        soft = False
        count, _, _, addr, _, value, kind, _, _, info = m.events()
        for i in range(count):
            if kind[i] == _core.EVENT_KINDS["soft_interrupt"] and info[i] in SOFT_TRAPS:
                trap, error, address, soft = info[i], 0, 0, True
                break
            if kind[i] == _core.EVENT_KINDS["fault"]:
                trap, error, address = info[i], value[i], addr[i] if info[i] == 14 else 0
                break
        state = m.registers(0)
        ip = state["rip"]
        if soft:  # reported after the instruction
            ip += trap_length(m.read(physical(ip + state["cs_base"]), 15))
        return Outcome(
            gpr=tuple(state[name] for name in REGISTERS),
            flags=state["rflags"],
            ip=ip,
            trap=trap,
            error=error,
            address=address,
            segments=tuple(state[name] for name in ("cs", "ss", "ds", "es", "fs", "gs")),
            pages=checksum(b"".join(m.read(physical(start), pages * 4096) for start, pages in DATA_PAGES)),
            windows=tuple(m.read(physical(start), size) for start, size in WINDOWS),
        )


def checksum(pages: bytes) -> int:
    words = np.frombuffer(pages, dtype=np.uint64)
    return int(np.dot(words, np.arange(len(words), dtype=np.uint64) * np.uint64(2) + np.uint64(1)))


def trap_length(code: bytes) -> int:
    """Bytes of INT3, INT 3, INTO or INT1 with its prefixes."""
    at = next(n for n, byte in enumerate(code) if byte in (0xCC, 0xCD, 0xCE, 0xF1))
    return at + (2 if code[at] == 0xCD else 1)


def plain_null(selectors: tuple[int, ...]) -> tuple[int, ...]:
    """Null selectors without privilege bits: the kernel's return to the signal handler takes those away."""
    return tuple(selector if selector > 3 else 0 for selector in selectors)


class Comparison:
    """Both sides under one roof.

    Args:
        runner: what `build_runner` made.
    """

    def __init__(self, runner: Path) -> None:
        self.runner = runner
        self.machines: dict[bool, MachineRunner] = {}
        self.worlds = host_worlds(runner)

    def ours(self, vector: Vector, long: bool) -> Outcome:
        if long not in self.machines:
            self.machines[long] = MachineRunner(long)
        return self.machines[long].run(vector)

    def compared(self, batch: Sequence[Vector]) -> Iterator[tuple[Vector, list[str]]]:
        """Each vector the host can run, with what differs."""
        batch = [vector for vector in batch if vector.needs <= host_flags()]
        for vector, native in zip(batch, run_native(self.runner, batch), strict=True):
            found = differences(vector, native, self.ours(vector, True), True)
            if vector.world.bits != 64:  # as in 32-bit protected mode, without long mode
                found += differences(vector, native, self.ours(vector, False), False)
            yield vector, found

    def differing(self, batch: Sequence[Vector]) -> Iterator[Vector]:
        return (vector for vector, found in self.compared(batch) if found)

    def failures(self, batch: Sequence[Vector]) -> list[str]:
        """A paragraph for each vector on which they differ."""
        return ["\n    ".join([vector.text, *found]) for vector, found in self.compared(batch) if found]


def shown(value: int | tuple[int, ...]) -> str:
    return hex(value) if isinstance(value, int) else " ".join(map(hex, value))


def differences(vector: Vector, native: Outcome, ours: Outcome, long: bool) -> list[str]:
    """What is not the same, of all that the manual defines."""
    if vector.world.bits != 64 and native.trap in (12, 13) and ours.trap == 14 and ours.address >= 0xFFFFFFF0:
        return []  # over the end of a 4 GB segment: "may or may not cause the indicated exceptions" (SDM vol. 3, 5.3)
    found = []
    error = native.error
    if native.trap == 14 and not long:
        error &= ~0x10  # the fetch bit: this paging has no NX
    if native.trap == 14 and native.address >> 63:
        error &= ~1  # the kernel's half: present or not, it is not ours to know
    if native.trap == 14 and ours.trap == 14 and vector.name == "arpl":
        error |= ours.error & 2  # read first or locked right away: not said
    for name, left, right in (
        ("trap", native.trap, ours.trap),
        ("error", error, ours.error),
        ("address", native.address, ours.address),
        ("ip", native.ip, ours.ip),
        ("segments", plain_null(native.segments), plain_null(ours.segments)),
    ):
        if left != right:
            found.append(f"{name}: CPU {shown(left)}, ours {shown(right)}")
    wide = vector.world.bits == 64
    for number in range(16 if wide else 8):
        # Outside 64-bit code the upper halves are undefined.
        defined = ~vector.undefined_bits.get(number, 0) & ((1 << (64 if wide else 32)) - 1)
        left, right = native.gpr[number] & defined, ours.gpr[number] & defined
        if left != right:
            was = vector.gpr[number]
            found.append(f"{REGISTERS[number]}: CPU {left:#x}, ours {right:#x} (was {was:#x})")
    # A faulting instruction changed no flags, so none is undefined.
    undefined = vector.undefined if native.trap in TRAPS else 0
    if native.trap in (1, 12, 13, 14, 17) and vector.name[:4] in ("cmps", "scas") and native.ip == vector.ip:
        undefined = ARITHMETIC  # between iterations: of the last one, or of before
    if (native.flags ^ ours.flags) & COMPARED & ~undefined:
        left, right = native.flags & COMPARED, ours.flags & COMPARED
        found.append(f"flags: CPU {left:#x}, ours {right:#x} (was {vector.flags:#x}, undefined {undefined:#x})")
    if native.windows == ours.windows and native.pages != ours.pages:
        found.append("memory outside the windows")
    partial = native.trap in (12, 13, 14, 17) and vector.name in PARTIAL_STORES
    for (start, _), left_bytes, right_bytes in (
        [] if partial else zip(WINDOWS, native.windows, ours.windows, strict=True)
    ):
        if left_bytes == right_bytes:
            continue
        bad = [start + i for i in range(len(left_bytes)) if left_bytes[i] != right_bytes[i]]
        bad = [addr for addr in bad if addr not in vector.undefined_bytes]
        if bad:
            found.append(f"memory at {', '.join(map(hex, bad[:8]))}")
    return found
