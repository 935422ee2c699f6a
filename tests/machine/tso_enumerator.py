"""x86-TSO as an abstract machine, every outcome of small programs (Owens, Sarkar, Sewell, TPHOLs 2009).

Knows nothing of our machine. Bytes instead of words, so that accesses of several sizes mix: a load takes each byte from
the youngest store in its own buffer that covers it, else from memory.

A program is a tuple of threads, a thread a tuple of instructions:
    ("imm", reg, value)                        load a constant
    ("load", reg, addr, size)                  the low bytes of a register, as MOV does
    ("store", addr, size, value)
    ("store_reg", addr, size, reg)
    ("mfence",) ("lfence",) ("sfence",)
    ("or_reg", reg, value)
    (rmw, addr, size, argument, locked)        rmw: "add" and "or" (constant), "bts" (bit number),
                                               "xchg", "xadd", "cmpxchg" (register; comparison is with register 0)
Registers are 0..3 (32 bits, initially 0). An unlocked read-modify-write is a load and a store with anything in between.
Over the border of a cache line a store is two, and a load is two, the lower bytes first.
"""

from collections.abc import Iterator

REGISTER_COUNT = 4
LINE = 64

Instruction = tuple
Thread = tuple[Instruction, ...]
Program = tuple[Thread, ...]
Entry = tuple[int, bytes]
Final = tuple[tuple[tuple[int, ...], ...], bytes]


def outcomes(program: Program, memory: dict[int, int], region: tuple[int, int], capacity: int = 8) -> set[Final]:
    """All final states: (registers of each thread, bytes of the region [start, end))."""
    start, end = region
    first = bytearray(end - start)
    for addr, value in memory.items():
        first[addr - start] = value
    threads = tuple((0, None, (0,) * REGISTER_COUNT, ()) for _ in program)
    todo = [(threads, bytes(first))]
    seen = set(todo)
    final = set()
    while todo:
        state = todo.pop()
        successors = list(_successors(program, state, start, capacity))
        if not successors:
            final.add((tuple(thread[2] for thread in state[0]), state[1]))
        for successor in successors:
            if successor not in seen:
                seen.add(successor)
                todo.append(successor)
    return final


def _successors(program: Program, state: tuple, start: int, capacity: int) -> Iterator[tuple]:
    threads, memory = state
    for number, thread in enumerate(threads):
        pc, pending, registers, buffer = thread
        if buffer:
            (addr, data), rest = buffer[0], buffer[1:]
            at = addr - start
            drained = memory[:at] + data + memory[at + len(data) :]
            yield _replace(threads, number, (pc, pending, registers, rest)), drained
        if pc < len(program[number]):
            for after, changed in _execute(program[number][pc], thread, memory, start, capacity):
                yield _replace(threads, number, after), changed


def _replace(threads: tuple, number: int, thread: tuple) -> tuple:
    return (*threads[:number], thread, *threads[number + 1 :])


def _execute(instruction: Instruction, thread: tuple, memory: bytes, start: int, capacity: int) -> Iterator[tuple]:
    pc, _, registers, buffer = thread
    kind = instruction[0]
    if kind == "imm":
        yield (pc + 1, None, _set(registers, instruction[1], 4, instruction[2]), buffer), memory
    elif kind == "or_reg":
        value = registers[instruction[1]] | instruction[2]
        yield (pc + 1, None, _set(registers, instruction[1], 4, value), buffer), memory
    elif kind == "load":
        _, reg, addr, size = instruction
        data = _load(thread, memory, start, addr, size)
        if len(data) < size:
            yield (pc, data, registers, buffer), memory
        else:
            yield (pc + 1, None, _set(registers, reg, size, int.from_bytes(data, "little")), buffer), memory
    elif kind in ("store", "store_reg"):
        _, addr, size, what = instruction
        value = what if kind == "store" else registers[what]
        if len(buffer) < capacity:
            yield (pc + 1, None, registers, buffer + _entries(addr, size, value)), memory
    elif kind == "mfence":
        if not buffer:
            yield (pc + 1, None, registers, buffer), memory
    elif kind in ("lfence", "sfence"):
        yield (pc + 1, None, registers, buffer), memory
    else:
        yield from _modify(instruction, thread, memory, start, capacity)


def _modify(instruction: Instruction, thread: tuple, memory: bytes, start: int, capacity: int) -> Iterator[tuple]:
    pc, pending, registers, buffer = thread
    kind, addr, size, argument, locked = instruction
    if locked:
        if not buffer:
            old = _read(memory, (), start, addr, size)
            new, after = _compute(kind, old, size, argument, registers)
            at = addr - start
            yield (pc + 1, None, after, ()), memory[:at] + new.to_bytes(size, "little") + memory[at + size :]
    elif pending is None or len(pending) < size:
        yield (pc, _load(thread, memory, start, addr, size), registers, buffer), memory
    elif len(buffer) < capacity:
        new, after = _compute(kind, int.from_bytes(pending, "little"), size, argument, registers)
        yield (pc + 1, None, after, buffer + _entries(addr, size, new)), memory


def _load(thread: tuple, memory: bytes, start: int, addr: int, size: int) -> bytes:
    """What is loaded after the next of the accesses that the load consists of."""
    _, pending, _, buffer = thread
    done = pending or b""
    part = min(size, LINE - addr % LINE) if not done else size - len(done)
    return done + _read(memory, buffer, start, addr + len(done), part).to_bytes(part, "little")


def _compute(kind: str, old: int, size: int, argument: int, registers: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    mask = (1 << size * 8) - 1
    if kind == "add":
        return (old + argument) & mask, registers
    if kind == "or":
        return old | argument, registers
    if kind == "bts":
        return old | 1 << argument, registers
    if kind == "xchg":
        return registers[argument] & mask, _set(registers, argument, size, old)
    if kind == "xadd":
        return (old + registers[argument]) & mask, _set(registers, argument, size, old)
    assert kind == "cmpxchg"
    if registers[0] & mask == old:
        return registers[argument] & mask, registers
    return old, _set(registers, 0, size, old)


def _set(registers: tuple[int, ...], reg: int, size: int, value: int) -> tuple[int, ...]:
    mask = (1 << size * 8) - 1
    return (*registers[:reg], registers[reg] & ~mask | value & mask, *registers[reg + 1 :])


def _read(memory: bytes, buffer: tuple[Entry, ...], start: int, addr: int, size: int) -> int:
    data = bytearray(memory[addr - start : addr - start + size])
    for at, stored in buffer:  # oldest first: the youngest wins
        for i, byte in enumerate(stored):
            if addr <= at + i < addr + size:
                data[at + i - addr] = byte
    return int.from_bytes(data, "little")


def _entries(addr: int, size: int, value: int) -> tuple[Entry, ...]:
    """A store that crosses a cache line is two."""
    data = (value & (1 << size * 8) - 1).to_bytes(size, "little")
    first = min(size, LINE - addr % LINE)
    return ((addr, data[:first]), (addr + first, data[first:])) if first < size else ((addr, data),)
