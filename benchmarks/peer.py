"""The peer: the unicorn emulator (QEMU's translator as a library) on the same guest image."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import x86_const

BOOT_PARAMS: Final = 0x10000
APIC_BASE: Final = 0xFEE00000
PAGE_BYTES: Final = 4096


class Peer:
    """Boots an image as docs/platform.md says and runs it up to a linear address.

    Args:
        image: the ELF file.
        ram_bytes: size of RAM in bytes.
        command_line: of the guest.
    """

    def __init__(self, image: bytes, ram_bytes: int, command_line: str) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self.uc.mem_map(0, ram_bytes)
        self.uc.mem_map(APIC_BASE, PAGE_BYTES)
        elf = ELFFile(io.BytesIO(image))
        for segment in elf.iter_segments("PT_LOAD"):
            self.uc.mem_write(segment["p_paddr"], segment.data())
        params = struct.pack("<4sIII240s", b"RTBP", 1, 1, ram_bytes, command_line.encode())
        self.uc.mem_write(BOOT_PARAMS, params)
        self.uc.reg_write(x86_const.UC_X86_REG_ESI, BOOT_PARAMS)
        self.uc.reg_write(x86_const.UC_X86_REG_EFLAGS, 2)
        self.entry: int = elf.header["e_entry"]
        self.accesses = 0

    def hook_memory(self) -> None:
        """Have unicorn report every load and store to a Python function, as a recorder would need."""

        def seen(_uc: Any, _access: int, _address: int, _size: int, _value: int, _user: Any) -> None:
            self.accesses += 1

        kinds = unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE
        self.uc.hook_add(kinds, seen)

    def run(self, until: int) -> float:
        """Seconds of CPU time until the linear address `until` is reached."""
        started = time.process_time()
        self.uc.emu_start(self.entry, until)
        elapsed_s = time.process_time() - started
        reached = self.uc.reg_read(x86_const.UC_X86_REG_EIP)
        if reached != until:
            raise RuntimeError(f"the peer stopped at {reached:#x}, not at {until:#x}")
        return elapsed_s


def best(measure: Callable[[], float], rounds: int) -> float:
    """The fastest of several rounds, in seconds: what the code costs when nothing else interferes."""
    return min(measure() for _ in range(rounds))
