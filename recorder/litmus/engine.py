"""One test on one machine, a choice at a time: what the two ways to run a test have in common.

A *choice* is the next instruction of a thread, with the local ones behind it, or the drain of a thread's oldest held
store. If a thread's next instruction is local, that is the only choice offered: it commutes with every step of every
other thread and with the thread's own drains, and none of them can disable it (a persistent set of one), so no state
in which nothing can go on is lost, and the final states are such states.

What a choice does depends on the thread's own registers and store buffer and on memory, on nothing else: each such
pair is run on the machine once, when it first comes up, in the very state in which it came up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, NamedTuple

from machine import _core
from recorder.litmus.assembler import Assembled
from recorder.litmus.errors import LitmusError
from recorder.litmus.instructions import Instruction, Kind
from recorder.litmus.stage import STORE_BUFFER, Stage, record
from recorder.litmus.threads import Interned, Key, Runs, Step, Store, ThreadState

NEAR_FULL: Final = 4
"""With this little room in a store buffer, an instruction that waits may be waiting for room."""

PLAN_BYTES_MAX: Final = 64 * 16
"""Longest way from a snapshot to a state: going it again must stay cheap."""

ENTRIES_MAX: Final = 2
"""Most entries that one store takes: it may cross a cache line."""


class Choice(NamedTuple):
    """What happens next: a thread goes on, or (`drain`) its oldest held store reaches memory."""

    thread: int
    drain: bool = False


class Moment(NamedTuple):
    """A state of the test, and how to come to it: a plan from a snapshot of the machine (None: the key is enough)."""

    key: Key
    base: _core.Snapshot | None
    plan: bytes = b""


class Effect(NamedTuple):
    """What a choice does: the thread's state and memory after it, and the steps it took (0: it has to wait)."""

    thread: int
    memory: int
    steps: int


