"""Descriptors, gates and task-state segments as bytes. Intel SDM vol. 3: 3.4.5, 6.11, 6.14.1, 7.2.1, 7.7."""

from __future__ import annotations

import struct
from typing import Final

KERNEL_CODE_32, KERNEL_CODE, KERNEL_DATA = 0x08, 0x10, 0x18
"""Selectors of privilege 0. KERNEL_CODE has the bits of the machine, KERNEL_CODE_32 always 32."""
USER_CODE_32, USER_DATA, USER_CODE_64 = 0x23, 0x2B, 0x33
"""Selectors of privilege 3, in the order that SYSRET and SYSEXIT expect."""
TSS: Final = 0x40
"""Selector of CPU 0's task-state segment; those of the others follow 16 bytes apart."""
TSS_BYTES: Final = 104

_PRESENT, _CODE, _DATA, _USER = 0x80, 0x1B, 0x13, 0x60
_FLAGS: Final = {16: 0x8, 32: 0xC, 64: 0xA}
"""Granularity, D and L bits of flat code."""


def descriptor(access: int, *, base: int = 0, limit: int = 0xFFFFF, flags: int = 0xC) -> bytes:
    """Eight bytes. `access`: P, DPL, S and type; `limit` in the unit that `flags` (G, D/B, L, AVL) says."""
    low = (limit & 0xFFFF) | (base & 0xFFFFFF) << 16 | access << 40
    return (low | (limit >> 16) << 48 | flags << 52 | (base >> 24 & 0xFF) << 56).to_bytes(8, "little")


def gdt(bits: int, tss_addresses: list[int]) -> bytes:
    """A global descriptor table with the selectors of this module, for kernels of 16, 32 or 64 bits."""
    user = _PRESENT | _USER
    table = [
        bytes(8),
        descriptor(_PRESENT | _CODE),
        descriptor(_PRESENT | _CODE, flags=_FLAGS[bits]),
        descriptor(_PRESENT | _DATA),
        descriptor(user | _CODE),
        descriptor(user | _DATA),
        descriptor(user | _CODE, flags=_FLAGS[64]),
        descriptor(user | _DATA),
    ]
    for base in tss_addresses:
        upper = (base >> 32).to_bytes(8, "little")
        table.append(descriptor(_PRESENT | 9, base=base & 0xFFFFFFFF, limit=TSS_BYTES - 1, flags=0) + upper)
    return b"".join(table)


def tss(bits: int, stack: int, stacks: dict[int, int]) -> bytes:
    """A task-state segment with the stack of privilege 0 and, for 64 bits, of interrupt stack table entries 1 to 7.

    There is no I/O permission bitmap.
    """
    data = bytearray(TSS_BYTES)
    if bits == 64:
        struct.pack_into("<Q", data, 4, stack)
        for number, pointer in stacks.items():
            struct.pack_into("<Q", data, 36 + 8 * (number - 1), pointer)
    else:
        struct.pack_into("<II", data, 4, stack, KERNEL_DATA)
    struct.pack_into("<H", data, 102, TSS_BYTES)
    return bytes(data)


def gate(bits: int, addr: int, *, selector: int = KERNEL_CODE, user: bool, trap: bool, stack_table: int) -> bytes:
    """An interrupt gate, or a trap gate, which leaves interrupts on. `user`: INT from privilege 3 may use it."""
    access = _PRESENT | (_USER if user else 0) | (0xF if trap else 0xE)
    low = struct.pack("<HHBBH", addr & 0xFFFF, selector, stack_table, access, addr >> 16 & 0xFFFF)
    return low + struct.pack("<II", addr >> 32, 0) if bits == 64 else low
