"""Kernels on a PC: boot protocol and tapes; and a real Linux, if tools/linux/build.sh has built one."""

import gzip
import lzma
import os
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from machine import Machine, linux
from machine.assembler import object_file
from machine.errors import ImageError, RacetapeError, UsageError
from racetape.cli import main
from recorder.linux import prepare_linux
from replayer import Timeline, verify
from traces import Tape, records
from traces.records import decode_header, encode_header
from traces.schema import PLATFORM_PC, PLATFORM_PLAIN, Op

# What a kernel does, in small: lets the timer tick three times, shows its command line and initrd, and restarts by the
# keyboard controller.
KERNEL = """
.globl _start
_start:
    mov %esi, %ebx
    lgdt gdt_pointer
    lidt idt_pointer
    mov $0x7000, %esp
    mov $tick, %eax
    mov %ax, idt + 0x20*8
    shr $16, %eax
    mov %ax, idt + 0x20*8 + 6
    movw $0x10, idt + 0x20*8 + 2
    movw $0x8e00, idt + 0x20*8 + 4
    mov $0x11, %al; out %al, $0x20; mov $0x20, %al; out %al, $0x21; mov $4, %al; out %al, $0x21
    mov $1, %al; out %al, $0x21; mov $0xfe, %al; out %al, $0x21
    mov $0x34, %al; out %al, $0x43; mov $0x10, %al; out %al, $0x40; mov $0x27, %al; out %al, $0x40
    sti
1:  hlt
    cmpl $2, ticks
    jb 1b
2:  cmpl $3, ticks
    jne 2b
    cli
    mov 0x228(%ebx), %esi
    mov $0x3f8, %dx
3:  lodsb
    test %al, %al
    jz 4f
    out %al, %dx
    jmp 3b
4:  mov 0x218(%ebx), %esi
    mov 0x21c(%ebx), %ecx
    rep outsb
    mov 0x2d0 + 3*20 + 8(%ebx), %eax
    add $0x100000, %eax
    mov %eax, memory
    mov $0xfe, %al; out %al, $0x64
5:  jmp 5b
tick:
    incl ticks
    push %eax; mov $0x20, %al; out %al, $0x20; pop %eax
    iret
.data
gdt: .quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer: .word 31; .long gdt
idt_pointer: .word 0x7ff; .long idt
ticks: .long 0
memory: .long 0
.bss
idt: .skip 0x800
"""
COMMAND_LINE = "console=ttyS0"
INITRD = b" and an initrd of odd length"


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A kernel at 1 MB."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.o").write_bytes(object_file(KERNEL, 32))
    link = [
        "ld",
        "-N",
        "-m",
        "elf_i386",
        "-Ttext=0x100000",
        "-Tdata=0x110000",
        "-o",
        folder / "vmlinux",
        folder / "kernel.o",
    ]
    subprocess.run(link, check=True)
    return (folder / "vmlinux").read_bytes()


def bzimage(payload: bytes, version: int = 0x020F) -> bytes:
    image = bytearray(512 * 3)
    image[0x1F1] = 2
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, 100, len(payload))
    return bytes(image) + bytes(100) + payload + b"rest"


