"""Images: names, building, reproducibility, what the compiler emitted, loading."""

from __future__ import annotations

import hashlib
import io
import itertools
import random
import re
import shutil
import struct
from functools import cache
from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile
from guest_state import PAGINGS, image_name
from unicorn_platform import tracepoints

from machine import Machine, images
from machine.errors import ImageError, UsageError
from machine.symbols import Symbols

ALL = images.image_names()


def test_every_scenario_has_its_images() -> None:
    for scenario in images.scenarios():
        for configuration in scenario.configurations:
            for variant in scenario.variants:
                assert scenario.image(configuration, variant) in ALL
        first = scenario.configuration()
        assert (first.name, first.paging) == (scenario.configurations[0], "2level")
        assert scenario.image() == f"{scenario.flavour}-{first.kind}-{scenario.variants[0]}"
        assert len(scenario.command_line) < images.COMMAND_LINE_SIZE
        assert scenario.ram_bytes % 4096 == 0
    assert images.scenario("wrong-zone").configuration("smp4-2level").cpus == 4


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: images.scenario("wrong-zon"), "did you mean wrong-zone"),
        (lambda: images.scenario("xyzzy"), "there are: wrong-zone"),
        (lambda: images.scenario("wrong-zone").image(variant="bugy"), "did you mean buggy"),
        (lambda: images.scenario("wrong-zone").configuration("up-3level"), "up-2level"),
        (lambda: images.Configuration.parse("smp9-2level"), "smp1 to smp8, then -2level or -pae or -x86_64"),
        (lambda: images.image_path("linux-up-bugy"), "did you mean linux-up-buggy"),
        (lambda: images.build(["nothing"]), "no such image"),
    ],
)
def test_unknown_names_are_usage_errors(call: object, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(hint)):
        call()  # type: ignore[operator]


def test_build_is_reproducible(tmp_path: Path) -> None:
    names = ["small-smp-buggy", "linux-up-fix-7454f4ba40b4"]
    assert images.build(names, directory=tmp_path) == names
    for name in names:
        assert (tmp_path / f"{name}.elf").read_bytes() == images.image_bytes(name)
    assert images.build(names, directory=tmp_path) == []
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".elf", ".elf", ".stamp", ".stamp"]


def test_build_elsewhere_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(images.GUEST, tmp_path / "other place")
    monkeypatch.setattr(images, "GUEST", tmp_path / "other place")
    images.build(["small-up-buggy"], directory=tmp_path)
    assert hashlib.sha256((tmp_path / "small-up-buggy.elf").read_bytes()).digest() == (
        hashlib.sha256(images.image_bytes("small-up-buggy")).digest()
    )


def test_build_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="gcc is missing"):
        images.build(["small-up-buggy"], directory=tmp_path / "out")
    (tmp_path / "gcc").write_text("#!/bin/sh\necho 'error: -m32 not supported' >&2; exit 1\n")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ImageError, match="cannot compile for 32-bit x86"):
        images.build(["small-up-buggy"], directory=tmp_path / "out")


def test_an_image_that_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "IMAGES", tmp_path)
    with pytest.raises(ImageError, match=r"python -m machine\.images"):
        images.image_bytes("small-up-buggy")


# -- what the compiler emitted --


@cache
def _text(name: str) -> list[capstone.CsInsn]:
    """All code but the start, which is 32-bit code in 64-bit images too."""
    elf = ELFFile(io.BytesIO(images.image_bytes(name)))
    section = elf.get_section_by_name(".text")
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32 if elf.elfclass == 32 else capstone.CS_MODE_64)
    decoder.skipdata = True
    start = Symbols(images.image_bytes(name)).symbol("exception_0").address - section["sh_addr"]
    return list(decoder.disasm(section.data()[start:], section["sh_addr"] + start))


@pytest.mark.parametrize("paging", PAGINGS)
def test_only_integer_instructions(paging: str) -> None:
    for row in _text(image_name("linux", "smp", paging, "buggy")):
        assert not re.search(r"[xy]mm|st\(|\bmm\d", row.op_str), f"{row.mnemonic} {row.op_str}"
        assert not row.mnemonic.startswith("f"), f"{row.mnemonic} {row.op_str}"


@pytest.mark.parametrize("paging", PAGINGS)
def test_lock_prefixes_are_for_smp_only(paging: str) -> None:
    up, smp = (_text(image_name("linux", kind, paging, "buggy")) for kind in ("up", "smp"))
    assert not [row for row in up if row.mnemonic.startswith("lock")]
    locked = {row.mnemonic for row in smp if row.mnemonic.startswith("lock")}
    # Counts, tickets, flag bits by byte and by word.
    assert {
        "lock add",
        "lock inc",
        "lock dec",
        "lock xadd",
        "lock cmpxchg",
        "lock or",
        "lock and",
        "lock bts",
    } <= locked


def _is(row: capstone.CsInsn, mnemonic: str, operands: str) -> bool:
    return row.mnemonic == mnemonic and re.search(operands, row.op_str) is not None


def test_what_differs_between_the_architectures() -> None:
    """Full barrier, per-CPU segment, width of counters, upper page table entries."""
    smp = {paging: _text(image_name("linux", "smp", paging, "buggy")) for paging in PAGINGS}
    for paging, rows in smp.items():
        wide = paging == "x86_64"
        assert any(_is(row, "mfence", "") for row in rows) == wide
        assert any(_is(row, "lock add", r"dword ptr \[esp\], 0") for row in rows) == (not wide)
        assert any("gs:[" in row.op_str for row in rows) == wide
        assert any("fs:[" in row.op_str for row in rows) == (not wide)
        assert any(row.mnemonic in ("lock add", "lock inc") and "qword ptr" in row.op_str for row in rows) == wide
        assert any(row.mnemonic == "lock cmpxchg8b" for row in rows) == (paging == "pae")
    assert not [row for row in _text("linux-up-x86_64-buggy") if row.mnemonic == "mfence" or "gs:[" in row.op_str]


