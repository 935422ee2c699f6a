"""Where two streams of events part."""

from __future__ import annotations

import numpy as np

from machine.errors import DivergenceError
from traces import Event, Events


def describe_event(event: Event | None) -> str:
    """One line, e.g. `store 4 bytes phys 0x2000 value 0x7 by cpu0 at pc 0x100004`."""
    if event is None:
        return "nothing"
    parts = [event.name]
    if event.size:
        parts.append(f"size {event.size}")
    parts += [f"{name} {value:#x}" for name, value in (("addr", event.addr), ("phys", event.phys)) if value]
    parts.append(f"value {event.value:#x}")
    if event.info:
        parts.append(f"info {event.info:#x}")
    return f"{' '.join(parts)} by cpu{event.cpu} at pc {event.pc:#x}"


def first_difference(expected: Events, got: Events, *, complete: bool = True) -> DivergenceError | None:
    """The first event that differs, as an error; None if there is none.

    With `complete` False, `got` may end early: only what it has is compared.
    """
    count = min(len(expected), len(got))
    differs = np.zeros(count, np.bool_)
    for a, b in zip(expected.columns(), got.columns(), strict=True):
        differs |= a[:count] != b[:count]
    if differs.any():
        at = int(np.argmax(differs))
        return _parted(expected.row(at), got.row(at))
    if len(got) > count:
        return _parted(None, got.row(count))
    if complete and len(expected) > count:
        return _parted(expected.row(count), None)
    return None


def _parted(expected: Event | None, got: Event | None) -> DivergenceError:
    # Whoever comes first did something that the other one did not do in that step.
    first = min((e for e in (expected, got) if e is not None), key=lambda e: e.step)
    wanted = expected if expected is not None and expected.step == first.step else None
    found = got if got is not None and got.step == first.step else None
    return DivergenceError(
        f"replay differs at step {first.step} (cpu{first.cpu}): recorded {describe_event(wanted)}, replayed "
        f"{describe_event(found)}",
        step=first.step,
        cpu=first.cpu,
        expected=describe_event(wanted),
        got=describe_event(found),
    )
