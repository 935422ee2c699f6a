"""Symbols, types, source lines and typed objects of a guest image, at whatever moment the machine is in.

drgn does the work. It reads guest memory through a function of the caller and keeps no copy of it, so the same
`Symbols` stays right while time moves in either direction. What drgn does not do is here: C expressions
(machine/expression.py), names for data addresses, and source text.

An image may come from anybody, damaged or worse. drgn and pyelftools report bad debug information with many types,
bare Exception among them; hence the broad handlers here: names become unknown, everything else one clear error.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import drgn
from elftools.elf.elffile import ELFFile

from machine.disassembly import first_access
from machine.errors import ExpressionError, ImageError, RacetapeError, UsageError
from machine.expression import Evaluator, Node, Parser

GUEST_ROOT: Final = Path(__file__).resolve().parent / "guest"
SOURCES_VARIABLE: Final = "RACETAPE_SOURCES"
"""Environment variable: folders whose files may be shown if an image names them, separated as in PATH."""
"""Where the guest's sources lie in the installed package."""

ADDRESS_SPACE: Final = {32: 1 << 32, 64: (1 << 64) - 1}
"""Bytes of linear memory per width; drgn cannot express the last byte of 2^64."""

_IMAGES_KEPT: Final = 8
"""Of so many images what pyelftools reads, in a second or so, is kept: one session asks about few."""


_BY_ENUMERATOR: Final = re.compile(r"\b(vm_stat|vm_stat_diff)\[(\d+)\]")
"""Arrays whose indices are of `enum zone_stat_item` (Linux 2.6.39, include/linux/mmzone.h and vmstat.h)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One source-level function at one address.

    Attributes:
        function: name, or a hexadecimal address where the image has no name for it.
        file: path relative to the guest's root ("" if unknown).
        line: line number, 0 if unknown; for a function that others are inlined into, the line of the call.
        inlined: whether the function was inlined into the next frame.
    """

    function: str
    file: str
    line: int
    inlined: bool

    @property
    def place(self) -> str:
        """`mm/compaction.c:231`, or "" if unknown."""
        return f"{self.file}:{self.line}" if self.file else ""


@dataclass(frozen=True, slots=True)
class Lvalue:
    """A place in guest memory that an expression names.

    Attributes:
        address: linear address.
        size_bytes: its size.
        signed: whether its type is a signed integer (of a structure around one integer: that integer's).
        text: the expression.
    """

    address: int
    size_bytes: int
    signed: bool
    text: str


Inlined = tuple[tuple[tuple[int, int], ...], int]
"""A place where a function is inlined: the ranges (address, end address) of its code, the address of its entry."""


@dataclass(frozen=True, slots=True)
class CallSite:
    """Code by whose events a call of a function can be told. Ranges are (address, end address), linear.

    Attributes:
        function, function_end: the code around it: the function's own, or that into which it is inlined.
        entry: where a call begins: an instruction, or the piece of code with which an inlined one does.
        ranges: all code of the function there.
        inlined: whether it is inlined.
    """

    function: int
    function_end: int
    entry: tuple[int, int]
    ranges: tuple[tuple[int, int], ...]
    inlined: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """One PT_LOAD segment: virtual and physical address, size in memory, file contents (bytes)."""

    vaddr: int
    paddr: int
    size_bytes: int
    data: bytes
    executable: bool