@pytest.mark.parametrize("paging", PAGINGS)
def test_a_ticket_is_handed_on_by_a_plain_store(paging: str) -> None:
    rows = _text(image_name("linux", "smp", paging, "buggy"))
    assert [row for row in rows if row.mnemonic == "lock xadd" and row.op_str.startswith("word ptr")]
    assert [row for row in rows if row.mnemonic == "inc" and row.op_str.startswith("byte ptr")]


def _functions(name: str) -> dict[str, list[str]]:
    elf = ELFFile(io.BytesIO(images.image_bytes(name)))
    rows = {row.address: row.mnemonic for row in _text(name)}
    return {
        symbol.name: [
            rows[at] for at in range(symbol["st_value"], symbol["st_value"] + symbol["st_size"]) if at in rows
        ]
        for symbol in elf.get_section_by_name(".symtab").iter_symbols()
        if symbol["st_info"]["type"] == "STT_FUNC"
    }


def test_the_seed_barrier_is_no_instruction() -> None:
    """smp_wmb() on x86 only keeps the compiler from moving plain moves across it, in the two functions that have it."""
    for flavour in ("linux", "small"):
        for kind, paging in itertools.product(("up", "smp"), PAGINGS):
            names = [image_name(flavour, kind, paging, variant) for variant in ("buggy", "seed-wmb")]
            buggy, seed = map(_functions, names)
            assert buggy.keys() == seed.keys()
            different = {name for name in buggy if buggy[name] != seed[name]}
            assert different <= {"do_huge_pmd_anonymous_page", "copy_huge_pmd"}
            for name in different:
                assert not [row for row in seed[name] if "fence" in row]
                locked = [[row for row in rows[name] if row.startswith("lock")] for rows in (buggy, seed)]
                assert locked[0] == locked[1]


@pytest.mark.parametrize("name", ALL)
def test_tracepoints_are_declared(name: str) -> None:
    image = images.image_bytes(name)
    declared = Symbols(image).tracepoints()
    used = {declared[point.identifier] for point in tracepoints(image)}
    assert {"ready", "sched_switch", "ghost", "vmstat", "lock_acquire", "lock_release", "task_new"} <= used


# -- what other parts rely on --


@pytest.mark.parametrize("name", ALL)
def test_layout_facts(name: str) -> None:
    symbols = Symbols(images.image_bytes(name))
    assert symbols.bits == (64 if "x86_64" in name else 32)
    item = dict(symbols.program.type("enum zone_stat_item").enumerators)
    assert (item["NR_FREE_PAGES"], item["NR_INACTIVE_ANON"], item["NR_UNEVICTABLE"]) == (0, 1, 5)
    assert (item["NR_ISOLATED_ANON"], item["NR_ISOLATED_FILE"], item["NR_VM_ZONE_STAT_ITEMS"]) == (20, 21, 26)
    assert symbols.program.type("struct page").size == (32 if symbols.bits == 32 else 56)
    assert symbols.program.type("pg_data_t").type_name().endswith("pg_data_t")
    for function in ("try_to_compact_pages", "compact_zone", "isolate_migratepages", "acct_isolated"):
        assert symbols.program[function].type_.kind.name == "FUNCTION"


def test_debug_paths_are_relative() -> None:
    data = images.image_bytes("linux-up-buggy")
    assert str(images.GUEST).encode() not in data
    assert b"mm/compaction.c\0" in data


# -- loading --


def _load(image: bytes, command_line: str = "scenario=wrong-zone", ram_bytes: int = 1 << 24) -> Machine:
    machine = Machine(ram_bytes=ram_bytes)
    images.boot(machine, image, command_line)
    return machine


def test_boot_writes_the_parameters() -> None:
    machine = _load(images.image_bytes("small-up-buggy"))
    assert struct.unpack("<4I", machine.read(0x10000, 16)) == (0x50425452, 1, 1, 1 << 24)
    assert machine.read(0x10010, 20) == b"scenario=wrong-zone\0"
    registers = machine.registers(0)
    assert registers["rsi"] == 0x10000
    assert 0x100000 <= registers["rip"] < 0x101000


def test_boot_refuses_what_does_not_fit() -> None:
    image = images.image_bytes("small-up-buggy")
    with pytest.raises(ImageError, match="RAM"):
        _load(image, ram_bytes=1 << 20)
    for text in ("x" * 240, "grün", "a\0b"):
        with pytest.raises(UsageError, match="command line"):
            _load(image, text)


@pytest.mark.parametrize(
    "image", [b"", b"\x7fELF", b"MZ" * 500, b"\x7fELF\x02\x01" + bytes(60), b"\x7fELF\x01\x01" + bytes(60)]
)
def test_boot_refuses_what_is_no_image(image: bytes) -> None:
    with pytest.raises(ImageError):
        _load(image)


def test_a_corrupt_image_is_an_image_error_or_loads() -> None:
    image = images.image_bytes("small-up-buggy")
    random.seed(1)
    for _ in range(300):
        broken = bytearray(image[: random.choice([len(image), random.randrange(len(image)), random.randrange(200)])])
        for _ in range(random.randrange(4)):
            if broken:
                broken[random.randrange(min(len(broken), 120))] = random.randrange(256)
        try:
            _load(bytes(broken))
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017
