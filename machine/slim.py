"""Guest images with as little debug information as answers need: for tapes that are to be small.

`slim` keeps every byte that is loaded, so that runs are the same ones, step for step and state for state. Of the debug
information it keeps what the engine reads: functions, what is inlined where, source lines, types, global variables,
call frames. Left out are local variables, parameters, columns, and what all compilation units say again: there is one
unit in the end. A compressed image is less than half as long as before.

It works on what gcc makes of the bundled guests (DWARF 4) and is tested by asking both images the same questions.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from elftools.dwarf.enums import ENUM_DW_AT, ENUM_DW_FORM, ENUM_DW_TAG
from elftools.elf.elffile import ELFFile

from machine.errors import ImageError

_KEPT: Final = (".debug_frame", ".symtab", ".strtab", ".shstrtab")
"""Sections outside of memory that stay; .debug_info and what belongs to it are made anew."""
_MADE: Final = (".debug_info", ".debug_abbrev", ".debug_ranges", ".debug_line")

_AGGREGATES: Final = ("DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_enumeration_type")
_QUALIFIERS: Final = ("DW_TAG_pointer_type", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type")
_TYPES: Final = (
    *_AGGREGATES,
    *_QUALIFIERS,
    "DW_TAG_base_type",
    "DW_TAG_typedef",
    "DW_TAG_array_type",
    "DW_TAG_subroutine_type",
    "DW_TAG_unspecified_type",
)
_NUMBERS: Final = (
    "DW_AT_byte_size",
    "DW_AT_bit_size",
    "DW_AT_bit_offset",
    "DW_AT_data_bit_offset",
    "DW_AT_data_member_location",
    "DW_AT_encoding",
    "DW_AT_alignment",
)
_SIGNED: Final = ("DW_AT_const_value", "DW_AT_upper_bound", "DW_AT_count")
"""Numbers whose form says whether they have a sign: it is kept."""
_FLAGS: Final = ("DW_AT_declaration", "DW_AT_prototyped")

# Of the line programs. Ranges found by trying: functions go back and forth.
_LINE_BASE, _LINE_RANGE, _OPCODE_BASE = -5, 14, 10
_OPERANDS: Final = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1))
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE = 1, 2, 3, 4
_END_SEQUENCE, _SET_ADDRESS = 1, 2


@dataclass(eq=False)
class _Die:
    """A debugging information entry that is to be written. A value of form `ref4` is the entry that is meant."""

    tag: str
    values: list[tuple[str, str, Any]] = field(default_factory=list)
    children: list[_Die] = field(default_factory=list)
    code: int = 0
    offset: int = 0

    def add(self, name: str, form: str, value: Any) -> None:
        self.values.append((name, form, value))


Row = tuple[int, int, int]
"""Of a line table: address, number of the file, line."""


def slim(image: bytes) -> bytes:
    """The same guest image with less debug information. Raises ImageError if it has none of the right kind."""
    try:
        elf = ELFFile(io.BytesIO(image))
        if not elf.has_dwarf_info():
            raise ImageError("the guest image has no debug information")
        merged = _Merged(elf)
        return _rewritten(image, elf, merged.sections())
    except ImageError:
        raise
    except Exception as error:  # pyelftools reports bad debug information with many types
        raise ImageError(f"the guest image's debug information cannot be read ({error})") from error


class _Merged:
    """All compilation units as one."""

    def __init__(self, elf: ELFFile) -> None:
        self._dwarf: Any = elf.get_dwarf_info()
        self._bytes = elf.elfclass // 8
        self._address = "<I" if self._bytes == 4 else "<Q"
        self._folders: dict[str, int] = {}
        self._files: dict[tuple[str, int], int] = {}
        self._types: dict[Any, _Die] = {}
        self._type_of: dict[int, _Die] = {}
        self._type_list: list[_Die] = []
        self._functions: dict[int, _Die] = {}
        self._function_list: list[_Die] = []
        self._variables: dict[tuple[str, bytes], _Die] = {}
        self._ranges = bytearray()
        self._ranges_at: dict[bytes, int] = {}
        self._sequences: list[list[Row]] = []
        self._numbers: dict[int, int] = {}
        self._unit: Any = None
        self._header: Any = None
        units = list(self._dwarf.iter_CUs())
        for unit in units:
            self._take_lines(unit)
        if not any(self._sequences):
            raise ImageError("the guest image has no line table")
        self._low = min(row[0] for rows in self._sequences for row in rows)
        self._high = max(row[0] for rows in self._sequences for row in rows)
        for unit in units:
            self._take(unit)

    # -- lines --

    def _take_lines(self, unit: Any) -> None:
        """One row at each address where the line is another than before: the last one, which is what debuggers take."""
        program = self._dwarf.line_program_for_CU(unit)
        if program is None:
            return
        rows: list[Row] = []
        for state in (entry.state for entry in program.get_entries() if entry.state is not None):
            if state.end_sequence:
                self._sequences.append([*_changes(rows), (state.address, 0, 0)])
                rows = []
            else:
                rows.append((state.address, self._file(program.header, state.file), state.line))

    def _file(self, header: Any, number: int) -> int:
        """The number in the common file table of a file of `header`'s."""
        entry = header["file_entry"][number - 1]
        name, index = entry["name"].decode(), entry["dir_index"]
        folder = header["include_directory"][index - 1].decode() if index else ""
        # Compilers name a file in a folder of their own either way.
        folder, name = os.path.split(os.path.normpath(os.path.join(folder, name)))
        where = self._folders.setdefault(folder, len(self._folders) + 1) if folder else 0
        return self._files.setdefault((name, where), len(self._files) + 1)

    def _line_section(self) -> bytes:
        folders = b"".join(name.encode() + b"\0" for name in self._folders)
        files = b"".join(name.encode() + b"\0" + bytes((where, 0, 0)) for name, where in self._files)
        tables = struct.pack("<BBBbBB", 1, 1, 1, _LINE_BASE, _LINE_RANGE, _OPCODE_BASE) + _OPERANDS
        tables += folders + b"\0" + files + b"\0"
        programs = b"".join(self._line_program(rows) for rows in sorted(self._sequences))
        body = struct.pack("<HI", 4, len(tables)) + tables + programs
        return struct.pack("<I", len(body)) + body

    def _line_program(self, rows: list[Row]) -> bytes:
        out = bytearray((0, 1 + self._bytes, _SET_ADDRESS)) + struct.pack(self._address, rows[0][0])
        at, file, line = rows[0][0], 1, 1
        for address, now_file, now_line in rows[:-1]:
            if now_file != file:
                out += bytes((_SET_FILE,)) + _uleb(now_file)
            up = now_line - line
            if not _LINE_BASE <= up < _LINE_BASE + _LINE_RANGE:
                out += bytes((_ADVANCE_LINE,)) + _sleb(up)
                up = 0
            opcode = (up - _LINE_BASE) + _LINE_RANGE * (address - at) + _OPCODE_BASE
            if opcode > 255:
                out += bytes((_ADVANCE_PC,)) + _uleb(address - at)
                opcode = (up - _LINE_BASE) + _OPCODE_BASE
            out.append(opcode)
            at, file, line = address, now_file, now_line
        return bytes(out + bytes((_ADVANCE_PC,)) + _uleb(rows[-1][0] - at) + bytes((0, 1, _END_SEQUENCE)))

    # -- entries --

    def _take(self, unit: Any) -> None:
        program = self._dwarf.line_program_for_CU(unit)
        self._unit, self._header = unit, None if program is None else program.header
        top = unit.get_top_DIE()
        for entry in top.iter_children():
            if entry.tag in _TYPES and "DW_AT_name" in entry.attributes:
                self._type(entry)
            elif entry.tag == "DW_TAG_enumeration_type":
                self._type(entry)  # whose enumerators have names
            elif entry.tag == "DW_TAG_variable":
                self._variable(entry)
            elif entry.tag == "DW_TAG_subprogram" and "DW_AT_declaration" not in entry.attributes:
                self._function(entry)

    def _variable(self, entry: Any) -> None:
        location = entry.attributes.get("DW_AT_location")
        if location is None or location.form != "DW_FORM_exprloc":
            return
        named = entry
        if "DW_AT_specification" in entry.attributes:
            named = entry.get_DIE_from_attribute("DW_AT_specification")
        name = named.attributes.get("DW_AT_name")
        # A definition may know more of its type (an array's length) than the declaration.
        typed = entry if "DW_AT_type" in entry.attributes else named
        if name is None:
            return
        made = _Die("DW_TAG_variable")
        made.add("DW_AT_name", "string", name.value)
        made.add("DW_AT_type", "ref4", self._type(typed.get_DIE_from_attribute("DW_AT_type")))
        made.add("DW_AT_location", "exprloc", bytes(location.value))
        self._variables[name.value, bytes(location.value)] = made

    def _function(self, entry: Any) -> _Die:
        """A function, with what is inlined into it; if it is inlined itself, what its copies refer to."""
        known = self._functions.get(entry.offset)
        if known is not None:
            return known
        made = self._functions[entry.offset] = _Die("DW_TAG_subprogram")
        if "DW_AT_abstract_origin" in entry.attributes:
            made.add(
                "DW_AT_abstract_origin", "ref4", self._function(entry.get_DIE_from_attribute("DW_AT_abstract_origin"))
            )
        elif "DW_AT_name" in entry.attributes:
            made.add("DW_AT_name", "string", entry.attributes["DW_AT_name"].value)
            if "DW_AT_decl_file" in entry.attributes:
                made.add(
                    "DW_AT_decl_file", "udata", self._file(self._header, entry.attributes["DW_AT_decl_file"].value)
                )
                made.add("DW_AT_decl_line", "udata", entry.attributes["DW_AT_decl_line"].value)
        self._place(entry, made)
        made.children = list(self._inlined(entry))
        self._function_list.append(made)
        return made

    def _inlined(self, entry: Any) -> Iterator[_Die]:
        for child in entry.iter_children():
            if child.tag == "DW_TAG_lexical_block":
                yield from self._inlined(child)
            elif child.tag == "DW_TAG_inlined_subroutine":
                made = _Die("DW_TAG_inlined_subroutine")
                origin = child.get_DIE_from_attribute("DW_AT_abstract_origin")
                made.add("DW_AT_abstract_origin", "ref4", self._function(origin))
                if self._place(child, made):
                    values = child.attributes
                    made.add("DW_AT_call_file", "udata", self._file(self._header, values["DW_AT_call_file"].value))
                    made.add("DW_AT_call_line", "udata", values["DW_AT_call_line"].value)
                    # By it calls are counted: code of an inlined function may stand before it, too.
                    if "DW_AT_entry_pc" in values and "DW_AT_ranges" in values:
                        made.add("DW_AT_entry_pc", "addr", values["DW_AT_entry_pc"].value)
                    made.children = list(self._inlined(child))
                    yield made

    def _place(self, entry: Any, made: _Die) -> bool:
        """Where the code is; False if nowhere."""
        values = entry.attributes
        if "DW_AT_ranges" in values:
            base, rows = self._base(), []
            for row in self._dwarf.range_lists().get_range_list_at_offset(values["DW_AT_ranges"].value):
                if hasattr(row, "base_address"):
                    base = row.base_address
                else:
                    rows.append((base + row.begin_offset, base + row.end_offset))
            made.add("DW_AT_ranges", "sec_offset", self._range_list(rows))
            return True
        if "DW_AT_low_pc" not in values or "DW_AT_high_pc" not in values:
            return False
        low, high = values["DW_AT_low_pc"].value, values["DW_AT_high_pc"]
        made.add("DW_AT_low_pc", "addr", low)
        made.add("DW_AT_high_pc", "udata", high.value - low if high.form == "DW_FORM_addr" else high.value)
        return True

    def _base(self) -> int:
        low = self._unit.get_top_DIE().attributes.get("DW_AT_low_pc")
        return 0 if low is None else int(low.value)

    def _range_list(self, rows: list[tuple[int, int]]) -> int:
        pair = self._address + self._address[1:]
        data = b"".join(struct.pack(pair, low - self._low, high - self._low) for low, high in (*rows, (self._low,) * 2))
        at = self._ranges_at.setdefault(data, len(self._ranges))
        if at == len(self._ranges):
            self._ranges += data
        return at

    # -- types --

    def _type(self, entry: Any) -> _Die:
        """The type that is written for `entry`: one for all that are the same."""
        known = self._type_of.get(entry.offset)
        if known is not None:
            return known
        values = entry.attributes
        place = (
            self._numbered(values["DW_AT_decl_file"].value) if "DW_AT_decl_file" in values else 0,
            *(values[name].value if name in values else 0 for name in ("DW_AT_decl_line", "DW_AT_decl_column")),
        )
        named = (entry.tag, *(values[n].value if n in values else None for n in ("DW_AT_name", "DW_AT_byte_size")))
        key: tuple[Any, ...]
        if entry.tag in (*_AGGREGATES, "DW_TAG_typedef"):
            # C has one of these in each place, and only they make circles.
            key = (*named, *place, "DW_AT_declaration" in values)
        else:
            target = self._target(entry)
            parts = tuple(self._part_key(child) for child in entry.iter_children())
            key = (*named, id(target), parts, values["DW_AT_encoding"].value if "DW_AT_encoding" in values else None)
        made = self._types.get(key)
        if made is None:
            made = self._types[key] = _Die(entry.tag)
            self._type_of[entry.offset] = made
            self._fill(entry, made)
            self._type_list.append(made)
        self._type_of[entry.offset] = made
        return made

    def _numbered(self, number: int) -> int:
        return self._file(self._header, number)

    def _target(self, entry: Any) -> _Die | None:
        return self._type(entry.get_DIE_from_attribute("DW_AT_type")) if "DW_AT_type" in entry.attributes else None

    def _part_key(self, child: Any) -> tuple[Any, ...]:
        values = child.attributes
        rows = (values[name].value if name in values else None for name in _SIGNED)
        return (child.tag, id(self._target(child)), *(tuple(row) if isinstance(row, list) else row for row in rows))

    def _fill(self, entry: Any, made: _Die) -> None:
        values = entry.attributes
        if "DW_AT_name" in values:
            made.add("DW_AT_name", "string", values["DW_AT_name"].value)
        for name in _NUMBERS:
            if name in values:
                made.add(name, "udata", values[name].value)
        for name in _SIGNED:
            if name in values and values[name].form.startswith(("DW_FORM_data", "DW_FORM_sdata", "DW_FORM_udata")):
                made.add(name, values[name].form.removeprefix("DW_FORM_"), values[name].value)
        for name in _FLAGS:
            if name in values:
                made.add(name, "flag_present", True)
        target = self._target(entry)
        if target is not None:
            made.add("DW_AT_type", "ref4", target)
        for child in entry.iter_children():
            if child.tag not in _TYPES:
                part = _Die(child.tag)
                self._fill(child, part)
                made.children.append(part)

    # -- writing --

    def sections(self) -> dict[str, bytes]:
        """The new sections by name."""
        top = _Die("DW_TAG_compile_unit")
        top.add("DW_AT_language", "udata", 12)  # C99
        top.add("DW_AT_name", "string", b"guest")
        top.add("DW_AT_comp_dir", "string", b".")
        top.add("DW_AT_low_pc", "addr", self._low)
        top.add("DW_AT_high_pc", "udata", self._high - self._low)
        top.add("DW_AT_stmt_list", "sec_offset", 0)
        top.children = [*self._type_list, *self._variables.values(), *self._function_list]
        abbreviations: dict[Any, int] = {}
        end = self._lay_out(top, 11, abbreviations)
        out = io.BytesIO()
        out.write(struct.pack("<IHIB", end - 4, 4, 0, self._bytes))
        self._write(top, out)
        assert out.tell() == end
        return {
            ".debug_info": out.getvalue(),
            ".debug_abbrev": _abbreviation_section(abbreviations),
            ".debug_ranges": bytes(self._ranges),
            ".debug_line": self._line_section(),
        }

    def _lay_out(self, die: _Die, at: int, abbreviations: dict[Any, int]) -> int:
        """Give `die` and what is in it their places from `at` on; where it ends."""
        key = (die.tag, bool(die.children), tuple((name, form) for name, form, _ in die.values))
        die.code = abbreviations.setdefault(key, len(abbreviations) + 1)
        die.offset = at
        at += len(_uleb(die.code)) + sum(len(self._value(form, value)) for _, form, value in die.values)
        for child in die.children:
            at = self._lay_out(child, at, abbreviations)
        return at + bool(die.children)

    def _write(self, die: _Die, out: io.BytesIO) -> None:
        assert out.tell() == die.offset
        out.write(_uleb(die.code))
        for _, form, value in die.values:
            out.write(self._value(form, value))
        for child in die.children:
            self._write(child, out)
        if die.children:
            out.write(b"\0")

    def _value(self, form: str, value: Any) -> bytes:
        if form == "ref4":
            return struct.pack("<I", value.offset)
        if form == "string":
            return bytes(value) + b"\0"
        if form == "udata":
            return _uleb(value)
        if form == "sdata":
            return _sleb(value)
        if form == "flag_present":
            return b""
        if form == "exprloc":
            return _uleb(len(value)) + bytes(value)
        if form == "addr":
            return struct.pack(self._address, value)
        size_bytes = {"data1": 1, "data2": 2, "data4": 4, "data8": 8, "sec_offset": 4}[form]
        return int(value).to_bytes(size_bytes, "little")


