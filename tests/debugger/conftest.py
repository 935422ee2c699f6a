"""A tiny guest of our own on a real tape: two CPUs, a counter, a structure, a store that waits in the buffer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from debugger.session import Session
from machine import Machine
from machine._core import DRAIN, HOLD, RUN
from recorder.record import Prepared, prepare, prepare_image
from recorder.schedule import auto, plan
from traces import Tape
from traces.schema import RecordArray

SOURCE = """
enum tracepoint { TP_NONE, TP_READY, TP_MARK };
enum tracepoint keep;
#define tracepoint(id, a, b) asm volatile("nopl %c0(%1,%2,1)" : : "i" (0x52540000 | (id)), "r" (a), "r" (b))
struct pair { int low; short parts[2]; };
struct pair pairs[2] = { { 7, { 1, 2 } }, { -1, { 3, 4 } } };
const char *greeting = "hello\\tworld";
volatile int counter;
volatile int started;
volatile signed char byte = -2;

static inline void add(volatile int *place, int count)
{
	asm volatile("addl %1,%0" : "+m" (*place) : "ir" (count));
}

static inline __attribute__((always_inline)) void account(int count)
{
	add(&counter, count);
}

__attribute__((noinline)) void work(int count)
{
	account(count);
	byte = count;
}

void second(void)
{
	started = 1;
	account(100);
	for (;;)
		asm volatile("hlt");
}

void first(void)
{
	counter = 1;
	*(volatile unsigned *)0xfee00310 = 1 << 24;
	*(volatile unsigned *)0xfee00300 = 0x4600 | 0x20;
	tracepoint(TP_READY, 0, 0);
	work(2);
	work(3);
	counter = counter;
	while (!started)
		asm volatile("pause");
	tracepoint(TP_MARK, &counter, 5);
	asm volatile("outl %0, $0xf4" : : "a" (0));
}
"""

START = """
	.text
	.globl _start
	.type _start, @function
_start:
	movl 0xfee00020, %ebx
	shrl $24, %ebx
	movl %ebx, %eax
	shll $12, %eax
	movl $0x40000, %esp
	subl %eax, %esp
	testl %ebx, %ebx
	jnz 1f
	call first
	hlt
1:	call second
	hlt
	.size _start, . - _start
	.section .note.GNU-stack, "", @progbits
"""

FLAGS = ["-m32", "-O2", "-g", "-gdwarf-4", "-ffreestanding", "-nostdlib", "-static", "-fno-pie", "-no-pie"]
FLAGS += ["-fno-asynchronous-unwind-tables", "-fno-omit-frame-pointer", "-mregparm=3", "-fcf-protection=none"]
FLAGS += ["-Wl,-Ttext=0x20000", "-Wl,--build-id=none", "-Wl,-z,noseparate-code"]


class Scripted:
    """CPU 0 up to the wait loop with its stores held for a while, then the default schedule."""

    name = "scripted"
    exact = False
    visible = False

    def new_run(self, machine: Machine, seed: int) -> None:
        self._batches = [plan((RUN, 0, 6, HOLD), (DRAIN, 0, 1), (RUN, 1, 9), (RUN, 0, 100), (RUN, 1, 100)), auto()]

    def choose(self, machine: Machine) -> RecordArray:
        return self._batches.pop(0) if self._batches else plan()

    def answer(self, machine: Machine, cpu: int) -> int:
        return 0


@pytest.fixture(scope="session")
def tiny_tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tape of the tiny guest on two CPUs."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.c").write_text(SOURCE)
    (folder / "start.S").write_text(START)
    command = ["gcc", *FLAGS, "start.S", "tiny.c", "-o", "tiny.elf"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    image = (folder / "tiny.elf").read_bytes()
    machine = Machine(cpus=2, ram_bytes=1 << 20)
    prepared = prepare_image(
        machine, image, "", scenario="tiny", variant="plain", configuration="smp2", step_max=1 << 20
    )
    prepared.record(folder / "tiny.tape", strategy=Scripted())
    return folder / "tiny.tape"


@pytest.fixture
def session(tiny_tape: Path) -> Iterator[Session]:
    """A fresh session on the tiny tape."""
    with Tape(tiny_tape) as tape:
        yield Session(tape)


@pytest.fixture(scope="session")
def wrong_zone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Records scenario wrong-zone-small: (variant, configuration, strategy, seed) -> tape, each only once."""
    folder = tmp_path_factory.mktemp("wrong-zone")
    prepared: dict[tuple[str, str], Prepared] = {}

    def record(
        variant: str = "buggy", configuration: str = "up-2level", strategy: str = "default", seed: int = 0
    ) -> Path:
        path = folder / f"{variant}-{configuration}-{strategy}-{seed}.tape"
        if not path.exists():
            key = variant, configuration
            if key not in prepared:
                prepared[key] = prepare("wrong-zone-small", variant, configuration)
            prepared[key].record(path, strategy=strategy, seed=seed)
        return path

    return record
