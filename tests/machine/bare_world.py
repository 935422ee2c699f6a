"""A bare machine with a kernel and a user in it: every vector has a handler of its own that halts."""

from dataclasses import dataclass, field
from typing import NamedTuple

from machine import BareMachine, Event, Run
from machine.bare_paging import Paging
from machine.bare_tables import KERNEL_CODE, KERNEL_DATA, USER_CODE_32, USER_CODE_64, USER_DATA

TABLES, TSS, STACK, KERNEL_STACK, IST = 0x10000, 0x10800, 0x22000, 0x24000, 0x2A000
USER_CODE, USER_STACK, KERNEL, HANDLERS, APIC = 0x30000, 0x42000, 0x50000, 0x60000, 0x70000
"""Linear addresses. Stacks are named by their ends; APIC is the local APIC's page, mapped if there is
paging."""
IDT = TABLES + 0x1000
DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS, NP, SS, GP, PF, AC = 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 17
WITH_ERROR = (DF, TS, NP, SS, GP, PF, AC)
SPARE = 0x200
"""First of the selectors that tests give descriptors of their own."""


class Frame(NamedTuple):
    """What a handler finds: its vector, and the frame. `rsp` and `ss` are -1 where none were pushed."""

    vector: int
    error: int | None
    rip: int
    cs: int
    rflags: int
    rsp: int
    ss: int


@dataclass
class World:
    """`bits` 32 or 64; privilege 3 if `user`; code from `USER_CODE` or `KERNEL` on."""

    bits: int = 64
    paging: Paging | None = None
    cpus: int = 1
    user: bool = False
    events: list[Event] = field(default_factory=list)
    """Of the last `until_handler`."""

    def __post_init__(self) -> None:
        self.paging = self.paging or ("4-level" if self.bits == 64 else "pae")
        self.m = m = BareMachine(self.bits, paging=self.paging, cpus=self.cpus)
        if self.paging != "none":
            self._map()
        m.add_tables(TABLES, stack=STACK)
        for vector in range(256):
            m.gate(vector, HANDLERS + 16 * vector)
            m.write(HANDLERS + 16 * vector, b"\xf4")
        for cpu in range(self.cpus):
            m.set(cpu=cpu, gdt_limit=0x7FF)
            self.stand(cpu=cpu)

    def _map(self) -> None:
        m = self.m
        m.map(TABLES, 0x2000)
        m.map(STACK - 0x2000, 0xC000, rights="rw")
        m.map(USER_CODE, 0x2000, user=True)
        m.map(USER_STACK - 0x2000, 0x2000, rights="rw", user=True)
        m.map(KERNEL, 0x2000)
        m.map(HANDLERS, 0x2000)
        m.map(APIC, phys=0xFEE00000, rights="rw")

    @property
    def code(self) -> int:
        """Where code is put."""
        return USER_CODE if self.user else KERNEL

    def stand(self, cpu: int = 0) -> None:
        """Put a CPU at the start of the code, with the privilege at hand."""
        if self.user:
            code = USER_CODE_64 if self.bits == 64 else USER_CODE_32
            self.m.set(cpu=cpu, cs=code, ss=USER_DATA, ds=USER_DATA, es=USER_DATA, rsp=USER_STACK - 0x400 * cpu)
        else:
            self.m.set(cpu=cpu, cs=KERNEL_CODE, ss=KERNEL_DATA, rsp=KERNEL_STACK - 0x400 * cpu)
        self.m.set(cpu=cpu, rip=self.code)

    def load(self, text: str | bytes) -> dict[str, int]:
        """Assemble into the place for code; labels."""
        return self.m.load(self.code, text).labels

    def step(self, count: int = 1, cpu: int = 0) -> Run:
        return self.m.step(count, cpu=cpu)

    def until_handler(self, step_max: int = 50, cpu: int = 0) -> Frame | None:
        """Step until a handler has been entered, and look at its frame; None if none was."""
        self.events.clear()
        for _ in range(step_max):
            run = self.step(cpu=cpu)
            self.events += run.events
            if run.reason != "plan":
                return None
            if HANDLERS <= self.m.get("rip", cpu=cpu) < HANDLERS + 0x1000:
                return self.frame(cpu)
        return None

    def run(self, text: str | bytes, step_max: int = 50) -> Frame | None:
        """Load code and step until it enters a handler."""
        self.load(text)
        return self.until_handler(step_max)

    def frame(self, cpu: int = 0) -> Frame:
        """The frame of the handler that was just entered."""
        vector, offset = divmod(self.m.get("rip", cpu=cpu) - HANDLERS, 16)
        assert offset == 0
        size, rsp = self.bits // 8, self.m.get("rsp", cpu=cpu)
        old_code = self.m.read_int(rsp + (8 if vector in WITH_ERROR else 4), cpu=cpu)
        switched = self.bits == 64 or old_code & 3
        count = (5 if switched else 3) + (vector in WITH_ERROR)
        words = [self.m.read_int(rsp + size * i, size, cpu=cpu) for i in range(count)]
        error = words.pop(0) if vector in WITH_ERROR else None
        words += [-1] * (5 - len(words))
        return Frame(vector, error, *words)

    def descriptor(self, selector: int, data: bytes) -> None:
        """Put a descriptor into the GDT."""
        self.m.write(TABLES + (selector & ~7), data)


def faults(run: Run) -> list[tuple[int, int]]:
    """(vector, error code) of the faults of a run."""
    return [(event.info, event.value) for event in run.of("fault")]
