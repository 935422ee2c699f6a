"""Whatever the guest, the plan or a saved state contain: no crash, no hang, an error or a shutdown at worst."""

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from random_programs import RAM, build, random_plan

import machine as machine_package
from machine import _core

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SEEDS = int(os.environ.get("RACETAPE_FUZZ_SEEDS", "300"))


def execute(machine: _core.Machine, plan: bytes, exact: bool = False) -> None:
    limit = min(machine.step + 3000, 2**64 - 1)
    index = done = 0
    for _ in range(40):
        reason, index, done = machine.execute(plan, index=index, done=done, step_max=limit, exact=exact)
        machine.events_clear()
        if reason not in ("events", "trace", "idle", "choice"):
            return
        if reason in ("idle", "choice"):
            index, done = index + 1, 0


def inspect(machine: _core.Machine, r: random.Random) -> None:
    for cpu in range(machine.cpus):
        machine.registers(cpu)
        machine.store_buffer_entries(cpu)
        machine.tlb_entries(cpu)
        machine.translate(cpu, r.getrandbits(32))
        machine.waiting(cpu)
        machine.can_interrupt(cpu, r.randrange(256))
        with contextlib.suppress(LookupError):
            machine.read_linear(cpu, r.getrandbits(32), r.randrange(9000))
    machine.state_hash()
    machine.pages_written()
    machine.pages_take(r.random() < 0.5)
    machine.console_take()
    machine.choices_take()


def fuzz(seed: int) -> None:
    r = random.Random(seed)
    machine = _core.Machine(cpus=r.randrange(1, 9), ram_bytes=RAM, store_buffer=r.choice((1, 2, 8, 56)))
    machine.tap_capacity(1024)
    machine.tap = r.random() < 0.8
    build(r, machine, wild=r.random() < 0.5)
    snapshots = [machine.snapshot()]
    for _ in range(6):
        execute(machine, random_plan(r, machine.cpus, 30, wild=True), exact=r.random() < 0.2)
        what = r.randrange(5)
        if what == 0:
            snapshots.append(machine.snapshot())
        elif what == 1:
            machine.restore(r.choice(snapshots))
        elif what == 2:
            damage(r, machine)
        elif what == 3:
            machine.write(r.randrange(RAM - 64), r.randbytes(64))
        inspect(machine, r)


def damage(r: random.Random, machine: _core.Machine) -> None:
    """Loads a saved state with random changes: refused, or as good as any other."""
    state = bytearray(machine.state_save())
    header = 40
    per_cpu = (len(state) - header) // machine.cpus
    for _ in range(r.randrange(1, 8)):
        # Mostly in the first 600 bytes of a CPU: registers, segments, APIC. The rest is store buffer and TLB.
        cpu = header + per_cpu * r.randrange(machine.cpus)
        at = r.choice((r.randrange(header), cpu + r.randrange(600), cpu + r.randrange(per_cpu)))
        size = r.choice((1, 2, 4, 8))
        state[at : at + size] = r.choice((r.randbytes(size), b"\xff" * size, bytes(size)))[: len(state) - at]
    try:
        machine.state_load(bytes(state))
    except ValueError:
        return
    assert len(machine.state_save()) == len(state)


@pytest.mark.parametrize("part", range(4))
def test_random_systems_and_plans(part: int) -> None:
    for seed in range(part, SEEDS, 4):
        fuzz(seed)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(100))
def test_random_systems_and_plans_soak(part: int) -> None:
    for seed in range(100_000 + part * 1000, 101_000 + part * 1000):
        fuzz(seed)


def test_damaged_states_of_one_machine() -> None:
    r = random.Random(5)
    machine = _core.Machine(cpus=2, ram_bytes=RAM)
    build(r, machine, wild=False)
    start = machine.snapshot()
    for _ in range(SEEDS):
        machine.restore(start)
        damage(r, machine)
        execute(machine, random_plan(r, 2, 10, wild=True))
        inspect(machine, r)


