"""A machine without an image, for experiments: map memory, put code there, set registers, step, look.

docs/machine-api.md explains it with examples. Everything here is done with `Machine`, which stays at hand as
`BareMachine.machine`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from machine import _core, bare_tables
from machine._core import Machine
from machine.assembler import Code, assemble
from machine.bare_paging import PAGE_BYTES, Frames, PageTables, Paging
from machine.errors import UsageError

KINDS: Final = {number: name for name, number in _core.EVENT_KINDS.items()}

PlanRow = tuple[Literal["run", "hold", "run-room", "hold-room", "drain", "irq", "choice", "evict", "auto"], int, int]
"""(operation, CPU, argument) as in `Machine.execute`; "hold" is RUN that keeps stores in the buffer, and with
"-room" the oldest of them drain, a step each, where the CPU would have to wait for its buffer."""

_OPERATIONS: Final = {
    "run": (_core.RUN, 0),
    "hold": (_core.RUN, _core.HOLD),
    "run-room": (_core.RUN, _core.ROOM),
    "hold-room": (_core.RUN, _core.HOLD | _core.ROOM),
    "drain": (_core.DRAIN, 0),
    "irq": (_core.IRQ, 0),
    "choice": (_core.CHOICE, 0),
    "evict": (_core.EVICT, 0),
    "auto": (_core.AUTO, 0),
}
_MARKS: Final = {
    _core.EVENT_FORWARDED: "forwarded",
    _core.EVENT_MERGED: "merged",
    _core.EVENT_LOCKED: "locked",
    _core.EVENT_DRAINED: "drained",
    _core.EVENT_DEVICE: "device",
    _core.EVENT_IMPLICIT: "implicit",
}
_PAGING: Final[dict[int, tuple[Paging, ...]]] = {
    16: ("none", "2-level", "pae"),
    32: ("none", "2-level", "pae"),
    64: ("4-level",),
}
_GENERAL: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_ALIASES: Final = {**{f"e{name[1:]}": name for name in _GENERAL}, "eip": "rip", "eflags": "rflags"}
_FLAGS: Final = {
    "cf": 0,
    "pf": 2,
    "af": 4,
    "zf": 6,
    "sf": 7,
    "tf": 8,
    "if_": 9,
    "df": 10,
    "of": 11,
    "nt": 14,
    "rf": 16,
    "ac": 18,
    "id": 21,
}
"""Flag name -> bit of RFLAGS. `if` is a word of Python's, hence `if_`."""
_CR0_PE, _CR0_WP, _CR0_PG = 1, 1 << 16, 1 << 31
_CR4_PSE, _CR4_PAE, _CR4_PGE = 1 << 4, 1 << 5, 1 << 7
_EFER_NXE: Final = 1 << 11
_ICR: Final = 0xFEE00300
_START_OTHERS: Final = 0xC0600
"""Start-up IPI to all but self, to be or-ed with a page number."""
_IDT_OFFSET, _TSS_OFFSET, _LTR_OFFSET = 0x1000, 0x800, 0xF00
"""Where `add_tables` puts what, from its address; the GDT is at 0."""
TABLES_BYTES: Final = 2 * PAGE_BYTES
RUN_STEP_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """One row of what happened. machine/core/event.def says what each kind puts where; what it does not use is 0."""

    step: int
    cpu: int
    kind: str
    pc: int
    addr: int
    phys: int
    value: int
    size: int
    info: int

    @property
    def marks(self) -> tuple[str, ...]:
        """The info bits of a load or store, by name: forwarded, merged, locked, drained, device, implicit."""
        if self.kind not in ("load", "store"):
            return ()
        return tuple(name for bit, name in _MARKS.items() if self.info & bit)

    def __str__(self) -> str:
        parts = [f"{self.step}: cpu {self.cpu} at {self.pc:#x} {self.kind}"]
        parts += [f"{name} {getattr(self, name):#x}" for name in ("addr", "phys", "value") if getattr(self, name)]
        if self.size:
            parts.append(f"size {self.size}")
        if self.info:
            parts.append(" ".join(self.marks) or f"info {self.info:#x}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did: why it ended, how many steps it took, and its events in order.

    `reason` is "plan" if all that was asked for was done; otherwise one of `Machine.execute`'s reasons, or why the CPU
    that was to run waits: "halt", "start", "choice" or "off" (see `Machine.waiting`).
    """

    reason: str
    steps: int
    events: tuple[Event, ...]

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds. Raises UsageError for a kind that does not exist."""
        for kind in kinds:
            if kind not in _core.EVENT_KINDS:
                raise UsageError(f"no event is of kind {kind!r}; there are {', '.join(sorted(_core.EVENT_KINDS))}")
        return [event for event in self.events if event.kind in kinds]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)


