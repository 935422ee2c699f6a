"""What is run: the workload in its variants, and the boot of the `wrong-zone` guest.

A guest is written into a folder, so that worker processes and the peer's driver find it there.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
from collections.abc import Iterable, Sequence
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
    *("-mgeneral-regs-only", "-fcf-protection=none", "-fno-pic", "-no-pie", "-std=gnu11", "-O2"),
    *("-ffreestanding", "-fno-strict-aliasing", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-g", "-gdwarf-4"),
    # A loop stays a loop: REP would be one instruction to some and many steps to others.
    "-fno-tree-loop-distribute-patterns",
]
_COMPILE_BITS: Final = {
    32: ["-m32", "-march=i686", "-mregparm=3"],
    64: ["-m64", "-march=x86-64", "-mcmodel=kernel", "-mno-red-zone", "-mpreferred-stack-boundary=3"],
}
_LOAD_OFFSET: Final = {32: "0xc0000000", 64: "0xffffffff80000000"}
_LINK: Final = ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-z,noexecstack,--no-warn-rwx-segments"]
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


@dataclass(frozen=True)
class _Variant:
    """How the workload is compiled."""

    name: str
    bits: int = 32
    defines: tuple[str, ...] = ()


_VARIANTS: Final = {
    # guest: variant, CPUs
    "workload": (_Variant("up"), 1),
    "shared-page": (_Variant("shared-page", defines=("-DHOT_AMONG_CODE",)), 1),
    "smp": (_Variant("smp", defines=("-DCONFIG_SMP",)), 1),
    "smp2": (_Variant("smp", defines=("-DCONFIG_SMP",)), 2),
    "workload64": (_Variant("up64", 64), 1),
    "smp64": (_Variant("smp64", 64, ("-DCONFIG_SMP",)), 1),
    "smp2-64": (_Variant("smp64", 64, ("-DCONFIG_SMP",)), 2),
}
GUESTS: Final = (*_VARIANTS, "boot")


def build(folder: Path, names: Iterable[str], rounds: int) -> None:
    """Write the named guests of GUESTS, and the program `native`.

    All but `boot` run the same C code; `rounds` says how long (about 21,000 instructions each, per CPU).
    """
    wanted = set(names)
    if "boot" in wanted:
        build_boot(folder)
    chosen = {name: row for name, row in _VARIANTS.items() if name in wanted}
    variants = {variant.name: variant for variant, _ in chosen.values()}
    with ThreadPoolExecutor(2) as pool:
        images = dict(zip(variants, pool.map(lambda row: _link(folder, row), variants.values()), strict=True))
    _link_native(folder)
    for name, (variant, cpus) in chosen.items():
        image = images[variant.name]
        # The peer has one CPU.
        until = _symbol(image, "end") if cpus == 1 else 0
        Guest(name, cpus, WORKLOAD_RAM_BYTES, str(rounds), _entry(image), until, "exit").write(folder, image)


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


def _link(folder: Path, variant: _Variant) -> bytes:
    objects = _compile(folder, variant, [f"head{variant.bits}.S", *_UNITS])
    elf = folder / f"{variant.name}.linked"
    gcc([*_LINK, f"-m{variant.bits}", f"-Wl,-T,{_linker_script(folder, variant)}", *objects, "-o", elf])
    return elf.read_bytes()


def _link_native(folder: Path) -> None:
    variant = _Variant("native")
    objects = _compile(folder, variant, ["native.c", *_UNITS[1:]])
    script = _linker_script(folder, variant)
    gcc([*_LINK, "-m32", f"-Wl,-T,{script},-e,startup", *objects, "-o", folder / "native"])


def _linker_script(folder: Path, variant: _Variant) -> Path:
    script = folder / f"{variant.name}.lds"
    defines = [*variant.defines, f"-DLOAD_OFFSET={_LOAD_OFFSET[variant.bits]}"]
    gcc(["-E", "-P", "-C", "-undef", "-x", "c", *defines, SOURCES / "workload.lds", "-o", script])
    return script


def _compile(folder: Path, variant: _Variant, units: list[str]) -> list[Path]:
    home = folder / f"{variant.name}.objects"
    home.mkdir()
    objects = [home / f"{Path(unit).stem}.o" for unit in units]
    for unit, target in zip(units, objects, strict=True):
        gcc([*_COMPILE, *_COMPILE_BITS[variant.bits], *variant.defines, "-c", SOURCES / unit, "-o", target])
    return objects


def _entry(image: bytes) -> int:
    return int(ELFFile(io.BytesIO(image)).header["e_entry"])


def _symbol(image: bytes, name: str) -> int:
    table: Any = ELFFile(io.BytesIO(image)).get_section_by_name(".symtab")
    return int(table.get_symbol_by_name(name)[0]["st_value"])