def _changes(rows: list[Row]) -> Iterator[Row]:
    """The rows at which the place is another than before, the last one of each address."""
    before: tuple[int, int] | None = None
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        if (after is None or after[0] != row[0]) and row[1:] != before:
            before = row[1:]
            yield row


def _abbreviation_section(abbreviations: dict[Any, int]) -> bytes:
    out = bytearray()
    for (tag, children, forms), code in abbreviations.items():
        out += _uleb(code) + _uleb(ENUM_DW_TAG[tag]) + bytes((children,))
        for name, form in forms:
            out += _uleb(ENUM_DW_AT[name]) + _uleb(ENUM_DW_FORM[f"DW_FORM_{form}"])
        out += b"\0\0"
    return bytes(out + b"\0")


# -- the ELF file around it --


def _rewritten(image: bytes, elf: ELFFile, made: dict[str, bytes]) -> bytes:
    """`image` up to where its loaded contents end, then the sections that are kept or made, then their table."""
    wide = elf.elfclass == 64
    rows = list(elf.iter_sections())
    loaded = [row for row in rows if row["sh_flags"] & 2 or row["sh_type"] == "SHT_NULL"]
    end = max(row["p_offset"] + row["p_filesz"] for row in elf.iter_segments() if row["p_type"] == "PT_LOAD")
    out = bytearray(image[:end])
    names = bytearray(b"\0")
    table: list[list[int]] = []

    def head(row: Any, name: str) -> list[int]:
        values = [_header_value(row, key) for key in _HEADER_KEYS]
        values[0] = len(names) if name else 0
        names.extend(name.encode() + b"\0" if name else b"")
        return values

    def put(values: list[int], data: bytes) -> None:
        out.extend(bytes(-len(out) % max(values[8], 1)))
        values[4], values[5] = len(out), len(data)
        out.extend(data)
        table.append(values)

    for row in loaded:
        table.append(head(row, row.name))
    old = {row.name: row for row in rows}
    for name in _MADE:
        put(head(old[name], name) if name in old else [], made[name])
    put(head(old[".debug_frame"], ".debug_frame"), old[".debug_frame"].data())
    symbols, strings, locals_ = _symbols(old[".symtab"], len(loaded))
    values = head(old[".symtab"], ".symtab")
    values[6], values[7] = len(table) + 1, locals_
    put(values, symbols)
    put(head(old[".strtab"], ".strtab"), strings)
    values = head(old[".shstrtab"], ".shstrtab")
    put(values, bytes(names))
    out.extend(bytes(-len(out) % 4))
    at = len(out)
    for values in table:
        out.extend(struct.pack("<IIQQQQIIQQ" if wide else "<10I", *values))
    struct.pack_into("<Q" if wide else "<I", out, 40 if wide else 32, at)
    struct.pack_into("<HH", out, 60 if wide else 48, len(table), len(table) - 1)
    return bytes(out)


