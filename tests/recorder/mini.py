"""The guest of `mini_guest.c`, built with the system's gcc, and prepared recordings of it."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

from machine import Machine
from recorder import Prepared, prepare
from recorder.record import prepare_image

LINK = """
ENTRY(_start)
SECTIONS {
  . = 0x10000 + 0x10000; .start : { *(.start) }
  .text : { *(.text*) } .data : { *(.data*) *(.rodata*) } .bss : { *(.bss*) *(COMMON) }
  /DISCARD/ : { *(.note*) *(.eh_frame*) *(.comment) }
}
"""


@cache
def image(ready_cpu: int = 0) -> bytes:
    """The ELF file, with debug information; `ready_cpu` is the CPU that gets to the tracepoint `ready`."""
    with tempfile.TemporaryDirectory() as folder:
        script, out = Path(folder, "link"), Path(folder, "mini")
        script.write_text(LINK)
        source = Path(__file__).with_name("mini_guest.c")
        flags = "-m32 -O1 -g -ffreestanding -nostdlib -static -no-pie -fno-pic -mgeneral-regs-only -fno-stack-protector"
        flags += f" -DREADY_CPU={ready_cpu}"
        command = ["gcc", *flags.split(), "-Wl,--build-id=none", f"-Wl,-T,{script}", "-o", str(out), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=source.parent, check=False)
        assert done.returncode == 0, done.stderr
        return out.read_bytes()


@cache
def prepared(cpus: int = 1, command_line: str = "hello", ready_cpu: int = 0) -> Prepared:
    """The guest on `cpus` CPUs, at its `ready`."""
    return prepare_image(
        Machine(cpus=cpus, ram_bytes=8 << 20),
        image(ready_cpu),
        command_line,
        scenario="mini",
        variant="",
        configuration=f"{cpus}cpu",
        step_max=2_000_000,
    )


@cache
def wrong_zone(configuration: str, scenario: str = "wrong-zone-small") -> Prepared:
    """The bundled scenario at its `ready`, in the buggy variant."""
    return prepare(scenario, None, configuration)
