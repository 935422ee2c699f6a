"""`racetape sql` as people and scripts use it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import racetape
from racetape.cli import main
from racetape.rows import print_table
from traces import Tape

pytest.importorskip("duckdb", reason="needs DuckDB: pip install 'racetape[sql]'")
pytest.importorskip("pyarrow", reason="needs PyArrow: pip install 'racetape[sql]'")

from racetape.sql_prompt import completions, piped

COUNT = "SELECT count(*) AS n FROM events"


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sql") / "bug.tape"
    assert main(["record", "wrong-zone-small", "-o", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def events(tape: Path) -> int:
    with Tape(tape) as recording:
        assert recording.footer is not None
        return recording.footer.events


def test_table_json_and_csv_say_the_same(tape: Path, capfd: pytest.CaptureFixture[str]) -> None:
    query = "SELECT step, pc, function, symbol, signed, drained FROM stores WHERE step < 87700"
    outputs = []
    for option in ([], ["--json"], ["--csv"]):
        assert main(["sql", str(tape), query, *option]) == 0
        outputs.append(capfd.readouterr().out)
    rows = [json.loads(line) for line in outputs[1].splitlines()]
    assert len(rows) > 10
    head, *table = csv.reader(io.StringIO(outputs[2]))
    assert head == list(rows[0])
    texts = [
        [
            str(row["step"]),
            str(row["pc"]),
            row["function"],
            row["symbol"] or "",
            str(row["signed"]),
            str(row["drained"]),
        ]
        for row in rows
    ]
    assert table == texts
    lines = outputs[0].splitlines()
    assert lines[0].split() == head
    assert len(lines) == len(rows) + 2
    assert lines[2].split()[:3] == [f"@{rows[0]['step']}", f"{rows[0]['pc']:#x}", rows[0]["function"]]


def test_limit(tape: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", str(tape), "SELECT step FROM events", "--limit", "7", "--csv"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELECT * FRM events"], "racetape: Parser Error: syntax error at or near"),
        (["SELECT nothing FROM events"], "racetape: Binder Error: Referenced column"),
        (["SELECT * FROM read_text('/etc/passwd')"], "racetape: Permission Error"),
        (["SELECT address_of('nothing')"], "racetape: the image has no symbol 'nothing'"),
        ([COUNT, "--json", "--csv"], "racetape: --json or --csv, not both"),
        ([COUNT, "--memory", "much"], "racetape: --memory: "),
    ],
)
def test_bad_queries_are_one_line(
    tape: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", str(tape), *arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1


def test_bad_tapes_are_one_line(tape: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = tape.read_bytes()
    with Tape(tape) as recording:
        chunk = recording.events_chunks[-1]
    (tmp_path / "cut.tape").write_bytes(data[: chunk.offset])
    (tmp_path / "damaged.tape").write_bytes(data[: chunk.offset + 99] + b"?" + data[chunk.offset + 100 :])
    assert main(["sql", str(tmp_path / "damaged.tape"), COUNT]) == 2
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1
    assert "wrong checksum" in captured.err
    assert main(["sql", str(tmp_path / "cut.tape"), COUNT, "--csv"]) == 2
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1
    assert "the tape is cut" in captured.err
    assert captured.out.startswith("n\n")


def test_missing_packages_are_named(
    tape: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["sql", str(tape), COUNT]) == 2
    assert "pip install 'racetape[sql]'" in capfd.readouterr().err


def test_views_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "--views"]) == 0
    text = capfd.readouterr().out
    assert "stores: Data writes" in text
    assert "inside(ADDRESS, 'PLACE')" in text


def test_python_face(tape: Path, events: int) -> None:
    with racetape.sql(tape, COUNT) as answer:
        assert answer.columns == ["n"]
        assert list(answer) == [(events,)]
    with racetape.Tape(tape) as recording:
        with racetape.sql(recording, "SELECT step FROM events") as answer:
            assert answer.fetchmany(1) == [(recording.header.ready_step,)]
        with pytest.raises(racetape.UsageError):
            racetape.sql(recording, "nothing")
        assert len(recording.image()) == recording.header.image_bytes  # still open


# -- the prompt --


def test_statements_from_a_pipe(tape: Path, events: int) -> None:
    text = f"SELECT 1 AS one;\n\n{COUNT}\nWHERE step > 0;\nSELECT 'a;b'"
    done = subprocess.run(
        [sys.executable, "-m", "racetape", "sql", str(tape), "--csv"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["one", "1", "n", str(events), "'a;b'", "a;b"]


def test_statements_are_cut_at_semicolons() -> None:
    assert list(piped(["select 1;", "", "select", "  2 ; ", "select 3"])) == ["select 1;", "select\n  2 ; ", "select 3"]


def test_completion_knows_views_and_columns() -> None:
    assert {"step", "stores"} <= set(completions("SELECT * FROM st", "st"))
    assert "drained" in completions("SELECT dr FROM stores", "dr")
    assert "drained" not in completions("SELECT dr FROM loads", "dr")
    assert "inside" in completions("x", "ins")
    assert completions("SELECT ", "") == []


def test_prompt_survives_errors_and_interrupts(tape: Path, events: int, tmp_path: Path) -> None:
    """Through a terminal: a wrong query, one that would take for ever, Ctrl-C, a good one, Ctrl-D."""
    main_end, their_end = pty.openpty()
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "racetape", "sql", str(tape)],
        stdin=their_end, stdout=their_end, stderr=their_end, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(their_end)
    terminal = Terminal(main_end)
    try:
        terminal.expect("racetape> ")
        terminal.say("SELECT nothing;")
        terminal.expect("Binder Error", "racetape> ")
        terminal.say("SELECT count(*) FROM events a, events b, events c WHERE a.addr < b.addr + c.addr;")
        time.sleep(1.5)
        os.kill(process.pid, signal.SIGINT)
        terminal.expect("Interrupted.", "racetape> ")
        terminal.say(f"{COUNT};")
        terminal.expect(f"{events}\r\n", "racetape> ")
        terminal.leave(process)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(main_end)
    assert "SELECT nothing;" in (tmp_path / "racetape" / "sql_history").read_text()


class Terminal:
    """The user's end of a terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._unread = ""

    def say(self, line: str) -> None:
        """Type a line."""
        os.write(self._fd, f"{line}\r".encode())

    def leave(self, process: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
        """Press Ctrl-D until the process is gone; one that comes while the terminal changes its mode is lost."""
        end = time.monotonic() + timeout_s
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):  # the other end is closed
                os.write(self._fd, b"\x04")
                if select.select([self._fd], [], [], 0.5)[0]:
                    os.read(self._fd, 4096)

    def expect(self, *texts: str, timeout_s: float = 30) -> None:
        """Read until all `texts` have come, in this order."""
        end = time.monotonic() + timeout_s
        for text in texts:
            while text not in self._unread:
                ready, _, _ = select.select([self._fd], [], [], max(0, end - time.monotonic()))
                assert ready, f"no {text!r} in {self._unread!r}"
                self._unread += os.read(self._fd, 4096).decode()
            self._unread = self._unread.partition(text)[2]


def test_table_does_not_steer_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "step"], [("\x1b[2J\n", 5), (None, None)], positions={"step"})
    assert capfd.readouterr().out == "a      step\n-----  ----\n?[2J?    @5\n\n"