# --- the boot protocol ---


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, lzma.compress, lambda data: lzma.compress(data, lzma.FORMAT_ALONE)],
    ids=["gzip", "xz", "lzma"],
)
def test_the_kernel_in_a_bzimage(pack: object) -> None:
    assert callable(pack)
    assert linux.vmlinux_of(bzimage(pack(b"\x7fELF and more") + b"size")) == b"\x7fELF and more"


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (b"", "neither an ELF file nor a bzImage"),
        (bytes(1000), "neither an ELF file nor a bzImage"),
        (bzimage(b"", 0x0203), "boot protocol 2.03 does not tell"),
        (bzimage(b"\x28\xb5\x2f\xfd"), "unknown compression"),
        (bzimage(gzip.compress(b"text")), "no ELF file"),
        (bzimage(b"\x1f\x8b and no more"), "damaged"),
        (bzimage(b"\xfd7zXZ\0 no xz"), "damaged"),
    ],
)
def test_what_is_no_kernel_is_said(kernel: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        linux.vmlinux_of(kernel)


def test_an_initrd_goes_with_the_kernel(vmlinux: bytes) -> None:
    image = linux.with_initrd(vmlinux, INITRD)
    assert (linux.initrd_of(image), linux.initrd_of(vmlinux)) == (INITRD, b"")
    with pytest.raises(ImageError, match="has an initrd already"):
        linux.with_initrd(image, INITRD)


def test_what_does_not_fit_is_said(vmlinux: bytes) -> None:
    with pytest.raises(UsageError, match="a machine that is a PC"):
        linux.boot(Machine(), vmlinux, "")
    for command_line in ("x" * 240, "é", "a\0b"):
        with pytest.raises(UsageError, match="command line"):
            linux.boot(Machine(pc=True), vmlinux, command_line)
    with pytest.raises(ImageError, match="no memory at"):
        linux.boot(Machine(pc=True, ram_bytes=0x101000), vmlinux, "")
    with pytest.raises(ImageError, match="kernel and initrd need more"):
        linux.boot(Machine(pc=True, ram_bytes=2 << 20), linux.with_initrd(vmlinux, bytes(1 << 20)), "")
    for size in (0, 10, 52, 60, 200):
        with pytest.raises(ImageError):
            linux.boot(Machine(pc=True), vmlinux[:size], "")


# --- tapes ---


@pytest.fixture(scope="module")
def tape(vmlinux: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tapes") / "boot.tape"
    summary = prepare_linux(vmlinux, INITRD, COMMAND_LINE, ram_bytes=4 << 20).record(path)
    assert (summary.outcome, summary.console) == ("ended", COMMAND_LINE + INITRD.decode())
    return path


def test_a_boot_is_replayed_with_equal_hashes(tape: Path) -> None:
    with Tape(tape) as opened:
        assert (opened.header.platform, opened.header.events_first, opened.header.cpus) == (PLATFORM_PC, 0, 1)
        taken = [int(row["arg"]) for chunk in opened.choices() for row in chunk.records if row["op"] == Op.IRQ]
        assert taken == [0x20] * 3
        for _ in range(2):
            assert verify(opened).ok


def test_one_travels_in_it(tape: Path) -> None:
    with Tape(tape) as opened:
        timeline = Timeline(opened)
        hashes = {}
        for step in (0, opened.end_step // 2, opened.end_step, opened.end_step // 3):
            timeline.seek(step)
            hashes[step] = timeline.machine.state_hash()
        for step, expected in hashes.items():
            timeline.seek(step)
            assert timeline.machine.state_hash() == expected
        timeline.seek(opened.end_step)
        assert struct.unpack("<I", timeline.machine.read(0x11002C, 4))[0] == 3  # ticks


def test_readers_that_know_no_pc_refuse_it(tape: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tape(tape) as opened:
        header = opened.header
    monkeypatch.setattr(records, "PLATFORM_VERSION", PLATFORM_PLAIN)
    with pytest.raises(RacetapeError, match="platform 2 is newer than this racetape"), Tape(tape):
        pass
    monkeypatch.undo()
    with pytest.raises(RacetapeError, match="a PC has one CPU"):
        encode_header(replace(header, cpus=2))
    assert decode_header(encode_header(header)) == header


def test_the_command(vmlinux: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel, initrd, out = tmp_path / "vmlinux", tmp_path / "initrd", tmp_path / "boot.tape"
    kernel.write_bytes(vmlinux)
    initrd.write_bytes(INITRD)
    arguments = ["linux", "record", "--kernel", str(kernel), "--initrd", str(initrd), "--memory", "4M", "-o", str(out)]
    assert main([*arguments, "--append", COMMAND_LINE, "--console"]) == 0
    assert COMMAND_LINE + INITRD.decode() in capsys.readouterr().out
    with Tape(out) as opened:
        assert verify(opened).ok
    assert main([*arguments, "--steps", "1000"]) == 1
    assert main([*arguments, "--memory", "4711"]) == 2


# --- Linux ---

BUILT = Path(os.environ.get("LINUX_CACHE", Path.home() / ".cache/racetape/linux"), "build-up-2level")


needs_linux = pytest.mark.linux

OTHERWISE = re.compile(
    # The CPU: its name, what it is vulnerable to, its time-stamp counter.
    r"CPU: |Speculative Store Bypass|L1TF|Notice: NX|tsc: |clocksource: |Calibrating delay"
    # The memory map: SeaBIOS keeps the last 128 KB.
    r"|BIOS-e820|last_pfn|RAMDISK|.*LOWMEM|  (mapped )?low ram|  Normal|  node   0|Initmem setup|.*for PCI devices"
    r"|Built 1 zonelists|Memory: |MemTotal"
    # Time, and what a kernel thread does besides.
    r"|sched_clock: |Unpacking initramfs|Freeing initrd"
)
"""Lines of the console that QEMU's and our PC may say otherwise."""


@needs_linux
@pytest.mark.skipif(shutil.which("qemu-system-i386") is None, reason="needs qemu-system-i386 (package qemu-system-x86)")
def test_the_console_says_what_it_says_in_qemu(tmp_path: Path) -> None:
    command_line, console = "console=ttyS0 reboot=k", tmp_path / "console"
    command = ["qemu-system-i386", "-cpu", "486,-fpu", "-m", "64M", "-display", "none", "-nodefaults", "-no-reboot"]
    command += ["-kernel", str(BUILT / "bzImage"), "-initrd", str(BUILT / "initrd.cpio"), "-append", command_line]
    subprocess.run([*command, "-serial", f"file:{console}"], check=True, timeout=60, stdin=subprocess.DEVNULL)
    prepared = prepare_linux((BUILT / "bzImage").read_bytes(), (BUILT / "initrd.cpio").read_bytes(), command_line)
    ours = prepared.record(tmp_path / "boot.tape", layer_b=False).console
    told = [
        [line for line in text.replace("\r", "").splitlines() if not OTHERWISE.match(line)]
        for text in (ours, console.read_bytes().decode("ascii", "replace"))
    ]
    assert told[0] == told[1]
    assert len(told[0]) > 40


@needs_linux
def test_a_real_linux_boots_runs_a_process_and_restarts(tmp_path: Path) -> None:
    initrd, ends = (BUILT / "initrd.cpio").read_bytes(), []
    for kernel in ("vmlinux", "bzImage"):
        prepared = prepare_linux((BUILT / kernel).read_bytes(), initrd, "console=ttyS0 reboot=k")
        summary = prepared.record(tmp_path / f"{kernel}.tape", layer_b=kernel == "vmlinux")
        assert summary.outcome == "ended"
        ends.append((summary.steps, summary.state_hash, summary.console))
        lines = summary.console.replace("\r", "").splitlines()
        expected = [
            "init: hello from user space",
            "small pages: 2016",
            "huge pages: 261120",
            "child's exit status: 7",
            "parent's page is its own: 1",
            "after MADV_DONTNEED: 0",
            "init: restart",
            "reboot: machine restart",
        ]
        assert [line for line in lines if line in expected] == expected
    assert ends[0] == ends[1]
    with Tape(tmp_path / "vmlinux.tape") as opened:
        assert opened.path.stat().st_size <= opened.end_step  # a byte for each instruction, the image included
        assert verify(opened).ok
