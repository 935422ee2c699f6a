"""The C expression language: values, places, and one clear line for everything that is wrong."""

import pytest

from machine.errors import ExpressionError
from machine.symbols import Symbols

REGISTERS = {"rip": 0xC0100004, "rsp": 0x1000, "rax": 0xFFFFFFFF, "rflags": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("10-4-3", 3),
        ("1<<4>>2", 4),
        ("0x10 | 3 & 2", 0x12),
        ("7 ^ 2", 5),
        ("010", 8),
        ("'a' + '\\n'", 107),
        ("-5 / 2", -2),
        ("-5 % 3", -2),
        ("!3 || 0 && 1/0", 0),
        ("1 || 1/0", 1),
        ("2 > 1 == 1", 1),
        ("3 >= 3 && 2 <= 3 && 1 < 2 && 1 != 2", 1),
        ("~0u", 0xFFFFFFFF),
        ("4294967295 + 1", 1 << 32),
        ("0x80000000 >> 31", 1),
        ("(unsigned char)300", 44),
        ("(int)0xffffffff", -1),
        ("(pfn_t) contig_page_data.node_zones[1].start", 4096),
        ("sizeof(struct zone)", 28),
        ("sizeof hidden + sizeof(int *)", 8),
        ("NR_ISOLATED_FILE", 2),
        ("hidden == 5 && !(hidden - 5)", 1),
        ("small", -3),
        ("- small", 3),
        ("contig_page_data.node_zones[0+1].start", 4096),
        ("(&contig_page_data)->nr_zones", 2),
        ("(*&contig_page_data).nr_zones", 2),
        ("*contig_page_data.node_zones[1].name", ord("N")),
        ("contig_page_data.node_zones[1].half[1]", 0),
        ("&vm_stat[2] - &vm_stat[0]", 2),
        ("$eip", 0xC0100004),
        ("$pc + 1", 0xC0100005),
        ("$EAX", 0xFFFFFFFF),
        ("$eflags & 2", 2),
    ],
)
def test_values(symbols: Symbols, text: str, value: int) -> None:
    assert symbols.value(symbols.evaluate(text, REGISTERS)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("sizeof(struct zone)", 40),
        ("sizeof hidden + sizeof(int *)", 12),
        ("~0ul", (1 << 64) - 1),
        ("~0u", 0xFFFFFFFF),
        ("4294967295 + 1", 1 << 32),
        ("0x8000000000000000 >> 63", 1),
        ("(int)0xffffffff", -1),
        ("$rip", 0xFFFFFFFF80100004),
        ("$pc - 4 == 0xffffffff80100000", 1),
        ("$eax", 0xFFFFFFFF),
        ("$rax >> 32", 0x12345678),
        ("$r15", 15),
        ("contig_page_data.node_zones[1].start", 4096),
        ("&vm_stat[2] - &vm_stat[0]", 2),
    ],
)
def test_values_64(symbols_64: Symbols, text: str, value: int) -> None:
    registers = REGISTERS | {"rip": 0xFFFFFFFF80100004, "rax": 0x12345678FFFFFFFF, "r15": 15}
    assert symbols_64.value(symbols_64.evaluate(text, registers)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an expression is missing"),
        ("  ", "an expression is missing"),
        ("1+", "a value is missing at the end"),
        ("(1", "')' is missing at the end"),
        ("hidden[", "a value is missing"),
        ("hidden @ 3", "cannot read the expression from '@ 3' on"),
        ("1 2", "'2' does not belong here at character 3"),
        ("1x", "cannot read the expression"),
        ("08", "'08' is no number"),
        ("99999999999999999999999", "does not fit in 64 bits"),
        ("contig_page_data.", "a member name is missing"),
        ("contig_page_data.nope", "no member 'nope'"),
        ("nope", "the image has no symbol 'nope'"),
        ("(struct nope *)1", "the image has no type 'struct nope *'"),
        ("hidden.counter", "not a structure"),
        ("hidden[1]", "not an array or pointer"),
        ("&5", "cannot take address"),
        ("1/0", "division by zero"),
        ("1%0", "division by zero"),
        ("*(int *)0x10 + 1", "cannot read guest memory at 0x10"),
        ("$nope", "no register '$nope'"),
        ("(" * 300 + "1" + ")" * 300, "nested deeper"),
        ("-" * 300 + "1", "nested deeper"),
        ("1" + "+1" * 3000, "longer than"),
        ("'\\q'", "is no character"),
    ],
)
def test_errors_are_one_clear_line(symbols: Symbols, text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        symbols.evaluate(text, REGISTERS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_flat_expressions_work(symbols: Symbols) -> None:
    assert symbols.value(symbols.evaluate("1" + "+1" * 400)) == 401


def test_lvalues(symbols: Symbols) -> None:
    zone = symbols.symbol("contig_page_data").address + 28
    found = symbols.lvalue("contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_FILE]")
    assert (found.address, found.size_bytes, found.signed) == (zone + 16, 4, True)
    found = symbols.lvalue("contig_page_data.node_zones[1].start")
    assert (found.address, found.size_bytes, found.signed) == (zone + 4, 4, False)
    found = symbols.lvalue("*(short *)0x2000")
    assert (found.address, found.size_bytes, found.signed) == (0x2000, 2, True)
    assert symbols.lvalue("contig_page_data").size_bytes == 88


@pytest.mark.parametrize("text", ["5", "hidden + 1", "contig_page_data.node_zones[0].bits.low", "isolate", "$eip"])
def test_no_lvalue(symbols: Symbols, text: str) -> None:
    with pytest.raises(ExpressionError):
        symbols.lvalue(text, REGISTERS)


def test_structures_are_no_integers(symbols: Symbols) -> None:
    with pytest.raises(ExpressionError, match="no integer"):
        symbols.value(symbols.evaluate("contig_page_data"))
    assert symbols.value(symbols.evaluate("vm_stat[0]")) == 0


@pytest.mark.parametrize(
    ("text", "size_bytes", "signed"),
    [
        ("vm_stat[1]", 4, True),
        ("contig_page_data.node_zones[1].start", 4, False),
        ("*(unsigned char *)&hidden", 1, False),
        ("small", 1, True),
        (" hidden ", 4, True),
    ],
)
def test_integer_lvalues(symbols: Symbols, text: str, size_bytes: int, signed: bool) -> None:
    found = symbols.lvalue(text, integer=True)
    assert (found.size_bytes, found.signed) == (size_bytes, signed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contig_page_data.node_zones[0].name", "is a pointer, not an integer"),
        ("contig_page_data.node_zones[0].next", "is a pointer, not an integer"),
        ("contig_page_data.node_zones[0]", "is of type struct zone, not an integer"),
        ("vm_stat", "not an integer"),
    ],
)
def test_no_integer_lvalue(symbols: Symbols, text: str, message: str) -> None:
    symbols.lvalue(text)
    with pytest.raises(ExpressionError, match=message):
        symbols.lvalue(text, integer=True)


@pytest.mark.parametrize(
    "text", ["vm_stat[3]", "vm_stat[1000000]", "vm_stat[-1]", "contig_page_data.node_zones[3].vm_stat[0]"]
)
def test_a_place_outside_of_its_array_is_none(symbols: Symbols, text: str) -> None:
    symbols.evaluate(text)  # looking is allowed
    with pytest.raises(ExpressionError, match=r"index -?\d+ is outside of an array of 3 elements"):
        symbols.lvalue(text)


def test_indices_of_pointers_have_no_bounds(symbols: Symbols) -> None:
    assert symbols.lvalue("(&vm_stat[0])[5]").address == symbols.symbol("vm_stat").address + 20