class Symbols:
    """The debug information of one image over the memory of one machine.

    Args:
        image: the ELF file.
        read: reads `size` bytes at a linear address now; raises LookupError where nothing is mapped. None: the
            contents of the image's own segments, which is what memory holds at start.
        sources: source texts by path, which come before those of the installed guest.
    Raises:
        ImageError: `image` is no ELF executable for x86 with debug information.
    """

    def __init__(
        self,
        image: bytes,
        read: Callable[[int, int], bytes] | None = None,
        sources: Mapping[str, bytes] | None = None,
    ) -> None:
        self.image = image
        self.sources = sources or {}
        self._read = read or self._read_image
        try:
            elf = ELFFile(io.BytesIO(image))
            machine = elf["e_machine"]
            self.segments = [_segment(row) for row in elf.iter_segments() if row["p_type"] == "PT_LOAD"]
        except Exception as error:
            raise ImageError(f"the guest image is not a readable ELF file ({_one_line(error)})") from error
        if machine not in ("EM_386", "EM_X86_64"):
            raise ImageError(f"the guest image is for {machine}, not for x86")
        self.bits = 32 if machine == "EM_386" else 64
        self.program = self._program_load()
        self._frames: dict[int, tuple[Frame, ...]] = {}
        self._definitions: Mapping[str, list[tuple[str, int]]] | None = None
        self._statements: dict[tuple[str, int], tuple[int, ...]] | None = None
        self._inlined: Mapping[str, list[Inlined]] | None = None
        self._items: dict[int, str] | None = None

    def _program_load(self) -> Any:
        architecture = drgn.Architecture.I386 if self.bits == 32 else drgn.Architecture.X86_64
        flags = drgn.PlatformFlags.IS_LITTLE_ENDIAN
        if self.bits == 64:
            flags |= drgn.PlatformFlags.IS_64_BIT
        program = drgn.Program(drgn.Platform(architecture, flags))
        program.add_memory_segment(0, ADDRESS_SPACE[self.bits], self._read_for_drgn)
        # An "extra" module takes the file's addresses as they are; its range must be set after the file is
        # known, otherwise drgn takes the difference for a relocation. The file never gets a name on disk.
        descriptor = os.memfd_create("racetape-image")
        try:
            with open(descriptor, "wb", closefd=False) as stream:
                stream.write(self.image)
        except OSError as error:
            os.close(descriptor)
            raise ImageError(f"the guest image cannot be held in memory: {error.strerror}") from error
        try:
            module = program.extra_module("image", create=True)
            module = module[0] if isinstance(module, tuple) else module
            module.try_file("image", fd=descriptor, force=True)
            if module.debug_file_status != drgn.ModuleFileStatus.HAVE:
                raise ImageError("the guest image has no debug information")
            module.address_range = self._extent()
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(f"the guest image's debug information cannot be read ({_one_line(error)})") from error
        return program

    def _extent(self) -> tuple[int, int]:
        if not self.segments:
            raise ImageError("the guest image has nothing to load")
        return min(row.vaddr for row in self.segments), max(row.vaddr + row.size_bytes for row in self.segments)

    def _read_image(self, address: int, size: int) -> bytes:
        for row in self.segments:
            if row.vaddr <= address and address + size <= row.vaddr + row.size_bytes:
                start = address - row.vaddr
                return row.data[start : start + size].ljust(size, b"\0")
        raise LookupError(address)

    def _read_for_drgn(self, address: int, count: int, _offset: int, _physical: bool) -> bytes:
        try:
            return self._read(address, count)
        except (LookupError, ValueError) as error:
            raise drgn.FaultError(f"cannot read guest memory at {address:#x}", address) from error

    def read(self, address: int, size: int) -> bytes:
        """Guest memory now. Raises ExpressionError where nothing is mapped."""
        try:
            return self._read(address, size)
        except (LookupError, ValueError) as error:
            bad = next((value for value in error.args if isinstance(value, int)), address)
            raise ExpressionError(f"cannot read guest memory at {bad:#x}") from error

    # -- code --

    def _linked(self, address: int) -> int:
        """`address` as it was linked: code that runs before paging sits at its physical address."""
        if any(row.vaddr <= address < row.vaddr + row.size_bytes for row in self.segments):
            return address
        for row in self.segments:
            if row.paddr <= address < row.paddr + row.size_bytes:
                return address - row.paddr + row.vaddr
        return address

    def is_code(self, address: int) -> bool:
        """Whether `address` lies in an executable segment of the image."""
        address = self._linked(address)
        return any(row.executable and row.vaddr <= address < row.vaddr + row.size_bytes for row in self.segments)

    def frames(self, pc: int) -> list[Frame]:
        """The functions `pc` is in, innermost first; all but the last were inlined. Never empty."""
        known = self._frames.get(pc)
        if known is None:
            known = self._frames[pc] = tuple(self._frames_find(self._linked(pc)))
        return list(known)

    def _frames_find(self, pc: int) -> list[Frame]:
        try:
            rows = [(row.name(), row.filename, row.line) for row in self.program.source_location(pc)]
        except Exception:
            rows = []
        if not rows:
            return [Frame(self._function_name(pc), "", 0, False)]
        last = len(rows) - 1
        return [
            Frame(name or self._function_name(pc), self.path(file), line, inlined=index < last)
            for index, (name, file, line) in enumerate(rows)
        ]

    def _function_name(self, pc: int) -> str:
        try:
            return str(self.program.symbol(pc).name)
        except Exception:
            return f"{pc:#x}"

    def path(self, name: str) -> str:
        """A source file's path relative to the guest's root, however the compiler spelled it."""
        name = os.path.normpath(name) if name else ""
        root = str(GUEST_ROOT) + os.sep
        if name.startswith(root):
            return name[len(root) :]
        _, found, rest = name.rpartition("machine/guest/")
        return rest if found else name

    # -- names --

    def symbol(self, name: str) -> Any:
        """The ELF symbol (drgn.Symbol: name, address, size in bytes, kind). Raises ExpressionError."""
        try:
            return self.program.symbol(name)
        except LookupError:
            raise ExpressionError(f"the image has no symbol '{name}'") from None

    def symbol_names(self) -> list[str]:
        """Names of all functions and variables, sorted: for completion."""
        return sorted({row.name for row in self.program.symbols() if row.name})

    def symbolise(self, address: int, size_bytes: int | None = None) -> str:
        """`name+0x12`; data inside a typed variable by its members; plain hexadecimal outside the image.

        Args:
            size_bytes: of the access, if it is one: names the member of that size instead of what begins there.
        """
        data = self.name_of_data(address, size_bytes)
        if data is not None:
            return data
        linked = self._linked(address)
        try:
            symbol = self.program.symbol(linked)
        except Exception:
            return f"{address:#x}"
        offset = linked - symbol.address
        return f"{symbol.name}+{offset:#x}" if offset else str(symbol.name)

    def name_of_data(self, address: int, size_bytes: int | None = None) -> str | None:
        """A data address as C would write it, `contig_page_data.node_zones[1].vm_stat[NR_FREE_PAGES]`; None outside
        variables.

        An address is that of every aggregate which begins there; without `size_bytes` the largest one is named.
        """
        try:
            symbol = self.program.symbol(address)
            if symbol.kind != drgn.SymbolKind.OBJECT:
                return None
            variable = self.program.variable(symbol.name)
            # Two files may each have a static of this name, and drgn returns either.
            if variable.address_ != symbol.address:
                return None
            path = str(symbol.name) + _path_inside(variable.type_, address - symbol.address, size_bytes)
            return _BY_ENUMERATOR.sub(self._named_item, path)
        except Exception:
            return None

    def _named_item(self, found: re.Match[str]) -> str:
        """An array of statistics with the item's name for its index, where the image has it."""
        if self._items is None:
            try:
                self._items = {value: name for name, value in self.enumerators("zone_stat_item").items()}
            except ExpressionError:
                self._items = {}
        return f"{found[1]}[{self._items.get(int(found[2]), found[2])}]"

    def enumerators(self, enum_name: str) -> dict[str, int]:
        """Enumerator name -> value of `enum enum_name`. Raises ExpressionError if there is no such enumeration."""
        try:
            rows = self.program.type(f"enum {enum_name}").enumerators
        except Exception as error:
            raise ExpressionError(f"the image has no 'enum {enum_name}'") from error
        return {row.name: row.value for row in rows or ()}

    def tracepoints(self) -> dict[int, str]:
        """Tracepoint identifier -> name in lower case; empty where the image declares none."""
        try:
            rows = self.enumerators("tracepoint")
        except ExpressionError:
            return {}
        return {value: name.removeprefix("TP_").lower() for name, value in rows.items()}

    def files(self) -> list[str]:
        """Source files that code of the image comes from, relative to the guest's root, ascending."""
        return sorted({file for file, _ in self.statements()})

    def definitions(self, function: str) -> list[tuple[str, int]]:
        """(file, line) of every function of that name, also of those that are inlined everywhere. Sorted."""
        if self._definitions is None:
            self._definitions = definitions_of(self.image)
        return sorted({(self.path(file), line) for file, line in self._definitions.get(function, ())})

    def statements(self) -> Mapping[tuple[str, int], tuple[int, ...]]:
        """(file, line) -> addresses at which the code of that line begins; empty where there is no line table."""
        if self._statements is None:
            rows: dict[tuple[str, int], set[int]] = {}
            for address, file, line in statements_of(self.image):
                rows.setdefault((self.path(file), line), set()).add(address)
            self._statements = {place: tuple(sorted(addresses)) for place, addresses in rows.items()}
        return self._statements

    def entries(self, function: str) -> tuple[int, ...]:
        """Addresses of the functions of that name that are not inlined."""
        found = self.program.symbols(function)
        return tuple(sorted({row.address for row in found if row.kind == drgn.SymbolKind.FUNC}))

    def call_sites(self, function: str) -> list[CallSite]:
        """Where calls of a function can be told by its memory accesses: itself, and wherever it is inlined.

        Raises UsageError if there is no function of that name, or one whose calls cannot be told.
        """
        found = []
        for row in self.program.symbols(function):
            if row.kind != drgn.SymbolKind.FUNC or not row.size:
                continue
            site = first_access(self._read_image(row.address, row.size), row.address, self.bits)
            if site is None:
                raise UsageError(f"calls of {function}() cannot be told by events: it jumps before it touches memory")
            end = row.address + row.size
            found.append(CallSite(row.address, end, (site, site + 1), ((row.address, end),), inlined=False))
        if self._inlined is None:
            self._inlined = inlined_of(self.image)
        for ranges, entry in self._inlined.get(function, ()):
            first = next((row for row in ranges if row[0] <= entry < row[1]), ranges[0])
            try:
                outer = self.program.symbol(entry)
            except LookupError:
                continue
            found.append(CallSite(outer.address, outer.address + outer.size, first, ranges, inlined=True))
        if not found:
            close = get_close_matches(function, self.symbol_names(), 2)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(f"the image has no function {function}(){hint}")
        return found

    # -- expressions --

    def parse(self, text: str) -> Node:
        """The expression's tree. Raises ExpressionError."""
        return Parser(text, self._is_type, long_bits=self.bits).parse()

    def _is_type(self, name: str) -> bool:
        try:
            self.program.type(name)
            return name not in self.program
        except Exception:
            return False

    def evaluate(self, text: str, registers: Mapping[str, int] | None = None) -> Any:
        """The drgn.Object that `text` means now. Raises ExpressionError.

        Args:
            registers: of the CPU whose `$eip` and so on are meant, in `Machine.registers` form.
        """
        return Evaluator(self.program, registers or {}).evaluate(self.parse(text))

    def lvalue(self, text: str, registers: Mapping[str, int] | None = None, *, integer: bool = False) -> Lvalue:
        """The place in memory that `text` names.

        Args:
            integer: accept integers and structures around one integer (`atomic_t`) only.
        Raises:
            ExpressionError: also for values, bit-fields, and indices outside of arrays of fixed size.
        """
        value = Evaluator(self.program, registers or {}, bounded=True).evaluate(self.parse(text))
        if value.address_ is None:
            raise ExpressionError(f"'{text}' is a value, not a place in memory")
        if value.bit_field_size_ is not None:
            raise ExpressionError(f"'{text}' is a bit-field; name the word it lies in")
        kind = value.type_.unaliased_kind()
        if kind in (drgn.TypeKind.FUNCTION, drgn.TypeKind.VOID):
            raise ExpressionError(f"'{text}' has no size; name a variable or a member")
        try:
            size_bytes = drgn.sizeof(value)
        except TypeError as error:
            raise ExpressionError(f"'{text}' has a type without size") from error
        inner = _unwrap(value.type_)
        if integer and inner.kind not in (drgn.TypeKind.INT, drgn.TypeKind.BOOL, drgn.TypeKind.ENUM):
            what = "a pointer" if inner.kind == drgn.TypeKind.POINTER else f"of type {value.type_.type_name()}"
            raise ExpressionError(f"'{text}' is {what}, not an integer")
        signed = inner.kind == drgn.TypeKind.INT and bool(inner.is_signed)
        return Lvalue(value.address_, size_bytes, signed, text)

    def value(self, expression: Any) -> int:
        """The integer in a drgn.Object, also through a structure around one integer (`atomic_t`).

        Raises ExpressionError where it is no integer or cannot be read.
        """
        try:
            while expression.type_.unaliased_kind() == drgn.TypeKind.STRUCT:
                members: Any = expression.type_.unaliased().members or ()
                if len(members) != 1 or members[0].name is None:
                    raise ExpressionError(f"a {expression.type_.type_name()} is no integer")
                expression = expression.member_(members[0].name)
            return int(expression.value_())
        except drgn.FaultError as error:
            raise ExpressionError(f"cannot read guest memory at {error.address:#x}") from error
        except (TypeError, ValueError) as error:
            raise ExpressionError(f"a {expression.type_.type_name()} is no integer") from error
        except RacetapeError:
            raise
        except Exception as error:
            raise ExpressionError(_one_line(error)) from error

    def format(self, value: Any, *, columns: int = 100) -> str:
        """A drgn.Object as C-like text. Raises ExpressionError where memory cannot be read."""
        options = {"type_name": False, "member_type_names": False, "element_type_names": False, "dereference": False}
        try:
            return str(value.format_(columns=columns, symbolize=True, **options))
        except drgn.FaultError as error:
            raise ExpressionError(f"cannot read guest memory at {error.address:#x}") from error
        except Exception as error:
            raise ExpressionError(_one_line(error)) from error

    # -- source --

    def source(self, file: str, line: int, context: int = 5) -> list[tuple[int, str]]:
        """Lines around `line` as (number, text without line end). Raises ImageError if there is no such text."""
        if file in self.sources:
            rows = self.sources[file].decode("utf-8", "replace").splitlines()
        else:
            rows = installed_source(file).decode("utf-8", "replace").splitlines()
        first = max(1, line - context)
        if first > len(rows):
            raise ImageError(f"'{file}' has only {len(rows)} lines")
        return list(enumerate(rows[first - 1 : line + context], first))


