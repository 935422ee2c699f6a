"""Session transcripts on the tiny guest's tape, and the laws of moving in time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from debugger.registry import REGISTRY
from debugger.session import Session
from machine.errors import RacetapeError, UsageError


def shape(text: str) -> str:
    """A stop line without its folder: `@45 cpu1 add () at tiny.c:14 ...`."""
    words = text.split()
    return " ".join(word.rpartition("/")[2] if word.startswith("/") else word for word in words)


def writes(session: Session, expression: str) -> list[int]:
    """Steps of all visible writes, by a linear scan over the columns."""
    lvalue = session.symbols.lvalue(expression)
    events = session.timeline.events(0, session.timeline.last_step)
    return [int(step) for step in events.writes(lvalue.address, lvalue.size_bytes).step]


def runs(session: Session, command: str) -> Iterator[str]:
    """Outputs of a command repeated until it reaches an end of the tape."""
    for _ in range(50):
        output = session.execute(command)
        if "Reached" in output:
            return
        yield output
    pytest.fail("it does not end")


def test_continue_stops_at_every_write_just_behind_it(session: Session) -> None:
    session.execute("seek start")
    session.execute("watch counter")
    expected = writes(session, "counter")
    assert len(expected) >= 5
    seen = []
    for output in runs(session, "continue"):
        seen.append(session.timeline.step - 1)
        assert output.startswith(f"@{session.timeline.step - 1} ")
    assert seen == expected
    assert session.timeline.step == session.timeline.last_step


def test_reverse_continue_stops_at_every_write_just_before_it(session: Session) -> None:
    session.execute("watch counter")
    session.execute("seek end")
    seen = []
    for output in runs(session, "reverse-continue"):
        seen.append(session.timeline.step)
        assert "(undone)" in output
    assert seen == writes(session, "counter")[::-1]
    assert session.timeline.step == 0


def test_transcript_of_hits(session: Session) -> None:
    session.execute("seek ready")
    assert session.execute("watch counter").startswith("Watch 1: counter (4 bytes at 0x")
    session.execute("watch byte")
    hits = [shape(row).partition("   ")[0] for row in runs(session, "c")]
    assert [row.split(maxsplit=2)[2].split(" at ")[0] for row in hits[:3]] == ["add ()", "add ()", "work ()"]
    texts = [row.rpartition(": ")[0].split()[-1] + " " + row.rpartition(": ")[2] for row in hits]
    assert texts == [
        "counter 1 -> 101",
        "counter 101 -> 3",
        "byte -2 -> 2",
        "counter 3 -> 6",
        "byte 2 -> 3",
        "counter 6 -> 6",
    ]
    assert "(its store drains)" in hits[1]
    listing = session.execute("info watch")
    assert [row.split()[3] for row in listing.splitlines()[1:]] == ["4", "2"]


def test_forwards_and_backwards_meet_on_either_side_of_a_write(session: Session) -> None:
    session.execute("seek ready")
    session.execute("watch counter")
    session.execute("c")
    assert session.execute("p counter") == "101"
    assert session.cpu == 1
    session.execute("rc")
    assert session.execute("p counter") == "1"
    assert session.frame().function == "add"
    assert session.execute("x/i $pc").startswith("=>")
    session.execute("c")
    assert session.execute("p counter") == "101"


def test_counts(session: Session) -> None:
    session.execute("seek start")
    session.execute("watch counter")
    steps = writes(session, "counter")
    session.execute("c 3")
    assert session.timeline.step == steps[2] + 1
    session.execute("rc 2")
    assert session.timeline.step == steps[1]


def test_stepping_back_and_forth_is_the_identity(session: Session) -> None:
    machine = session.timeline.machine
    for step in range(1, session.timeline.last_step + 1):
        session.execute(f"seek {step}")
        before = machine.state_hash()
        session.execute("reverse-stepi")
        assert session.timeline.step == step - 1
        session.execute("stepi")
        assert (session.timeline.step, machine.state_hash()) == (step, before)


def test_stepping_selects_the_cpu_that_steps(session: Session) -> None:
    session.execute("seek 31")
    assert session.cpu == 1
    session.execute("seek 33")
    assert session.cpu == 0
    session.execute("rsi")
    assert session.cpu == 1


def test_ends_of_the_tape_say_so(session: Session) -> None:
    assert "Reached the end of the tape (nothing is watched)." in session.execute("c")
    assert "This is the end of the tape." in session.execute("si")
    assert "Reached the start of the tape" in session.execute("rsi 100000")
    assert "This is the start of the tape." in session.execute("rsi")
    assert "Reached the end of the tape." in session.execute("si 100000")
    assert "Reached the start of the tape (nothing is watched)." in session.execute("rc")


def test_the_prompt_is_a_clock(session: Session) -> None:
    last = session.timeline.last_step
    assert session.prompt().startswith(f"cpu0 @17/{last} 27%")  # a session starts at ready
    session.execute("seek start")
    assert session.prompt() == f"cpu0 @0/{last} start> "
    session.execute("seek end")
    assert session.prompt() == f"cpu0 @{last}/{last} end> "
    session.execute("seek 23")
    assert "[sb 2]" in session.prompt() or "[sb 3]" in session.prompt()


def test_values_are_those_of_the_selected_cpu(session: Session) -> None:
    """CPU 0 holds its store to `counter`; CPU 1 does not see it."""
    session.execute("seek 23")
    session.execute("cpu 0")
    assert session.execute("print counter") == "3"
    session.execute("cpu 1")
    assert session.execute("print counter") == "1"
    assert "held: counter = 0x3 (4 bytes) by work" in session.execute("info cpus")


def test_examine(session: Session) -> None:
    session.execute("seek ready")
    assert session.execute("x/4dh &pairs").endswith("7\t0\t1\t2")
    assert session.execute("").endswith("-1")  # goes on where it stopped, with the same format
    assert session.execute("x/s greeting").endswith('"hello\\tworld"')
    assert session.execute("x/2xb pairs").endswith("0x07\t0x00")
    assert session.execute("x/1uw &pairs[1]").endswith("4294967295")
    assert session.execute("x/i work").endswith("# counter")
    assert session.execute("x/a $esp + 12").count(":") == 1
    assert session.execute("x/1tb &byte").endswith("11111110")
    assert session.execute("x/1cb greeting").endswith("104 'h'")


def test_characters_are_bytes_unless_a_unit_is_given(session: Session) -> None:
    session.execute("seek ready")
    for before in ("x/2i work", "x/2xw pairs", "x/dg pairs"):
        session.execute(before)
        assert session.execute("x/4c greeting").endswith("104 'h'\t101 'e'\t108 'l'\t108 'l'")
    assert session.execute("").endswith("111 'o'")
    assert session.execute("x/1cw greeting").count("'") == 2
    assert session.execute("").count("\t") == 1
    assert session.execute("x/a $esp").count("0x") >= 2


def test_print(session: Session) -> None:
    session.execute("seek ready")
    assert session.execute("p/x pairs[1].low") == "0xffffffff"
    assert session.execute("p/d 0xffffffff") == "-1"
    assert session.execute("p/u byte") == "254"
    assert session.execute("p/t 5") == "101"
    assert session.execute("p/a work").endswith("<work>")
    assert session.execute("print pairs[0].parts[1] + 1") == "3"
    assert ".low = 7" in session.execute("p pairs")
    assert session.execute("p $eip == $pc") == "1"


def test_registers(session: Session) -> None:
    session.execute("seek ready")
    text = session.execute("info registers")
    assert "eip" in text
    assert "eflags" in text
    assert session.execute("i r eip").split()[2].startswith("<first+")
    with pytest.raises(RacetapeError, match="no register"):
        session.execute("i r nope")


def test_backtrace_and_events(session: Session) -> None:
    session.execute("seek 45")
    text = session.execute("bt")
    assert [row.split(" in ")[1].split()[0] for row in text.splitlines()] == ["add", "account", "second", "_start"]
    assert len(session.execute("bt 1").splitlines()) == 1
    events = session.execute("events 5")
    arrow = next(row for row in events.splitlines() if row.startswith("=>"))
    assert arrow.startswith("=> @45 cpu1 load      counter = 0x1")
    session.execute("seek end")
    assert session.execute("events").endswith("=> (end)")


def test_history_of_positions(session: Session) -> None:
    for line in ("seek 10", "seek 20", "si 5"):
        session.execute(line)
    assert [session.timeline.step, len(session.positions)] == [25, 4]
    session.execute("back")
    assert session.timeline.step == 20
    session.execute("back")
    assert session.timeline.step == 10
    session.execute("forward")
    assert session.timeline.step == 20
    session.execute("seek 30")
    with pytest.raises(UsageError, match="no later position"):
        session.execute("forward")


def test_an_empty_line_repeats_steps_but_not_seeks(session: Session) -> None:
    session.execute("seek start")
    session.execute("si 3")
    session.execute("")
    assert session.timeline.step == 6
    session.execute("seek 10")
    assert session.execute("") == ""
    assert session.execute("# a comment") == ""


@pytest.mark.parametrize(
    "line",
    [
        "frobnicate", "si x", "si -1", "si 0", "seek", "seek foo", "seek 10000000", "seek 200%", "seek cpu9#1",
        "watch", "watch nope", "watch 5", "watch counter +", "delete 7", "cpu 9", "cpu x", "x/0x counter",
        "x/q counter", "x/99999999x counter", "x/4xw 0xfffffff0", "p", "p nope", "p 1/0", "p/i 3", "p/x pairs[1]",
        "p *(int *)0xf0000000", "list nope", "list 999999", "list -", "events x", "events 99999999", "info",
        "info nope", "when now", "help nope", "back", "forward", "watch *(int *)0xfffffffe",
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_changes_nothing(session: Session, line: str) -> None:
    step, cpu = session.timeline.step, session.cpu
    with pytest.raises(RacetapeError) as caught:
        session.execute(line)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert (session.timeline.step, session.cpu, session.watches) == (step, cpu, [])


def test_interrupting_a_search_stays_in_place(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.execute("seek 20")
    forward = session.timeline.forward

    def interrupted(count: int = 1) -> int:
        forward(count)
        raise KeyboardInterrupt

    monkeypatch.setattr(session.timeline, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.execute("si 7")
    assert session.timeline.step == 20


def test_deleting_watches(session: Session) -> None:
    for text in ("counter", "byte", "started"):
        session.execute(f"watch {text}")
    session.execute("delete 2")
    assert [row.number for row in session.watches] == [1, 3]
    session.execute("delete")
    assert session.execute("info watch") == "Nothing is watched."


def test_watching_a_structure(session: Session) -> None:
    assert "07 00 00 00" in session.execute("watch pairs")


def test_help(session: Session) -> None:
    listing = session.execute("help")
    for row in REGISTRY:
        assert row.usage in listing
    assert session.execute("help rc").startswith("reverse-continue [COUNT]")


def test_quit(session: Session) -> None:
    session.execute("quit")
    assert session.finished
