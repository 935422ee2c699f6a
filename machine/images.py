"""Guest images: which exist, building them with gcc, putting one into a machine.

An image is named `flavour-kind-variant` or `flavour-kind-paging-variant`, for example `linux-up-buggy` or
`small-smp-x86_64-fix-7454f4ba40b4`: `flavour` is the size of the guest's units, `kind` is `up` or `smp` (one image for
every number of CPUs), `paging` is `pae` or `x86_64` (left out: x86-32 with 2-level page tables), `variant` the code.
Building is reproducible byte for byte; `python -m machine.images` builds all that is out of date.

Exports:
    Scenario, Configuration: the declarations in guest/scenarios.toml.
    scenarios, scenario: all of them, or one by name.
    image_names, image_path, image_bytes: images on disk.
    build, compiler: compile images.
    boot: load an image into a Machine.
    same_contents: whether two images run alike.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import itertools
import os
import re
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from machine import linux
from machine._core import Machine
from machine.errors import ImageError, UsageError

GUEST = Path(__file__).with_name("guest")
IMAGES = Path(__file__).with_name("built")

FLAVOURS: dict[str, tuple[str, ...]] = {"linux": (), "small": ("-DCONFIG_SMALL",)}
KINDS: dict[str, tuple[str, ...]] = {"up": (), "smp": ("-DCONFIG_SMP",)}
PAGINGS: dict[str, tuple[str, ...]] = {"2level": (), "pae": ("-DCONFIG_X86_PAE",), "x86_64": ("-DCONFIG_X86_64",)}
VARIANTS: dict[str, tuple[str, ...]] = {
    "buggy": (),
    "fix-7454f4ba40b4": ("-DCONFIG_FIX_7454f4ba40b4",),
    "seed-wmb": ("-DCONFIG_SEED_WMB",),
    "seed-clamp": ("-DCONFIG_SEED_CLAMP",),
    "fix-fc280fe87144": ("-DCONFIG_FIX_fc280fe87144",),
    "fix-5db8a73a8d7c": ("-DCONFIG_FIX_5db8a73a8d7c",),
    "fix-668f9abbd433": ("-DCONFIG_FIX_668f9abbd433",),
    "fix-d52605d7cb30": ("-DCONFIG_FIX_d52605d7cb30",),
    "fix-eb66ae030829": ("-DCONFIG_FIX_eb66ae030829",),
    "fix-b5740f4b2cb3": ("-DCONFIG_FIX_b5740f4b2cb3",),
    "seed-no-mb": ("-DCONFIG_FIX_b5740f4b2cb3", "-DCONFIG_SEED_NO_MB"),
    "fixed": ("-DCONFIG_FIXED",),
}

# Plain integer code without SSE and x87, as Linux's: for i686 with three arguments in registers, for x86-64 in the top
# 2 GB of the address space.
COMPILE = [
    *("-mgeneral-regs-only", "-fcf-protection=none", "-fno-pic", "-no-pie"),
    *("-std=gnu11", "-O2", "-ffreestanding", "-nostdlib", "-nostdinc", "-Iinclude", "-Iarch/x86/include"),
    *("-fno-strict-aliasing", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"),
    *("-g", "-gdwarf-4", "-Wall", "-Wextra", "-Werror"),
]
COMPILE_BITS = {
    32: ["-m32", "-march=i686", "-mregparm=3"],
    64: ["-m64", "-march=x86-64", "-mcmodel=kernel", "-mno-red-zone", "-mpreferred-stack-boundary=3"],
}
LINK = ["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-z,noexecstack"]
LINKER_SCRIPT = "arch/x86/kernel/vmlinux.lds"
# What linked and physical addresses differ by: PAGE_OFFSET, __START_KERNEL_map.
LOAD_OFFSET = {32: 0xC0000000, 64: 0xFFFFFFFF80000000}

BOOT_PARAMS = 0x10000
BOOT_PARAMS_MAGIC = 0x50425452
BOOT_PARAMS_VERSION = 1
COMMAND_LINE_SIZE = 240


@dataclass(frozen=True)
class Configuration:
    """A machine that a scenario can run on: `up-2level`, `smp4-pae`; `smp1-x86_64` is an SMP build on one CPU."""

    name: str
    kind: str
    cpus: int
    paging: str

    @classmethod
    def parse(cls, name: str) -> Configuration:
        """Raises UsageError for a name that is not one."""
        match = re.fullmatch(rf"(?:(up)|smp([1-8]))-({'|'.join(PAGINGS)})", name)
        if match is None:
            pagings = " or ".join(f"-{row}" for row in PAGINGS)
            raise UsageError(f"no such configuration: {name!r} (up or smp1 to smp8, then {pagings})")
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
    image_file: str = ""
    """Path of an image that somebody else has built, with {variant} and {configuration} for those; "": one of ours."""

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
        chosen = self.configuration(configuration)
        if self.image_file:
            return self.image_file.replace("{variant}", variant).replace("{configuration}", chosen.name)
        return _image_name(self.flavour, chosen.kind, chosen.paging, variant)


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
    """The scenario of that name, or of a file: an ELF image, or a `.toml` that declares one as guest/scenarios.toml
    does.

    Raises UsageError, with close matches, if there is none.
    """
    by_name = {row.name: row for row in scenarios()}
    if name not in by_name and (name.endswith((".toml", ".elf")) or os.sep in name):
        return _scenario_of_file(Path(name))
    return by_name[_choose("scenario", name, by_name)]


_FILE_DEFAULTS: Final = {
    "summary": "",
    "flavour": "",
    "command_line": "",
    "ram_bytes": 64 << 20,
    "variants": ["image"],
    "configurations": ["smp2-2level", *(f"smp{n}-2level" for n in (1, 3, 4, 5, 6, 7, 8))],
    "counters": [],
    "counters_more": [],
    "step_max": 10_000_000,
}


def _scenario_of_file(path: Path) -> Scenario:
    """A scenario of somebody else's. `image` in the file is the path of the ELF file, as seen from there."""
    if not path.is_file():
        raise UsageError(f"no such scenario or file: {str(path)!r}")
    row: dict[str, Any] = {"name": str(path), "image": path.name}
    if path.suffix == ".toml":
        try:
            row |= tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise UsageError(f"{path}: {error}") from None
        row["name"] = str(path)
    known = {*_FILE_DEFAULTS, "name", "image"}
    for key, value in row.items():
        if key not in known:
            raise UsageError(f"{path}: unknown key {key!r}; there are: {', '.join(sorted(known))}")
        if type(value) is not type(_FILE_DEFAULTS.get(key, "")):
            raise UsageError(f"{path}: {key} is no {type(_FILE_DEFAULTS.get(key, '')).__name__}")
    made = _scenario_parse({**_FILE_DEFAULTS, **{key: value for key, value in row.items() if key != "image"}})
    for configuration in made.configurations:
        Configuration.parse(configuration)
    if not made.variants or not made.configurations:
        raise UsageError(f"{path}: a scenario has at least one variant and one configuration")
    return replace(made, image_file=os.path.join(path.parent, row["image"]))


