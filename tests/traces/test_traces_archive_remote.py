"""Archives elsewhere: over SFTP on a real OpenSSH server, and over S3 on a local one."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from machine.errors import ArchiveError, UsageError
from tests.traces import servers
from tests.traces.test_traces_archive import Interleaved, exported, write_long, write_tape
from traces.archive import Archive, create_archive, open_archive
from traces.archive.store import BLOBS, INTENTS, MARKS, TEMPORARY, Store

pytest.importorskip("fsspec", reason="needs fsspec (pip install 'racetape[dev]')")


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    pytest.importorskip("sshfs", reason="needs sshfs (pip install 'racetape[dev]')")
    folder = tmp_path_factory.mktemp("sshd")
    with servers.sshd(folder) as url:
        yield folder / "home", url


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    pytest.importorskip("s3fs", reason="needs s3fs (pip install 'racetape[dev]')")
    with servers.s3() as url:
        yield url


@pytest.fixture(params=["sftp", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "sftp":
        home, url = request.getfixturevalue("ssh_server")
        monkeypatch.setenv("HOME", str(home))
        return f"{url}/{uuid.uuid4().hex}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    bucket = uuid.uuid4().hex
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
    return f"s3://{bucket}/some/place"


def test_an_archive_elsewhere_does_what_one_here_does(location: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no archive"):
        open_archive(location)
    kept = create_archive(location)
    with pytest.raises(UsageError, match="already"):
        create_archive(location)
    assert kept.search() == []
    paths = [write_tape(tmp_path / f"{seed}.tape", seed, events=20_000) for seed in range(3)]
    paths.append(write_long(tmp_path / "long.tape", split_step=0, count=20))
    added = [kept.add(path, tags=[path.stem], note="x") for path in paths]
    assert kept.add(paths[0]).written_bytes == 0
    again = open_archive(location)
    assert [row.tags for row in again.search()] == [("long",), ("2",), ("1",), ("0",)]
    for row, path in zip(added, paths, strict=True):
        assert exported(again, again.find(row.tape[:10]), tmp_path) == path.read_bytes()
    found = again.verify()
    assert (found.tapes, found.garbage, found.problems) == (4, 0, ())
    (cache,) = (tmp_path / "cache" / "racetape" / "archives").iterdir()
    cache.unlink()
    assert len(open_archive(location).search()) == 4

    again.remove(added[0].tape)
    assert kept.collect(dry_run=True).blobs == added[0].blobs
    assert kept.collect().blobs == added[0].blobs
    assert [row.tags for row in again.search()] == [("long",), ("2",), ("1",)]
    here = create_archive(str(tmp_path / "here"))
    assert here.take_over(again)[:2] == (3, 0)
    assert exported(here, added[1].tape, tmp_path) == paths[1].read_bytes()
    assert not kept.store.list(INTENTS).keys() | kept.store.list(MARKS).keys() | kept.store.list(TEMPORARY).keys()


def test_every_damaged_blob_is_found_there_and_healed_by_adding_again(location: str, tmp_path: Path) -> None:
    kept = create_archive(location)
    paths = [write_tape(tmp_path / f"{seed}.tape", seed, events=20_000) for seed in range(2)]
    for path in paths:
        kept.add(path)
    rng = random.Random(3)
    names = kept.store.list(BLOBS)
    assert len(names) >= 2
    for name in names:
        data = bytearray(kept.store.read(BLOBS, name))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        kept.store.put(BLOBS, name, bytes(data))
    assert {row.object for row in kept.verify().problems} == {f"blobs/{name}" for name in names}
    kept.store.delete(BLOBS, name)
    assert any("missing" in row.what for row in kept.verify().problems)
    for path in paths:
        open_archive(location).add(path)
    assert not kept.verify().problems


class InterleavedThere(Interleaved):
    """As in a directory, on any store."""

    def __init__(self, store: Store, at: int, meanwhile: object) -> None:
        super().__init__("", at, meanwhile)  # type: ignore[arg-type]
        self.there = store

    def __getattribute__(self, name: str) -> object:
        value = super().__getattribute__(name)
        there = object.__getattribute__(self, "__dict__").get("there")
        return getattr(there, name) if there is not None and hasattr(Store, name) else value


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_a_collection_at_any_moment_of_an_add_there_costs_nothing(location: str, tmp_path: Path, stride: int) -> None:
    path = write_tape(tmp_path / "a.tape", 1, events=20_000)
    kept = create_archive(location)
    for at in range(1, 100, stride):
        tape = kept.add(path).tape
        kept.remove(tape)
        store = InterleavedThere(kept.store, at, lambda: kept.collect())
        assert Archive(store, None).add(path).tape == tape
        assert exported(kept, tape, tmp_path) == path.read_bytes()
        assert not kept.verify().problems
        kept.remove(tape)
        if store.calls < at:
            break
    assert 10 < at < 99


ADD = [sys.executable, "-m", "racetape", "archive", "add", "--quick", "--archive"]


def kill_adds(location: str, folder: Path, times: int) -> None:
    rng = random.Random(12)
    kept = create_archive(location)
    paths = [write_tape(folder / f"{seed}.tape", seed, events=6000) for seed in range(12)]
    known = {sha256(path.read_bytes()).hexdigest(): path for path in paths}
    said: set[str] = set()
    killed = 0
    for _ in range(times):
        some = [str(path) for path in rng.sample(paths, 10)]
        with subprocess.Popen([*ADD, location, *some], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said.add(process.stdout.readline().split()[0])
            time.sleep(rng.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            said |= {line.split()[0] for line in process.stdout if line.endswith("\n")}
            killed += process.wait() == -signal.SIGKILL
        assert not kept.verify().problems
        for tape in said:
            whole = kept.find(tape)
            assert exported(kept, whole, folder) == known[whole].read_bytes()
        for tape in rng.sample(sorted(said), len(said) // 2):
            kept.remove(kept.find(tape))
            said.remove(tape)
        kept.collect()
    assert killed
    assert kept.verify().garbage == 0
    assert not kept.store.list(INTENTS).keys() | kept.store.list(MARKS).keys()


@pytest.mark.soak
def test_kill_9_there_thirty_times(location: str, tmp_path: Path) -> None:
    kill_adds(location, tmp_path, 30)


@pytest.mark.parametrize("location", ["s3", pytest.param("sftp", marks=pytest.mark.soak)], indirect=True)
def test_two_writers_and_a_collector_there(location: str, tmp_path: Path) -> None:
    kept = create_archive(location)
    paths = [write_tape(tmp_path / f"{seed}.tape", seed, events=6000) for seed in range(5)]
    for path in paths[:2]:
        kept.remove(kept.add(path).tape)
    # The other process adds in one order, this one in the other, and collects all the while.
    with subprocess.Popen([*ADD, location, *map(str, paths)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        for path in reversed(paths):
            kept.add(path)
            kept.collect()
        assert len(writer.stdout.readlines()) == len(paths) - 1
        assert writer.wait() == 0
    assert not kept.verify().problems
    assert {row.files for row in kept.search()} == {(path.name,) for path in paths}
    for path in paths:
        assert exported(kept, sha256(path.read_bytes()).hexdigest(), tmp_path) == path.read_bytes()


def test_a_server_of_another_name_is_not_trusted(
    ssh_server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, url = ssh_server
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_bytes((home / ".ssh" / "id_ed25519").read_bytes())
    (tmp_path / ".ssh" / "id_ed25519").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ArchiveError, match=r"(?i)host key"):
        create_archive(f"{url}/x")


def test_what_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("nope://x/y", "sftp://127.0.0.1:1/x", "s3://", "sftp://"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with contextlib.suppress(ImportError), pytest.raises(ArchiveError) as caught:
            open_archive(url)
        assert "\n" not in str(caught.value)


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArchiveError, match=r"sftp://me@127\.0\.0\.1:1/x") as caught:
        open_archive("sftp://me:hush@127.0.0.1:1/x")
    assert "hush" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "sshfs", None)
    with pytest.raises(ArchiveError, match="sftp://me@host/x"):
        open_archive("sftp://me:hush@host/x")


@pytest.mark.parametrize(
    ("url", "absent", "extra"),
    [("sftp://h/x", "sshfs", "sftp"), ("s3://b/x", "s3fs", "s3"), ("s3://b/x", "fsspec", "s3")],
)
def test_what_is_not_installed_is_named(url: str, absent: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ArchiveError, match=rf"pip install 'racetape\[{extra}\]'"):
        open_archive(url)
