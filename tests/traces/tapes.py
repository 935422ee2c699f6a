"""Small tapes made without a machine, for tests of the container."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from traces import Event, Events, TapeFooter, TapeHeader, TapeWriter
from traces.schema import DRAINED, HOLD, KINDS, RECORD, ROOM, Op, RecordArray
from traces.writer import Pages

IMAGE = b"\x7fELF, or so it says. " * 40
CONSOLE = b"hello\n"


def header(**changed: object) -> TapeHeader:
    fields: dict[str, object] = {
        "tool": "racetape 0.1.0", "scenario": "wrong-zone-small", "variant": "buggy", "configuration": "up",
        "cpus": 2, "ram_bytes": 1 << 20, "store_buffer": 8, "command_line": "scenario=wrong-zone-small",
        "image_bytes": len(IMAGE), "image_sha256": sha256(IMAGE).digest(), "ready_step": 100, "events_first": 100,
        "strategy": "default", "seed": 7,
    }  # fmt: skip
    return TapeHeader(**(fields | changed))  # type: ignore[arg-type]


def choices(*rows: tuple[int, int, int] | tuple[int, int, int, int]) -> RecordArray:
    """Records from (op, cpu, arg) or (op, cpu, arg, flags)."""
    return np.array([(op, cpu, rest[0] if rest else 0, 0, arg) for op, cpu, arg, *rest in rows], RECORD)


def some_events(first: int, end: int, count: int, seed: int = 1) -> Events:
    """`count` events of plausible looks in steps `first` to `end` - 1."""
    rng = np.random.default_rng(seed)
    step = np.sort(rng.integers(first, end, count, dtype=np.uint64))
    phys = np.uint64(0x100000) + np.uint64(4) * rng.integers(0, 4096, count, dtype=np.uint64)
    return Events(
        step,
        np.uint64(0xC0001000) + rng.integers(0, 9000, count, dtype=np.uint64),
        phys + np.uint64(0xC0000000),
        phys,
        rng.integers(0, 1 << 32, count, dtype=np.uint64),
        rng.choice(np.array([KINDS["load"], KINDS["store"]], np.uint8), count),
        rng.integers(0, 2, count, dtype=np.uint8),
        np.full(count, 4, np.uint8),
        rng.choice(np.array([0, DRAINED], np.uint8), count),
    )


def page(fill: int) -> bytes:
    return bytes([fill]) * 4096


def pages(contents: dict[int, bytes], taken: Sequence[int] | None = None) -> Pages:
    """What `Machine.pages_take` would give if these frames were not zero, and these (None: all) taken."""
    chosen = list(contents) if taken is None else taken
    frames, numbers = (np.array(list(f), "<u4").tobytes() for f in (contents, chosen))
    return frames, numbers, b"".join(contents[frame] for frame in chosen)


def write_small(
    path: Path, *, layer_b: bool = True, finish: bool = True, events: Sequence[Event] = (), background: bool = False
) -> Path:
    """A tape of 400 steps in three choices chunks, with events and two checkpoints."""
    with TapeWriter(path, background=background) as tape:
        tape.begin(header(), IMAGE)
        tape.choices(choices((Op.RUN, 0, 100)), 100, 0x1111)
        if layer_b:
            tape.checkpoint(100, b"state of 100", 1, 0x1111, pages({1: page(1), 2: page(2), 9: page(1)}))
        mixed = choices(
            (Op.RUN, 0, 40), (Op.RUN, 1, 50, HOLD | ROOM), (Op.DRAIN, 1, 3), (Op.IRQ, 0, 32),
            (Op.CHOICE, 1, 2), (Op.EVICT, 0, 0xC0000000), (Op.RUN, 1, 54),
        )  # fmt: skip
        tape.choices(mixed, 250, 0x2222)
        if layer_b:
            tape.events(Events.from_rows(events) if events else some_events(100, 250, 300), 250, 0x2222)
            tape.checkpoint(250, b"state of 250", 1, 0x2222, pages({1: page(1), 2: page(3)}, [2]))
        tape.choices(choices((Op.RUN, 0, 150)), 400, 0x3333)
        if layer_b:
            tape.events(some_events(250, 400, 200, 2), 400, 0x3333)
        if finish:
            tape.finish(
                TapeFooter(
                    stop="exit", exit_status=0, steps=400, state_hash=0x3333, memory_hash=0x4444, events=500,
                    console_sha256=sha256(CONSOLE).digest(),
                )
            )  # fmt: skip
    return path
