"""Random walk: runs of random length on random CPUs, stores held at random, drains, interrupts and evictions at random.

The baseline that every cleverer strategy must beat. Two habits make it find more than uniform choice would:
its temper (typical length of a run, how often stores are held, how often interrupts come) is itself drawn once per
run (swarm testing: Groce, Zhang, Eide, Chen, Regehr, ISSTA 2012), and run lengths are drawn over their magnitude, so
that single steps and long stretches both occur.

Draws raw words of PCG64 only, whose stream is fixed for ever; numpy's distributions may change between versions.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from machine import Machine
from recorder.schedule import auto, deliverable
from traces.schema import HOLD, RECORD, Op, RecordArray, U64Array

BATCH_RECORDS: Final = 256
WALK_STEPS: Final = 1 << 19
"""After so many steps the default schedule takes over, so that every run ends that can."""

_CHOICES_TRIED: Final = 4


class RandomWalk:
    """See the module.

    Args:
        walk_steps: number of steps after which the default schedule takes over.
    """

    name = "random-walk"
    exact = False
    visible = False
    stop = "steps"

    def __init__(self, walk_steps: int = WALK_STEPS) -> None:
        self.walk_steps = walk_steps

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw the temper of the run."""
        self._bits = np.random.PCG64(seed)
        self._end_step = machine.step + self.walk_steps
        self._vectors: list[int] = []
        temper = int(self._bits.random_raw())
        self._run_bits = 2 + temper % 10  # runs of 1 to 2^(2..11) steps
        self._hold = (temper >> 8) % 192  # out of 256
        self._drain = (temper >> 16) % 96  # out of 256
        # Interrupts come so many steps apart on average, not records: otherwise a run of short stretches would do
        # nothing but handle them.
        gap_steps = 64 << (temper >> 24) % 10
        run_steps = sum((2 << m) + 1 for m in range(self._run_bits)) // (2 * self._run_bits)
        self._irq = min((run_steps << 16) // gap_steps, 1 << 14)  # out of 65536

    def choose(self, machine: Machine) -> RecordArray:
        """A batch of random records; at its end some default steps, which find out if nothing can run any more."""
        if machine.step >= self._end_step:
            return auto()
        self._look_for_vectors(machine)
        words = self._draw(BATCH_RECORDS)
        batch = np.zeros(BATCH_RECORDS + 1, RECORD)
        walk = batch[:-1]
        walk["op"] = Op.RUN
        walk["cpu"] = (words >> np.uint64(8)) % np.uint64(machine.cpus)
        # The length's magnitude first, then the length: bits 16..23 and 24..39.
        magnitude = (words >> np.uint64(16) & np.uint64(0xFF)) % np.uint64(self._run_bits)
        walk["arg"] = (words >> np.uint64(24) & np.uint64(0xFFFF)) % (np.uint64(2) << magnitude) + np.uint64(1)
        walk["flags"] = np.where((words >> np.uint64(40) & np.uint64(0xFF)) < self._hold, HOLD, 0)
        self._sprinkle(machine, walk, words)
        batch[-1] = (Op.AUTO, 0, 0, 0, 64)
        return batch

    def answer(self, machine: Machine, cpu: int) -> int:
        """0 or 1: legal wherever there is a choice at all, but the recorder falls back to 0."""
        return int(self._bits.random_raw() & 1)

    def _sprinkle(self, machine: Machine, walk: RecordArray, words: U64Array) -> None:
        """Turn some of the runs into drains, interrupts, answers and evictions."""
        die = (words & np.uint64(0xFF)).astype(np.int64)
        extra = words >> np.uint64(48)
        drain = die < self._drain
        walk["op"][drain] = Op.DRAIN
        walk["arg"][drain] = extra[drain] % np.uint64(4) + np.uint64(1)
        irq = ((self._draw(len(walk)) & np.uint64(0xFFFF)) < self._irq) & ~drain
        if self._vectors:
            walk["op"][irq] = Op.IRQ
            walk["arg"][irq] = np.array(self._vectors, np.uint64)[extra[irq] % np.uint64(len(self._vectors))]
        else:
            irq[:] = False
        answer = (die >= 120) & (die < 128) & ~irq
        walk["op"][answer] = Op.CHOICE
        walk["arg"][answer] = extra[answer] % np.uint64(_CHOICES_TRIED)
        walk["flags"][drain | irq | answer] = 0
        if not words[0] >> np.uint64(40) & np.uint64(7):
            # One batch in eight: a translation is lost in the middle of it.
            row = walk[len(walk) // 2]
            pages = machine.tlb_entries(int(row["cpu"]))
            if pages:
                row["op"], row["flags"] = Op.EVICT, 0
                row["arg"] = pages[int(extra[1]) % len(pages)][0]

    def _look_for_vectors(self, machine: Machine) -> None:
        """Learn which vectors can be delivered: the timer's, which the guest chose, and those of pending IPIs."""
        for _, vector in deliverable(machine):
            if vector not in self._vectors:
                self._vectors.append(vector)

    def _draw(self, count: int) -> U64Array:
        words = self._bits.random_raw(count)
        assert isinstance(words, np.ndarray)
        return words.astype(np.uint64)
