"""Symbols over a compiled program, checked against binutils, and over memory that changes."""

import os
import subprocess
from pathlib import Path

import pytest

from machine.errors import ExpressionError, ImageError, UsageError
from machine.symbols import GUEST_ROOT, Symbols, find_source, installed_source


def addr2line(path: Path, addresses: list[int]) -> dict[int, list[tuple[str, str, int]]]:
    """binutils' opinion: address -> (function, file name, line), innermost first."""
    command = ["addr2line", "-e", str(path), "-i", "-f", "-a", *(hex(row) for row in addresses)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    found: dict[int, list[tuple[str, str, int]]] = {}
    rows = iter(lines)
    for row in rows:
        if row.startswith("0x"):
            current = found.setdefault(int(row, 16), [])
            continue
        file, _, line = next(rows).partition(" (")[0].rpartition(":")
        current.append((row, Path(file).name, int(line) if line.isdigit() else 0))
    return found


def test_frames_agree_with_addr2line(symbols: Symbols, image_path: Path) -> None:
    functions = [symbols.symbol(name) for name in ("isolate", "factorial", "aligned", "compact", "from_stub")]
    addresses = [row.address + offset for row in functions for offset in range(row.size)]
    truth = addr2line(image_path, addresses)
    deep = 0
    for address in addresses:
        ours = [(row.function, Path(row.file).name, row.line) for row in symbols.frames(address)]
        assert ours == truth[address]
        deep += len(ours) > 2
    assert deep, "no address with two levels of inlining was tested"


def test_frames_mark_inlined_ones(symbols: Symbols) -> None:
    frames = symbols.frames(symbols.symbol("isolate").address)
    assert [row.function for row in frames] == ["atomic_add", "acct_isolated", "isolate"]
    assert [row.inlined for row in frames] == [True, True, False]


def test_frames_outside_the_image(symbols: Symbols) -> None:
    (frame,) = symbols.frames(0x1234)
    assert (frame.function, frame.file, frame.line, frame.place) == ("0x1234", "", 0, "")


def test_names(symbols: Symbols) -> None:
    code, data = symbols.symbol("isolate").address, symbols.symbol("contig_page_data").address
    assert symbols.symbolise(code) == "isolate"
    assert symbols.symbolise(code + 3) == "isolate+0x3"
    assert symbols.symbolise(data + 28 + 16) == "contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_FILE]"
    assert symbols.symbolise(data + 28 + 17) == "contig_page_data.node_zones[1].vm_stat[NR_ISOLATED_FILE].counter+0x1"
    assert symbols.symbolise(data + 24) == "contig_page_data.node_zones[0].next"
    assert symbols.symbolise(symbols.symbol("hidden").address) == "hidden"
    assert symbols.symbolise(data + 28) == "contig_page_data.node_zones[1]"
    assert symbols.symbolise(data + 28, 4) == "contig_page_data.node_zones[1].name"
    assert symbols.symbolise(data + 28 + 8, 4) == "contig_page_data.node_zones[1].vm_stat[NR_FREE_PAGES]"
    assert symbols.symbolise(data, 1000) == "contig_page_data"
    assert symbols.symbolise(0x1234) == "0x1234"
    assert symbols.name_of_data(code) is None
    assert "acct_isolated" not in symbols.symbol_names()
    assert "isolate" in symbols.symbol_names()
    with pytest.raises(ExpressionError, match="no symbol 'nope'"):
        symbols.symbol("nope")


def test_every_byte_of_a_variable_has_a_name_that_leads_back(symbols: Symbols) -> None:
    base = symbols.symbol("contig_page_data").address
    for offset in range(88):
        name = symbols.name_of_data(base + offset)
        assert name is not None
        path, _, extra = name.partition("+")
        if "bits" in path:  # bit-fields have no address
            continue
        assert symbols.lvalue(path).address + int(extra or "0", 16) == base + offset


def test_definitions_of_functions_inlined_everywhere(symbols: Symbols, image_path: Path) -> None:
    ((file, line),) = symbols.definitions("acct_isolated")
    assert Path(file).name == "compaction.c"
    source = (image_path.parent / "compaction.c").read_text().splitlines()
    assert source[line - 1].startswith("static void acct_isolated")
    ((file, line),) = symbols.definitions("atomic_add")
    assert (Path(file).name, line) == ("atomic.h", 2)
    assert symbols.definitions("nope") == []


def test_enumerations(symbols: Symbols) -> None:
    assert symbols.enumerators("zone_stat_item")["NR_ISOLATED_FILE"] == 2
    assert symbols.tracepoints() == {1: "ready", 2: "sched_switch", 3: "ghost"}
    with pytest.raises(ExpressionError, match="no 'enum nope'"):
        symbols.enumerators("nope")


def test_objects_follow_time(image_path: Path) -> None:
    memory = {"value": 1}
    symbols = Symbols(image_path.read_bytes(), lambda address, size: memory["value"].to_bytes(4, "little")[:size])
    thing = symbols.evaluate("hidden")
    seen = []
    for memory["value"] in (1, 2, 1):
        seen.append(symbols.value(thing))
    assert seen == [1, 2, 1]


def test_unmapped_memory_is_an_expression_error(image_path: Path) -> None:
    def read(address: int, size: int) -> bytes:
        raise LookupError(address)

    symbols = Symbols(image_path.read_bytes(), read)
    for use in (symbols.value, symbols.format):
        with pytest.raises(ExpressionError, match="cannot read guest memory at 0x"):
            use(symbols.evaluate("hidden"))
    with pytest.raises(ExpressionError, match="cannot read guest memory at 0x10"):
        symbols.read(0x10, 4)


def test_formatting(symbols: Symbols) -> None:
    assert symbols.format(symbols.evaluate("hidden")) == "5"
    assert symbols.format(symbols.evaluate("(enum zone_stat_item)2")) == "NR_ISOLATED_FILE"
    assert "DMA" in symbols.format(symbols.evaluate("contig_page_data.node_zones[0].name"))


@pytest.mark.parametrize("size", [0, 3, 40, 300, 5000])
def test_damaged_images(image_path: Path, size: int) -> None:
    with pytest.raises(ImageError) as caught:
        Symbols(image_path.read_bytes()[:size])
    assert "\n" not in str(caught.value)


def test_images_of_other_machines(image_path: Path) -> None:
    image = bytearray(image_path.read_bytes())
    image[18] = 40
    with pytest.raises(ImageError, match="EM_ARM"):
        Symbols(bytes(image))


def test_source_paths_and_text(symbols: Symbols) -> None:
    assert symbols.path(f"{GUEST_ROOT}/mm/compaction.c") == "mm/compaction.c"
    assert symbols.path("/build/machine/guest/mm/../mm/vmstat.c") == "mm/vmstat.c"
    assert symbols.path("mm/vmstat.c") == "mm/vmstat.c"
    with pytest.raises(ImageError, match="not a guest source file"):
        symbols.source("../errors.py", 1)
    with pytest.raises(ImageError, match="not a guest source file"):
        symbols.source("/etc/passwd", 1)
    with pytest.raises(ImageError, match="not installed"):
        symbols.source("mm/nope.c", 1)


def test_finding_source_files() -> None:
    for name in ("mm/compaction.c", "compaction.c"):
        assert find_source(name) == "mm/compaction.c"
    with pytest.raises(UsageError, match=r"no source file 'compacton.c'; did you mean mm/compaction.c"):
        find_source("compacton.c")
    with pytest.raises(UsageError, match=r"is ambiguous: \S+/spinlock.h, \S+/spinlock.h"):
        find_source("spinlock.h")
    for name in ("", "../symbols.py", "/etc/passwd"):
        with pytest.raises(UsageError, match="no source file"):
            find_source(name)


def test_sources_of_other_guests_are_shown_from_folders_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "linux"
    kernel.mkdir()
    (kernel / "main.c").write_text("int start;\n")
    (tmp_path / "secret").write_text("no\n")
    named = str(kernel / "main.c")
    with pytest.raises(ImageError, match="RACETAPE_SOURCES names folders"):
        installed_source(named)
    monkeypatch.setenv("RACETAPE_SOURCES", os.pathsep.join(("", "/nowhere", str(kernel))))
    assert installed_source(named) == b"int start;\n"
    assert installed_source("mm/compaction.c") == (GUEST_ROOT / "mm/compaction.c").read_bytes()
    for file in (str(tmp_path / "secret"), f"{kernel}/../secret", "/etc/passwd"):
        with pytest.raises(ImageError, match="not a guest source file"):
            installed_source(file)
    with pytest.raises(ImageError, match="not installed"):
        installed_source(f"{kernel}/absent.c")