class BareMachine:
    """A machine with flat segments and nothing in memory. All CPUs stand at address 0 with registers 0.

    Args:
        bits: of the code: 64, 32, or 16 (16-bit code segments in protected mode; there is no real mode).
        paging: "4-level" for 64 bits; "none" (the default), "2-level" or "pae" for others. With paging, nothing is
            mapped to begin with, supervisors obey read-only pages (CR0.WP), and pages may be global (CR4.PGE) and,
            except in 2-level paging, not executable (EFER.NXE).
        cpus, ram_bytes, store_buffer: see `Machine`.
    Raises UsageError for arguments that do not fit.

    Attributes:
        machine: the core, with everything it can do.
        bits, paging: as given.
    """

    def __init__(
        self,
        bits: int = 64,
        *,
        paging: Paging | None = None,
        cpus: int = 1,
        ram_bytes: int = 64 << 20,
        store_buffer: int = 8,
    ) -> None:
        if bits not in _PAGING:
            raise UsageError(f"a machine has 16, 32 or 64 bits, not {bits}")
        kind = paging or _PAGING[bits][0]
        if kind not in _PAGING[bits]:
            raise UsageError(f"{bits}-bit code runs with paging {' or '.join(_PAGING[bits])}, not {kind}")
        try:
            self.machine = Machine(cpus=cpus, ram_bytes=ram_bytes, store_buffer=store_buffer)
        except (ValueError, OverflowError) as error:
            raise UsageError(str(error)) from None
        self.bits = bits
        self.paging: Paging = kind
        self._frames = Frames(ram_bytes)
        self._tables: int | None = None
        self._page_tables = None if kind == "none" else PageTables(self.machine, self._frames, kind)
        if cpus > 1:
            self._start_others()
        for cpu in range(cpus):
            self._enter_mode(cpu)
        self.machine.choices_take()
        self.machine.tap = True

    # -- memory --

    def map(
        self,
        addr: int,
        size_bytes: int = PAGE_BYTES,
        *,
        phys: int | None = None,
        rights: str = "rwx",
        user: bool = False,
        global_page: bool = False,
        page_bytes: int = PAGE_BYTES,
    ) -> int:
        """Map linear addresses to physical ones and return the first physical address.

        Writes page tables in RAM and nothing else: a CPU that has cached an older translation goes on using it.

        Args:
            addr, size_bytes: whole pages.
            phys: where to; None takes RAM that nobody has. It need not be RAM.
            rights: "r", "rw", "rx" or "rwx".
            user: code of privilege 3 may use it too.
            page_bytes: 4096, or the size of a large page: 4 MB (2-level), 2 MB (PAE, 4-level), 1 GB (4-level).
        Raises UsageError for what does not fit, or if the machine has no paging.
        """
        return self._paged().map(
            addr, size_bytes, phys, rights=rights, user=user, global_page=global_page, page_bytes=page_bytes
        )

    def unmap(self, addr: int, size_bytes: int = PAGE_BYTES) -> None:
        """Take mappings away, in the page tables only (see `map`). Raises UsageError if something is not mapped."""
        self._paged().unmap(addr, size_bytes)

    def entry_address(self, addr: int) -> int:
        """Physical address of the page-table entry that maps `addr`. Raises UsageError if nothing does."""
        return self._paged().entry(addr)[0]

    def read(self, addr: int, size_bytes: int, *, cpu: int = 0, forward: bool = True) -> bytes:
        """Bytes at a linear address as `cpu` would load them now; `forward=False` ignores stores in its buffer.

        Raises UsageError if they are not mapped to RAM.
        """
        self._check_cpu(cpu)
        try:
            return self.machine.read_linear(cpu, addr, size_bytes, forward=forward)
        except LookupError as error:
            raise UsageError(f"address {error.args[0]:#x} is not mapped to RAM") from None
        except (ValueError, OverflowError) as error:
            raise UsageError(str(error)) from None

    def read_int(self, addr: int, size_bytes: int = 4, *, cpu: int = 0, forward: bool = True) -> int:
        """The little-endian number at a linear address; see `read`."""
        return int.from_bytes(self.read(addr, size_bytes, cpu=cpu, forward=forward), "little")

    def write(self, addr: int, data: bytes, *, cpu: int = 0) -> None:
        """Put bytes into RAM at a linear address of `cpu`, past rights and store buffers, without an event.

        Raises UsageError if they are not mapped to RAM.
        """
        self._check_cpu(cpu)
        pieces: list[tuple[int, bytes]] = []
        at = 0
        while at < len(data):
            size = min(len(data) - at, PAGE_BYTES - (addr + at) % PAGE_BYTES)
            phys = self.machine.translate(cpu, addr + at) if 0 <= addr + at < 1 << 64 else -1
            if phys < 0 or phys + size > self.machine.ram_bytes:
                raise UsageError(f"address {addr + at:#x} is not mapped to RAM")
            pieces.append((phys, data[at : at + size]))
            at += size
        for phys, piece in pieces:
            self.machine.write(phys, piece)

    def write_int(self, addr: int, value: int, size_bytes: int = 4, *, cpu: int = 0) -> None:
        """Put a little-endian number into RAM; see `write`. Negative numbers are stored in two's complement."""
        self.write(addr, (value & ((1 << 8 * size_bytes) - 1)).to_bytes(size_bytes, "little"), cpu=cpu)

    def load(self, addr: int, code: str | bytes, *, bits: int | None = None) -> Code:
        """Put machine code or AT&T assembler text at a linear address, which must be mapped, and return it.

        Args:
            bits: of the text, where they are not the machine's (code for a far jump to another code segment).
        Raises UsageError for text that does not assemble (it names the line) and for addresses without RAM.
        """
        assembled = (
            assemble(code, bits=bits or self.bits, origin=addr) if isinstance(code, str) else Code(addr, code, {})
        )
        self.write(addr, assembled.data)
        return assembled

    # -- registers --

    def set(self, *, cpu: int = 0, **values: int) -> None:
        """Set registers (`rax`, `eax`, `rip`, `cr3`, ... as in `Machine.set_register`) and flags (`cf`, `if_`, ...).

        Nothing is set if a name is unknown (UsageError). Values are taken modulo 2**64.
        """
        self._check_cpu(cpu)
        known = self.machine.registers(cpu)
        for name in values:
            if name not in _FLAGS and _ALIASES.get(name, name) not in known:
                raise UsageError(f"no register or flag is called {name!r}")
        for name, value in values.items():
            if name in _FLAGS:
                bit = 1 << _FLAGS[name]
                flags = self.machine.registers(cpu)["rflags"]
                self.machine.set_register(cpu, "rflags", flags | bit if value else flags & ~bit)
            else:
                self._set_register(cpu, _ALIASES.get(name, name), value)

    def get(self, name: str, *, cpu: int = 0) -> int:
        """A register or flag by name. In 32-bit names only the low half counts. Raises UsageError for others."""
        self._check_cpu(cpu)
        values = self.machine.registers(cpu)
        if name in _FLAGS:
            return values["rflags"] >> _FLAGS[name] & 1
        if name in _ALIASES:
            return values[_ALIASES[name]] & 0xFFFFFFFF
        if name not in values:
            raise UsageError(f"no register or flag is called {name!r}")
        return values[name]

    def registers(self, *, cpu: int = 0) -> dict[str, int]:
        """All registers of a CPU; see `Machine.registers`."""
        self._check_cpu(cpu)
        return self.machine.registers(cpu)

    # -- interrupts --

    def add_tables(self, addr: int, *, stack: int = 0, interrupt_stacks: dict[int, int] | None = None) -> None:
        """Put a GDT, an empty IDT and a TSS for each CPU at `addr` (8192 bytes, mapped writable), and load them.

        Selectors are those of `machine.bare_tables`. Loading TR takes a step on each CPU, not recorded as events.

        Args:
            stack: RSP (ESP) for handlers that interrupt privilege 3; those of CPU n are n * 4096 bytes below.
            interrupt_stacks: 64 bits only: pointers of the interrupt stack table by number, 1 to 7, apart likewise.
        """
        stacks = interrupt_stacks or {}
        if stacks and (self.bits != 64 or not all(1 <= number <= 7 for number in stacks)):
            raise UsageError("the interrupt stack table has entries 1 to 7, and exists in 64 bits only")
        cpus = range(self.machine.cpus)
        places = [addr + _TSS_OFFSET + 128 * cpu for cpu in cpus]
        table = bare_tables.gdt(self.bits, places)
        self.write(addr, bytes(TABLES_BYTES))
        self.write(addr, table)
        self._tables = addr
        for cpu in cpus:
            lower = cpu * PAGE_BYTES
            data = bare_tables.tss(self.bits, stack - lower if stack else 0, {n: p - lower for n, p in stacks.items()})
            self.write(places[cpu], data)
            self.set(cpu=cpu, gdt_base=addr, gdt_limit=len(table) - 1)
            idt_limit = 256 * (16 if self.bits == 64 else 8) - 1
            self.set(cpu=cpu, idt_base=addr + _IDT_OFFSET, idt_limit=idt_limit)
            self._load_task_register(cpu, addr + _LTR_OFFSET)

    def gate(self, vector: int, addr: int, *, user: bool = False, trap: bool = False, interrupt_stack: int = 0) -> None:
        """Let a handler at `addr` take `vector` (after `add_tables`).

        Args:
            user: INT from privilege 3 may use the gate.
            trap: a trap gate, which leaves IF alone; otherwise an interrupt gate, which clears it.
            interrupt_stack: entry of the interrupt stack table to use, 0 for none.
        """
        if self._tables is None:
            raise UsageError("there is no IDT yet: call add_tables first")
        if not 0 <= vector <= 255 or not 0 <= interrupt_stack <= 7:
            raise UsageError(f"vectors are 0 to 255 and interrupt stacks 1 to 7, not {vector} and {interrupt_stack}")
        data = bare_tables.gate(self.bits, addr, user=user, trap=trap, stack_table=interrupt_stack)
        self.write(self._tables + _IDT_OFFSET + vector * len(data), data)

    # -- execution --

    def step(self, count: int = 1, *, cpu: int = 0, hold: bool = False) -> Run:
        """Execute `count` instructions on `cpu` (iterations, of a repeated one), a step each; two if a load crosses the
        border of a cache line, and for CMPS.

        With `hold` its stores stay in its buffer until drained. Ends early, with the reason, if the CPU waits, or
        "blocked" if the next instruction waits for the buffer to drain.
        """
        run = self.play([("hold" if hold else "run", cpu, count)])
        if run.reason == "diverged":
            return Run(self.machine.waiting(cpu), run.steps, run.events)
        return run

    def drain(self, count: int = 1, *, cpu: int = 0) -> Run:
        """Let the oldest `count` held stores of `cpu` reach memory, a step each."""
        return self.play([("drain", cpu, count)])

    def interrupt(self, vector: int, *, cpu: int = 0) -> Run:
        """Deliver a pending interrupt (2: a pending NMI), one step. Reason "diverged" if the CPU does not take it."""
        return self.play([("irq", cpu, vector)])

    def run(self, step_max: int = RUN_STEP_MAX) -> Run:
        """Let all CPUs run by the default schedule (see `Machine.execute`) for at most `step_max` steps.

        Reason "idle" if every CPU waits, "plan" if the steps are used up.
        """
        return self.play([("auto", 0, step_max)], exact=False)

    def play(self, plan: Iterable[PlanRow], *, exact: bool = True) -> Run:
        """Run a plan. With `exact` it ends with reason "diverged" or "blocked" at the first row that does not apply,
        else such rows are skipped. Row "auto" works only without.
        """
        data = b"".join(self._record(*row) for row in plan)
        first = self.machine.step
        events: list[Event] = []
        self.machine.events_clear()
        index = done = 0
        while True:
            reason, index, done = self.machine.execute(data, index=index, done=done, exact=exact)
            events += self._events()
            self.machine.events_clear()
            if reason != "events":
                return Run(reason, self.machine.step - first, tuple(events))

    def console(self) -> str:
        """What code wrote to the console port 0xE9 since the last call."""
        return self.machine.console_take().decode("latin-1")

    # -- inside --

    def _events(self) -> list[Event]:
        count, step, pc, addr, phys, value, kind, cpu, size, info = self.machine.events()
        return [
            Event(step[i], cpu[i], KINDS[kind[i]], pc[i], addr[i], phys[i], value[i], size[i], info[i])
            for i in range(count)
        ]

    def _record(self, operation: str, cpu: int, argument: int) -> bytes:
        if operation not in _OPERATIONS:
            raise UsageError(f"a plan has rows {', '.join(_OPERATIONS)}, not {operation!r}")
        self._check_cpu(cpu)
        if not 0 <= argument < 1 << 64:
            raise UsageError(f"{argument} is not an argument of a plan's row: it must be 0 to 2**64 - 1")
        number, flags = _OPERATIONS[operation]
        return struct.pack("<BBHIQ", number, cpu, flags, 0, argument)

    def _check_cpu(self, cpu: int) -> None:
        if not 0 <= cpu < self.machine.cpus:
            raise UsageError(f"there is no CPU {cpu}: the machine has {self.machine.cpus}")

    def _set_register(self, cpu: int, name: str, value: int) -> None:
        try:
            self.machine.set_register(cpu, name, value & ((1 << 64) - 1))
        except KeyError:
            raise UsageError(f"register {name} cannot be set") from None

    def _paged(self) -> PageTables:
        if self._page_tables is None:
            raise UsageError("this machine has no paging: linear addresses are physical ones and need no map")
        return self._page_tables

    def _start_others(self) -> None:
        """A start-up IPI from CPU 0 to all others: the one way out of their wait. One step."""
        page = self._frames.ram_bytes - PAGE_BYTES
        code = assemble(f"movl ${_START_OTHERS:#x}, {_ICR:#x}", bits=32, origin=page)
        self.machine.write(page, code.data)
        self.machine.set_register(0, "rip", page)
        self.machine.execute(struct.pack("<BBHIQ", _core.RUN, 0, 0, 0, 1), exact=True)
        self.machine.write(page, bytes(len(code.data)))

    def _enter_mode(self, cpu: int) -> None:
        """Paging on if there is any, code of the machine's size, general registers and rip 0."""
        m = self.machine
        if self._page_tables:
            m.set_register(cpu, "cr3", self._page_tables.root)
            m.set_register(cpu, "cr4", _CR4_PGE | (_CR4_PSE if self.paging == "2-level" else _CR4_PAE))
            m.set_register(cpu, "efer", 0 if self.paging == "2-level" else _EFER_NXE)
            m.set_register(cpu, "cr0", _CR0_PE | _CR0_WP | (0 if self.bits == 64 else _CR0_PG))
        m.set_bits(cpu, self.bits)
        for name in (*_GENERAL, "rip"):
            m.set_register(cpu, name, 0)

    def _load_task_register(self, cpu: int, scratch: int) -> None:
        """Execute LTR, which alone sets TR, with code at `scratch`, and leave all else as it was."""
        m = self.machine
        saved = m.registers(cpu)
        tap, m.tap = m.tap, False
        code = assemble("ltr %ax", bits=self.bits, origin=scratch)
        self.write(scratch, code.data)
        self.set(cpu=cpu, cs=bare_tables.KERNEL_CODE, rip=scratch, rflags=2, rax=bare_tables.TSS + 16 * cpu)
        reason, _, _ = m.execute(struct.pack("<BBHIQ", _core.RUN, cpu, 0, 0, 1), exact=True)
        loaded = reason == "plan" and m.registers(cpu)["tr"] != 0
        self.write(scratch, bytes(len(code.data)))
        m.tap = tap
        if not loaded:
            raise UsageError(f"the tables cannot be used at {scratch & -PAGE_BYTES:#x}: map them with rights rwx")
        for name in ("rax", "rip", "rflags", "cs", "cr3"):  # CR3: what LTR has left in the TLB goes too
            m.set_register(cpu, name, saved[name])
