"""What was recorded happens again: choices replayed exactly, in slices, across restores and in another machine."""

import random
import struct

import pytest
from programs import CODE, Bare, run
from random_programs import RAM, build, random_plan

from machine import _core


def machine_of(seed: int) -> tuple[random.Random, _core.Machine, int]:
    r = random.Random(seed)
    machine = _core.Machine(cpus=r.choice((1, 2, 2, 3, 4)), ram_bytes=RAM, store_buffer=r.choice((1, 3, 8, 56)))
    machine.tap_capacity(4096)  # room for chains of instructions, and now and then none
    machine.tap = True
    build(r, machine, wild=False)
    return r, machine, machine.cpus


def take_events(machine: _core.Machine, columns: list[bytearray]) -> None:
    """Appends what the tap holds, column by column, and empties it."""
    for column, view in zip(columns, machine.events()[1:], strict=True):
        column += bytes(view)
    machine.events_clear()


def run_all(machine: _core.Machine, plan: bytes, exact: bool) -> tuple[str, list[bytearray]]:
    """Runs a plan to its end. Returns why it ended and the event columns."""
    index = done = 0
    pieces = [bytearray() for _ in range(9)]
    while True:
        reason, index, done = machine.execute(plan, index=index, done=done, exact=exact)
        take_events(machine, pieces)
        if reason in ("events", "steps", "trace"):
            continue
        if reason in ("choice", "idle") and not exact and index + 1 < len(plan) // 16:
            index, done = index + 1, 0  # AUTO cannot go on; what follows may
            continue
        return reason, pieces


def final(machine: _core.Machine) -> tuple:
    return machine.state_hash(), machine.memory_hash(), machine.step, machine.state_save()


def run_slices(machine: _core.Machine, choices: bytes, r: random.Random) -> list[bytearray]:
    """Exact choices in random slices, with snapshots, saved states and hashes in between."""
    index = done = 0
    pieces = [bytearray() for _ in range(9)]
    while index < len(choices) // 16:
        limit = machine.step + r.choice((1, 1, 3, 20, 200))
        reason, index, done = machine.execute(choices, index=index, done=done, step_max=limit, exact=True)
        assert reason not in ("diverged", "blocked")
        take_events(machine, pieces)
        what = r.randrange(5)
        if what == 0:
            machine.restore(machine.snapshot())
        elif what == 1:
            machine.state_load(machine.state_save())
        elif what == 2:
            machine.state_hash()
        elif what == 3:
            machine.memory_hash()
    return pieces


def check(seed: int) -> None:
    r, machine, cpus = machine_of(seed)
    start = machine.snapshot()
    plan = random_plan(r, cpus, 60)
    reason, events = run_all(machine, plan, exact=False)
    choices, end = machine.choices_take(), final(machine)
    ended = machine.waiting(0) == "off"

    # In the same machine, with everything derived still warm.
    machine.restore(start)
    assert run_all(machine, choices, exact=True) == (reason if ended else "plan", events)
    assert final(machine) == end
    assert machine.choices_take() == choices

    # In random slices, with snapshots, saved states and hashes in between, and without choices being logged.
    machine.restore(start)
    machine.choices_enabled = False
    assert run_slices(machine, choices, r) == events
    assert final(machine) == end
    assert machine.choices_take() == b""

    # In a new machine, without the tap.
    _, other, _ = machine_of(seed)
    other.tap = False
    run_all(other, choices, exact=True)
    assert final(other) == end
    assert other.events()[0] == 0


@pytest.mark.parametrize("seed", range(0, 160, 20))
def test_replay(seed: int) -> None:
    for number in range(seed, seed + 20):
        check(number)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10_000, 60_000, 1000))
def test_replay_soak(seed: int) -> None:
    for number in range(seed, seed + 1000):
        check(number)


def test_random_systems_do_something() -> None:
    """The generator must not make machines that stop at once."""
    kinds: set[int] = set()
    steps = []
    for seed in range(60):
        r, machine, cpus = machine_of(seed)
        machine.tap_capacity(1 << 16)
        machine.execute(random_plan(r, cpus, 60))
        kinds.update(bytes(machine.events()[6]))
        steps.append(machine.step)
    assert sum(steps) / len(steps) > 100
    missing = {name for name, number in _core.EVENT_KINDS.items() if number not in kinds}
    assert missing <= {"trace", "choice", "exit", "nmi"}, missing


def test_snapshots_give_back_every_bit() -> None:
    for seed in range(20):
        r, machine, cpus = machine_of(seed)
        moments = []
        for _ in range(8):
            machine.execute(random_plan(r, cpus, 5))
            machine.events_clear()
            pages = {frame: machine.read(frame * 4096, 4096) for frame in machine.pages_written()}
            moments.append((machine.snapshot(), final(machine), pages))
        for _ in range(20):
            snapshot, end, pages = r.choice(moments)
            machine.restore(snapshot)
            assert final(machine) == end
            assert all(machine.read(frame * 4096, 4096) == content for frame, content in pages.items())
            others = set(machine.pages_written()) - set(pages)
            assert all(not any(machine.read(frame * 4096, 4096)) for frame in others)
            if r.random() < 0.5:
                machine.execute(random_plan(r, cpus, 3))
                machine.events_clear()


def test_pages_taken_are_what_was_written() -> None:
    for seed in range(20):
        r, machine, cpus = machine_of(seed)
        known: dict[int, bytes] = {}
        snapshots = [machine.snapshot()]
        for turn in range(12):
            machine.execute(random_plan(r, cpus, 5))
            machine.events_clear()
            if r.random() < 0.3:
                snapshots.append(machine.snapshot())
            if r.random() < 0.3:
                machine.restore(r.choice(snapshots))
            if r.random() < 0.3:
                machine.state_hash()
            frames, taken, contents = machine.pages_take(turn == 0)
            assert len(contents) == len(taken) // 4 * 4096
            for i, (frame,) in enumerate(struct.iter_unpack("<I", taken)):
                known[frame] = contents[i * 4096 : (i + 1) * 4096]
            now = {f: machine.read(f * 4096, 4096) for f in machine.pages_written()}
            now = {frame: page for frame, page in now.items() if any(page)}
            assert [frame for (frame,) in struct.iter_unpack("<I", frames)] == sorted(now)
            assert all(known[frame] == page for frame, page in now.items())
        assert machine.pages_take(False)[1:] == (b"", b"")
        assert machine.pages_take(True)[:1] == machine.pages_take(True)[1:2]


def test_hash_does_not_see_how_flags_are_kept() -> None:
    """The same flags from different instructions are the same state."""
    hashes = set()
    for text in ("xor %eax,%eax", "sub %eax,%eax", "cmp %eax,%eax", "and %ebx,%eax", "test %ebx,%eax"):
        bare = Bare(text)
        bare.execute(run(1))
        assert bare.register("rflags") == 0x46
        bare.machine.write(CODE, bytes(8))
        hashes.add(bare.machine.state_hash())
    assert len(hashes) == 1
