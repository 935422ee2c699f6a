"""The prompt: scripts, pipes, and the real terminal application with piped keys."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from debugger import prompt
from debugger.prompt import RegistryCompleter, interact, run, terminal_lines
from debugger.session import Session
from machine.errors import RacetapeError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_batch(tiny_tape: Path, capsys: Capture) -> None:
    assert run(tiny_tape, ["seek ready", "print counter"], batch=True) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "1"
    assert err == ""


def test_batch_stops_at_the_first_failure_with_status_2(tiny_tape: Path, capsys: Capture) -> None:
    assert run(tiny_tape, ["print 1", "print nope", "print 2"], batch=True) == 2
    out, err = capsys.readouterr()
    assert out == "1\n"
    assert err == "the image has no symbol 'nope'\n"


def test_commands_then_a_pipe(tiny_tape: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("print nope\nprint 40 + 2\nquit\nprint 3\n"))
    assert run(tiny_tape, ["print nonsense", "seek ready"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "42"
    assert err.splitlines() == ["the image has no symbol 'nonsense'", "the image has no symbol 'nope'"]


def test_quit_as_a_command_opens_no_prompt(tiny_tape: Path, capsys: Capture) -> None:
    assert run(tiny_tape, ["quit", "print 1"]) == 0
    assert capsys.readouterr().out.count("\n") == 1  # the banner, which comes before the commands


def test_no_tape(tmp_path: Path) -> None:
    (tmp_path / "empty.tape").touch()
    for name in ("empty.tape", "missing.tape"):
        with pytest.raises(RacetapeError):
            run(tmp_path / name, [], batch=True)


def test_ctrl_c_is_reported_with_the_place(session: Session, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(count: int = 1) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(session.timeline, "forward", interrupted)
    assert not prompt.perform(session, "si")
    assert capsys.readouterr().err == "Interrupted; still at @17.\n"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("when\rquit\r", ["when", "quit"]),
        ("nonsense\x03when\rquit\r", ["when", "quit"]),  # Ctrl-C drops the line
        ("wrong\x15when\rquit\r", ["when", "quit"]),  # Ctrl-U clears: the usual editing keys work
        ("when\r\x04", ["when"]),  # Ctrl-D leaves
    ],
)
def test_the_terminal_application(session: Session, keys: str, expected: list[str]) -> None:
    with create_pipe_input() as pipe:
        pipe.send_text(keys)
        prompts: PromptSession[str] = PromptSession(
            history=InMemoryHistory(), completer=RegistryCompleter(session), input=pipe, output=DummyOutput()
        )
        seen = []
        for line in terminal_lines(session, prompts):
            seen.append(line)
            prompt.perform(session, line)
            if session.finished:
                break
    assert seen == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rev", {"reverse-continue", "reverse-stepi"}),
        ("info ", {"registers", "cpus", "watch", "waits"}),
        ("info r", {"registers"}),
        ("print cou", {"counter"}),
        ("seek ", {"start", "ready", "end"}),
        ("cpu ", {"0", "1"}),
        ("help st", {"stepi"}),
        ("nonsense ", set()),
    ],
)
def test_completion(session: Session, text: str, words: set[str]) -> None:
    found = RegistryCompleter(session).get_completions(Document(text), CompleteEvent())
    assert {row.text for row in found} == words


def test_history_is_kept_privately(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(prompt.history(), FileHistory)
    assert (tmp_path / "racetape/debug_history").stat().st_mode & 0o077 == 0
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    assert isinstance(prompt.history(), InMemoryHistory)


def test_interact_ends_when_the_lines_do(session: Session, capsys: Capture) -> None:
    interact(session, iter(["print 1", "", "print 2"]))
    assert capsys.readouterr().out.split() == ["1", "2"]
