"""Which words are shared: from events made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from machine import Machine
from recorder.sharing import WORD_BYTES, Sharing
from traces.schema import KINDS, STORE

SWITCH = 2
RAM_BYTES = 1 << 16


def store(cpu: int, word: int) -> tuple[int, ...]:
    return 0, 0, 0, word * WORD_BYTES, word * WORD_BYTES, 1, STORE, cpu, WORD_BYTES, 0


def switch(cpu: int, before: int, after: int) -> tuple[int, ...]:
    return 0, 0, 0, after, SWITCH, before, KINDS["trace"], cpu, 0, 0


def take(sharing: Sharing, rows: Sequence[tuple[int, ...]]) -> None:
    types = [np.uint64] * 6 + [np.uint8] * 4
    sharing.take(tuple(np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)))


def test_a_task_that_an_earlier_run_has_shown() -> None:
    """Who ran until the first switch is known only at that switch, and may be known already: one task, not two."""
    sharing = Sharing(Machine(cpus=2, ram_bytes=RAM_BYTES), SWITCH)
    take(sharing, [store(0, 7), switch(0, 100, 200), store(0, 8)])
    sharing.new_run()
    take(sharing, [store(0, 7), store(0, 9)])
    take(sharing, [switch(0, 100, 300), store(0, 9)])
    take(sharing, [store(1, 10), switch(1, 400, 500), store(1, 11), store(1, 8)])
    assert sharing.words(tasks=False).tolist() == [8]
    assert sharing.words(tasks=True).tolist() == [8, 9]


def test_tasks_of_two_cpus_are_two() -> None:
    sharing = Sharing(Machine(cpus=2, ram_bytes=RAM_BYTES), SWITCH)
    for _ in range(3):
        sharing.new_run()
        take(sharing, [store(0, 7), store(1, 8)])
        take(sharing, [switch(0, 100, 200), switch(1, 300, 400), store(0, 7), store(1, 9)])
    assert sharing.words(tasks=False).tolist() == []
    assert sharing.words(tasks=True).tolist() == [7]
    take(sharing, [store(1, 7)])
    assert sharing.words(tasks=False).tolist() == [7]
