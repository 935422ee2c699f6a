"""Booting Linux for i386 on a machine that is a PC, by its 32-bit boot protocol.

Documentation/x86/boot.rst and zero-page.rst of the kernel have it. A guest image that goes onto a tape is one ELF
file: the kernel's `vmlinux`, to which an initrd may be added as a segment of its own (`with_initrd`). The command line
and the size of the memory come from who boots it.

Exports:
    vmlinux_of: the kernel in a bzImage.
    with_initrd, initrd_of: a kernel with an initrd in one image.
    boot: load such an image into a Machine.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Final

from machine._core import Machine
from machine.errors import ImageError, UsageError

PAGE_BYTES: Final = 4096
INITRD_SEGMENT: Final = 0x6472_6E69
"""Type of the program header of an initrd, "inrd": of those that are left to operating systems."""

ZERO_PAGE: Final = 0x10000
"""Where `boot_params` goes: below what the kernel takes itself, and where guests of racetape have theirs."""
COMMAND_LINE: Final = 0x20000
_COMMAND_LINE_SIZE: Final = 240
"""The kernel takes 2048; the header of a tape has room for so many."""

# Offsets in the zero page; those from 0x1F1 on are the setup header's.
_E820_ENTRIES: Final = 0x1E8
_SETUP_HEADER: Final = 0x1F1
_BOOT_FLAG: Final = 0x1FE
_HEADER_MAGIC: Final = 0x202
_VERSION: Final = 0x206
_LOADER: Final = 0x210
_LOAD_FLAGS: Final = 0x211
_RAMDISK_IMAGE: Final = 0x218
_RAMDISK_SIZE: Final = 0x21C
_COMMAND_LINE_POINTER: Final = 0x228
_PAYLOAD_OFFSET: Final = 0x248
_E820_TABLE: Final = 0x2D0

_PROTOCOL: Final = 0x020F
_LOADER_UNKNOWN: Final = 0xFF
_LOADED_HIGH: Final = 1
_RAM, _RESERVED = 1, 2
_LOW_END: Final = 0x9FC00
"""End of the memory below 640 KB that the BIOS does not keep."""
_HIGH_START: Final = 0x100000

_ELF32: Final = struct.Struct("<16sHHIIIIIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<8I")
_PT_LOAD: Final = 1

_UNPACKERS: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": lambda data: zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data),
    b"\xfd7zXZ\0": lambda data: lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data),
    b"\x5d\0\0": lambda data: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data),
    b"BZh": lambda data: bz2.BZ2Decompressor().decompress(data),
}


def vmlinux_of(kernel: bytes) -> bytes:
    """The ELF file in a bzImage; an ELF file is given back as it is.

    What a bzImage has is without debug information. Raises ImageError for anything else, and for a compression that
    Python does not have.
    """
    if kernel[:4] == b"\x7fELF":
        return kernel
    if len(kernel) < 0x268 or kernel[_HEADER_MAGIC : _HEADER_MAGIC + 4] != b"HdrS":
        raise ImageError("neither an ELF file nor a bzImage")
    (version,) = struct.unpack_from("<H", kernel, _VERSION)
    if version < 0x0208:
        raise ImageError(
            f"boot protocol {version >> 8}.{version & 255:02} does not tell where a bzImage has its kernel"
        )
    sectors = kernel[_SETUP_HEADER] or 4
    offset, length = struct.unpack_from("<II", kernel, _PAYLOAD_OFFSET)
    offset += (sectors + 1) * 512
    payload = kernel[offset : offset + length]
    for magic, unpack in _UNPACKERS.items():
        if payload.startswith(magic):
            try:
                unpacked = unpack(payload)
            except (OSError, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
                raise ImageError(f"the kernel in the bzImage is damaged: {error}") from error
            if unpacked[:4] != b"\x7fELF":
                raise ImageError("the bzImage holds no ELF file")
            return unpacked
    raise ImageError("unknown compression of the kernel in the bzImage: gzip, bzip2, xz and lzma are known")


def with_initrd(vmlinux: bytes, initrd: bytes) -> bytes:
    """The kernel with the initrd in a segment of type INITRD_SEGMENT. Raises ImageError for a damaged kernel."""
    fields, headers = _program_headers(vmlinux)
    if any(header[0] == INITRD_SEGMENT for header in headers):
        raise ImageError("the image has an initrd already")
    # A table of program headers has no room for one more: a longer one stands behind everything.
    body = vmlinux + bytes(-len(vmlinux) % PAGE_BYTES)
    table = len(body) + len(initrd) + -len(initrd) % 4
    headers.append((INITRD_SEGMENT, len(body), 0, 0, len(initrd), len(initrd), 4, PAGE_BYTES))
    fields[5], fields[10] = table, len(headers)
    packed = b"".join(_PROGRAM_HEADER.pack(*header) for header in headers)
    return _ELF32.pack(*fields) + body[_ELF32.size :] + initrd.ljust(table - len(body), b"\0") + packed


def initrd_of(image: bytes) -> bytes:
    """The initrd of such an image; b"" if it has none, as other images. Raises ImageError for a damaged one."""
    if image[:5] != b"\x7fELF\x01":
        return b""
    _, headers = _program_headers(image)
    return b"".join(image[row[1] : row[1] + row[4]] for row in headers if row[0] == INITRD_SEGMENT)


def _program_headers(image: bytes) -> tuple[list[int], list[tuple[int, ...]]]:
    """(fields of the ELF header, program headers) of an ELF file for i386. Raises ImageError."""
    if len(image) < _ELF32.size or image[:6] != b"\x7fELF\x01\x01":
        raise ImageError("not a 32-bit ELF file")
    fields = list(_ELF32.unpack_from(image))
    kind, machine, offset, size, count = fields[1], fields[2], fields[5], fields[9], fields[10]
    if kind != 2 or machine != 3 or size != _PROGRAM_HEADER.size or offset + size * count > len(image):
        raise ImageError("not an executable for i386, or a damaged one")
    return fields, [_PROGRAM_HEADER.unpack_from(image, offset + size * i) for i in range(count)]


def _zero_page(ram_bytes: int, initrd: tuple[int, int]) -> bytes:
    page = bytearray(PAGE_BYTES)

    def put(offset: int, layout: str, *values: int) -> None:
        struct.pack_into("<" + layout, page, offset, *values)

    put(_BOOT_FLAG, "H", 0xAA55)
    page[_HEADER_MAGIC : _HEADER_MAGIC + 4] = b"HdrS"
    put(_VERSION, "H", _PROTOCOL)
    put(_LOADER, "B", _LOADER_UNKNOWN)
    put(_LOAD_FLAGS, "B", _LOADED_HIGH)
    put(_RAMDISK_IMAGE, "II", *initrd)
    put(_COMMAND_LINE_POINTER, "I", COMMAND_LINE)
    memory = [
        (0, _LOW_END, _RAM),
        (_LOW_END, 0xA0000 - _LOW_END, _RESERVED),
        (0xF0000, _HIGH_START - 0xF0000, _RESERVED),
        (_HIGH_START, ram_bytes - _HIGH_START, _RAM),
    ]
    put(_E820_ENTRIES, "B", len(memory))
    for i, row in enumerate(memory):
        put(_E820_TABLE + i * 20, "QQI", *row)
    return bytes(page)


def boot(machine: Machine, image: bytes, command_line: str) -> None:
    """Put a kernel, its initrd, the zero page and the command line into a PC that has not run yet.

    It is then about to enter the kernel. Raises ImageError if `image` is no kernel for i386 or does not fit, UsageError
    for a command line that is too long or not ASCII, and for a machine that is no PC.
    """
    if not machine.pc:
        raise UsageError("Linux needs a machine that is a PC")
    if not command_line.isascii() or "\0" in command_line or len(command_line) >= _COMMAND_LINE_SIZE:
        raise UsageError(f"the kernel's command line must be ASCII and shorter than {_COMMAND_LINE_SIZE} characters")
    fields, headers = _program_headers(image)
    end, entry, initrd = _HIGH_START, None, b""
    for kind, offset, virtual, physical, file_size, size, *_ in headers:
        if kind not in (_PT_LOAD, INITRD_SEGMENT):
            continue
        if offset + file_size > len(image) or file_size > size:
            raise ImageError(f"damaged ELF file: the segment at {physical:#x} lies outside of it")
        data = image[offset : offset + file_size]
        if kind == INITRD_SEGMENT:
            initrd = data
            continue
        if physical < _HIGH_START or physical + size > machine.ram_bytes:
            raise ImageError(
                f"the machine has no memory at {physical:#x} to {physical + size:#x}, where the kernel goes"
            )
        machine.write(physical, data)
        end = max(end, physical + size)
        # vmlinux has its entry as a physical address, as a boot loader wants it; others may have the linear one.
        for base in (physical, virtual):
            if base <= fields[4] < base + size:
                entry = fields[4] - base + physical
    if entry is None:
        raise ImageError(f"damaged ELF file: the entry point {fields[4]:#x} is in no segment")
    # As high as possible: the kernel does not expect it near its own end.
    initrd_at = (machine.ram_bytes - len(initrd)) & -PAGE_BYTES
    if initrd_at < end:
        raise ImageError(f"kernel and initrd need more than the machine's {machine.ram_bytes} bytes of memory")
    if initrd:
        machine.write(initrd_at, initrd)
    machine.write(ZERO_PAGE, _zero_page(machine.ram_bytes, (initrd_at, len(initrd)) if initrd else (0, 0)))
    machine.write(COMMAND_LINE, command_line.encode() + b"\0")
    machine.set_register(0, "rip", entry)
    machine.set_register(0, "rsi", ZERO_PAGE)
