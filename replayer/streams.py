"""What each flow of control of a run did, as streams of events that can be laid beside those of another run.

A *context* is a task, or an interrupt handler and the task it came in. What a context does depends on the schedule
only through the values it loads; so two runs of one guest agree in every context's stream up to the first load of
another value, however differently they were scheduled. That load is what `racetape diff` looks for.

What is left out: page walks, translations and drains, which are the hardware's; the frames that interrupts push and
what handlers do on the stack of whom they interrupt; the way through the scheduler's switch, where one context turns
into another. Of a load that is repeated until it reads what was waited for, the last one counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from traces import Event, Events
from traces.schema import IMPLICIT, KINDS, BoolArray, U64Array

LOAD: Final = KINDS["load"]
STORE: Final = KINDS["store"]
_TRACE, _FAULT, _IRET, _SOFT = (KINDS[name] for name in ("trace", "fault", "iret", "soft_interrupt"))
_INTERRUPT, _NMI = KINDS["interrupt"], KINDS["nmi"]
_LEFT_OUT: Final = np.isin(
    np.arange(256),
    [
        KINDS[name]
        for name in (
            *("drain", "walk", "ad_update", "tlb_fill", "tlb_evict", "iret", "interrupt", "nmi"),
            "start",
        )
    ],
)
_STACK_BYTES: Final = 8192
"""Of a task in kernel mode, at most; aligned."""
_FRAME_EVENTS: Final = 64
"""Within so many events of an interrupt its frame is pushed."""
_SWITCH_EVENTS: Final = 4096
"""Within so many events a switch is over."""

Context = tuple[str, int, int]
"""What it is ("task", "interrupt", "cpu"), its number (task structure, vector, CPU); of a handler, in which task."""

Token = Callable[[U64Array], U64Array]
"""Program counters -> numbers below 2^52 that are equal where two runs are at the same place."""


@dataclass(eq=False)
class Stream:
    """What a context did and nobody has compared yet."""

    parts: list[Events] = field(default_factory=list)
    tokens: list[U64Array] = field(default_factory=list)
    count: int = 0

    def add(self, events: Events, tokens: U64Array) -> None:
        """More of it, in order."""
        if len(events):
            self.parts.append(events)
            self.tokens.append(tokens)
            self.count += len(events)

    def all(self) -> tuple[Events, U64Array]:
        """All of it."""
        if len(self.parts) != 1:
            self.parts = [Events.concatenate(self.parts)]
            self.tokens = [np.concatenate(self.tokens)] if self.tokens else [np.empty(0, np.uint64)]
        return self.parts[0], self.tokens[0]

    def drop(self, count: int) -> None:
        """The first `count` are done with."""
        events, tokens = self.all()
        self.parts, self.tokens, self.count = [events[count:]], [tokens[count:]], self.count - count

    def clear(self) -> None:
        """All of it is done with."""
        self.parts, self.tokens, self.count = [], [], 0


@dataclass
class _Cpu:
    """Who runs on a CPU.

    Attributes:
        task: the task's own context.
        leaving: the function that has announced a switch, until it returns: nothing counts meanwhile.
        leaving_in: the context in which that is.
        patience: events within which it should.
    """

    task: Context
    leaving: str | None = None
    leaving_in: Context | None = None
    patience: int = 0


class Splitter:
    """Splits one run's events, given in order, into contexts.

    Args:
        cpus: of the machine.
        switch: identifier of the tracepoint `sched_switch` (previous task, next task); None: every CPU is one task.
        token: what makes places equal.
        function: the name of the function that an address lies in.
        is_code: whether it lies in one.
    """

    def __init__(
        self,
        cpus: int,
        switch: int | None,
        token: Token,
        function: Callable[[int], str],
        is_code: Callable[[int], bool],
    ) -> None:
        self._switch, self._token, self._function, self._is_code = switch, token, function, is_code
        self._cpus = [_Cpu(("cpu", cpu, 0)) for cpu in range(cpus)]
        self._nested: dict[Context, list[Context]] = {}
        self._known: dict[int, Context] = {}  # by task: what ran on a CPU before anybody said which task it was
        self._stack_of: dict[Context, int] = {}
        self._last: dict[Context, tuple[Events, U64Array]] = {}  # a load that may be repeated
        self.streams: dict[Context, Stream] = {}

    def take(self, events: Events) -> None:
        """The next events; what they add is in `streams`."""
        own = [np.flatnonzero(events.cpu == cpu) for cpu in range(len(self._cpus))]
        begin = [0] * len(own)
        marks = np.isin(events.kind, (_FAULT, _SOFT, _INTERRUPT, _NMI, _IRET))
        if self._switch is not None:
            marks |= (events.kind == _TRACE) & (events.phys == np.uint64(self._switch))
        # In the order in which it happened: a task may go from CPU to CPU.
        for at in np.flatnonzero(marks).tolist():
            cpu = int(events.cpu[at])
            end = int(np.searchsorted(own[cpu], at, side="right"))
            self._add(cpu, events[own[cpu][begin[cpu] : end]])
            begin[cpu] = end
            self._turn(cpu, events.row(at), events[own[cpu][end : end + _FRAME_EVENTS]])
        for cpu, rows in enumerate(own):
            self._add(cpu, events[rows[begin[cpu] :]])

    def finish(self) -> None:
        """There are no more."""
        for context, (events, tokens) in self._last.items():
            self._stream(context).add(events, tokens)
        self._last = {}

    def _turn(self, cpu: int, row: Event, after: Events) -> None:
        """What a mark changes; `after` is what the CPU does next."""
        state = self._cpus[cpu]
        nested = self._nested.setdefault(state.task, [])
        if row.kind == _TRACE:
            self._known.setdefault(row.value, state.task)
            state.task = self._known.setdefault(row.addr, ("task", row.addr, 0))
            state.leaving, state.patience = self._function(row.pc), _SWITCH_EVENTS
            state.leaving_in = self._context(cpu)
        elif row.kind == _IRET:
            if nested:
                nested.pop()
        elif row.kind in (_INTERRUPT, _NMI):
            nested.append(("interrupt", row.info, state.task[1]))
            frames = after.addr[(after.kind == STORE) & ((after.info & IMPLICIT) != 0)]
            self._stack_of[nested[-1]] = int(frames[0]) if len(frames) else -1
        else:
            nested.append(self._context(cpu))  # a fault is something that the context itself does

    def _context(self, cpu: int) -> Context:
        task = self._cpus[cpu].task
        nested = self._nested.get(task)
        return nested[-1] if nested else task

    def _stream(self, context: Context) -> Stream:
        return self.streams.setdefault(context, Stream())

    def _add(self, cpu: int, events: Events) -> None:
        context, state = self._context(cpu), self._cpus[cpu]
        if state.leaving is not None and context == state.leaving_in and len(events):
            events = events[self._leave(state, events) :]
        keep: BoolArray = ~_LEFT_OUT[events.kind] & ~(
            ((events.kind == LOAD) | (events.kind == STORE)) & ((events.info & IMPLICIT) != 0)
        )
        stack = self._stack_of.get(context, -1)
        if context[0] == "interrupt" and stack >= 0:
            low = np.uint64(stack & ~(_STACK_BYTES - 1))
            keep &= (events.addr < low) | (events.addr > np.uint64(stack))
        events = events[keep]
        if not len(events):
            return
        tokens = self._tokens(events)
        if context in self._last:
            before = self._last.pop(context)
            events, tokens = Events.concatenate([before[0], events]), np.concatenate([before[1], tokens])
        again = (
            (events.kind[1:] == LOAD) & (tokens[1:] == tokens[:-1]) & (events.addr[1:] == events.addr[:-1])
        )  # then the one before is not the last
        fresh = np.append(~again, True)
        events, tokens = events[fresh], tokens[fresh]
        if events.kind[-1] == LOAD:
            self._last[context] = (events[-1:], tokens[-1:])
            events, tokens = events[:-1], tokens[:-1]
        self._stream(context).add(events, tokens)

    def _leave(self, state: _Cpu, events: Events) -> int:
        """Index of the first event behind the scheduler's switch: behind the return from the function that announced
        it, or into another one of a task that is new. Notes that it is over."""
        loads = events.kind == LOAD
        for index in range(len(events)):
            state.patience -= 1
            if state.patience < 0:
                state.leaving = None
                return index
            if not loads[index] or not self._switching(int(events.pc[index]), state):
                continue
            target = int(events.value[index])
            if self._is_code(target) and not self._switching(target, state):
                state.leaving = None
                return index + 1
        return len(events)

    def _switching(self, pc: int, state: _Cpu) -> bool:
        name = self._function(pc)
        return name == state.leaving or "switch" in name

    def _tokens(self, events: Events) -> U64Array:
        place = self._token(events.pc) << np.uint64(12)
        rest = (events.kind.astype(np.uint64) << np.uint64(5)) | np.minimum(events.size, 31).astype(np.uint64)
        tokens: npt.NDArray[np.uint64] = place | rest
        return tokens
