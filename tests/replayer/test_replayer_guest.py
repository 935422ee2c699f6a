"""The same promises on the real guest: the bundled scenario, uniprocessor with interrupts and multiprocessor."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mini
import pytest
from tampering import flipped, payload_bits

from machine.symbols import Symbols
from recorder import RandomWalk, Replay
from replayer import Timeline, replay, verify
from traces import Tape, chunks, strip
from traces.schema import KINDS

CONFIGURATIONS = ["up-2level", "smp2-2level", "smp4-2level"]
CHILD = """
import sys
from replayer import replay
from traces import Tape
for path in sys.argv[1:]:
    with Tape(path) as tape:
        result = replay(tape)
        print(f"{result.state_hash:x} {result.memory_hash:x} {result.steps} {result.console!r}")
"""


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize(("first", "count"), [(0, 7), pytest.param(1000, 334, marks=pytest.mark.soak)])
def test_pairs(configuration: str, first: int, count: int, tmp_path: Path) -> None:
    """Record and replay: no hash ever differs, and the schedules really are different ones."""
    prepared = mini.wrong_zone(configuration)
    hashes, interrupts = set(), 0
    for seed in range(first, first + count):
        summary = prepared.record(tmp_path / "a.tape", strategy="random-walk", seed=seed)
        with Tape(tmp_path / "a.tape") as tape:
            result = replay(tape)
            if seed - first < 7:
                assert verify(tape).ok
                interrupts += int((tape.events[:].kind == KINDS["interrupt"]).sum())
        assert (result.state_hash, result.memory_hash) == (summary.state_hash, summary.memory_hash)
        assert (result.steps, result.stop, result.exit_status) == (summary.steps, summary.stop, summary.exit_status)
        hashes.add(result.state_hash)
    assert len(hashes) > count // 2
    assert interrupts > 50


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_default_schedule_repeats(configuration: str, tmp_path: Path) -> None:
    for name in ("a.tape", "b.tape"):
        mini.wrong_zone.__wrapped__(configuration).record(tmp_path / name)
    assert (tmp_path / "a.tape").read_bytes() == (tmp_path / "b.tape").read_bytes()


def test_stripped_tapes_replay_in_another_process(tmp_path: Path) -> None:
    paths, wanted = [], []
    for configuration in CONFIGURATIONS:
        prepared = mini.wrong_zone(configuration)
        s = prepared.record(tmp_path / "full.tape", strategy=RandomWalk(walk_steps=30_000), seed=4)
        paths.append(str(tmp_path / f"{configuration}.tape"))
        with Tape(tmp_path / "full.tape") as tape:
            strip(tape, paths[-1])
            # Layer B can be had again from layer A, byte for byte.
            prepared.record(tmp_path / "again.tape", strategy=Replay(tape), seed=4)
        assert (tmp_path / "again.tape").read_bytes() == (tmp_path / "full.tape").read_bytes()
        wanted.append(f"{s.state_hash:x} {s.memory_hash:x} {s.steps} {s.console!r}")
    environment = os.environ | {"PYTHONHASHSEED": "9", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, env=environment, cwd="/", check=False
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == wanted


@pytest.fixture(scope="module")
def travel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Timeline]:
    """A timeline over an interrupted uniprocessor run."""
    path = tmp_path_factory.mktemp("tapes") / "a.tape"
    mini.wrong_zone("up-2level").record(path, strategy=RandomWalk(walk_steps=30_000), seed=3)
    with Tape(path) as tape:
        yield Timeline(tape)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.soak)])
def test_reverse_step_then_step_is_the_identity(count: int, travel: Timeline) -> None:
    rng = random.Random(8)
    for step in rng.choices(range(1, travel.last_step + 1), k=count):
        travel.seek(step)
        before = travel.machine.state_hash(), travel.machine.registers(0), travel.machine.state_save()
        assert travel.back() == 1
        assert travel.forward() == 1
        assert (travel.machine.state_hash(), travel.machine.registers(0), travel.machine.state_save()) == before


def test_writes_to_a_counter_are_those_of_a_linear_scan(travel: Timeline) -> None:
    machine = travel.machine
    travel.seek(travel.last_step)
    symbols = Symbols(travel.image, lambda address, size: machine.read_linear(0, address, size))
    place = symbols.lvalue("vm_stat[NR_ISOLATED_FILE]")
    phys = machine.translate(0, place.address)
    events = travel.events(0, travel.last_step)
    scan = [
        e.step
        for e in events.rows()
        if (e.kind == KINDS["drain"] or (e.kind == KINDS["store"] and e.info & 8))
        and phys - e.size < e.phys < phys + place.size_bytes
    ]
    assert len(scan) > 2
    found, step = [], travel.last_step
    while (event := travel.last_write_before(phys, place.size_bytes, step)) is not None:
        found.append(event.step)
        step = event.step
        travel.seek(step + 1)
        assert machine.read(phys, 4) == event.value.to_bytes(4, "little")
    assert found == scan[::-1]


def test_flipped_bits(travel: Timeline, tmp_path: Path) -> None:
    tape = travel.tape
    rng = random.Random(10)
    targets = [*tape.choices_chunks] * 3 + [c for c in tape.chunks if c.kind == chunks.IMAGE] * 8
    for chunk in targets:
        with Tape(flipped(tape.path, tmp_path / "bad.tape", rng.choice(payload_bits(chunk)))) as bad:
            report = verify(bad)
            assert report.repaired
            assert [d.offset for d in report.damage] == [chunk.offset]
            assert report.first_step is not None
            assert chunk.first_step <= report.first_step <= tape.end_step