def test_wrong_states_are_refused() -> None:
    machine, other = _core.Machine(cpus=1, ram_bytes=RAM), _core.Machine(cpus=2, ram_bytes=RAM)
    good = machine.state_save()
    before = machine.state_hash()
    for bad in (b"", b"x", good[:-1], good + b"\0", b"\2" + good[1:], other.state_save(), bytes(len(good))):
        with pytest.raises(ValueError, match="not a state"):
            machine.state_load(bad)
    machine.state_load(good)
    assert machine.state_hash() == before


def test_wrong_arguments() -> None:
    for arguments in ({"cpus": 0}, {"cpus": 9}, {"ram_bytes": 0}, {"ram_bytes": 4097}, {"ram_bytes": (3 << 30) + 4096}):
        with pytest.raises(ValueError, match="must be"):
            _core.Machine(**arguments)
    for store_buffer in (0, 57):
        with pytest.raises(ValueError, match="must be"):
            _core.Machine(store_buffer=store_buffer)
    with pytest.raises(TypeError):
        _core.Machine(2)  # type: ignore[misc]
    machine = _core.Machine(ram_bytes=RAM)
    with pytest.raises(ValueError, match="16-byte"):
        machine.execute(b"123")
    for phys, size in ((RAM, 1), (RAM - 1, 2), (2**64 - 1, 2), (0, RAM + 1)):
        with pytest.raises(ValueError, match="not all RAM"):
            machine.read(phys, size)
    for phys in (RAM, RAM - 1, 2**64 - 2):
        with pytest.raises(ValueError, match="not all RAM"):
            machine.write(phys, b"ab")
    with pytest.raises(KeyError):
        machine.set_register(0, "nonsense", 1)
    with pytest.raises(ValueError, match="cpu 1"):
        machine.registers(1)
    with pytest.raises(ValueError, match="capacity"):
        machine.tap_capacity(1)
    with pytest.raises(ValueError, match="at most"):
        machine.stop_at_trace = 0x10000
    with pytest.raises(LookupError) as caught:
        machine.read_linear(0, RAM - 4, 8)
    assert caught.value.args == (RAM,)


def test_columns_keep_the_machine_alive() -> None:
    machine = _core.Machine(ram_bytes=RAM)
    machine.tap = True
    machine.execute(b"\1" + bytes(7) + (100).to_bytes(8, "little"))
    count, *views = machine.events()
    machine.tap_capacity(2048)
    again, *_ = machine.events()
    assert again == 0
    del machine
    assert count
    assert all(len(view) == count for view in views)
    assert sum(bytes(views[5]))


def looping() -> _core.Machine:
    """A machine that counts in its second page."""
    machine = _core.Machine(ram_bytes=RAM)
    machine.write(0, bytes.fromhex("ff0500100000 ebf8"))  # again: inc dword [0x1000]; jmp again
    machine.set_register(0, "rip", 0)
    machine.tap_capacity(1024)
    machine.tap = True
    return machine


def run(machine: _core.Machine, steps: int) -> None:
    machine.execute(b"\1" + bytes(7) + steps.to_bytes(8, "little"))


def values(views: list[memoryview]) -> list[int]:
    return list(views[4][::2])  # what was loaded, not what was stored


def test_rows_taken_are_no_longer_the_taps() -> None:
    machine = looping()
    taken = []
    for turn in range(8):
        run(machine, 200)
        count, *views = machine.events_take()
        assert count == 200
        assert machine.events()[0] == 0
        taken.append(views)
        if turn == 3:
            machine.tap_capacity(4096)
    run(machine, 1000)
    expected = [list(range(100 * turn, 100 * turn + 100)) for turn in range(8)]
    assert [values(views) for views in taken] == expected
    single = taken[5][4]
    assert list(np.asarray(taken[6][4])[::2]) == expected[6]
    del machine
    taken.pop(0)
    assert [values(views) for views in taken] == expected[1:]
    del taken, views
    assert list(single[::2]) == expected[5]


