"""Every schedule of small programs through the real machine, a step at a time, stores held, or one drain."""

import struct

from tso_enumerator import Final, Instruction, Program, Thread

from machine import _core

REGION = (0x8000, 0x8100)
BOOT, START = 0x1000, 0x2000
CODE = 0x10000  # of thread n: CODE + n * 0x1000
NAMES = ("rax", "rcx", "rdx", "rbx")


def encode(instruction: Instruction) -> bytes:
    """Machine code of one instruction of tso_enumerator."""
    kind = instruction[0]
    if kind == "imm":
        return bytes([0xB8 + instruction[1]]) + struct.pack("<I", instruction[2])
    if kind == "or_reg":
        return bytes([0x81, 0xC8 | instruction[1]]) + struct.pack("<I", instruction[2])
    if kind in ("mfence", "lfence", "sfence"):
        return bytes([0x0F, 0xAE, {"lfence": 0xE8, "mfence": 0xF0, "sfence": 0xF8}[kind]])
    if kind == "load":
        _, reg, addr, size = instruction
        return _sized(size, b"\x8a", reg, addr)
    _, addr, size, argument, *rest = instruction
    immediate = argument.to_bytes(size, "little")
    lock = b"\xf0" if rest and rest[0] else b""
    if kind == "store":
        return _sized(size, b"\xc6", 0, addr) + immediate
    if kind == "store_reg":
        return _sized(size, b"\x88", argument, addr)
    if kind == "add":
        return lock + _sized(size, b"\x80", 0, addr) + immediate
    if kind == "or":
        return lock + _sized(size, b"\x80", 1, addr) + immediate
    if kind == "bts":
        assert size == 4
        return lock + b"\x0f\xba" + bytes([5 << 3 | 5]) + struct.pack("<I", addr) + bytes([argument])
    opcode = {"xchg": b"\x86", "xadd": b"\x0f\xc0", "cmpxchg": b"\x0f\xb0"}[kind]
    return (b"" if kind == "xchg" else lock) + _sized(size, opcode, argument, addr)


def _sized(size: int, opcode: bytes, reg: int, addr: int) -> bytes:
    """The byte form of an opcode made into that of `size`, with an absolute address."""
    if size > 1:
        opcode = opcode[:-1] + bytes([opcode[-1] + 1])
    return (b"\x66" if size == 2 else b"") + opcode + bytes([reg << 3 | 5]) + struct.pack("<I", addr)


def record(op: int, cpu: int, arg: int, flags: int = 0) -> bytes:
    return struct.pack("<BBHIQ", op, cpu, flags, 0, arg)


class Explorer:
    """One machine of `cpus` CPUs, all started, that explores any number of programs."""

    def __init__(self, cpus: int, capacity: int = 8) -> None:
        self.machine = m = _core.Machine(cpus=cpus, ram_bytes=1 << 20, store_buffer=capacity)
        m.choices_enabled = False
        # mov dword [0xfee00300], start-up IPI to all but self, vector START >> 12
        m.write(BOOT, b"\xc7\x05\x00\x03\xe0\xfe" + struct.pack("<I", 0xC0600 | START >> 12))
        m.set_register(0, "rip", BOOT)
        m.execute(record(_core.RUN, 0, 1))
        assert all(m.waiting(cpu) == "" for cpu in range(cpus))
        for cpu in range(cpus):
            for name in (*NAMES, "rsi"):
                m.set_register(cpu, name, 0)
            m.set_register(cpu, "rip", CODE + cpu * 0x1000)
        self.start = m.snapshot()
        self.run = [record(_core.RUN, cpu, 1, _core.HOLD) for cpu in range(cpus)]
        self.drain = [record(_core.DRAIN, cpu, 1) for cpu in range(cpus)]
        self.transitions = 0

    def outcomes(self, program: Program, memory: dict[int, int] | None = None) -> set[Final]:
        m = self.machine
        m.restore(self.start)
        m.write(REGION[0], bytes(REGION[1] - REGION[0]))
        for addr, value in (memory or {}).items():
            m.write(addr, bytes([value]))
        for cpu, thread in enumerate(program):
            m.write(CODE + cpu * 0x1000, b"".join(map(encode, thread)))
        lengths = [len(thread) for thread in program]
        todo = [(m.snapshot(), (0,) * len(program))]
        seen = {m.state_hash()}
        final = set()
        while todo:
            state, done = todo.pop()
            dead_end = True
            for cpu, length in enumerate(lengths):
                for plan, steps in ((self.run[cpu], 1), (self.drain[cpu], 0)):
                    if steps and done[cpu] == length:
                        continue
                    m.restore(state)
                    if m.execute(plan, exact=True)[0] != "plan":
                        continue  # waits for its store buffer; nothing to drain
                    dead_end = False
                    self.transitions += 1
                    key = m.state_hash()
                    if key not in seen:
                        seen.add(key)
                        over = steps and not m.partial_loads(cpu)  # else the instruction goes on
                        todo.append((m.snapshot(), (*done[:cpu], done[cpu] + over, *done[cpu + 1 :])))
            if dead_end:
                m.restore(state)
                assert list(done) == lengths, "a thread cannot go on"
                registers = [m.registers(cpu) for cpu in range(len(program))]
                values = tuple(tuple(r[name] for name in NAMES) for r in registers)
                final.add((values, m.read(REGION[0], REGION[1] - REGION[0])))
        return final


def thread(*instructions: Instruction) -> Thread:
    return instructions
