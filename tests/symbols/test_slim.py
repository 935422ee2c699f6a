"""Slim images: what is loaded is the same, and so is all that the engine asks the debug information for."""

from __future__ import annotations

import io
from typing import Any

import pytest
import zstandard
from elftools.elf.elffile import ELFFile

from machine import images
from machine.errors import ImageError
from machine.slim import slim
from machine.symbols import Symbols, statements_of
from machine.unwind import Unwinder

NAMES = ("small-smp-buggy", "small-up-x86_64-buggy")


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[Symbols, Symbols]:
    """(of the whole image, of the slim one)."""
    image = images.image_bytes(request.param)
    return Symbols(image), Symbols(slim(image))


def test_what_is_loaded_stays_and_little_else(pair: tuple[Symbols, Symbols]) -> None:
    whole, small = (symbols.image for symbols in pair)
    assert images.same_contents(whole, small)
    sizes = [len(zstandard.compress(image, 19)) for image in (whole, small)]
    assert sizes[1] * 5 < sizes[0] * 2


def test_places_have_the_same_names(pair: tuple[Symbols, Symbols]) -> None:
    """Wherever a line begins, and in the middle of an instruction behind it.

    drgn overlooks what is inlined in a block that has no address of its own; here there are no blocks, so the slim
    image may say more. It never says anything else.
    """
    whole, small = pair
    places = sorted({address for address, _, _ in statements_of(whole.image)})
    more = 0
    for pc in (address + offset for address in places[::7] for offset in (0, 1)):
        expected, found = whole.frames(pc), small.frames(pc)
        assert (found[0].place, found[-1].function) == (expected[0].place, expected[-1].function), hex(pc)
        if found != expected:
            more += 1
            assert len(found) > len(expected), hex(pc)
    assert more < len(places) // 300


def test_functions_and_variables_are_the_same(pair: tuple[Symbols, Symbols]) -> None:
    whole, small = pair
    files = {name for name in whole.symbol_names() if name.endswith((".c", ".o"))}
    assert set(small.symbol_names()) == set(whole.symbol_names()) - files
    assert whole.definitions("acct_isolated")
    variables = 0
    for name in small.symbol_names():
        assert small.entries(name) == whole.entries(name)
        assert small.definitions(name) == whole.definitions(name)
        expected, found = _object(whole, name), _object(small, name)
        # Functions are there without their types; of two static variables of one name drgn gives either.
        if expected is not None and "(" not in str(expected.type_) and len(whole.program.symbols(name)) == 1:
            variables += 1
            assert (str(found.type_), found.address_) == (str(expected.type_), expected.address_)
    assert variables > 40


def _object(symbols: Symbols, name: str) -> Any:
    try:
        return symbols.program[name]
    except KeyError:
        return None


def _type(symbols: Symbols, name: str) -> Any:
    try:
        return symbols.program.type(name)
    except LookupError:  # of a structure that is only declared
        return None


def test_types_are_the_same(pair: tuple[Symbols, Symbols]) -> None:
    whole, small = pair
    kinds = {"DW_TAG_structure_type": "struct ", "DW_TAG_union_type": "union ", "DW_TAG_enumeration_type": "enum "}
    names = set()
    for unit in ELFFile(io.BytesIO(whole.image)).get_dwarf_info().iter_CUs():
        for entry in unit.get_top_DIE().iter_children():
            if entry.tag in (*kinds, "DW_TAG_typedef") and "DW_AT_name" in entry.attributes:
                names.add(kinds.get(entry.tag, "") + entry.attributes["DW_AT_name"].value.decode())
    assert len(names) > 60
    for name in sorted(names):
        expected, found = _type(whole, name), _type(small, name)
        assert str(found) == str(expected)
        assert getattr(found, "size", None) == getattr(expected, "size", None)
    assert small.tracepoints() == whole.tracepoints()


def test_stacks_unwind_alike(pair: tuple[Symbols, Symbols]) -> None:
    whole, small = pair
    (entry,) = whole.entries("__alloc_pages_direct_compact")
    stack = max(row.vaddr for row in whole.segments) + 64
    registers = dict.fromkeys(("rsp", "rbp"), stack) | {"rip": entry + 24}
    registers |= dict.fromkeys(("rax", "rbx", "rcx", "rdx", "rsi", "rdi"), 0)
    assert Unwinder(small).backtrace(registers) == Unwinder(whole).backtrace(registers)


def test_no_debug_information_is_one_clear_error() -> None:
    with pytest.raises(ImageError, match="debug information"):
        slim(b"\x7fELF" + bytes(100))