def test_rows_come_again_once_nobody_reads_them() -> None:
    machine = looping()

    def place(views: list[memoryview]) -> int:
        return int(np.asarray(views[0]).ctypes.data)

    places = set()
    for _ in range(20):
        run(machine, 200)
        count, *views = machine.events_take()
        assert count == 200
        places.add(place(views))
        del views
    assert len(places) == 2
    # A view of `events` counts as well: these rows wait for it.
    run(machine, 200)
    column = machine.events()[5]
    _, *views = machine.events_take()
    kept = place(views)
    del views
    for turn in range(20):
        run(machine, 200)
        _, *views = machine.events_take()
        assert place(views) != kept
        assert values(views)[0] == 2100 + 100 * turn
        del views
    assert list(column[::2]) == list(range(2000, 2100))


def test_decode_of_anything() -> None:
    r = random.Random(8)
    for _ in range(20 * SEEDS):
        code = r.randbytes(r.randrange(0, 20))
        try:
            name, length, access = _core.decode(code, bits=r.choice((16, 32)))
        except ValueError:
            continue
        assert name
        assert 1 <= length <= min(15, len(code))
        assert access in ("", "R", "W", "RW")


SANITIZED = [
    "test_robustness.py",
    "test_replay.py",
    "test_making_room.py",
    "test_platform.py",
    "test_paging.py",
    "test_tso.py",
]
SLOW = "sample or all_of_two or full_buffer or (test_replay and (20 or 40 or 60 or 80 or 100 or 120 or 140))"


@pytest.fixture(scope="session")
def sanitized_core(request: pytest.FixtureRequest, made_once: Callable[..., Path]) -> Path:
    """A build with ASan and UBSan; kept in pytest's cache for as long as the sources stay as they are."""
    # Of debug information, only lines: what reports name. All of it would take half as long again to compile.
    flags = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-std=c11", "-UNDEBUG"]
    flags += ["-fPIC", "-fvisibility=hidden", f"-I{sysconfig.get_paths()['include']}"]
    sources = sorted((ROOT / "machine" / "core").iterdir())
    digest = hashlib.sha256("".join(flags).encode() + b"".join(source.read_bytes() for source in sources)).hexdigest()

    def compile_all(folder: Path) -> None:
        def compile_one(source: Path) -> str:
            target = folder / f"{source.stem}.o"
            subprocess.run(["gcc", *flags, "-c", str(source), "-o", str(target)], check=True)
            return str(target)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, [source for source in sources if source.suffix == ".c"]))
        link = ["gcc", "-shared", "-fsanitize=address,undefined", *objects, "-o", str(folder / "_core.so")]
        subprocess.run(link, check=True)

    cache = request.config.cache
    assert cache is not None
    return made_once(digest[:16], compile_all, cache.mkdir("sanitized-core")) / "_core.so"


def test_the_core_under_test_is_the_one_asked_for() -> None:
    if path := os.environ.get("RACETAPE_CORE"):
        assert _core.__file__ == path
        assert type(_core.Machine(ram_bytes=RAM)) is machine_package.Machine


@pytest.mark.parametrize("file", SANITIZED)
def test_with_sanitizers(sanitized_core: Path, file: str) -> None:
    """The same, and the tests of the core that need no other oracle, on a build with ASan and UBSan."""
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    environment = os.environ | {
        "LD_PRELOAD": library.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "RACETAPE_CORE": str(sanitized_core),
        "RACETAPE_FUZZ_SEEDS": "32",
        "PYTHONPATH": str(ROOT),
    }
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not soak", "-k", f"not ({SLOW} or test_with_sanitizers)"]
    command = [sys.executable, "-m", "pytest", *options, str(HERE / file)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
