"""The x86 machine: its C core, guest images, symbols and disassembly.

Exports:
    Machine, Snapshot: the core (documented in `_core.pyi`).
    BareMachine, Run, Event: a machine without an image, for experiments (docs/machine-api.md).
"""

from machine._core import Machine, Snapshot
from machine.bare import BareMachine, Event, Run

__all__ = ["BareMachine", "Event", "Machine", "Run", "Snapshot"]
