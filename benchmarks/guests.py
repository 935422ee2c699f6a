"""What is run: the workload in its variants, and the boot of the `wrong-zone` guest.

A guest is written into a folder, so that worker processes and the peer's driver find it there.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from elftools.elf.elffile import ELFFile

from machine import _core, images
from machine._core import Machine
from recorder.record import ready_identifier

SOURCES: Final = Path(__file__).with_name("workload")
BOOT_PARAMS: Final = 0x10000
WORKLOAD_RAM_BYTES: Final = 32 << 20

_COMPILE: Final = [
    *("-m32", "-march=i686", "-mregparm=3", "-mgeneral-regs-only", "-fcf-protection=none", "-fno-pic", "-no-pie"),
    *("-std=gnu11", "-O2", "-ffreestanding", "-fno-strict-aliasing", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-g", "-gdwarf-4"),
    # A loop stays a loop: REP would be one instruction to some and many steps to others.
    "-fno-tree-loop-distribute-patterns",
]
_LINK: Final = ["-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-z,noexecstack,--no-warn-rwx-segments"]
# In the order in which they are linked.
_UNITS: Final = ["start.c", "main.c", "memory.c", "swapfile.c", "vmscan.c", "page_alloc.c", "vmstat.c"]


@dataclass(frozen=True)
class Guest:
    """One guest to run from reset.

    Attributes:
        name: also its file names: `name.elf`, `name.load` (the peer's memory image), `name.json` (these fields).
        cpus, ram_bytes, command_line: of the machine.
        until: linear address at which the peer stops; 0 if it cannot run there.
        stop: how racetape's run ends: "exit", or "trace" at the tracepoint `ready`.
    """

    name: str
    cpus: int
    ram_bytes: int
    command_line: str
    entry: int
    until: int
    stop: str

    @staticmethod
    def read(folder: Path, name: str) -> Guest:
        """The guest that `write` wrote."""
        return Guest(**json.loads((folder / f"{name}.json").read_text()))

    def write(self, folder: Path, image: bytes) -> None:
        """Put the guest's three files into `folder`."""
        (folder / f"{self.name}.json").write_text(json.dumps(asdict(self)))
        (folder / f"{self.name}.elf").write_bytes(image)
        with open(folder / f"{self.name}.load", "wb") as file:
            for segment in ELFFile(io.BytesIO(image)).iter_segments("PT_LOAD"):
                data = segment.data()
                file.write(struct.pack("<QQ", segment["p_paddr"], len(data)) + data)
            params = struct.pack("<4sIII240s", b"RTBP", 1, self.cpus, self.ram_bytes, self.command_line.encode())
            file.write(struct.pack("<QQ", BOOT_PARAMS, len(params)) + params)


def gcc(arguments: Sequence[str | Path]) -> None:
    """Run gcc. Raises RuntimeError with its first complaint."""
    done = subprocess.run(["gcc", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"gcc failed: {done.stderr.strip()[:400]}")


def build_workload(folder: Path, rounds: int) -> None:
    """Write the guests `workload`, `shared-page`, `smp` (on one CPU), `smp2` (on two), and the program `native`.

    All run the same C code; `rounds` says how long (about 21,000 instructions each, per CPU).
    """
    variants: dict[str, list[str]] = {"up": [], "shared-page": ["-DHOT_AMONG_CODE"], "smp": ["-DCONFIG_SMP"]}
    with ThreadPoolExecutor(2) as pool:
        images = dict(zip(variants, pool.map(lambda v: _link(folder, v, variants[v]), variants), strict=True))
    _link_native(folder)
    for name, variant, cpus in (
        ("workload", "up", 1),
        ("shared-page", "shared-page", 1),
        ("smp", "smp", 1),
        ("smp2", "smp", 2),
    ):
        image = images[variant]
        guest = Guest(
            name,
            cpus,
            WORKLOAD_RAM_BYTES,
            str(rounds),
            _entry(image),
            _symbol(image, "end") if cpus == 1 else 0,
            "exit",
        )
        guest.write(folder, image)


def build_boot(folder: Path) -> None:
    """Write the guest `boot`: the scenario `wrong-zone` from reset to its tracepoint `ready`."""
    scenario = images.scenario("wrong-zone")
    image = images.image_bytes(scenario.image())
    machine = Machine(cpus=1, ram_bytes=scenario.ram_bytes)
    images.boot(machine, image, scenario.command_line)
    machine.stop_at_trace = ready_identifier(image)
    reason, _, _ = machine.execute(struct.pack("<BBHIQ", _core.AUTO, 0, 0, 0, 1 << 40))
    if reason != "trace":
        raise RuntimeError(f"the guest stopped with {reason} at step {machine.step}")
    until = machine.registers(0)["rip"]
    guest = Guest("boot", 1, scenario.ram_bytes, scenario.command_line, _entry(image), until, "trace")
    guest.write(folder, image)


def _link(folder: Path, variant: str, defines: list[str]) -> bytes:
    objects = _compile(folder, variant, ["head32.S", *_UNITS], defines)
    script = folder / f"{variant}.lds"
    gcc(["-E", "-P", "-C", "-x", "c", *defines, SOURCES / "workload.lds", "-o", script])
    elf = folder / f"{variant}.linked"
    gcc([*_LINK, f"-Wl,-T,{script}", *objects, "-o", elf])
    return elf.read_bytes()


def _link_native(folder: Path) -> None:
    objects = _compile(folder, "native", ["native.c", *_UNITS[1:]], [])
    script = folder / "native.lds"
    gcc(["-E", "-P", "-C", "-x", "c", SOURCES / "workload.lds", "-o", script])
    gcc([*_LINK, f"-Wl,-T,{script},-e,startup", *objects, "-o", folder / "native"])


def _compile(folder: Path, variant: str, units: list[str], defines: list[str]) -> list[Path]:
    home = folder / f"{variant}.o.d"
    home.mkdir()
    objects = [home / f"{Path(unit).stem}.o" for unit in units]
    for unit, target in zip(units, objects, strict=True):
        gcc([*_COMPILE, *defines, "-c", SOURCES / unit, "-o", target])
    return objects


def _entry(image: bytes) -> int:
    return int(ELFFile(io.BytesIO(image)).header["e_entry"])


def _symbol(image: bytes, name: str) -> int:
    table: Any = ELFFile(io.BytesIO(image)).get_section_by_name(".symtab")
    return int(table.get_symbol_by_name(name)[0]["st_value"])