def installed_source(file: str) -> bytes:
    """A source file of the installed guest, or of a folder in RACETAPE_SOURCES. Raises ImageError if there is none."""
    path = (GUEST_ROOT / file).resolve()
    # File names come out of the image, and an image may come from anybody.
    folders = [Path(row).resolve() for row in os.environ.get(SOURCES_VARIABLE, "").split(os.pathsep) if row]
    if not any(path.is_relative_to(folder) for folder in (GUEST_ROOT, *folders)):
        more = f"; {SOURCES_VARIABLE} names folders of others" if os.path.isabs(file) else ""
        raise ImageError(f"'{file}' is not a guest source file{more}")
    try:
        return path.read_bytes()
    except (OSError, ValueError):
        raise ImageError(f"the source of '{file}' is not installed") from None


def find_source(name: str, more: Iterable[str] = ()) -> str:
    """The guest source file, relative to the guest's root, that `name` means: its path, or the unique end of one.

    `more` are files that there are beside those installed. Raises UsageError, naming what comes close.
    """
    installed = (str(row.relative_to(GUEST_ROOT)) for row in GUEST_ROOT.rglob("*") if row.suffix in (".c", ".h", ".S"))
    files = sorted({*installed, *more})
    if name in files:
        return name
    found = [row for row in files if row.endswith("/" + name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"'{name}' is ambiguous: {', '.join(found)}")
    names = {row: row for row in files} | {os.path.basename(row): row for row in files}
    close = list(dict.fromkeys(names[row] for row in get_close_matches(name, names)))
    raise UsageError(f"no source file '{name}'" + (f"; did you mean {' or '.join(close)}?" if close else ""))


def _line_programs(image: bytes) -> Iterator[tuple[Any, Any]]:
    """Compilation units and their line programs."""
    dwarf = ELFFile(io.BytesIO(image)).get_dwarf_info()
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        if program is not None:
            yield unit, program


@lru_cache(maxsize=_IMAGES_KEPT)
def definitions_of(image: bytes) -> Mapping[str, list[tuple[str, int]]]:
    """Function name -> (file, line) of its definitions, which drgn does not tell. Raises ImageError."""
    found: dict[str, list[tuple[str, int]]] = {}
    try:
        for unit, program in _line_programs(image):
            for entry in unit.iter_DIE_children(unit.get_top_DIE()):
                attributes = entry.attributes
                if entry.tag != "DW_TAG_subprogram" or "DW_AT_name" not in attributes:
                    continue
                if "DW_AT_declaration" in attributes or "DW_AT_decl_file" not in attributes:
                    continue
                file = _line_file(program.header, attributes["DW_AT_decl_file"].value)
                name = attributes["DW_AT_name"].value.decode("utf-8", "replace")
                found.setdefault(name, []).append((file, attributes["DW_AT_decl_line"].value))
    except Exception as error:
        raise ImageError(f"the guest image's debug information cannot be read ({_one_line(error)})") from error
    return found


@lru_cache(maxsize=_IMAGES_KEPT)
def inlined_of(image: bytes) -> Mapping[str, list[Inlined]]:
    """Function name -> where it is inlined. What cannot be read of the debug information is left out."""
    found: dict[str, list[Inlined]] = {}
    try:
        dwarf = ELFFile(io.BytesIO(image)).get_dwarf_info()
        lists = dwarf.range_lists()
        for unit in dwarf.iter_CUs():
            base = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
            for die in unit.iter_DIEs():
                if die.tag != "DW_TAG_inlined_subroutine" or "DW_AT_abstract_origin" not in die.attributes:
                    continue
                name = die.get_DIE_from_attribute("DW_AT_abstract_origin").attributes.get("DW_AT_name")
                ranges = _code_ranges(die, lists, base.value if base is not None else 0)
                if name is None or not ranges:
                    continue
                entry = die.attributes.get("DW_AT_entry_pc")
                row = (ranges, entry.value if entry is not None else ranges[0][0])
                found.setdefault(name.value.decode("utf-8", "replace"), []).append(row)
    except Exception:  # damaged debug information can raise anything in there
        return found
    return found


def _code_ranges(die: Any, lists: Any, base: int) -> tuple[tuple[int, int], ...]:
    attributes = die.attributes
    if "DW_AT_ranges" in attributes:
        rows = []
        for row in lists.get_range_list_at_offset(attributes["DW_AT_ranges"].value, cu=die.cu):
            if hasattr(row, "base_address"):
                base = row.base_address
            elif row.begin_offset < row.end_offset:
                rows.append((base + row.begin_offset, base + row.end_offset))
        return tuple(rows)
    if "DW_AT_low_pc" not in attributes:
        return ()
    low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
    end = high.value if high.form == "DW_FORM_addr" else low + high.value
    return ((low, end),) if low < end else ()


@lru_cache(maxsize=_IMAGES_KEPT)
def statements_of(image: bytes) -> tuple[tuple[int, str, int], ...]:
    """(address, file, line) wherever the line table goes over to another line. Raises ImageError."""
    found: list[tuple[int, str, int]] = []
    try:
        for _unit, program in _line_programs(image):
            files: dict[int, str] = {}
            before: tuple[int, int] | None = None
            for row in (entry.state for entry in program.get_entries() if entry.state is not None):
                place = None if row.end_sequence else (row.file, row.line)
                if place is not None and place != before and row.is_stmt and row.line:
                    if row.file not in files:
                        files[row.file] = _line_file(program.header, row.file)
                    found.append((row.address, files[row.file], row.line))
                before = place
    except Exception as error:
        raise ImageError(f"the guest image's line table cannot be read ({_one_line(error)})") from error
    return tuple(found)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _line_file(header: Any, number: int) -> str:
    """A path in a line program's file table; DWARF 4 counts from 1, DWARF 5 from 0."""
    entry = header["file_entry"][number - (header["version"] < 5)]
    folder = entry["dir_index"]
    folders = header["include_directory"]
    name = entry["name"].decode("utf-8", "replace")
    if header["version"] < 5:
        return str(os.path.join(folders[folder - 1].decode("utf-8", "replace"), name)) if folder else str(name)
    return str(os.path.join(folders[folder].decode("utf-8", "replace"), name))


def _segment(row: Any) -> Segment:
    return Segment(row["p_vaddr"], row["p_paddr"], row["p_memsz"], row.data(), bool(row["p_flags"] & 1))


def _unwrap(type_: Any) -> Any:
    """The type inside typedefs and structures of one member, as atomic_t and atomic_long_t are."""
    type_ = type_.unaliased()
    while type_.kind == drgn.TypeKind.STRUCT and len(type_.members or ()) == 1:
        type_ = type_.members[0].type.unaliased()
    return type_


def _path_inside(type_: Any, offset: int, size_bytes: int | None) -> str:
    """The C path from an object of `type_` to its byte `offset`: as far down as `size_bytes` asks for."""
    path = ""
    named = True  # An anonymous member has no name of its own to stop at.
    while True:
        inner = _unwrap(type_)
        aggregate = inner.kind in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION, drgn.TypeKind.ARRAY)
        if named and offset == 0 and (not aggregate or size_bytes is None or _size(inner) <= size_bytes):
            return path
        type_ = type_.unaliased()
        if type_.kind == drgn.TypeKind.ARRAY and type_.length and _size(type_.type):
            index, offset = divmod(offset, _size(type_.type))
            path += f"[{index}]"
            named = True
            type_ = type_.type
            continue
        member = _member_at(type_, offset)
        if member is None:
            return path + (f"+{offset:#x}" if offset else "")
        named = bool(member.name)
        path += f".{member.name}" if named else ""
        offset -= member.bit_offset // 8
        type_ = member.type


def _size(type_: Any) -> int:
    """Bytes of a type; 0 for an incomplete one."""
    return int(drgn.sizeof(type_)) if type_.is_complete() else 0


def _member_at(type_: Any, offset: int) -> Any:
    if type_.kind not in (drgn.TypeKind.STRUCT, drgn.TypeKind.UNION):
        return None
    for member in type_.members or ():
        start = member.bit_offset // 8
        if start <= offset < start + _size(member.type):
            return member
    return None
