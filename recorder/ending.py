"""What a machine itself can tell about why its run ended."""

from __future__ import annotations

from typing import Final

from machine import Machine

_NOTHING: Final = b""
_VECTORS: Final = 256


def ending(machine: Machine) -> str | None:
    """ "exit", "shutdown" or "idle" (nothing can ever run again), as in the tape's footer; None if it could go on.

    Changes nothing.
    """
    reason, _, _ = machine.execute(_NOTHING, exact=True)
    if reason in ("exit", "shutdown"):
        return reason
    return "idle" if not any(_can_act(machine, cpu) for cpu in range(machine.cpus)) else None


def _can_act(machine: Machine, cpu: int) -> bool:
    """Whether the CPU can execute or be answered or woken, or still holds stores."""
    if machine.waiting(cpu) not in ("halt", "start") or machine.store_buffer_entries(cpu):
        return True
    return any(machine.can_interrupt(cpu, vector) for vector in range(_VECTORS))
