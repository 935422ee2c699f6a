"""Programs of tso_enumerator under the two stronger models, every outcome, knowing nothing of our machine.

"sc": loads and stores of all threads in one order; an unlocked read-modify-write is a load and a store with anything
in between, and so are the two halves of a load over the border of a cache line. "up": whole instructions in one order.
"""

from __future__ import annotations

from tso_enumerator import LINE, REGISTER_COUNT, Final, Instruction, Program, _compute, _entries, _read, _set

State = tuple[tuple[tuple, ...], bytes]


def interleavings(program: Program, memory: dict[int, int], region: tuple[int, int], model: str) -> set[Final]:
    """All final states: (registers of each thread, bytes of the region [start, end))."""
    start, end = region
    first = bytearray(end - start)
    for addr, value in memory.items():
        first[addr - start] = value
    begin: State = (tuple((0, b"", (), (0,) * REGISTER_COUNT) for _ in program), bytes(first))
    todo, seen, final = [begin], {begin}, set()
    while todo:
        threads, data = todo.pop()
        nothing = True
        for number, (pc, loaded, pending, registers) in enumerate(threads):
            if not pending and pc == len(program[number]):
                continue
            nothing = False
            if pending:
                after = (pc, b"", pending[1:], registers), _put(data, start, pending[0])
            elif model == "sc" and not loaded and (lower := _lower_half(program[number][pc])):
                addr, size = lower
                after = (pc, _read(data, (), start, addr, size).to_bytes(size, "little"), (), registers), data
            else:
                seen_data = data
                if loaded:  # a lower half, as it was then
                    seen_data = _put(data, start, (_loads(program[number][pc])[0], loaded))
                stores, changed = _instruction(program[number][pc], registers, seen_data, start)
                after = (pc + 1, b"", stores, changed), data
                if model == "up" or _is_locked(program[number][pc]):
                    for store in stores:
                        after = (pc + 1, b"", (), changed), _put(after[1], start, store)
            state = ((*threads[:number], after[0], *threads[number + 1 :]), after[1])
            if state not in seen:
                seen.add(state)
                todo.append(state)
        if nothing:
            final.add((tuple(thread[3] for thread in threads), data))
    return final


def _loads(instruction: Instruction) -> tuple[int, int]:
    """Address and size of what an instruction loads; size 0 if nothing."""
    if instruction[0] == "load":
        return instruction[2], instruction[3]
    return (instruction[1], instruction[2]) if len(instruction) == 5 else (0, 0)


def _lower_half(instruction: Instruction) -> tuple[int, int] | None:
    """Address and size of the first of two loads, if the instruction makes two."""
    addr, size = _loads(instruction)
    left = LINE - addr % LINE
    return (addr, left) if left < size and not _is_locked(instruction) else None


def _is_locked(instruction: Instruction) -> bool:
    return len(instruction) == 5 and bool(instruction[4])


def _put(data: bytes, start: int, store: tuple[int, bytes]) -> bytes:
    at = store[0] - start
    return data[:at] + store[1] + data[at + len(store[1]) :]


def _instruction(instruction: Instruction, registers: tuple, data: bytes, start: int) -> tuple[tuple, tuple]:
    """(stores in order, registers after)"""
    kind = instruction[0]
    if kind == "imm":
        return (), _set(registers, instruction[1], 4, instruction[2])
    if kind == "or_reg":
        return (), _set(registers, instruction[1], 4, registers[instruction[1]] | instruction[2])
    if kind == "load":
        _, reg, addr, size = instruction
        return (), _set(registers, reg, size, _read(data, (), start, addr, size))
    if kind in ("store", "store_reg"):
        _, addr, size, what = instruction
        return _entries(addr, size, what if kind == "store" else registers[what]), registers
    if kind in ("mfence", "lfence", "sfence"):
        return (), registers
    _, addr, size, argument, _ = instruction
    new, after = _compute(kind, _read(data, (), start, addr, size), size, argument, registers)
    return _entries(addr, size, new), after
