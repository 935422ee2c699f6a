"""Which words of memory several CPUs or tasks share, learned from runs.

A word is shared if two contexts touch it and one of them writes it; a context is a CPU, or a task where the guest says
which one runs (tracepoint `sched_switch`). What is not shared is local to one context, and schedules that differ only
in when it happens are the same.

What no run has shown is not known: a search at visible steps is about the words that these runs share, and says so.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from machine import Machine
from traces.schema import AD_UPDATE, DRAIN, KINDS, LOAD, STORE, BoolArray, U8Array, U64Array

WORD_BYTES: Final = 4
"""Of `Machine.watch`."""

_TRACE: Final = KINDS["trace"]
_MEMORY: Final = (LOAD, STORE, DRAIN, AD_UPDATE, KINDS["walk"])
_WRITES: Final = (STORE, DRAIN, AD_UPDATE)
_CONTEXT_BITS: Final = 20
_MERGE_ROWS: Final = 64


class Sharing:
    """Takes in events, and says which words are shared.

    Args:
        machine: whose events they are.
        switch: identifier of the tracepoint at which tasks are switched (0: none).
    """

    def __init__(self, machine: Machine, switch: int) -> None:
        self._machine, self._switch = machine, switch
        self._contexts: dict[tuple[int, int | None], int] = {}
        # By number of a context, from 1: which CPU it is on, and which context it has turned out to be.
        self._cpu_of, self._context_of = [0], [0]
        self._current: list[int | None] = [None] * machine.cpus
        self._touched: list[U64Array] = []
        self._written: list[U64Array] = []

    def new_run(self) -> None:
        """What follows is another run, in which nobody knows yet who runs where."""
        self._current = [None] * self._machine.cpus

    def take(self, columns: tuple[Any, ...]) -> None:
        """Take in the events of a run in order, as `Machine.events` gives them."""
        _count, _step, _pc, addr, phys, value, kind, cpu, size, _info = (np.asarray(column) for column in columns)
        context = np.zeros(len(kind), np.uint64)
        for number in range(self._machine.cpus):
            self._assign(context, np.flatnonzero(cpu == number), number, kind, phys, addr, value)
        memory = np.isin(kind, _MEMORY) & (phys < self._machine.ram_bytes)
        self._note(phys[memory], size[memory], context[memory], np.isin(kind[memory], _WRITES))

    def words(self, *, tasks: bool) -> U64Array:
        """Numbers of the words that CPUs share, or (`tasks`) that CPUs or tasks do, in order."""
        keys = self._merge()
        context = np.array(self._context_of if tasks else self._cpu_of, np.uint64)
        mask = np.uint64((1 << _CONTEXT_BITS) - 1)
        keys = _distinct(keys & ~mask | context[keys & mask])
        words = keys >> np.uint64(_CONTEXT_BITS)
        shared = words[1:][words[1:] == words[:-1]]
        return np.intersect1d(_distinct(shared), _merged(self._written), assume_unique=True)

    def _merge(self) -> U64Array:
        self._touched = [_merged(self._touched)]
        return self._touched[0]

    def _assign(
        self,
        context: U64Array,
        rows: npt.NDArray[np.intp],
        cpu: int,
        kind: U8Array,
        phys: U64Array,
        addr: U64Array,
        value: U64Array,
    ) -> None:
        """Write down for the events of one CPU who they are of."""
        switches = rows[(kind[rows] == _TRACE) & (phys[rows] == self._switch)] if self._switch else rows[:0]
        if len(switches) and self._current[cpu] is None:
            # Who was running until the first switch is known only now.
            unknown = self._contexts.pop((cpu, None), None)
            self._current[cpu] = int(value[switches[0]])
            if unknown is not None:
                # An earlier run may have shown that task already.
                self._context_of[unknown] = self._contexts.setdefault((cpu, self._current[cpu]), unknown)
        bounds = [0, *np.searchsorted(rows, switches).tolist(), len(rows)]
        for i, (first, last) in enumerate(pairwise(bounds)):
            if i:
                self._current[cpu] = int(addr[switches[i - 1]])
            context[rows[first:last]] = self._number((cpu, self._current[cpu]))

    def _number(self, key: tuple[int, int | None]) -> int:
        if key not in self._contexts:
            number = self._contexts[key] = len(self._cpu_of)
            self._cpu_of.append(key[0])
            self._context_of.append(number)
        return self._contexts[key]

    def _note(self, phys: U64Array, size: U8Array, context: U64Array, writes: BoolArray) -> None:
        first = phys // np.uint64(WORD_BYTES)
        last = (phys + size.astype(np.uint64) - np.uint64(1)) // np.uint64(WORD_BYTES)
        for extra in range(3):  # eight bytes touch at most three words
            word = first + np.uint64(extra)
            inside = word <= last
            if not inside.any():
                break
            self._touched.append(_distinct(word[inside] << np.uint64(_CONTEXT_BITS) | context[inside]))
            self._written.append(_distinct(word[inside & writes]))
        for rows in (self._touched, self._written):
            if len(rows) >= _MERGE_ROWS:
                rows[:] = [_merged(rows)]


def _merged(rows: list[U64Array]) -> U64Array:
    return _distinct(np.concatenate(rows)) if rows else np.empty(0, np.uint64)


def _distinct(values: U64Array) -> U64Array:
    """In order, each once: `np.unique`, whose hash table (since NumPy 2.3) is several times slower than sorting."""
    values = np.sort(values)
    distinct: U64Array = values[np.concatenate((np.ones(min(1, len(values)), np.bool_), values[1:] != values[:-1]))]
    return distinct


def bitmap(words: U64Array, ram_bytes: int) -> bytes:
    """The words as `Machine.watch` takes them."""
    bits = np.zeros(ram_bytes // WORD_BYTES, np.uint8)
    bits[words.astype(np.int64)] = 1
    return np.packbits(bits, bitorder="little").tobytes()
