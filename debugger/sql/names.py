"""Names for columns of addresses: each address of the image is looked up once, whole columns by table.

Outside of the image there are no names, so what is kept is bounded by the image, not by the tape.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from machine.disassembly import INSTRUCTION_BYTES_MAX, disassemble
from machine.errors import ExpressionError
from machine.symbols import Lvalue, Symbols
from traces.schema import BoolArray, U8Array, U64Array

I32Array = npt.NDArray[np.int32]

SPAN_BYTES_MAX: Final = 1 << 26
"""Of an image, so many bytes get names. The tables have four bytes for each, which the host gives when touched."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SIZE_CLASS: Final = np.zeros(256, np.uint64)
_SIZE_CLASS[2:] = 1
_SIZE_CLASS[4:] = 2
_SIZE_CLASS[8:] = 3
_SIZES: Final = (1, 2, 4, 8)


class Words:
    """Distinct texts, numbered in the order in which they came, as the dictionary of Arrow columns."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._array: pa.Array | None = None

    def number(self, text: str) -> int:
        """The number of `text`."""
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self._numbers)
            self._array = None
        return found

    def column(self, numbers: I32Array) -> pa.Array:
        """A dictionary column; negative numbers are NULL."""
        if self._array is None:
            self._array = pa.array(list(self._numbers), pa.string())
        mask = numbers < 0
        return pa.DictionaryArray.from_arrays(pa.array(numbers, mask=mask if mask.any() else None), self._array)


class Table:
    """A number for each address of some ranges, found out when it is first asked for.

    Args:
        ranges: (first address, end address), not overlapping.
        slots: numbers per address.
        find: the number, 0 or more, of an address and a slot; or -1 if there is none.
    """

    def __init__(self, ranges: list[tuple[int, int]], slots: int, find: Callable[[int, int], int]) -> None:
        self._slots, self._find = slots, find
        self._ranges: list[tuple[int, int, int]] = []
        at = 1
        for first, end in ranges:
            if 0 <= first < end <= 1 << 64 and at + end - first <= SPAN_BYTES_MAX:
                self._ranges.append((first, end, at))
                at += end - first
        # Index 0 is that of every address outside. 0: not asked yet, 1: none, else the number and two.
        self._found = np.zeros(at * slots, np.int32)
        self._found[:slots] = 1

    def numbers(self, addresses: U64Array, slots: U64Array | None = None) -> I32Array:
        """The number of each address (in its slot), -1 where there is none. Shape as `addresses`."""
        index = self._index(addresses)
        if slots is not None:
            index = index * self._slots + np.where(index != 0, slots, np.uint64(0)).view(np.int64)
        found = np.take(self._found, index)
        if not found.all():
            for key in np.unique(index[found == 0]).tolist():
                place, slot = divmod(key, self._slots)
                self._found[key] = self._find(self._address(place), slot) + 2
            found = np.take(self._found, index)
        found -= np.int32(2)
        return found

    def _index(self, addresses: U64Array) -> npt.NDArray[np.int64]:
        index = np.zeros(len(addresses), np.int64)
        for first, end, at in self._ranges:
            offset = addresses - np.uint64(first)  # wraps around below `first`
            inside = offset < np.uint64(end - first)
            offset += np.uint64(at)
            if inside.all():
                return offset.view(np.int64)
            np.copyto(index, offset.view(np.int64), where=inside)
        return index

    def _address(self, place: int) -> int:
        return next(first + place - at for first, end, at in self._ranges if at <= place < at + end - first)


class Names:
    """Functions, lines and symbols of an image for columns of addresses. May be used by several threads."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self.tracepoints = symbols.tracepoints()
        self.zone_items = _zone_items(symbols)
        self._lock = threading.RLock()
        self._functions, self._files, self._symbols = Words(), Words(), Words()
        self._lines: list[tuple[int, int, int, int]] = []  # (function, outer function, file, line)
        self._line_columns: I32Array = np.full((4, 1), -1, np.int32)
        self._calls: list[tuple[int, int | None]] = []  # (return address, target)
        self._function_at: dict[int, tuple[str, int | None]] = {}
        code = [row for row in symbols.segments if row.executable]
        places = [(row.vaddr, row.vaddr + row.size_bytes) for row in code]
        # Code that runs before paging sits at its physical address.
        early = [(row.paddr, row.paddr + row.size_bytes) for row in code if row.paddr != row.vaddr]
        self._pc_table = Table(_apart(places + early), 1, self._find_line)
        self._call_table = Table(_apart(places), 1, self._find_call)
        data = [(row.vaddr, row.vaddr + row.size_bytes) for row in symbols.segments]
        self._symbol_table = Table(_apart(data), len(_SIZES), self._find_symbol)

    # -- code --

    def functions(self, pc: U64Array) -> pa.Array:
        """The innermost function at each address, which may be inlined; NULL outside of the image."""
        return self._place(pc, 0, self._functions)

    def outers(self, pc: U64Array) -> pa.Array:
        """The function whose code it is: what `functions` names, or what that is inlined into in the end."""
        return self._place(pc, 1, self._functions)

    def files(self, pc: U64Array) -> pa.Array:
        """The source file at each address; NULL where unknown."""
        return self._place(pc, 2, self._files)

    def lines(self, pc: U64Array) -> pa.Array:
        """The line at each address; NULL where unknown."""
        with self._lock:
            lines = self._line_numbers(pc, 3)
        return pa.array(lines, mask=lines < 0)

    def _place(self, pc: U64Array, column: int, words: Words) -> pa.Array:
        with self._lock:
            return words.column(self._line_numbers(pc, column))

    def _line_numbers(self, pc: U64Array, column: int) -> I32Array:
        found = self._pc_table.numbers(pc)
        if self._line_columns.shape[1] != len(self._lines) + 1:
            # The last row is for number -1, no place at all.
            self._line_columns = np.array([*self._lines, (-1, -1, -1, -1)], np.int32).T.copy()
        return np.take(self._line_columns[column], found)

    def _find_line(self, pc: int, _slot: int) -> int:
        frames = self.symbols.frames(pc)
        inner, outer = frames[0], frames[-1]
        if inner.function.startswith("0x"):
            return -1
        number = self._functions.number
        file = self._files.number(inner.file) if inner.file else -1
        self._lines.append((number(inner.function), number(outer.function), file, inner.line or -1))
        return len(self._lines) - 1

    # -- data --

    def symbols_of(self, addresses: U64Array, sizes: U8Array) -> pa.Array:
        """What C calls each place of so many bytes; NULL outside of the image's variables and functions."""
        with self._lock:
            return self._symbols.column(self._symbol_table.numbers(addresses, _SIZE_CLASS[sizes]))

    def _find_symbol(self, address: int, slot: int) -> int:
        name = self.symbols.symbolise(address, _SIZES[slot])
        return -1 if name.startswith("0x") else self._symbols.number(name)

    def place_of(self, text: str) -> Lvalue:
        """The place that a C expression names. Raises ExpressionError."""
        with self._lock:
            return self.symbols.lvalue(text)

    def range_of(self, text: str) -> tuple[int, int] | None:
        """(first address, last address) of the place that `text` names; None if it names none, or perhaps another.

        Whatever `symbols_of` calls `text` lies there.
        """
        with self._lock:
            try:
                found = _IDENTIFIER.match(text)
                # Two files may each have a static of this name.
                if found is None or len(self.symbols.program.symbols(found[0])) != 1:
                    return None
                place = self.symbols.lvalue(text)
            except (ExpressionError, LookupError):
                return None
        return (place.address, place.address + place.size_bytes - 1) if place.size_bytes else None

    # -- calls --

    def calls(self, pc: U64Array, value: U64Array) -> BoolArray:
        """Whether a store of `value` by the instruction at `pc` is that of a near CALL: its return address."""
        with self._lock:
            numbers = self._call_table.numbers(pc)
            returns = np.array([*(row[0] for row in self._calls), 0], np.uint64)
        mask: BoolArray = (numbers >= 0) & (np.take(returns, numbers) == value)
        return mask

    def targets(self, pc: U64Array) -> list[int | None]:
        """Where the CALLs at these addresses go; None for indirect ones."""
        with self._lock:
            return [self._calls[number][1] for number in self._call_table.numbers(pc).tolist()]

    def _find_call(self, pc: int, _slot: int) -> int:
        # The image's own bytes: code that the guest has changed since is not known here.
        segment = next(row for row in self.symbols.segments if row.vaddr <= pc < row.vaddr + row.size_bytes)
        code = segment.data[pc - segment.vaddr :][:INSTRUCTION_BYTES_MAX]
        if not code:
            return -1
        row = disassemble(code, pc, self.symbols.bits, count=1)[0]
        mnemonic, _, operands = row.text.partition(" ")
        if mnemonic not in ("call", "calll", "callq"):
            return -1
        target = None if "*" in operands else int(operands.split()[0].lstrip("$"), 16)
        self._calls.append((pc + row.size_bytes, target))
        return len(self._calls) - 1

    def function_at(self, pc: int) -> tuple[str, int | None] | None:
        """(name of the function whose code is at an address, its first address if known); None outside of the image."""
        with self._lock:
            if pc not in self._function_at:
                name = self.symbols.frames(pc)[-1].function
                if name.startswith("0x"):
                    return None
                first = next((row for row in reversed(self.symbols.entries(name)) if row <= pc), None)
                self._function_at[pc] = name, first
            return self._function_at[pc]


def _zone_items(symbols: Symbols) -> dict[int, str]:
    """Number -> name of the items that zones count; empty in a guest that does not."""
    try:
        rows = symbols.enumerators("zone_stat_item")
    except ExpressionError:
        return {}
    # Of several names for a number, NR_LRU_BASE and NR_INACTIVE_ANON, the last is the item's.
    return {value: name for name, value in rows.items() if name != "NR_VM_ZONE_STAT_ITEMS" and 0 <= value < 256}


def _apart(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Without what overlaps: segments of a sound image never do, but an image may come from anybody."""
    kept: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if not kept or first >= kept[-1][1]:
            kept.append((first, end))
    return kept[:16]
