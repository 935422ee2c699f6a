"""The archive in a directory: what goes in comes out, whoever else is at it, and whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from machine.errors import ArchiveError, TapeDamagedError, TapeError, UsageError
from tests.traces.tapes import IMAGE, choices, header, some_events, write_small
from traces import Tape, TapeFooter, TapeWriter, archive, strip
from traces.archive import Archive, Diagnosis, Divergence, Rules, Search, create_archive, open_archive, to_remove
from traces.archive import archive as operations
from traces.archive.catalogue import Row
from traces.archive.layout import BLOB_BYTES, Splitter
from traces.archive.manifest import Facts, Manifest, decode_manifest
from traces.archive.owner import this_process
from traces.archive.store import BLOBS, INTENTS, MARKS, TAPES, DirectoryStore
from traces.schema import Op


@pytest.fixture
def kept(tmp_path: Path) -> Archive:
    return create_archive(str(tmp_path / "archive"))


def write_tape(path: Path, seed: int, *, events: int = 2000, finish: bool = True) -> Path:
    """A tape of its own: 400 steps, `events` random events."""
    with TapeWriter(path) as tape:
        tape.begin(header(seed=seed), IMAGE)
        tape.choices(choices((Op.RUN, 0, 100)), 100, 0x1111)
        tape.choices(choices((Op.RUN, 0, 300)), 400, seed)
        tape.events(some_events(100, 400, events, seed), 400, seed)
        if finish:
            footer = TapeFooter(
                stop="exit", exit_status=0, steps=400, state_hash=seed, memory_hash=2, events=events,
                console_sha256=bytes(32),
            )  # fmt: skip
            tape.finish(footer)
    return path


def write_long(path: Path, *, split_step: int, seed: int = 7, count: int = 60) -> Path:
    """A tape with some MB of events, which are other ones from `split_step` on."""
    chunk_steps = 1000
    with TapeWriter(path) as tape:
        tape.begin(header(seed=seed), IMAGE)
        tape.choices(choices((Op.RUN, 0, 100)), 100, 1)
        for first in range(100, 100 + chunk_steps * count, chunk_steps):
            tape.choices(choices((Op.RUN, 0, chunk_steps)), first + chunk_steps, first)
            run = seed if first >= split_step else 0
            tape.events(some_events(first, first + chunk_steps, 8000, first + run), first + chunk_steps, first)
    return path


def exported(kept: Archive, tape: str, folder: Path) -> bytes:
    path = folder / "out.tape"
    kept.export(tape, path)
    return path.read_bytes()


def files(kept: Archive, folder: str) -> list[Path]:
    return sorted((Path(kept.store.location) / folder).iterdir())


# -- what goes in comes out --


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("finish", [False, True])
@pytest.mark.parametrize("layer_b", [False, True])
def test_a_tape_comes_out_as_it_went_in(
    kept: Archive, tmp_path: Path, layer_b: bool, finish: bool, background: bool
) -> None:
    path = write_small(tmp_path / "a.tape", layer_b=layer_b, finish=finish, background=background)
    added = kept.add(path)
    assert added.tape == sha256(path.read_bytes()).hexdigest()
    assert exported(kept, added.tape, tmp_path) == path.read_bytes()
    assert added.facts.unfinished is not finish
    assert not added.facts.damaged


def test_long_tapes_share_what_they_have_in_common(kept: Archive, tmp_path: Path) -> None:
    first = write_long(tmp_path / "first.tape", split_step=1 << 60)
    other = write_long(tmp_path / "other.tape", split_step=45_000, seed=8)
    both = [kept.add(path) for path in (first, other)]
    assert first.stat().st_size > 3 * BLOB_BYTES
    for path, added in zip((first, other), both, strict=True):
        assert exported(kept, added.tape, tmp_path) == path.read_bytes()
    # Three quarters are equal; up to a blob of them is stored again because the place of the cut is not in both.
    assert both[1].written_bytes < 0.25 * other.stat().st_size + BLOB_BYTES
    assert both[1].blobs < both[0].blobs
    assert len(files(kept, BLOBS)) < 12


def test_the_image_of_many_tapes_is_stored_once(tmp_path: Path) -> None:
    image = np.random.default_rng(1).bytes(300_000)
    kept = create_archive(str(tmp_path / "archive"))
    written = []
    for seed in range(5):
        path = tmp_path / "a.tape"
        with TapeWriter(path) as tape:
            tape.begin(header(seed=seed, image_bytes=len(image), image_sha256=sha256(image).digest()), image)
            tape.choices(choices((Op.RUN, 0, 100)), 100, seed)
        written.append(kept.add(path).written_bytes)
    assert written[0] > 300_000
    assert max(written[1:]) < 2000
    assert len(files(kept, BLOBS)) == 1


def test_a_stripped_tape_adds_only_its_manifest(kept: Archive, tmp_path: Path) -> None:
    whole = write_long(tmp_path / "whole.tape", split_step=0)
    with Tape(whole) as tape:
        strip(tape, tmp_path / "small.tape")
    kept.add(whole)
    assert kept.add(tmp_path / "small.tape").blobs == 0


def test_every_cut_goes_in_as_it_is(kept: Archive, tmp_path: Path) -> None:
    data = write_small(tmp_path / "whole.tape").read_bytes()
    rng = random.Random(5)
    for length in [*rng.sample(range(500, len(data)), 60), len(data) - 1]:
        path = tmp_path / "cut.tape"
        path.write_bytes(data[:length])
        added = kept.add(path)
        assert added.facts.unfinished
        assert exported(kept, added.tape, tmp_path) == data[:length]


def test_damaged_tapes_are_refused_unless_asked_for(kept: Archive, tmp_path: Path) -> None:
    data = write_small(tmp_path / "whole.tape").read_bytes()
    rng = random.Random(6)
    taken = 0
    for _ in range(150):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            damaged += rng.randbytes(rng.randrange(1, 200))
        path = tmp_path / "damaged.tape"
        path.write_bytes(damaged)
        with pytest.raises(TapeError):
            kept.add(path)
        # One whose header is damaged is no tape that anybody could find again.
        with contextlib.suppress(TapeError):
            added = kept.add(path, damaged=True)
            assert added.facts.damaged
            assert exported(kept, added.tape, tmp_path) == damaged
            taken += 1
    assert taken > 75
    assert not kept.verify().problems


def test_a_tape_that_is_being_written_is_refused(
    kept: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tape(tmp_path / "a.tape", 3, events=9000, finish=False)

    def grow(_kept: Archive, _blobs: set[str]) -> None:
        with open(path, "ab") as file:
            file.write(b"\0")

    monkeypatch.setattr(Archive, "_wait_for_marks", grow)
    with pytest.raises(TapeError, match="changed while"):
        kept.add(path)
    assert not files(kept, TAPES) + files(kept, INTENTS)


def test_archiving_again_adds_labels_only(kept: Archive, tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.tape")
    first = kept.add(path, tags=["a"], note="one")
    assert first.new
    again = kept.add(path)
    assert (again.new, again.blobs, again.written_bytes) == (False, 0, 0)
    path.rename(tmp_path / "b.tape")
    other = kept.add(tmp_path / "b.tape", tags=["b"], note="two")
    assert not other.new
    (row,) = kept.search()
    assert (row.tags, row.notes, row.files) == (("a", "b"), ("one", "two"), ("a.tape", "b.tape"))
    assert len(row.manifests) == 2
    assert [kept.search(Search(tags=("a", "b"))), kept.search(Search(tags=("a", "c")))] == [[row], []]


def test_export_leaves_what_was_there_unless_all_is_right(kept: Archive, tmp_path: Path) -> None:
    added = kept.add(write_tape(tmp_path / "a.tape", 1, events=20_000))
    target = tmp_path / "out.tape"
    target.write_bytes(b"before")
    blob = files(kept, BLOBS)[0]
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ArchiveError, match="damaged"):
        kept.export(added.tape, target)
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tape", "archive", "out.tape"]
    with pytest.raises(TapeError, match="cannot write"):
        kept.export(added.tape, tmp_path / "nowhere" / "out.tape")


def test_a_full_disk_is_one_line_and_costs_nothing(
    kept: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept.add(write_tape(tmp_path / "a.tape", 1))
    other = write_tape(tmp_path / "b.tape", 2, events=30_000)
    allowed = 0

    def fsync(_fd: int) -> None:
        nonlocal allowed
        if allowed == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allowed -= 1

    monkeypatch.setattr(os, "fsync", fsync)
    for count in (0, 1, 1, 2):  # the blob, its name, then the manifest, its name
        allowed = count
        with pytest.raises(ArchiveError, match="No space left"):
            kept.add(other)
        assert not files(kept, "tmp")
        assert not kept.verify().problems
    monkeypatch.undo()
    added = kept.add(other).tape
    for tape, path in ((before.tape, tmp_path / "a.tape"), (added, other)):
        assert exported(kept, tape, tmp_path) == path.read_bytes()


# -- verify --


def test_every_flipped_bit_is_found_and_healed_by_adding_again(kept: Archive, tmp_path: Path) -> None:
    paths = [write_tape(tmp_path / f"{seed}.tape", seed, events=20_000) for seed in range(3)]
    tapes = [kept.add(path).tape for path in paths]
    rng = random.Random(9)
    blobs = files(kept, BLOBS)
    assert len(blobs) >= 3
    for blob in blobs:
        data = blob.read_bytes()
        for at in [0, len(data) - 1, *rng.sample(range(len(data)), 5)]:
            damaged = bytearray(data)
            damaged[at] ^= 1 << rng.randrange(8)
            blob.write_bytes(damaged)
            (problem,) = open_archive(kept.store.location).verify().problems
            assert problem.object == f"blobs/{blob.name}"
            (hit,) = problem.tapes
            with pytest.raises(ArchiveError, match="damaged"):
                exported(open_archive(kept.store.location), hit, tmp_path)
            open_archive(kept.store.location).add(paths[tapes.index(hit)])
            assert blob.read_bytes() == data
    blobs[0].unlink()
    (problem,) = kept.verify().problems
    assert "missing" in problem.what
    blobs[1].write_bytes(b"")
    assert len(kept.verify().problems) == 2


def test_flipped_bits_in_manifests_are_found_and_stop_the_collection(kept: Archive, tmp_path: Path) -> None:
    added = kept.add(write_tape(tmp_path / "a.tape", 1, events=20_000))
    other = kept.add(write_tape(tmp_path / "b.tape", 2, events=20_000))
    (manifest,) = [path for path in files(kept, TAPES) if path.name.startswith(added.tape)]
    data = manifest.read_bytes()
    assert len(kept.search()) == 2
    for at in range(0, len(data), 29):
        damaged = bytearray(data)
        damaged[at] ^= 4
        manifest.write_bytes(damaged)
        (problem,) = kept.verify().problems
        assert problem.tapes == (added.tape,)
    with pytest.raises(ArchiveError, match="nothing was deleted"):
        kept.collect()
    with kept.catalogue() as catalogue:
        assert [row.tape for row in catalogue.search()] == [other.tape, added.tape]  # it had seen it before
    Path(kept.store.location, "catalogue.sqlite").unlink()
    with kept.catalogue() as catalogue:
        assert [row.tape for row in catalogue.search()] == [other.tape]
        assert [name for name, _ in catalogue.damaged()] == [manifest.name]
    kept.remove(kept.find(added.tape[:8]))
    assert kept.collect().blobs == added.blobs
    assert exported(kept, other.tape, tmp_path) == (tmp_path / "b.tape").read_bytes()


@given(st.binary(max_size=200))
def test_no_bytes_make_a_manifest_reader_fail_otherwise(data: bytes) -> None:
    for content in (data, zstandard.compress(data)):
        name = "0" * 64 + "-" + sha256(content).hexdigest()[:32]
        with pytest.raises(ArchiveError):
            decode_manifest(name, content)


def test_strange_manifests_are_refused(kept: Archive, tmp_path: Path) -> None:
    """Each value of a manifest replaced by others: it is refused, or what comes of it is a manifest all the same."""
    kept.add(write_tape(tmp_path / "a.tape", 1, events=20_000), tags=["t"], diagnose=diagnosed)
    (path,) = files(kept, TAPES)
    body = msgpack.unpackb(zstandard.decompress(path.read_bytes()))
    refused = accepted = 0

    def places(node: object, make: Callable[[object], object]) -> Iterator[object]:
        for value in (None, -1, 1 << 63, (1 << 64) - 1, 1.5, 1e300, float("nan"), "\x1b\0", b"x", [], {}, [[0]], True):
            yield make(value)
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in list(pairs)[:8]:

            def put(new: object, key: object = key) -> object:
                changed = dict(node) if isinstance(node, dict) else list(node)  # type: ignore[arg-type, call-overload]
                changed[key] = new  # type: ignore[index, call-overload]
                return make(changed)

            yield from places(value, put)

    for changed in places(body, lambda value: value):
        content = zstandard.compress(msgpack.packb(changed))
        name = f"{path.name[:64]}-{sha256(content).hexdigest()[:32]}"
        try:
            manifest = decode_manifest(name, content)
        except ArchiveError:
            refused += 1
            continue
        accepted += 1
        assert isinstance(manifest, Manifest)
        assert manifest.layout.size_bytes == body["size_bytes"]
        kept.store.put(TAPES, name, content)
        (row,) = kept.search()
        assert manifest.label.file in row.files
    assert not kept.verify().problems
    assert not kept.collect().blobs
    assert refused > 300
    assert accepted > 20


# -- rm, gc and others at the same time --


def test_removed_tapes_leave_nothing_after_the_collection(kept: Archive, tmp_path: Path) -> None:
    added = [kept.add(write_tape(tmp_path / f"{seed}.tape", seed, events=20_000)) for seed in range(4)]
    tapes = [row.tape for row in added]
    before = kept.collect(dry_run=True)
    assert (before.blobs, before.size_bytes) == (0, 0)
    kept.remove(tapes[0])
    kept.remove(tapes[2])
    planned = kept.collect(dry_run=True)
    assert planned.blobs == added[0].blobs + added[2].blobs > 0
    assert kept.collect() == planned
    assert [row.tape for row in kept.search()] == [tapes[3], tapes[1]]
    for tape, seed in ((tapes[1], 1), (tapes[3], 3)):
        assert exported(kept, tape, tmp_path) == (tmp_path / f"{seed}.tape").read_bytes()
    with pytest.raises(UsageError, match="has no tape"):
        kept.find(tapes[0][:8])
    kept.remove(tapes[1])
    kept.remove(tapes[3])
    kept.collect()
    assert not files(kept, BLOBS) + files(kept, TAPES) + files(kept, INTENTS) + files(kept, MARKS)


class Interleaved(DirectoryStore):
    """Calls `meanwhile` once, before its `at`-th operation."""

    def __init__(self, path: str, at: int, meanwhile: Callable[[], None]) -> None:
        super().__init__(path)
        self.calls, self.at, self.meanwhile = 0, at, meanwhile

    def __getattribute__(self, name: str) -> object:
        if name in ("list", "size", "read", "put", "delete", "read_many"):
            self.calls += 1
            if self.calls == self.at:
                self.meanwhile()
        return super().__getattribute__(name)


def test_a_collection_at_any_moment_of_an_add_costs_nothing(tmp_path: Path) -> None:
    path = write_tape(tmp_path / "a.tape", 1, events=20_000)
    at, before = 0, -1
    while before != at:
        at += 1
        shutil.rmtree(tmp_path / "archive", ignore_errors=True)
        kept = create_archive(str(tmp_path / "archive"))
        kept.remove(kept.add(path).tape)  # its blobs are there, and nobody needs them
        store = Interleaved(kept.store.location, at, lambda kept=kept: kept.collect())  # type: ignore[misc]
        tape = Archive(store, None).add(path).tape
        assert exported(kept, tape, tmp_path) == path.read_bytes(), at
        assert not kept.verify().problems
        assert not files(kept, INTENTS) + files(kept, MARKS)
        before = at if store.calls < at else before
    assert at > 10


def test_an_add_at_any_moment_of_a_collection_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = (write_tape(tmp_path / f"{seed}.tape", seed, events=20_000) for seed in (1, 2))
    # The collection stands still while somebody adds, so waiting for it would last for ever.
    monkeypatch.setattr(operations, "_WAIT_S", 0.0)
    at = gave_way = 0
    while True:
        at += 1
        shutil.rmtree(tmp_path / "archive", ignore_errors=True)
        kept = create_archive(str(tmp_path / "archive"))
        kept.remove(kept.add(path).tape)
        done: list[str] = []

        def add(kept: Archive = kept, done: list[str] = done) -> None:
            done.append(kept.add(other).tape)
            done.append(kept.add(path).tape)

        store = Interleaved(kept.store.location, at, add)
        try:
            Archive(store, None).collect()
        except ArchiveError:  # from the add
            gave_way += 1
            assert len(done) == 1
        for tape in done:
            exported(kept, tape, tmp_path)
        assert not kept.verify().problems, at
        if store.calls < at:
            break
        assert done  # the one that shares nothing never has to wait
    assert gave_way > 0
    assert at > 10


def test_what_the_dead_left_is_cleared_and_what_the_living_need_is_not(kept: Archive, tmp_path: Path) -> None:
    path = write_tape(tmp_path / "a.tape", 1, events=20_000)
    kept.remove(kept.add(path).tape)
    blobs = [file.name for file in files(kept, BLOBS)]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        owner = this_process() | {"pid": process.pid, "start": stat.rpartition(")")[2].split()[19]}
        note = msgpack.packb({"owner": owner, "blobs": blobs})
        kept.store.put(INTENTS, "one", note)
        assert kept.collect().blobs == 0  # somebody is about to use it
        kept.store.delete(INTENTS, "one")
        kept.store.put(MARKS, "two", note)
        added = threading.Thread(target=lambda: open_archive(kept.store.location).add(path))
        added.start()
        added.join(0.5)
        assert added.is_alive()  # it waits for the collection
        process.kill()
        process.wait()
        added.join(20)
        assert not added.is_alive()
    assert not files(kept, MARKS)
    kept.store.put(INTENTS, "three", note)
    kept.store.put(MARKS, "four", note)
    (Path(kept.store.location) / "tmp" / "five").touch()
    os.utime(Path(kept.store.location) / "tmp" / "five", (1, 1))
    assert kept.collect().leftovers == 3
    assert not files(kept, MARKS) + files(kept, INTENTS) + files(kept, "tmp")
    assert not kept.verify().problems


def test_an_add_that_was_given_up_for_dead_notices(
    kept: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "INTENT_AGE_S", -1.0)
    path = write_tape(tmp_path / "a.tape", 1, events=20_000)
    noticed = 0
    for at in range(1, 30):
        store = Interleaved(kept.store.location, at, lambda: kept.collect())
        try:
            tape = Archive(store, None).add(path).tape
            assert exported(kept, tape, tmp_path) == path.read_bytes()
        except ArchiveError:
            noticed += 1
        assert not kept.verify().problems
        kept.remove(sha256(path.read_bytes()).hexdigest())
        kept.collect()
    assert noticed > 2


ADD = [sys.executable, "-m", "racetape", "archive", "add", "--quick", "--archive"]
COLLECT = [sys.executable, "-m", "racetape", "archive", "gc", "--archive"]


def kill_adds(folder: Path, times: int) -> None:
    """Kill processes that add and that collect, at random moments, and see that all they said is true."""
    rng = random.Random(11)
    kept = create_archive(str(folder / "archive"))
    paths = [write_tape(folder / f"{seed}.tape", seed, events=6000) for seed in range(60)]
    known = {sha256(path.read_bytes()).hexdigest(): path for path in paths}
    said: set[str] = set()
    killed = 0
    for _ in range(times):
        some = [str(path) for path in rng.sample(paths, 40)]
        with subprocess.Popen([*ADD, kept.store.location, *some], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said.add(process.stdout.readline().split()[0])
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            said |= {line.split()[0] for line in process.stdout if line.endswith("\n")}
            killed += process.wait() == -signal.SIGKILL
        with subprocess.Popen([*COLLECT, kept.store.location], stdout=subprocess.DEVNULL) as process:
            time.sleep(rng.uniform(0.1, 0.4))
            process.send_signal(signal.SIGKILL)
        assert not kept.verify().problems
        for tape in said:
            whole = kept.find(tape)
            assert exported(kept, whole, folder) == known[whole].read_bytes()
        if rng.random() < 0.5:
            for tape in rng.sample(sorted(said), len(said) // 2):
                kept.remove(kept.find(tape))
                said.remove(tape)
    assert killed
    kept.collect()
    needed = {blob.name for name in kept.store.list(TAPES) for blob in _manifest(kept, name).layout.blobs}
    assert needed == set(kept.store.list(BLOBS))
    assert not files(kept, INTENTS) + files(kept, MARKS)
    assert len(kept.search()) == len(kept.store.list(TAPES))


def _manifest(kept: Archive, name: str) -> Manifest:
    return decode_manifest(name, kept.store.read(TAPES, name))


def test_kill_9_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    kill_adds(tmp_path, 2)


@pytest.mark.soak
def test_kill_9_a_hundred_times(tmp_path: Path) -> None:
    kill_adds(tmp_path, 100)


def test_two_writers_and_a_collector_at_once(kept: Archive, tmp_path: Path) -> None:
    paths = [write_tape(tmp_path / f"{seed}.tape", seed, events=6000) for seed in range(30)]
    for path in paths[:10]:  # garbage that the writers come to need
        kept.remove(kept.add(path).tape)
    rows = [list(map(str, paths[:20])), list(map(str, paths[:9:-1]))]
    writers = [subprocess.Popen([*ADD, kept.store.location, *row], stdout=subprocess.DEVNULL) for row in rows]
    collections = 0
    while any(writer.poll() is None for writer in writers):
        kept.collect()
        assert not kept.verify().problems
        kept.search()
        collections += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert collections > 1
    assert {row.files for row in kept.search()} == {(path.name,) for path in paths}
    for path in paths:
        assert exported(kept, sha256(path.read_bytes()).hexdigest(), tmp_path) == path.read_bytes()


# -- catalogue --


def diagnosed(tape: Tape) -> Diagnosis:
    """By its seed: 0 and 1 fail alike."""
    number = tape.header.seed
    if number > 1:
        return Diagnosis()
    at = Divergence(counter="NR_FILE", function="acct", file="mm/a.c", line=7, step=123 + number)
    return Diagnosis(signature="mm/a.c:7", failure=f"BUG {number}", divergences=(at,))


def test_tapes_are_found_by_all_that_is_known_of_them(kept: Archive, tmp_path: Path) -> None:
    seeds = (0, 1, 2, (1 << 64) - 1)
    tapes = {}
    for seed in seeds:
        path = tmp_path / f"run-{seed % 1000}.tape"
        with TapeWriter(path) as tape:
            tape.begin(header(seed=seed, variant=f"v{seed % 10}", strategy="pct" if seed else "random"), IMAGE)
            tape.choices(choices((Op.RUN, 0, 100 + seed % 1000)), 100 + seed % 1000, 1)
        tapes[seed] = kept.add(path, tags=[f"t{seed % 2}"], note=f"Note {seed}", diagnose=diagnosed).tape
    last = seeds[-1]

    def found(**wanted: object) -> set[int]:
        rows = kept.search(Search(**wanted))  # type: ignore[arg-type]
        return {seed for seed in seeds if tapes[seed] in [row.tape for row in rows]}

    everything = set(seeds)
    assert found() == everything
    assert found(tape=tapes[1][:9]) == {1}
    assert found(scenario="wrong-zone-small") == found(scenario="wrong-*") == everything
    assert found(scenario="wrong") == found(variant="x") == found(configuration="smp") == set()
    assert found(variant="v?") == everything
    assert found(variant="v2") == {2}
    assert found(configuration="up") == everything
    assert found(strategy="pct") == everything - {0}
    assert found(seed=last) == {last}
    assert found(image=sha256(IMAGE).hexdigest()[:10]) == everything
    assert found(signature="mm/a.c:7") == found(signature="mm/*") == found(failed=True) == {0, 1}
    assert found(failed=False) == {2, last}
    assert found(function="acct") == found(counter="NR_*") == {0, 1}
    assert found(tags=("t1",)) == {1, last}
    assert found(text="NOTE 2") == {2}
    assert found(text="bug 1") == {1}
    assert found(text="RUN-0.") == {0}
    assert found(unfinished=True) == everything
    assert found(unfinished=False) == found(stop="exit") == found(exit_status=0) == set()
    now = time.time()
    assert found(since=now - 3600, until=now + 3600) == everything
    assert found(since=now + 60) == found(until=now - 3600) == set()
    (row,) = kept.search(Search(tape=tapes[last]))
    assert row.facts.seed == last
    assert len(kept.search(limit=2)) == 2
    (row,) = kept.search(Search(seed=1))
    assert row.divergences == diagnosed_of(1)
    assert (row.facts.steps, row.failure, row.notes, row.tags) == (101, "BUG 1", ("Note 1",), ("t1",))


def diagnosed_of(number: int) -> tuple[Divergence, ...]:
    return (Divergence(counter="NR_FILE", function="acct", file="mm/a.c", line=7, step=123 + number),)


def test_a_diagnosis_can_come_later_and_is_made_once(kept: Archive, tmp_path: Path) -> None:
    path = write_tape(tmp_path / "a.tape", 1)
    assert kept.add(path).diagnosis.note == "nobody has looked"
    assert kept.add(path, diagnose=diagnosed).diagnosis.signature == "mm/a.c:7"
    for _ in range(2):  # also from a catalogue made anew
        (row,) = kept.search()
        assert (row.signature, row.diagnosis_note) == ("mm/a.c:7", "")
        Path(kept.store.location, "catalogue.sqlite").unlink()

    def never(tape: Tape) -> Diagnosis:
        raise AssertionError

    assert kept.add(path, tags=["x"], diagnose=never).diagnosis.signature == "mm/a.c:7"


def test_the_catalogue_is_only_a_copy(kept: Archive, tmp_path: Path) -> None:
    for seed in range(3):
        kept.add(write_tape(tmp_path / "a.tape", seed), tags=[str(seed)])
    before = kept.search()
    path = Path(kept.store.location, "catalogue.sqlite")
    good = path.read_bytes()
    for bad in (b"", b"no database at all", good[:5000], good[:4096] + bytes(len(good) - 4096), bytes(len(good))):
        path.write_bytes(bad)
        assert kept.search() == before, bad[:16]
    path.unlink()
    assert kept.search() == before
    path.unlink()
    path.mkdir()  # nothing can be written there
    assert kept.search() == before


# -- retention --


def row(number: int, *, days: float, steps: int, signature: str | None, tags: tuple[str, ...] = ()) -> Row:
    facts = Facts(
        format=4, tool="", scenario="s", variant="v", configuration="c", cpus=1, image_sha256="", strategy="", seed=0,
        stop="exit", exit_status=0, steps=steps, events=0, unfinished=False, damaged=False,
    )  # fmt: skip
    return Row(
        tape=f"{number:064x}", size_bytes=1, facts=facts, signature=signature, failure=None, diagnosis_note="",
        divergences=(), time=1e9 - days * 86400, files=(), tags=tags, notes=(), manifests=(),
    )  # fmt: skip


def test_retention_keeps_what_any_rule_keeps() -> None:
    rows = [
        row(0, days=0, steps=50, signature="a"),
        row(1, days=5, steps=10, signature="a", tags=("x",)),
        row(2, days=9, steps=20, signature="a"),
        row(3, days=9, steps=90, signature="b"),
        row(4, days=9, steps=90, signature=None),
        row(5, days=8, steps=90, signature=None, tags=("y", "keep")),
    ]

    def removed(**rules: object) -> list[int]:
        return [int(r.tape, 16) for r in to_remove(rows, Rules(**rules), 1e9)]  # type: ignore[arg-type]

    assert removed() == []
    assert removed(days=6) == [2, 3, 4, 5]
    assert removed(days=8.5) == [2, 3, 4]
    assert removed(per_signature=1) == [0, 2, 5]
    assert removed(per_signature=0) == [0, 1, 2, 3, 4, 5]
    assert removed(per_signature=2) == [0]
    assert removed(tags=("keep", "x")) == [0, 2, 3, 4]
    assert removed(days=6, per_signature=1, tags=("keep",)) == [2]
    other = [replace(r, facts=replace(r.facts, scenario="t")) for r in rows]
    assert len(to_remove(rows + other, Rules(per_signature=1), 1e9)) == 6


# -- other archives --


def test_another_archive_is_taken_over_with_its_labels(kept: Archive, tmp_path: Path) -> None:
    source = create_archive(str(tmp_path / "source"))
    paths = [write_tape(tmp_path / f"{seed}.tape", seed, events=20_000) for seed in range(4)]
    for path in paths:
        source.add(path, tags=[path.stem], diagnose=diagnosed)
    kept.add(paths[0])
    bad = next(blob for blob in files(source, BLOBS) if blob.name == _blob_of(paths[3]))
    bad.write_bytes(bad.read_bytes()[::-1])
    new, there, problems = kept.take_over(source)
    assert (new, there, len(problems)) == (2, 1, 1)
    assert "damaged" in problems[0]
    rows = {r.files[0]: r for r in kept.search()}
    assert rows.keys() == {"0.tape", "1.tape", "2.tape"}
    assert (rows["0.tape"].tags, rows["1.tape"].signature) == (("0",), "mm/a.c:7")
    assert [r.time for r in source.search(Search(seed=2))] == [rows["2.tape"].time]
    assert exported(kept, rows["2.tape"].tape, tmp_path) == paths[2].read_bytes()
    assert kept.take_over(source)[:2] == (0, 3)


def _blob_of(path: Path) -> str:
    layout = Splitter(path, path.stat().st_size).split(lambda *_: None)
    return layout.blobs[-1].name


def test_what_is_no_archive_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no archive"):
        open_archive(str(tmp_path))
    (tmp_path / "racetape-archive.json").write_text("{}")
    with pytest.raises(ArchiveError, match="damaged"):
        open_archive(str(tmp_path))
    (tmp_path / "racetape-archive.json").write_text('{"archive": 2}')
    with pytest.raises(ArchiveError, match="newer"):
        open_archive(str(tmp_path))
    with pytest.raises(UsageError, match="an archive already"):
        create_archive(str(tmp_path))
    with pytest.raises(UsageError, match="not empty"):
        create_archive("/proc/self")
    with pytest.raises(ArchiveError, match="cannot make"):
        create_archive("/proc/none/archive")
    assert archive.home().endswith("racetape/archive")


def test_a_damaged_tape_says_where(kept: Archive, tmp_path: Path) -> None:
    path = write_tape(tmp_path / "a.tape", 1)
    data = bytearray(path.read_bytes())
    with Tape(path) as tape:
        chunk = tape.events_chunks[0]
    data[chunk.offset + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(TapeDamagedError) as caught:
        kept.add(path)
    assert caught.value.offset == chunk.offset