class Engine(ABC):
    """Runs one test under one model. `cut` says why outcomes may be missing, "" while none can be."""

    run_flags: int = 0
    """Flags of RUN records."""
    stores_local: bool = True
    """Whether a plain store needs no scheduling point: it goes into a buffer that nobody else sees."""
    split: bool = False
    """Whether a store must drain before its thread goes on."""
    whole: bool = False
    """Whether an instruction that takes several steps has none of others in between."""

    def __init__(self, assembled: Assembled, cpus: int) -> None:
        self.assembled = assembled
        self.stage = Stage(assembled, cpus)
        self.machine = self.stage.machine
        self.threads: Interned[ThreadState] = Interned()
        self.memories: Interned[bytes] = Interned()
        self.cut = ""
        self._options: list[dict[int, tuple[bool, list[Choice]]]] = [{} for _ in assembled.threads]
        self._records: dict[tuple[Choice, int], bytes] = {}
        self._effects: dict[tuple[Choice, int, int], Effect] = {}
        self._runs = [Runs(code, stores=self.stores_local, split=self.split) for code in assembled.threads]

    @abstractmethod
    def first(self) -> Moment:
        """The initial state."""

    @abstractmethod
    def rebase(self, moment: Moment) -> Moment:
        """The same state with an empty plan."""

    @abstractmethod
    def go_to(self, moment: Moment, thread: int) -> None:
        """Bring the machine to a state, about to run `thread`."""

    @abstractmethod
    def cpu_of(self, thread: int) -> int:
        """The CPU that runs a thread."""

    def choices(self, key: Key) -> list[Choice]:
        """What may happen next; a choice may still turn out to have to wait. Nothing: the state is final."""
        found: list[Choice] = []
        for thread, known in enumerate(self._options):
            number = key[thread]
            alone, options = known.get(number) or known.setdefault(number, self._thread_options(thread, number))
            if alone:
                return options
            found += options
        return found

    def _thread_options(self, thread: int, number: int) -> tuple[bool, list[Choice]]:
        """What a thread in this state may do, and whether that is local, so that nothing else need be offered."""
        state = self.threads[number]
        options: list[Choice] = []
        if not self.is_over(thread, state):
            kind = self.instruction(thread, state).kind
            run = self._runs[thread].at(state.rip)
            waits = self.split or kind in (Kind.FENCE, Kind.LOCKED)
            if not (waits and state.stores):
                # With little room the run may have to wait for a drain: then both must be offered.
                has_room = len(state.stores) + ENTRIES_MAX * run <= STORE_BUFFER
                if (run and has_room) or kind is Kind.FENCE:
                    return True, [Choice(thread)]
                options.append(Choice(thread))
        if state.stores:
            options.append(Choice(thread, True))
        return False, options

    def is_over(self, thread: int, state: ThreadState) -> bool:
        """Whether a thread has executed its last instruction."""
        return state.rip == self.assembled.threads[thread].end

    def instruction(self, thread: int, state: ThreadState) -> Instruction:
        """The next instruction of a thread that is not over."""
        row = self.assembled.threads[thread].instructions.get(state.rip)
        if row is None:
            raise LitmusError(self.assembled.test.path, 0, f"a thread jumps to {state.rip:#x}, where none of it lies")
        return row

    def take(self, moment: Moment, choice: Choice) -> Moment | None:
        """The state after `choice` in `moment`, or None if the thread has to wait.

        Raises LitmusError if an instruction faults.
        """
        key, thread = moment.key, choice.thread
        known = self._effects.get((choice, key[thread], key[-1]))
        if known is None:
            known = self._effects[choice, key[thread], key[-1]] = self._run(moment, choice)
        if not known.steps:
            return None
        after = (*key[:thread], known.thread, *key[thread + 1 : -1], known.memory)
        following = Moment(after, moment.base, moment.plan + self._record(choice, known.steps))
        return following if len(following.plan) < PLAN_BYTES_MAX else self.rebase(following)

    def _run(self, moment: Moment, choice: Choice) -> Effect:
        """Do `choice` in `moment` on the machine."""
        self.go_to(moment, choice.thread)
        before = self.threads[moment.key[choice.thread]]
        first = self.machine.step
        plan = self._record(choice, self._length(choice, before))
        reason, _, _ = self.machine.execute(plan, exact=True)
        while reason == "plan" and self.whole and self.machine.partial_loads(self.cpu_of(choice.thread)):
            reason, _, _ = self.machine.execute(self._record(choice, 1), exact=True)
        if reason == "plan" and (more := self._more(choice, before)):
            reason, _, _ = self.machine.execute(self._record(choice, more), exact=True)
        plan = self._record(choice, self.machine.step - first + 1)
        if reason not in ("plan", "blocked"):
            self.go_to(moment, choice.thread)
            self.stage.blame(self.cpu_of(choice.thread), choice.thread, reason, plan)
        if reason == "blocked" and len(before.stores) >= STORE_BUFFER - NEAR_FULL:
            self.cut = f"a store buffer of {STORE_BUFFER} stores was full"
        thread = self.threads.number(self.state(choice.thread))
        return Effect(thread, self.memories.number(self.stage.memory()), self.machine.step - first)

    def _length(self, choice: Choice, state: ThreadState) -> int:
        """Steps that a choice takes, as far as that is known before it is made."""
        return 1 if choice.drain else self._runs[choice.thread].at(state.rip) or 1

    def _more(self, choice: Choice, before: ThreadState) -> int:
        """Steps that follow without a scheduling point, now that those of `_length` are done."""
        runs = self._runs[choice.thread]
        if choice.drain or runs.at(before.rip) or self.machine.partial_loads(self.cpu_of(choice.thread)):
            return 0
        row = self.instruction(choice.thread, before)
        return 0 if self.split or row.kind is Kind.REPEATED else runs.at(before.rip + row.size_bytes)

    def state(self, thread: int) -> ThreadState:
        """A thread's state as the machine has it."""
        cpu = self.cpu_of(thread)
        registers = self.machine.registers(cpu)
        stores = self.machine.store_buffer_entries(cpu)
        partial = self.machine.partial_loads(cpu)
        return ThreadState(
            registers["rip"],
            registers["rflags"],
            tuple([registers[name] for name in self.stage.register_names]),
            tuple([Store(addr, size, value) for addr, _, size, value, _ in stores]) if stores else (),
            partial,
        )

    def narrate(self, moment: Moment, choice: Choice) -> tuple[list[Step], bytes]:
        """Do `choice` in `moment`, a step at a time; the steps, and their plan with a record for each."""
        self.take(moment, choice)
        count = self._effects[choice, moment.key[choice.thread], moment.key[-1]].steps
        self.go_to(moment, choice.thread)
        cpu = self.cpu_of(choice.thread)
        steps: list[Step] = []
        plan = self._record(choice, 1)
        for _ in range(count):
            stored, instruction = None, None
            if choice.drain:
                addr, _, size, value, _ = self.machine.store_buffer_entries(cpu)[0]
                stored = Store(addr, size, value)
            else:
                rip = self.machine.registers(cpu)["rip"]
                instruction = self.assembled.threads[choice.thread].instructions[rip]
            reason, _, _ = self.machine.execute(plan, exact=True)
            assert reason == "plan", reason
            steps.append(Step(choice.thread, instruction, stored, bool(self.machine.partial_loads(cpu))))
        return steps, plan * count

    def _record(self, choice: Choice, count: int) -> bytes:
        known = self._records.get((choice, count))
        if known is None:
            cpu = self.cpu_of(choice.thread)
            known = record(_core.DRAIN, cpu, count) if choice.drain else record(_core.RUN, cpu, count, self.run_flags)
            self._records[choice, count] = known
        return known
