"""Disassembly text: named targets, tracepoints, and bytes that are no instruction."""

from machine.disassembly import disassemble
from machine.symbols import Symbols


def test_targets_are_named(symbols: Symbols) -> None:
    stub = symbols.symbol("_start")
    code = symbols.read(stub.address, stub.size)
    found = disassemble(code, stub.address, name=symbols.symbolise)
    assert [row.text.split()[0] for row in found] == ["xorl", "calll", "hlt"]
    assert found[1].text.endswith("<from_stub>")
    assert sum(row.size_bytes for row in found) == stub.size
    assert [row.address for row in found] == [stub.address, stub.address + 2, stub.address + 7]


def test_data_addresses_are_named(symbols: Symbols) -> None:
    function = symbols.symbol("isolate")
    found = disassemble(symbols.read(function.address, function.size), function.address, name=symbols.symbolise)
    text = "\n".join(row.text for row in found)
    assert "# vm_stat[NR_ISOLATED_FILE]" in text
    assert "# hidden" in text


def test_tracepoints(symbols: Symbols) -> None:
    code = bytes.fromhex("0f1f841003005452") + bytes.fromhex("0f1f841009005452") + bytes.fromhex("0f1f841000000000")
    found = disassemble(code, 0x1000, tracepoints=symbols.tracepoints())
    assert [row.text.partition("# ")[2] for row in found] == ["tracepoint ghost", "tracepoint 9", ""]


def test_bad_bytes_and_count() -> None:
    found = disassemble(b"\xff\xff\x90\x90", 0)
    assert [row.text for row in found] == ["(bad)", "(bad)", "nop", "nop"]
    assert len(disassemble(b"\x90" * 10, 0, count=3)) == 3
    assert disassemble(b"", 0) == []


def test_64_bit_code() -> None:
    (found,) = disassemble(bytes.fromhex("4889e5"), 0, 64)
    assert found.text == "movq %rsp, %rbp"
