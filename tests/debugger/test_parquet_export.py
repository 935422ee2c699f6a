"""Parquet files, read back by PyArrow and by DuckDB, hold what the tape's events are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from machine.errors import TapeDamagedError, TapeError, UsageError
from racetape.cli import main
from replayer import Timeline
from traces import Events, Tape, strip
from traces.schema import COLUMNS, KIND_NAMES

pytest.importorskip("pyarrow", reason="needs PyArrow: pip install 'racetape[sql]'")

import pyarrow.parquet as pq
from sql_tapes import all_events, in_small_chunks

from debugger.parquet import export


@pytest.fixture(scope="module")
def tape(wrong_zone: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = wrong_zone(configuration="smp2-2level", strategy="random-walk", seed=3)
    return in_small_chunks(whole, tmp_path_factory.mktemp("parquet") / "small.tape", 3000)


def check_columns(table: Any, events: Events) -> None:
    assert table.num_rows == len(events)
    for name, dtype in COLUMNS:
        if name == "kind":
            assert table["kind"].to_pylist() == [KIND_NAMES[number] for number in events.kind.tolist()]
        else:
            assert np.array_equal(table[name].to_numpy().astype(dtype), getattr(events, name)), name


def test_file_has_the_events(tape: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.parquet"
    assert main(["export", str(tape), "--parquet", str(path), "--json"]) == 0
    done = json.loads(capfd.readouterr().out)
    with Tape(tape) as recording:
        events = all_events(recording)
        table = pq.read_table(path)
        check_columns(table, events)
        frames = [recording.symbols.frames(pc)[0] for pc in events.pc[:2000].tolist()]
        assert table["function"][:2000].to_pylist() == [frame.function for frame in frames]
        assert table["line"][:2000].to_pylist() == [frame.line or None for frame in frames]
        assert pq.ParquetFile(path).num_row_groups == len(recording.events_chunks)
        said = {name.decode(): text.decode() for name, text in table.schema.metadata.items()}
        assert said["racetape.scenario"] == "wrong-zone-small"
        assert said["racetape.image_sha256"] == recording.header.image_sha256.hex()
        assert said["racetape.last_chunk_hash"] == recording.chunks[-1].hash.hex()
        assert said["racetape.stop"] == "exit"
    assert done["events"] == len(events)
    assert done["size_bytes"] == path.stat().st_size


def test_duckdb_reads_the_same(tape: Path, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'racetape[sql]'")
    with Tape(tape) as recording:
        events = all_events(recording)
        export(recording, tmp_path / "out.parquet")
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT step, value, kind, symbol IS NULL FROM read_parquet(?)", [str(tmp_path / "out.parquet")]
        ).fetchall()
        said = connection.execute(
            "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = 'racetape.seed'",
            [str(tmp_path / "out.parquet")],
        ).fetchall()
    rows = [(row.step, row.value, row.name) for row in events.rows()]
    assert [row[:3] for row in found] == rows
    assert said == [("3",)]


def test_part_of_a_tape_and_what_is_not_on_it(tape: Path, tmp_path: Path) -> None:
    """Steps of the set-up, which were not recorded, and of a stripped tape are made again."""
    with Tape(tape) as recording:
        strip(recording, tmp_path / "stripped.tape")
        ready = recording.header.ready_step
        expected = Timeline(recording).events(ready - 500, ready + 699)
        done = export(recording, tmp_path / "part.parquet", first=f"@{ready - 500}", end="+1200")
        assert (done.first_step, done.end_step, done.events) == (ready - 500, ready + 700, len(expected))
        check_columns(pq.read_table(tmp_path / "part.parquet"), expected)
        events = all_events(recording)
    with Tape(tmp_path / "stripped.tape") as stripped:
        export(stripped, tmp_path / "again.parquet")
    check_columns(pq.read_table(tmp_path / "again.parquet"), events)


def test_failures_leave_no_file(tape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Tape(tape) as recording:
        chunk = recording.events_chunks[-2]
    data = bytearray(tape.read_bytes())
    data[chunk.offset + 90] ^= 1
    (tmp_path / "damaged.tape").write_bytes(data)
    with Tape(tmp_path / "damaged.tape") as damaged:
        with pytest.raises(TapeDamagedError):
            export(damaged, tmp_path / "out.parquet")
        assert not (tmp_path / "out.parquet").exists()
        with pytest.raises(TapeError, match="the tape itself"):
            export(damaged, tmp_path / "damaged.tape")
        with pytest.raises(UsageError, match="nothing lies between"):
            export(damaged, tmp_path / "out.parquet", first="end")
        with pytest.raises(TapeError, match="No such file"):
            export(damaged, tmp_path / "nowhere" / "out.parquet")
        assert (tmp_path / "damaged.tape").read_bytes() == data

        def interrupt(_position: int, _total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export(damaged, tmp_path / "out.parquet", progress=interrupt)
        assert not (tmp_path / "out.parquet").exists()


def test_full_disk_is_one_line(tape: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tape), "--parquet", "/dev/full"]) == 2
    captured = capfd.readouterr()
    assert captured.err == "racetape: cannot write /dev/full: No space left on device\n"
    assert Path("/dev/full").exists()


def test_events_as_arrow_and_pandas(tape: Path) -> None:
    with Tape(tape) as recording:
        events = all_events(recording)[:5000]
    check_columns(events.to_arrow(), events)
    pytest.importorskip("pandas")
    frame = events.to_pandas()
    assert list(frame.columns) == [name for name, _ in COLUMNS]
    assert frame["kind"].tolist() == [KIND_NAMES[number] for number in events.kind.tolist()]
    assert np.array_equal(frame["value"].to_numpy(), events.value)
