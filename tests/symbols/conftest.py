"""A small freestanding program for i386 and x86-64, compiled once, with the shapes the guest kernel has."""

import subprocess
from pathlib import Path

import pytest

from machine.symbols import Symbols

HEADER = """
static inline __attribute__((always_inline)) void atomic_add(int i, int *v)
{
	asm volatile("addl %1,%0" : "+m"(*v) : "ir"(i));
}
"""

PROGRAM = """
#include "include/atomic.h"
enum zone_stat_item { NR_FREE_PAGES, NR_ISOLATED_ANON, NR_ISOLATED_FILE, NR_ITEMS };
enum tracepoint { TP_READY = 1, TP_SCHED_SWITCH = 2, TP_GHOST = 3 };
enum tracepoint keep;
typedef struct { int counter; } atomic_long_t;
typedef unsigned long pfn_t;
struct zone {
	const char *name;
	pfn_t start;
	atomic_long_t vm_stat[NR_ITEMS];
	struct { unsigned low : 3; unsigned high : 5; } bits;
	union { struct zone *next; unsigned short half[2]; };
};
struct pglist_data { struct zone node_zones[3]; int nr_zones; };
struct pglist_data contig_page_data = { .node_zones = { { "DMA", 0 }, { "Normal", 4096 } }, .nr_zones = 2 };
atomic_long_t vm_stat[NR_ITEMS];
static int hidden = 5;
signed char small = -3;

static void acct_isolated(struct zone *zone, int count)
{
	atomic_add(count, &zone->vm_stat[NR_ISOLATED_FILE].counter);
	atomic_add(count, &vm_stat[NR_ISOLATED_FILE].counter);
}

__attribute__((noinline)) int isolate(struct zone *zone, int count)
{
	acct_isolated(zone, count);
	hidden += count;
	return count + hidden;
}

__attribute__((noinline)) int factorial(int n)
{
	if (n <= 1)
		return isolate(&contig_page_data.node_zones[1], 1);
	return n * factorial(n - 1) + small;
}

__attribute__((noinline)) int aligned(int n)
{
	volatile int room[8] __attribute__((aligned(64)));
	room[n & 7] = n;
	return factorial(room[n & 7]) + room[0];
}

__attribute__((noinline)) int compact(int n)
{
	int sum = 0;
	for (int i = 1; i < n; i++)
		sum += aligned(i) ^ isolate(&contig_page_data.node_zones[0], i);
	return sum;
}
int result;
void from_stub(void) { result = compact(4); }
"""

STUB = """
	.text
	.globl _start
	.type _start, @function
_start:
	xorl %ebp, %ebp
	call from_stub
	hlt
	.size _start, . - _start
"""

FLAGS = ["-O2", "-g", "-gdwarf-4", "-ffreestanding", "-nostdlib", "-static", "-fno-pie", "-no-pie"]
FLAGS += ["-fno-asynchronous-unwind-tables", "-fno-stack-protector"]
FLAGS += ["-Wl,--build-id=none", "-fno-optimize-sibling-calls", "-fcf-protection=none"]
TEXT = {32: 0xC0100000, 64: 0x500100000}
FLAGS_BITS = {32: ["-m32", "-mregparm=3"], 64: ["-m64", "-mcmodel=large", "-mno-red-zone", "-mgeneral-regs-only"]}


def build(folder: Path, *flags: str, bits: int = 32) -> bytes:
    """The program as an ELF file; `flags` are added to gcc's."""
    (folder / "include").mkdir(parents=True)
    (folder / "include/atomic.h").write_text(HEADER)
    (folder / "compaction.c").write_text(PROGRAM)
    (folder / "entry.S").write_text(STUB)
    sources = ["compaction.c", "entry.S"]
    flags = (*FLAGS_BITS[bits], f"-Wl,-Ttext={TEXT[bits]:#x}", *flags)
    subprocess.run(["gcc", *FLAGS, *flags, *sources, "-o", "guest.elf"], cwd=folder, check=True, timeout=60)
    return (folder / "guest.elf").read_bytes()


@pytest.fixture(
    scope="session",
    params=[(bits, flag) for bits in TEXT for flag in ("-fno-omit-frame-pointer", "-fomit-frame-pointer")],
)
def each_image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The program for both widths, with and without frame pointers."""
    bits, flag = request.param
    return build(tmp_path_factory.mktemp("guest") / "src", flag, bits=bits)


@pytest.fixture(scope="session")
def symbols_64(tmp_path_factory: pytest.TempPathFactory) -> Symbols:
    """Symbols over the 64-bit image's own initial contents."""
    return Symbols(build(tmp_path_factory.mktemp("guest") / "src", bits=64))


@pytest.fixture(scope="session")
def image_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program as a file, with its sources beside it."""
    folder = tmp_path_factory.mktemp("guest") / "src"
    build(folder, "-fno-omit-frame-pointer")
    return folder / "guest.elf"


@pytest.fixture(scope="session")
def symbols(image_path: Path) -> Symbols:
    """Symbols over the image's own initial contents."""
    return Symbols(image_path.read_bytes())
