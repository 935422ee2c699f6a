"""Recording Linux: a PC with a kernel and an initrd, from its first instruction on."""

from __future__ import annotations

from typing import Final

from machine import Machine, images, linux
from recorder.record import Prepared

STEP_MAX: Final = 4_000_000_000


def prepare_linux(
    kernel: bytes,
    initrd: bytes = b"",
    command_line: str = "",
    *,
    ram_bytes: int = 64 << 20,
    store_buffer: int = 8,
    step_max: int = STEP_MAX,
) -> Prepared:
    """A PC about to enter the kernel: no set-up goes before, all of the boot is the run.

    Args:
        kernel: contents of a `vmlinux`, which has debug information, or of a bzImage.
        initrd: contents; b"" for none.
    Raises ImageError for a kernel that is none, is damaged or does not fit, UsageError for a command line that is too
    long or not ASCII.
    """
    image = linux.vmlinux_of(kernel)
    if initrd:
        image = linux.with_initrd(image, initrd)
    machine = Machine(ram_bytes=ram_bytes, store_buffer=store_buffer, pc=True)
    images.boot(machine, image, command_line)
    at_reset = machine.snapshot()
    return Prepared(
        scenario="linux",
        variant="",
        configuration="up",
        machine=machine,
        image=image,
        command_line=command_line,
        step_max=step_max,
        ready_step=0,
        boot=[],
        boot_console=b"",
        at_reset=at_reset,
        at_ready=at_reset,
    )
