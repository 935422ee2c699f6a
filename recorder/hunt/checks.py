"""What fails a run. A check looks at the machine when a run is over and says what is wrong, or None."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from machine import Machine
from machine.pool import FreedUse
from machine.symbols import Frame
from recorder.record import Prepared

_OOPS: Final = re.compile(r"Oops: vector (?P<vector>[0-9a-f]+) .*\bip (?P<ip>[0-9a-f]+)")
_SOURCE: Final = re.compile(r"\S+\.[cSh]:\d+")
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{6,16}\b|\b\d+\b", re.IGNORECASE)
_WARNING: Final = re.compile(r"^(?:\[[^\]]*\] *)?(?P<text>WARNING: .*)$", re.MULTILINE)
"""As Linux's WARN says it, with a time before it or not."""
_LOUD: Final = re.compile(r"BUG|Oops|WARN|assert", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed.

    Attributes:
        cause: equal for the same bug under other schedules: no addresses, no counts.
        text: what is wrong in this run, one line.
    """

    cause: str
    text: str


Check = Callable[[Machine], Failure | None]
"""Looks at a machine whose run is over. Must not change it."""

Checks = Callable[[Prepared], Sequence[Check]]
"""Makes the checks for a scenario; called once in each process, with the machine at `ready`. A module's function."""


def endings_only(prepared: Prepared) -> Sequence[Check]:
    """No check but how the run ended."""
    return ()


def ending_failure(stop: str, exit_status: int, console: str, frame_of: Callable[[int], Frame]) -> Failure | None:
    """What `stop` (as in a tape's footer) says: a guest's BUG or WARN, a triple fault, a deadlock; None for all else.

    frame_of: the innermost function at an address, for a fault in kernel mode.
    """
    if stop == "shutdown":
        return Failure("triple fault", "triple fault")
    if stop == "idle":
        return Failure("deadlock", "every CPU waits and nothing can wake one: deadlock")
    if stop == "exit" and not exit_status and (warning := _WARNING.search(console)):
        said = warning["text"].strip()
        place = _SOURCE.search(said)
        return Failure(place.group() if place else _NUMBERS.sub("#", said), said)
    if stop == "exit" and exit_status:
        lines = [line.strip() for line in console.splitlines() if line.strip()]
        said = next((line for line in lines if _LOUD.search(line)), lines[-1] if lines else "")
        if oops := _OOPS.search(said):
            frame = frame_of(int(oops["ip"], 16))
            what = f"exception {int(oops['vector'], 16)} in {frame.function}"
            return Failure(what, f"{what} ({frame.place}): {said}")
        place = _SOURCE.search(said)
        cause = place.group() if place else _NUMBERS.sub("#", said) or f"status {exit_status:#x}"
        return Failure(cause, said or f"the guest ended the run with status {exit_status:#x}")
    return None


_ACCESSES: Final = {
    "load": "loads from",
    "store": "stores to",
    "fetch": "executes code in",
    "drain": "has a store that drains to",
    "walk": "walks through a page table in",
    "free": "frees once more",
}


def freed_failure(use: FreedUse, frames_of: Callable[[int], Sequence[Frame]]) -> Failure:
    """A freed page is used.

    use: as `Machine.freed_use` has it.
    frames_of: the functions at an address, innermost (inlined) first.
    """
    access, cpu, pc, addr, phys, _step, freed_by, freed_step = use
    frames = frames_of(pc)
    place = f" ({frames[0].place})" if frames[0].place else ""
    what = {"walk": f" for {addr:#x}", "free": ""}.get(access, f" at {addr:#x}")
    text = (
        f"cpu{cpu} in {frames[-1].function}{place} {_ACCESSES[access]} page frame {phys >> 12:#x}{what}, "
        f"which cpu{freed_by} freed at @{freed_step}"
    )
    return Failure(f"use of a freed page in {frames[-1].function}", text)


def livelock_failure(spinning: Sequence[tuple[int, Sequence[Frame]]]) -> Failure:
    """Those that do not wait spin, each for something that only another of them, or one that waits, would change.

    spinning: numbers of the CPUs that spin, and the functions each is in, innermost (inlined) first.
    """
    cause = "livelock: " + ", ".join(sorted({frames[-1].function for _, frames in spinning}))
    places = [f"cpu{cpu} in {frames[-1].function} ({frames[0].place})" for cpu, frames in spinning]
    return Failure(cause, "nobody goes on but in circles: " + ", ".join(places))
