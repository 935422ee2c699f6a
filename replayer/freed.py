"""What a tape with stop `freed` ends with: the access to a freed page."""

from __future__ import annotations

from machine import Machine
from machine.pool import FreedUse, page_pool
from machine.symbols import Symbols
from machine.unwind import StackFrame, Unwinder
from replayer.cursor import Cursor, boot
from traces import Tape


def final_use(tape: Tape) -> FreedUse | None:
    """The use of a freed page that is the tape's last step, as `Machine.freed_use` has it; None if it is none.

    Runs the tape twice: where the guest keeps its pages is known only when it is set up. Raises DivergenceError,
    TapeDamagedError, ImageError.
    """
    machine = boot(tape)
    _follow(tape, machine, min(tape.header.ready_step, tape.end_step))
    pool = page_pool(machine, tape.image())
    if pool is None:
        return None
    machine = boot(tape)
    pool.tell(machine)
    _follow(tape, machine, tape.end_step)
    use = machine.freed_use()
    return use if use is not None and use[5] == tape.end_step - 1 else None


def freed_from(tape: Tape, use: FreedUse) -> list[StackFrame]:
    """The functions that freed the page, innermost first. Raises DivergenceError, TapeDamagedError, ImageError."""
    cpu, step = use[6], use[7]
    machine = boot(tape)
    _follow(tape, machine, step)
    symbols = Symbols(tape.image(), lambda address, size: machine.read_linear(cpu, address, size))
    return Unwinder(symbols).backtrace(machine.registers(cpu))


def _follow(tape: Tape, machine: Machine, end_step: int) -> None:
    cursor = Cursor(tape)
    while machine.step < end_step:
        cursor.follow(machine, end_step)