# -- images on disk --


def _image_name(flavour: str, kind: str, paging: str, variant: str) -> str:
    return "-".join((flavour, kind, *([] if paging == "2level" else [paging]), variant))


@dataclass(frozen=True)
class _Kernel:
    """What an image is compiled as."""

    flavour: str
    kind: str
    paging: str
    variant: str

    @property
    def bits(self) -> int:
        return 64 if self.paging == "x86_64" else 32

    @property
    def defines(self) -> tuple[str, ...]:
        """Those that all variants share."""
        return FLAVOURS[self.flavour] + KINDS[self.kind] + PAGINGS[self.paging]


@cache
def _kernels() -> dict[str, _Kernel]:
    """Those that some scenario runs on."""
    found = {}
    for row in scenarios():
        for name, variant in itertools.product(row.configurations, row.variants):
            chosen = Configuration.parse(name)
            kernel = _Kernel(row.flavour, chosen.kind, chosen.paging, variant)
            found[_image_name(row.flavour, chosen.kind, chosen.paging, variant)] = kernel
    return found


def image_names() -> tuple[str, ...]:
    """The names of all images that can be built."""
    return tuple(_kernels())


def _kernel(name: str) -> _Kernel:
    return _kernels()[_choose("image", name, _kernels())]


def image_path(name: str) -> Path:
    """Path of a built image, by its name; a path is taken as it is.

    Raises UsageError for an unknown name, ImageError if it is not built.
    """
    if os.sep in name:
        return Path(name)
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

    Raises UsageError for an unknown name, ImageError if gcc is missing, fails, or cannot compile for 32 and 64 bits.
    """
    target = directory or IMAGES
    wanted = {name: _stamp(name) for name in (image_names() if names is None else names)}
    stale = [name for name, stamp in wanted.items() if force or not _is_fresh(target, name, stamp)]
    if not stale:
        return []
    _check_headers()
    _check_compiler()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        objects = {name: _objects(name) for name in stale}
        distinct = list(dict.fromkeys(row for rows in objects.values() for row in rows))
        # The linker keeps the names of objects whose source does not tell its own: they must not depend on the others.
        outputs = {row: Path(scratch, str(number), f"{row.source.stem}.o") for number, row in enumerate(distinct)}
        for path in outputs.values():
            path.parent.mkdir()
        list(pool.map(lambda row: _compile(row, outputs[row]), distinct))

        def link(name: str) -> None:
            linked = Path(scratch, f"{name}.elf")
            bits = _kernel(name).bits
            offset = f"-Wl,--defsym=LOAD_OFFSET={LOAD_OFFSET[bits]:#x},-T,{LINKER_SCRIPT}"
            _gcc([*LINK, f"-m{bits}", offset, "-o", str(linked), *(str(outputs[row]) for row in objects[name])])
            # The stamp comes last: whoever is interrupted builds again.
            _write(target / f"{name}.elf", linked.read_bytes())
            _write(target / f"{name}.stamp", wanted[name].encode())

        list(pool.map(link, stale))
    return stale


@dataclass(frozen=True)
class _Object:
    """One compilation. Images that agree on it share its result."""

    source: Path
    bits: int
    defines: tuple[str, ...]


def _objects(name: str) -> list[_Object]:
    """What an image consists of: a source `..._32.*` or `..._64.*` belongs to that width only.

    The variant's macros reach only sources that mention them, so that all others are compiled once for all variants.
    """
    kernel = _kernel(name)
    other = "_32" if kernel.bits == 64 else "_64"
    found = []
    for path in sorted(row for pattern in ("*.c", "*.S") for row in GUEST.rglob(pattern)):
        if path.stem.endswith(other):
            continue
        text = path.read_text()
        variant = tuple(row for row in VARIANTS[kernel.variant] if row.removeprefix("-D") in text)
        found.append(_Object(path.relative_to(GUEST), kernel.bits, kernel.defines + variant))
    return found


def _check_headers() -> None:
    """A header that mentions a variant's macro would make `_objects` share what differs."""
    for path in GUEST.rglob("*.h"):
        text = path.read_text()
        for macro in (row.removeprefix("-D") for rows in VARIANTS.values() for row in rows):
            if f"ifdef {macro}" in text or f"defined({macro})" in text:
                raise ImageError(f"{path.relative_to(GUEST)} depends on {macro}: only .c files may")


