"""A tiny guest of our own on a real tape: two CPUs, a counter, a structure, a store that waits in the buffer."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debugger.session import Session
from machine import Machine, images
from machine._core import AUTO, DRAIN, HOLD, RUN
from recorder.record import Prepared, ready_identifier
from recorder.schedule import auto, plan
from recorder.session import Stretch
from traces import Tape
from traces.schema import RecordArray, records_of

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

    def new_run(self, machine: Machine, seed: int) -> None:
        self._batches = [plan((RUN, 0, 6, HOLD), (DRAIN, 0, 1), (RUN, 1, 9)), auto()]

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
    images.boot(machine, image, "")
    at_reset = machine.snapshot()
    machine.stop_at_trace = ready_identifier(image)
    machine.choices_take()
    reason, _, _ = machine.execute(plan((AUTO, 0, 1 << 20)))
    assert reason == "trace"
    boot = Stretch(records_of(machine.choices_take()), machine.step, machine.state_hash())
    prepared = Prepared(
        "tiny", "plain", "smp2", machine, image, "", 1 << 20, machine.step, [boot], b"", at_reset, machine.snapshot()
    )
    prepared.record(folder / "tiny.tape", strategy=Scripted())
    return folder / "tiny.tape"


@pytest.fixture
def session(tiny_tape: Path) -> Iterator[Session]:
    """A fresh session on the tiny tape."""
    with Tape(tiny_tape) as tape:
        yield Session(tape)