_HEADER_KEYS: Final = (
    "sh_name",
    "sh_type",
    "sh_flags",
    "sh_addr",
    "sh_offset",
    "sh_size",
    "sh_link",
    "sh_info",
    "sh_addralign",
    "sh_entsize",
)


def _header_value(row: Any, key: str) -> int:
    from elftools.elf.enums import ENUM_SH_TYPE_BASE

    value = row[key]
    return int(ENUM_SH_TYPE_BASE[value]) if isinstance(value, str) else int(value)


def _symbols(section: Any, sections: int) -> tuple[bytes, bytes, int]:
    """(symbol table, its strings, number of local symbols) without those of files and sections."""
    wide = section["sh_entsize"] == 24
    data, old = section.data(), section.stringtable.data()
    size_bytes = section["sh_entsize"]
    rows: list[tuple[bool, bytes]] = []
    strings = bytearray(b"\0")
    for at in range(size_bytes, len(data), size_bytes):
        form = "<IBBHQQ" if wide else "<IIIBBH"
        values = list(struct.unpack_from(form, data, at))
        info, section_number = (values[1], values[3]) if wide else (values[3], values[5])
        if info & 15 in (3, 4) or not (0 < section_number < sections or section_number == 0xFFF1):
            continue
        name = old[values[0] : old.index(b"\0", values[0])]
        values[0] = len(strings) if name else 0
        strings += name + b"\0" if name else b""
        rows.append((info >> 4 != 0, struct.pack(form, *values)))
    rows.sort(key=lambda row: row[0])
    locals_ = 1 + sum(not row[0] for row in rows)
    return bytes(size_bytes) + b"".join(row[1] for row in rows), bytes(strings), locals_


def _uleb(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def _sleb(value: int) -> bytes:
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        last = value == (-1 if byte & 0x40 else 0)
        out.append(byte | (0 if last else 0x80))
        if last:
            return bytes(out)
