"""Whether a tape holds a whole run, and in whose words it does not: shared by banner and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from machine.errors import TapeDamagedError
from traces import Tape

STOPPED: Final = {
    "interrupted": "interrupted",
    "steps": "step limit",
    "livelock": "livelock",
    "freed": "use of a freed page",
}
"""Footer stops after which the run could have gone on, in words."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How far a tape goes, and why not further.

    Attributes:
        step: the last position.
        why: "the tape is cut", "the tape is damaged", "the recording stops (interrupted)"; None: the run ended there.
        broken: whether the file itself is at fault (cut or damaged).
    """

    step: int
    why: str | None = None
    broken: bool = False


def ending_of(tape: Tape, *, every_byte: bool = False) -> Ending:
    """How `tape` ends, by what opening it tells; with `every_byte` every chunk's checksum is compared as well."""
    damage = tape.damage or (_damaged_payload(tape) if every_byte else None)
    if damage is not None:
        step = tape.end_step if damage.step is None else damage.step
        return Ending(step, f"the tape is damaged at byte {damage.offset}", broken=True)
    if tape.unfinished or tape.footer is None:
        return Ending(tape.end_step, "the tape is cut", broken=True)
    if tape.footer.stop in STOPPED:
        return Ending(tape.end_step, f"the recording stops ({STOPPED[tape.footer.stop]})")
    return Ending(tape.end_step)


def _damaged_payload(tape: Tape) -> TapeDamagedError | None:
    try:
        for chunk in tape.chunks:
            tape.payload(chunk)
    except TapeDamagedError as error:
        return error
    return None