def _compile(row: _Object, out: Path) -> None:
    assembly = ("-D__ASSEMBLY__",) if row.source.suffix == ".S" else ()
    prefix = f"-ffile-prefix-map={GUEST}/=", f"-ffile-prefix-map={GUEST}=."
    flags = [*COMPILE, *COMPILE_BITS[row.bits], *prefix, *row.defines, *assembly]
    _gcc([*flags, "-c", str(row.source), "-o", str(out)])


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
        for bits in (32, 64):
            try:
                _gcc([f"-m{bits}", "-ffreestanding", "-c", str(source), "-o", str(source.with_suffix(".o"))])
            except ImageError as error:
                raise ImageError(f"this gcc cannot compile for {bits}-bit x86 (-m{bits}): {error}") from error


@cache
def _compiler_version() -> str:
    try:
        return subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return "none"


def _stamp(name: str) -> str:
    """What an image depends on, as one hash: every source, the flags, the compiler."""
    kernel = _kernel(name)
    flags = *COMPILE, *COMPILE_BITS[kernel.bits], *LINK, *kernel.defines, *VARIANTS[kernel.variant]
    digest = hashlib.sha256(" ".join((_compiler_version(), *flags)).encode())
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
    """(entry, PT_LOAD segments) of an ELF executable for i386 or x86-64. Raises ImageError for anything else."""
    from elftools.elf.elffile import ELFFile

    if image[:4] != b"\x7fELF":
        raise ImageError("not an ELF file")
    try:
        elf = ELFFile(io.BytesIO(image))
        kind = (elf.elfclass, elf["e_machine"])
        executable = elf.little_endian and elf["e_type"] == "ET_EXEC"
        entry = int(elf["e_entry"])
        headers = [segment.header for segment in elf.iter_segments("PT_LOAD")]
    except Exception as error:  # a damaged file can raise anything in there
        raise ImageError(f"damaged ELF file: {error or type(error).__name__}") from error
    if not executable or kind not in ((32, "EM_386"), (64, "EM_X86_64")):
        raise ImageError("not an executable for x86")
    loads = []
    for header in headers:
        offset, filesz, memsz, physical = (header[key] for key in ("p_offset", "p_filesz", "p_memsz", "p_paddr"))
        if offset + filesz > len(image) or filesz > memsz or physical + memsz > 1 << 32:
            raise ImageError(f"damaged ELF file: the segment at {physical:#x} lies outside of it")
        loads.append(_Load(physical, image[offset : offset + filesz], memsz))
    if not any(load.physical <= entry < load.physical + load.size_bytes for load in loads):
        raise ImageError(f"damaged ELF file: the entry point {entry:#x} is in no segment")
    return entry, loads


def same_contents(one: bytes, other: bytes) -> bool:
    """Whether two images put the same into memory: then they run alike. Raises ImageError as `boot` does."""
    return _elf_loads(one) == _elf_loads(other) and linux.initrd_of(one) == linux.initrd_of(other)


def compiler() -> str:
    """The gcc that builds images, in its own words: two of the same name make the same images. "" if there is none."""
    try:
        result = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.split("\n")[0].strip()


def boot(machine: Machine, image: bytes, command_line: str) -> None:
    """Put an image and its boot parameters into a machine that has not run yet (docs/platform.md, "Start"; "A PC").

    Raises ImageError if `image` is not a right ELF executable for x86 or does not fit, UsageError for a command line
    that is too long or not ASCII.
    """
    if machine.pc:
        linux.boot(machine, image, command_line)
        return
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
