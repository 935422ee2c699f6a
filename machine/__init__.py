"""The x86 machine: its C core, guest images, symbols and disassembly.

Exports:
    Machine, Snapshot: the core (documented in `_core.pyi`).
"""

from machine._core import Machine, Snapshot

__all__ = ["Machine", "Snapshot"]
