"""The use of a freed page with which a tape ends, in words."""

from __future__ import annotations

from machine.symbols import Symbols
from recorder.hunt import freed_failure
from replayer.freed import final_use, freed_from
from traces import Tape

STOP = "freed"


def use_of_freed_page(tape: Tape) -> str:
    """What the tape's last step does to a freed page, one line; "" if the tape does not end with that."""
    if tape.footer is None or tape.footer.stop != STOP or tape.damage is not None:
        return ""
    use = final_use(tape)
    if use is None:
        return ""
    callers = " < ".join(dict.fromkeys(row.function for row in freed_from(tape, use)))
    return f"@{use[5]} {freed_failure(use, Symbols(tape.image()).frames).text} in {callers}"
