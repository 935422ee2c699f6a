"""The C11 core. Private: users import `machine`, whose `Machine` this class is."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias, final

from numpy.typing import NDArray
from typing_extensions import Buffer as _Buffer

Buffer: TypeAlias = _Buffer | NDArray[Any]
"""Anything with contiguous bytes (numpy's stubs say so only from Python 3.12 on)."""

EVENT_KINDS: Final[dict[str, int]]
"""Event kind name -> number, from core/event.def (the one schema)."""
EVENT_DOCS: Final[dict[str, str]]
"""Event kind name -> meaning."""
EVENT_FORWARDED: Final[int]
"""info bit of load (of walk: bit 4): every byte came from the CPU's own store buffer."""
EVENT_MERGED: Final[int]
"""info bit of load (of walk: bit 5): some bytes came from the CPU's own store buffer, the rest from memory."""
EVENT_LOCKED: Final[int]
"""info bit of load and store: part of one locked read-modify-write."""
EVENT_DRAINED: Final[int]
"""info bit of store: reached memory within its own step."""
EVENT_DEVICE: Final[int]
"""info bit of load and store: answered by a device, not by RAM."""
EVENT_IMPLICIT: Final[int]
"""info bit of load and store: made by the CPU itself (descriptor tables, TSS, interrupt frames)."""

RUN: Final[int]
"""Plan op: `cpu` takes `arg` steps. Flag HOLD keeps its stores in the buffer. With flag ROOM the oldest store drains
wherever the CPU has to wait for its own buffer, a step of the run; without it every step is an instruction."""
DRAIN: Final[int]
"""Plan op: the `arg` oldest stores of `cpu` drain, a step each."""
IRQ: Final[int]
"""Plan op: interrupt vector `arg` is delivered to `cpu` (armed timer vector or pending IPI), one step."""
CHOICE: Final[int]
"""Plan op: the choice `cpu` is waiting for is answered with `arg`, one step."""
EVICT: Final[int]
"""Plan op: `cpu` loses its translation of the linear page `arg`, one step."""
AUTO: Final[int]
"""Plan op: the default schedule for at most `arg` steps (tentative plans only; never in a tape)."""
PICK: Final[int]
"""Plan op: the rest of the run by a random choice among agents at each visible step (tentative plans only; never in a
tape). `arg` is the seed, `zero` how many visible steps a run is thought to have, `flags` the policy (PICK_WALK: each
agent as probable as it has steps left, see `Machine.weights`; PICK_POS: partial order sampling; PICK_PCT), PICK_EAGER
(stores drain at once), PICK_TASKS (words that tasks share are visible, too), the depth of PCT, and how many timer ticks
are spread over the run at random.

Agents: AGENT_CPU + n is CPU n, which runs to and including its next visible step; AGENT_DRAIN + n its store buffer,
which drains up to and including its oldest store to a shared word; AGENT_INTERRUPT + n what is pending at it;
AGENT_TICK + n its timer. A CPU that spins is passed over until what it has read changes. Needs `Machine.watch`, and
the tap off (else "diverged")."""
STEP: Final[int]
"""Plan op: `arg` visible steps of agent `flags` (tentative plans only; never in a tape). Ends where the agent cannot go
on. `zero` & 1: stores drain at once; & 2: words that tasks share are visible, too."""
PICK_WALK: Final[int]
PICK_POS: Final[int]
PICK_PCT: Final[int]
PICK_EAGER: Final[int]
PICK_TASKS: Final[int]
PICK_DEPTH_SHIFT: Final[int]
PICK_TICKS_SHIFT: Final[int]
AGENT_CPU: Final[int]
AGENT_DRAIN: Final[int]
AGENT_INTERRUPT: Final[int]
AGENT_TICK: Final[int]
AGENT_COUNT: Final[int]
HOLD: Final[int]
"""Flag of RUN."""
ROOM: Final[int]
"""Flag of RUN."""
ON: Final[int]
"""Flag of RUN in tentative plans: PAUSE does not end it."""

STOPS: Final[tuple[str, ...]]
"""Names of the stop reasons, indexed by `Stop.reason` numbers: see `Machine.execute`."""
STATE_VERSION: Final[int]
"""Layout version of `Machine.state_save`."""

@final
class Snapshot:
    """An opaque moment of one machine, shared copy-on-write with its neighbours. Restorable any number of times."""

    step: int

@final
class Machine:
    """A deterministic x86 multiprocessor. No globals: any number may exist side by side.

    Args:
        cpus: number of CPUs, 1 to 8.
        ram_bytes: size of RAM, a multiple of 4096, at most 3 GB; pages never written cost nothing.
        store_buffer: capacity of each CPU's store buffer, 1 to 56 stores.
        pc: with the devices of a PC (docs/platform.md, "A PC"); for one CPU.
    Raises ValueError for arguments out of range, MemoryError.
    """

    def __init__(
        self, *, cpus: int = 1, ram_bytes: int = 64 << 20, store_buffer: int = 8, pc: bool = False
    ) -> None: ...

    cpus: int
    ram_bytes: int
    store_buffer: int
    pc: bool
    step: int
    """Steps taken since reset: the clock."""
    auto_cpu: int
    """The CPU whose turn it was last under AUTO, which goes on with it. Raises ValueError if there is none such."""
    stop_at_trace: int
    """Identifier of a tracepoint after whose step `execute` stops with reason "trace" (0: none)."""

    # -- execution --
    def execute(
        self, plan: Buffer, *, index: int = 0, done: int = 0, step_max: int = ..., exact: bool = False
    ) -> tuple[str, int, int]:
        """Run `plan`, an array of 16-byte records (op u8, cpu u8, flags u16, zero u32, arg u64).

        Starts at record `index` of which `done` steps were taken before; returns (reason, index, done) to go on from.
        With `exact` each record must apply to the last step (replay of a tape's choices), otherwise reason "diverged";
        without, what does not apply is skipped, every RUN has flag ROOM, and RUN ends early at HLT or PAUSE. `step_max`
        is an absolute step number at which to stop.

        Reasons: "plan" (all done), "steps" (step_max reached), "events" (tap full: take the events, go on),
        "exit" (the guest wrote the exit port), "idle" (every CPU waits, nothing can wake one; AUTO and PICK only),
        "livelock" (AUTO and PICK only: those that do not wait spin, and nothing they read changes any more),
        "freed" (not with exact: a freed page was touched, see `page_pool`; the step is made),
        "choice" (AUTO and PICK only: a CPU waits for an answer), "shutdown" (triple fault), "trace"
        (stop_at_trace was hit), "diverged" (exact only), "blocked" (exact only: without ROOM, the CPU waits for its
        own buffer; also a divergence).
        """
    def choices_take(self) -> bytes:
        """The exact choices made since the last call, run-length coded in plan format (no AUTO), and forget them.

        ROOM stands where it was needed: where a store drained because the CPU had to wait."""
    choices_enabled: bool
    """Whether `execute` logs choices (default True)."""
    exit_status: int
    """Status written to the exit port; meaningful after reason "exit"."""
    def console_take(self) -> bytes:
        """Console output since the last call."""
    def can_interrupt(self, cpu: int, vector: int) -> bool: ...
    def timer_vector(self, cpu: int) -> int:
        """Of its timer; -1 if that is not armed, or masked. On a PC that of the 8254, and -1 also if it is
        pending already."""
    def waiting(self, cpu: int) -> str:
        """ "" if `cpu` can execute, else "halt", "start", "choice", or "off" (after shutdown or exit)."""

    # -- visible steps --
    def watch(self, words: Buffer | None, *, tasks: bool = False) -> None:
        """Say which words are shared between CPUs, or (a second set) between tasks as well: a bit for each aligned 4
        bytes of RAM. Accesses to them are visible steps; None: there is no such set. Raises ValueError for a wrong
        size, MemoryError."""
    def page_pool(self, pages: int, page_bytes: int, first_frame: int, frame_count: int, alloc: int, free: int) -> None:
        """Say which page frames the guest's allocator manages: tentative plans and `Explorer` stop with reason "freed"
        behind a step that touches a page which tracepoint `free` has given back and `alloc` has not handed out again.

        The tracepoints' operands are a page and an order: `pages` is the linear address of the page of `first_frame`,
        `page_bytes` how far it is to the next. No page is freed when this is called, nor after `state_load` or
        `restore` to a snapshot from before; other snapshots keep the set. It is not part of `state_hash`. With
        `frame_count` 0 there is no pool any more. Raises ValueError, MemoryError."""
    def ledger(
        self, trace: int, pages: int, page_bytes: int, first_frame: int, regions: Sequence[tuple[int, int]]
    ) -> None:
        """Add up what tracepoint `trace` announces: its operands are a page, and an item in bits 31..24 with a signed
        delta below. Sums begin at 0, and are kept for each item (0 to 63) and region (at most 8, each its first frame
        and the one behind its last); `pages` is the linear address of the page of `first_frame`. They are not part of
        `state_hash`; snapshots keep them, `state_load` forgets them. With `trace` 0 there is no ledger any more. Raises
        ValueError, TypeError, MemoryError."""
    def ledger_sum(self, region: int, item: int) -> int | None:
        """What was announced; None if nothing was for this item in any region, and without such a region."""
    def freed_use(self) -> tuple[str, int, int, int, int, int, int, int] | None:
        """(access, cpu, pc, addr, phys, step, CPU that freed it, in which step): why execution stopped "freed", or the
        last such access of exact plans, which go on. None: there was none.

        access: "load", "store", "fetch", "drain" (of a store that was made before, at `pc`, while another CPU freed the
        page), "walk" (`phys` is the entry's), or "free" (freed twice; `addr` is the page's `struct page`)."""
    def weights(self, steps: Sequence[int]) -> None:
        """For PICK_WALK: visible steps that each of AGENT_COUNT agents is thought to take; all 0: agents are equally
        probable."""
    def visible_counts(self) -> list[int]:
        """Visible steps of each agent in the last PICK."""
    class_hash: int
    """Of the last PICK: equal for runs that differ only in the order of steps that do not touch the same words."""
    def pairs_take(self) -> bytes:
        """A bit for each pair (by hash) of instructions that touched a shared word one after the other on different
        CPUs, one of them writing it, since the last call; 8192 bytes."""

    # -- events --
    tap: bool
    """Whether events are recorded."""
    def tap_capacity(self, event_count: int) -> None:
        """Execution stops when so many events are there, at least 1024 (default 65536), or, as it stops between blocks
        of instructions, some more: mostly a few, never over 6496. Drops unread events, not views."""
    def events(
        self,
    ) -> tuple[
        int, memoryview, memoryview, memoryview, memoryview, memoryview, memoryview, memoryview, memoryview, memoryview
    ]:
        """(count, step, pc, addr, phys, value, kind, cpu, size, info): views of the tap's rows, without copying.

        step, pc, addr, phys, value have format "Q", the others "B"; each has `count` elements, a row (48 bytes) apart:
        `numpy.asarray` takes them as they are. The machine goes on filling these rows.
        """
    def events_take(
        self,
    ) -> tuple[
        int, memoryview, memoryview, memoryview, memoryview, memoryview, memoryview, memoryview, memoryview, memoryview
    ]:
        """The same, and forget the events: the rows are no longer touched, whatever the machine does meanwhile.

        When no view of them is left, the machine fills them again: drop them soon. Raises MemoryError.
        """
    def events_clear(self) -> None: ...

    # -- state --
    def snapshot(self) -> Snapshot: ...
    def restore(self, snapshot: Snapshot) -> None:
        """Raises ValueError if `snapshot` belongs to another machine."""
    def state_hash(self) -> int:
        """64-bit hash of the architectural state: RAM, CPUs, store buffers, TLBs, APICs, devices. Not the step."""
    def memory_hash(self) -> int:
        """64-bit hash of RAM alone."""
    def state_save(self) -> bytes:
        """Everything but RAM, in the layout STATE_VERSION."""
    def state_load(self, state: bytes) -> None:
        """Raises ValueError for a wrong size or version."""
    def pages_written(self) -> list[int]:
        """Page frame numbers that may be non-zero, ascending."""
    def pages_take(self, all: bool, /) -> tuple[bytes, bytes, bytes]:
        """(frames, taken, contents) for a checkpoint.

        `frames` are the numbers (u32 each, ascending) of the page frames that are not all zero; `taken` those of them
        that were written since the last call (or restored, even if to the same), with `all` all; `contents` the 4096
        bytes of each of these.
        """

    # -- memory and registers (for set-up and inspection; never changes TLBs, A/D bits or the step) --
    def read(self, phys: int, size: int) -> bytes:
        """RAM bytes at a physical address. Raises ValueError outside RAM."""
    def write(self, phys: int, data: Buffer) -> None: ...
    def translate(self, cpu: int, addr: int) -> int:
        """Physical address of a linear address by `cpu`'s page tables now (as supervisor); -1 if not mapped."""
    def read_linear(self, cpu: int, addr: int, size: int, *, forward: bool = True) -> bytes:
        """Bytes at a linear address as `cpu` would load them; `forward=False` ignores its store buffer.

        Raises LookupError (with the first bad address as its argument) if a page is not mapped to RAM.
        """
    def registers(self, cpu: int) -> dict[str, int]:
        """rax..r15, rip, rflags, es/cs/ss/ds/fs/gs (+ `_base`), cr0, cr2, cr3, cr4, cr8, gdt_base, gdt_limit, idt_base,
        idt_limit, ldtr, ldtr_base, tr, tr_base, cpl, efer, star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs,
        sysenter_esp, sysenter_eip, dr0..dr3, dr6, dr7, retired (instructions completed), halted, nmi_pending,
        bits (of the code that runs: 16, 32 or 64)."""
    def set_register(self, cpu: int, name: str, value: int) -> None:
        """Set a register of `registers` but ldtr, tr, cpl, retired, halted and bits. A segment (`cs`) becomes a flat
        one of this selector and privilege. Setting a paging register drops all translations, as its instruction would;
        the checks of the instruction are not made.

        Raises KeyError for an unknown name or one that cannot be set."""
    def set_bits(self, cpu: int, bits: int) -> None:
        """Put `cpu` into flat code of 16, 32 or 64 bits, selectors as they are.

        64 sets CR4.PAE, EFER.LME and CR0.PG: page tables of four levels must be in RAM and cr3 must point to them
        first. Raises ValueError for another size."""
    def store_buffer_entries(self, cpu: int) -> list[tuple[int, int, int, int, int]]:
        """Held stores, oldest first: (addr, phys, size, value, pc)."""
    def partial_loads(self, cpu: int) -> tuple[int, ...]:
        """What the instruction at rip has loaded in earlier steps: a load over the border of a cache line takes two.
        Setting rip forgets it."""
    def tlb_entries(self, cpu: int) -> list[tuple[int, int, int, int]]:
        """Cached translations: (linear page, physical page, size in bytes, flags)."""

def decode(code: Buffer, *, bits: int = 32) -> tuple[str, int, str]:
    """(mnemonic, length in bytes, access) of the instruction at the front of `code` by the one instruction table;
    access is "", "R", "W" or "RW" for its explicit memory operand. Raises ValueError if it is not in the table."""

def instructions() -> list[tuple[int, int, int, str, str, str, bool, str]]:
    """The rows of the instruction table: (map, opcode, extension or -1, mnemonic, form, access, lockable, modes).

    map: 0 one-byte opcodes, 1 after 0F, 2 after 0F 38, 3 after F3 0F, 4 after F2 0F 38. modes: the code sizes in which
    the row exists, "16,32,64", "16,32" or "64"."""

@final
class Explorer:
    """Every run of a bounded set, depth first, each from the last state it shares with the one before.

    Needs `Machine.watch` and the tap off; runs start from the machine as it stands.

    Args:
        bounded: False: one run at least of each class of visible steps (dynamic partial order reduction). True: every
            run with at most `bound` deviations from the default order of agents, but for those that come to a state
            that was seen.
        tasks: words that tasks share are visible, too.
        eager: stores drain at once.
        bound: deviations.
        ticks: timer ticks at most, each a deviation.
        frames_max: visible steps of a run at most.
        step_max: where a run ends unfinished.
    Raises ValueError without shared words or with the tap on, MemoryError.
    """

    def __new__(
        cls,
        machine: Machine,
        *,
        bounded: bool = False,
        tasks: bool = False,
        eager: bool = False,
        bound: int = 0,
        ticks: int = 0,
        frames_max: int = ...,
        step_max: int = ...,
    ) -> Explorer: ...
    def next(self) -> str | None:
        """Make the next run, and say why it ended, as `Machine.execute` does; the machine stands at its end. None:
        there are no more."""
    def descend(self, seed: int) -> float:
        """One random descent (Knuth 1975), before the first run: its mean over many seeds is the number of classes of
        equivalent runs, the fewest that `next` can make. Raises ValueError in a bounded search, or after a run."""
    def repeat(self) -> str:
        """Make the last run again from its beginning, so that `Machine.choices_take` has all of it."""
    def path(self) -> bytes:
        """The agents of the last run's visible steps."""
    runs: int
    blocked: int
    """Runs that were given up because they would have repeated what was seen."""
    steps_made: int
    """Visible steps executed."""
    steps_shared: int
    """Visible steps spared by going on from a shared state."""
    depth: int
    """Visible steps of the last run."""
    deviations: int
    """Of the last run."""
    cut: str
    """Why runs may be missing, "" if none can be."""
