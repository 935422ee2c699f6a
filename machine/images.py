"""Guest images: which exist, building them with gcc, putting one into a machine.

An image is named `flavour-kind-variant`, for example `linux-up-buggy` or `small-smp-fix-7454f4ba40b4`: `flavour` is
the size of the guest's units, `kind` is `up` or `smp` (one image for every number of CPUs), `variant` the code.
Building is reproducible byte for byte; `python -m machine.images` builds all that is out of date.

Exports:
    Scenario, Configuration: the declarations in guest/scenarios.toml.
    scenarios, scenario: all of them, or one by name.
    image_names, image_path, image_bytes: images on disk.
    build: compile images.
    boot: load an image into a Machine.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from machine._core import Machine
from machine.errors import ImageError, UsageError

GUEST = Path(__file__).with_name("guest")
IMAGES = Path(__file__).with_name("built")

FLAVOURS: dict[str, tuple[str, ...]] = {"linux": (), "small": ("-DCONFIG_SMALL",)}
KINDS: dict[str, tuple[str, ...]] = {"up": (), "smp": ("-DCONFIG_SMP",)}
VARIANTS: dict[str, tuple[str, ...]] = {
    "buggy": (),
    "fix-7454f4ba40b4": ("-DCONFIG_FIX_7454f4ba40b4",),
    "seed-wmb": ("-DCONFIG_SEED_WMB",),
}

# Plain integer i686 code, as Linux's for 32-bit x86: three arguments in registers, no SSE and no x87.
COMPILE = [
    *("-m32", "-march=i686", "-mregparm=3", "-mgeneral-regs-only", "-fcf-protection=none", "-fno-pic", "-no-pie"),
    *("-std=gnu11", "-O2", "-ffreestanding", "-nostdlib", "-nostdinc", "-Iinclude", "-Iarch/x86/include"),
    *("-fno-strict-aliasing", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fno-omit-frame-pointer"),
    *("-g", "-gdwarf-4", "-Wall", "-Wextra", "-Werror"),
]
LINK = ["-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-z,noexecstack,-T,arch/x86/boot/guest.lds"]

BOOT_PARAMS = 0x10000
BOOT_PARAMS_MAGIC = 0x50425452
BOOT_PARAMS_VERSION = 1
COMMAND_LINE_SIZE = 240


@dataclass(frozen=True)
class Configuration:
    """A machine that a scenario can run on: `up-2level`, `smp4-2level`."""

    name: str
    kind: str
    cpus: int
    paging: str

    @classmethod
    def parse(cls, name: str) -> Configuration:
        """Raises UsageError for a name that is not one."""
        match = re.fullmatch(r"(?:(up)|smp([2-8]))-(2level)", name)
        if match is None:
            raise UsageError(f"no such configuration: {name!r} (up-2level, or smp2-2level to smp8-2level)")
        return cls(name, "up" if match[1] else "smp", int(match[2] or 1), match[3])


@dataclass(frozen=True)
class Scenario:
    """One declaration of guest/scenarios.toml; the fields are explained there."""

    name: str
    summary: str
    flavour: str
    command_line: str
    ram_bytes: int
    variants: tuple[str, ...]
    configurations: tuple[str, ...]
    counters: tuple[str, ...]
    counters_more: tuple[str, ...]
    step_max: int

    def configuration(self, name: str = "") -> Configuration:
        """The named configuration, by default the first; `up` or `smp2` alone means with the first paging mode it has.

        Raises UsageError if the scenario does not have it.
        """
        full = [row for row in self.configurations if row == name or row.split("-")[0] == name]
        chosen = full[0] if full else name or self.configurations[0]
        return Configuration.parse(_choose("configuration", chosen, self.configurations))

    def image(self, configuration: str = "", variant: str = "") -> str:
        """Name of the image to run. Raises UsageError for what the scenario does not have."""
        variant = _choose("variant", variant or self.variants[0], self.variants)
        return f"{self.flavour}-{self.configuration(configuration).kind}-{variant}"


def _choose(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(names)}"
    raise UsageError(f"no such {what}: {name!r}; {hint}")


@cache
def scenarios() -> tuple[Scenario, ...]:
    """All scenarios, in the order of the file."""
    with open(GUEST / "scenarios.toml", "rb") as file:
        rows = tomllib.load(file)["scenario"]
    return tuple(_scenario_parse(row) for row in rows)


def _scenario_parse(row: dict[str, Any]) -> Scenario:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return Scenario(**fields)


def scenario(name: str) -> Scenario:
    """The scenario of that name. Raises UsageError, with close matches, if there is none."""
    by_name = {row.name: row for row in scenarios()}
    return by_name[_choose("scenario", name, by_name)]


# -- images on disk --


def image_names() -> tuple[str, ...]:
    """The names of all images that can be built."""
    return tuple(f"{flavour}-{kind}-{variant}" for flavour in FLAVOURS for kind in KINDS for variant in VARIANTS)


def _defines(name: str) -> tuple[str, ...]:
    flavour, kind, variant = _choose("image", name, image_names()).split("-", 2)
    return FLAVOURS[flavour] + KINDS[kind] + VARIANTS[variant]


def image_path(name: str) -> Path:
    """Path of a built image. Raises UsageError for an unknown name, ImageError if it is not built."""
    path = IMAGES / f"{_choose('image', name, image_names())}.elf"
    if not path.is_file():
        raise ImageError(f"image {name} is not built: run `python -m machine.images`")
    return path


def image_bytes(name: str) -> bytes:
    """Contents of a built image. Raises as `image_path` does."""
    try:
        return image_path(name).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read image {name}: {error.strerror}") from error


# -- building --


def build(
    names: Sequence[str] | None = None, *, jobs: int = 0, directory: Path | None = None, force: bool = False
) -> list[str]:
    """Build the named images, by default all, where sources or flags have changed; returns the names built.

    Raises UsageError for an unknown name, ImageError if gcc is missing, cannot compile for 32-bit x86, or fails.
    """
    target = directory or IMAGES
    wanted = {name: _stamp(name) for name in (image_names() if names is None else names)}
    stale = [name for name, stamp in wanted.items() if force or not _is_fresh(target, name, stamp)]
    if not stale:
        return []
    _check_compiler()
    target.mkdir(parents=True, exist_ok=True)
    sources = sorted(path.relative_to(GUEST) for pattern in ("*.c", "*.S") for path in GUEST.rglob(pattern))
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        work = [(name, source, _object(Path(scratch), name, source)) for name in stale for source in sources]
        list(pool.map(lambda row: _compile(*row), work))
        for name in stale:
            linked = Path(scratch, f"{name}.elf")
            _gcc([*LINK, "-o", str(linked), *(str(out) for image, _, out in work if image == name)])
            # The stamp comes last: whoever is interrupted builds again.
            _write(target / f"{name}.elf", linked.read_bytes())
            _write(target / f"{name}.stamp", wanted[name].encode())
    return stale


def _object(scratch: Path, name: str, source: Path) -> Path:
    return scratch / f"{name}--{str(source).replace('/', '_')}.o"


def _compile(name: str, source: Path, out: Path) -> None:
    assembly = ("-D__ASSEMBLY__",) if source.suffix == ".S" else ()
    prefix = f"-ffile-prefix-map={GUEST}/=", f"-ffile-prefix-map={GUEST}=."
    _gcc([*COMPILE, *prefix, *_defines(name), *assembly, "-c", str(source), "-o", str(out)])


def _gcc(arguments: Sequence[str]) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        result = subprocess.run(
            ["gcc", *arguments], cwd=GUEST, capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise ImageError("gcc is missing: it is needed to build guest images") from error
    if result.returncode:
        first = next((row for row in result.stderr.splitlines() if "error" in row), result.stderr.strip()[:200])
        raise ImageError(f"gcc failed: {first}")


def _check_compiler() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "empty.c")
        source.write_text("int nothing;\n")
        try:
            _gcc(["-m32", "-ffreestanding", "-c", str(source), "-o", str(source.with_suffix(".o"))])
        except ImageError as error:
            raise ImageError(f"this gcc cannot compile for 32-bit x86 (-m32): {error}") from error


@cache
def _compiler_version() -> str:
    try:
        return subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return "none"


def _stamp(name: str) -> str:
    """What an image depends on, as one hash: every source, the flags, the compiler."""
    digest = hashlib.sha256(" ".join((_compiler_version(), *COMPILE, *LINK, *_defines(name))).encode())
    for path in sorted(GUEST.rglob("*")):
        if path.suffix in {".c", ".h", ".S", ".lds"}:
            digest.update(f"\0{path.relative_to(GUEST)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _is_fresh(directory: Path, name: str, stamp: str) -> bool:
    try:
        return (directory / f"{name}.stamp").read_text() == stamp and (directory / f"{name}.elf").is_file()
    except (OSError, UnicodeDecodeError):
        return False


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, also with several builders at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


# -- booting --


@dataclass(frozen=True)
class _Load:
    physical: int
    data: bytes
    size_bytes: int


def _elf_loads(image: bytes) -> tuple[int, list[_Load]]:
    """(entry, PT_LOAD segments) of an ELF32 executable for i386. Raises ImageError for anything else."""
    from elftools.elf.elffile import ELFFile

    if image[:4] != b"\x7fELF":
        raise ImageError("not an ELF file")
    try:
        elf = ELFFile(io.BytesIO(image))
        kind = (elf.elfclass, elf.little_endian, elf["e_type"], elf["e_machine"])
        entry = int(elf["e_entry"])
        headers = [segment.header for segment in elf.iter_segments("PT_LOAD")]
    except Exception as error:  # a damaged file can raise anything in there
        raise ImageError(f"damaged ELF file: {error or type(error).__name__}") from error
    if kind != (32, True, "ET_EXEC", "EM_386"):
        raise ImageError("not an executable for 32-bit x86")
    loads = []
    for header in headers:
        offset, filesz, memsz, physical = (header[key] for key in ("p_offset", "p_filesz", "p_memsz", "p_paddr"))
        if offset + filesz > len(image) or filesz > memsz or physical + memsz > 1 << 32:
            raise ImageError(f"damaged ELF file: the segment at {physical:#x} lies outside of it")
        loads.append(_Load(physical, image[offset : offset + filesz], memsz))
    if not any(load.physical <= entry < load.physical + load.size_bytes for load in loads):
        raise ImageError(f"damaged ELF file: the entry point {entry:#x} is in no segment")
    return entry, loads


def boot(machine: Machine, image: bytes, command_line: str) -> None:
    """Put an image and its boot parameters into a machine that has not run yet (docs/platform.md, "Start").

    Raises ImageError if `image` is not a right ELF32 i386 executable or does not fit, UsageError for a command line
    that is too long or not ASCII.
    """
    entry, loads = _elf_loads(image)
    if not command_line.isascii() or "\0" in command_line or len(command_line) >= COMMAND_LINE_SIZE:
        raise UsageError(f"the guest's command line must be ASCII and shorter than {COMMAND_LINE_SIZE} characters")
    parameters = struct.pack(
        "<4I", BOOT_PARAMS_MAGIC, BOOT_PARAMS_VERSION, machine.cpus, machine.ram_bytes
    ) + command_line.encode().ljust(COMMAND_LINE_SIZE, b"\0")
    for load in loads:
        if load.physical + load.size_bytes > machine.ram_bytes:
            raise ImageError(f"the image needs {load.physical + load.size_bytes} bytes of RAM, the machine has less")
        if load.physical < BOOT_PARAMS + len(parameters) and load.physical + load.size_bytes > BOOT_PARAMS:
            raise ImageError("the image lies where the boot parameters go")
    # What a segment has beyond its file contents is zero, as RAM is before the first step.
    for load in loads:
        machine.write(load.physical, load.data)
    machine.write(BOOT_PARAMS, parameters)
    machine.set_register(0, "rip", entry)
    machine.set_register(0, "rsi", BOOT_PARAMS)


def main(arguments: Sequence[str]) -> int:
    """Build the images named on the command line, by default all."""
    try:
        built = build(arguments or None)
    except (ImageError, UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"built {', '.join(built)}" if built else "all images are up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
