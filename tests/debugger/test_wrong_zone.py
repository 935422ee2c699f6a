"""The founding case end to end: answers and transcripts on real recordings of the guest kernel."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from debugger.divergence import first_divergence
from debugger.prompt import run
from debugger.registry import REGISTRY
from debugger.report import DivergenceReport
from debugger.session import Session
from machine.errors import ExpressionError, RacetapeError
from recorder.record import prepare
from replayer import Timeline
from traces import Tape, strip

Record = Callable[..., Path]
ITEM = "NR_ISOLATED_FILE"
DMA = f"contig_page_data.node_zones[0].vm_stat[{ITEM}]"
NORMAL = f"contig_page_data.node_zones[1].vm_stat[{ITEM}]"


def ask(path: Path, counter: str = ITEM) -> DivergenceReport:
    """`first-divergence` on a tape."""
    with Tape(path) as tape:
        return first_divergence(tape, counter)


def test_up_buggy(wrong_zone: Record) -> None:
    found = ask(wrong_zone())
    first, negative, misled = found.first_divergence, found.first_negative, found.first_misled_reader
    assert first is not None
    assert (first.function, first.file, first.zone, first.expected) == ("acct_isolated", "mm/compaction.c", "DMA", 0)
    assert first.value > 0
    assert "__mod_zone_page_state" in first.source
    assert first.via[0].function == "atomic_add"
    assert "compact_zone" in [row.function for row in first.backtrace]
    assert negative is not None
    assert (negative.function, negative.file, negative.zone) == ("putback_lru_pages", "mm/migrate.c", "Normal")
    assert negative.value == -1
    assert misled is not None
    assert (misled.function, misled.zone, misled.value) == ("too_many_isolated", "Normal", 2**32 - first.value)
    assert first.step < negative.step < misled.step
    assert [row.error for row in found.balances] == [first.value, -first.value, 0, 0]
    assert any(row.startswith("wrong zone: DMA +") for row in found.notes)


def test_the_barriers_of_the_mail_change_nothing(wrong_zone: Record) -> None:
    with_barriers, without = ask(wrong_zone("seed-wmb")).json(), ask(wrong_zone()).json()
    assert with_barriers["first_divergence"] is not None
    for key in ("first_divergence", "first_negative", "first_misled_reader"):
        for field in ("function", "file", "line", "zone", "value", "expected"):
            assert with_barriers[key][field] == without[key][field]


@pytest.mark.parametrize("configuration", ["up-2level", "smp2-2level"])
def test_fixed_is_clean(wrong_zone: Record, configuration: str) -> None:
    for counter in (ITEM, "NR_ISOLATED_ANON", "NR_FREE_PAGES", "NR_INACTIVE_FILE", DMA, f"vm_stat[{ITEM}]"):
        found = ask(wrong_zone("fix-7454f4ba40b4", configuration), counter)
        assert not found.found, found.text()
        data = found.json()
        assert [data[key] for key in ("first_divergence", "first_negative", "first_misled_reader")] == [None] * 3


@pytest.mark.parametrize("configuration", ["smp2-2level", "smp4-2level"])
def test_smp_hides_it_from_readers_but_not_from_the_ghost(wrong_zone: Record, configuration: str) -> None:
    found = ask(wrong_zone("buggy", configuration))
    first, up = found.first_divergence, ask(wrong_zone()).first_divergence
    assert first is not None
    assert up is not None
    assert (first.function, first.file, first.line, first.zone) == (up.function, up.file, up.line, up.zone)
    assert [row.function for row in first.via] == ["__mod_zone_page_state"]
    misled = found.first_misled_reader
    assert misled is None or misled.zone == "DMA"
    assert any("clamps negative values to 0" in row for row in found.notes)


@pytest.mark.parametrize(
    ("variant", "configuration"),
    [
        (variant, kind)
        for variant in ("buggy", "fix-7454f4ba40b4")
        for kind in ("up-2level", "smp2-2level", "smp4-2level")
    ],
)
@pytest.mark.parametrize(("first", "count"), [(0, 4), pytest.param(1000, 150, marks=pytest.mark.soak)])
def test_random_schedules_neither_fake_nor_hide_it(
    wrong_zone: Record, variant: str, configuration: str, first: int, count: int
) -> None:
    """A schedule may end before the walk; otherwise the answer is the same, and the fixed kernel is always clean."""
    seen = 0
    for seed in range(first, first + count):
        path = wrong_zone(variant, configuration, "random-walk", seed)
        found = ask(path)
        path.unlink()
        if found.found:
            seen += 1
            assert found.first_divergence is not None
            assert (found.first_divergence.function, found.first_divergence.zone) == ("acct_isolated", "DMA")
    assert (seen == 0) == (variant != "buggy")


def test_one_zone_or_the_global_sum(wrong_zone: Record) -> None:
    dma, normal, whole = (ask(wrong_zone(), row) for row in (DMA, NORMAL, f"vm_stat[{ITEM}]"))
    assert dma.first_divergence is not None
    assert dma.first_divergence.zone == "DMA"
    assert dma.first_negative is None
    assert normal.first_divergence is not None
    assert (normal.first_divergence.zone, normal.first_divergence.value) == ("Normal", -1)
    assert normal.first_misled_reader is not None
    assert not whole.found


def test_other_counters_have_no_ghost(wrong_zone: Record) -> None:
    found = ask(wrong_zone(), "contig_page_data.node_zones[1].lru[0].nr_saved_scan")
    assert not found.found
    assert any("has no ghost" in row for row in found.notes)
    assert found.balances[0].expected is None


@pytest.mark.parametrize(
    "counter",
    ["NR_NOPE", "5", "", "contig_page_data", "jiffies +", "LRU_BASE", "max_pfn.x", "*(int *)16", "*(int *)0xfffff000"],
)
def test_bad_counters(wrong_zone: Record, counter: str) -> None:
    with pytest.raises(RacetapeError) as caught:
        ask(wrong_zone(), counter)
    assert "\n" not in str(caught.value)


def test_an_unknown_counter_says_what_one_looks_like(wrong_zone: Record) -> None:
    with pytest.raises(ExpressionError, match="no symbol 'NR_NOPE'; a counter is a vmstat item such as NR_ISOLATED"):
        ask(wrong_zone(), "NR_NOPE")


def test_the_timeline_stays_where_it_was(wrong_zone: Record) -> None:
    with Tape(wrong_zone()) as tape:
        timeline = Timeline(tape)
        timeline.seek(1234)
        first_divergence(timeline, ITEM)
        assert timeline.step == 1234


def test_layer_a_alone_gives_the_same_answer(wrong_zone: Record, tmp_path: Path) -> None:
    with Tape(wrong_zone()) as tape:
        strip(tape, tmp_path / "a.tape")
    assert ask(tmp_path / "a.tape").json() == ask(wrong_zone()).json()


def test_json_can_be_written_and_text_leads_back(wrong_zone: Record) -> None:
    found = ask(wrong_zone())
    data = json.loads(json.dumps(found.json()))
    assert f"-ex 'seek {data['first_divergence']['step']}'" in found.text()


@pytest.fixture
def session(wrong_zone: Record) -> Iterator[Session]:
    """A session on the buggy UP recording."""
    with Tape(wrong_zone()) as tape:
        yield Session(tape)


def test_jumping_to_the_divergence(session: Session, wrong_zone: Record) -> None:
    first = ask(wrong_zone()).first_divergence
    assert first is not None
    stop = session.execute(f"seek {first.step}")
    assert stop == f"@{first.step} cpu0 acct_isolated () at {first.file}:{first.line} [atomic_add]"
    assert session.execute(f"print {DMA}.counter") == "0"
    listing = session.execute("list").splitlines()
    assert [row for row in listing if row.startswith("=>")] == [f"=> {first.line}\t{first.source}"]
    assert "acct_isolated" in session.execute("bt")
    session.execute("si")
    assert session.execute(f"print {DMA}.counter") == str(first.value)


def test_reverse_continue_from_the_end_finds_what_a_linear_scan_finds(session: Session) -> None:
    session.execute(f"watch {NORMAL}")
    session.execute(f"watch {DMA}")
    expected = []
    for text in (DMA, NORMAL):
        lvalue = session.symbols.lvalue(text)
        phys = session.timeline.machine.translate(0, lvalue.address)
        events = session.timeline.events(session.timeline.ready_step, session.timeline.last_step)
        expected += [int(step) for step in events.writes(phys, lvalue.size_bytes).step]
    session.execute("seek end")
    seen = []
    while "Reached" not in session.execute("rc") and session.timeline.step >= session.timeline.ready_step:
        seen.append(session.timeline.step)
    assert seen == sorted(expected, reverse=True)
    assert len(seen) > 3


def test_list_finds_functions_that_are_inlined_everywhere(session: Session) -> None:
    text = session.execute("list too_many_isolated")
    assert "mm/compaction.c:" in text
    assert "mm/vmscan.c:" in text
    assert session.execute("list mm/migrate.c:24").count("\n") == 9
    assert session.execute("list").splitlines()[0].split()[0] == "29"
    assert session.execute("list -").splitlines()[0].split()[0] == "19"


def test_events_speak_the_language_of_the_kernel(session: Session, wrong_zone: Record) -> None:
    first = ask(wrong_zone()).first_divergence
    assert first is not None
    session.execute(f"seek {first.step}")
    text = session.execute("events 600")
    assert f"vmstat zone DMA {ITEM}" in text
    assert f"{ITEM} +1" in text
    assert "contig_page_data.node_zones[0].vm_stat[" in text


def test_backtraces_everywhere_end_at_an_entry(session: Session) -> None:
    choice = random.Random(1)
    entries = {"startup_32", "ret_from_fork"}
    for _ in range(300):
        session.execute(f"seek {choice.randrange(session.timeline.last_step)}")
        frames = session.backtrace()
        last = frames[-1]
        assert last.function in entries or last.file.endswith(".S"), [row.function for row in frames]
        assert len(frames) < 64


def test_from_the_command_line(wrong_zone: Record, capsys: pytest.CaptureFixture[str]) -> None:
    commands = ["seek end", f"watch {NORMAL}", "reverse-continue", "print $pc == $eip"]
    assert run(wrong_zone(), commands, batch=True) == 0
    out, err = capsys.readouterr()
    assert f"{NORMAL}: 0 -> -1   (undone)" in out
    assert out.splitlines()[-1] == "1"
    assert err == ""


@pytest.mark.parametrize(("seed", "count"), [(7, 40), pytest.param(8, 1000, marks=pytest.mark.soak)])
def test_damaged_and_cut_tapes_give_an_answer_or_one_line(
    wrong_zone: Record, tmp_path: Path, seed: int, count: int
) -> None:
    data = wrong_zone().read_bytes()
    choice = random.Random(seed)
    path = tmp_path / "bad.tape"
    answers = 0
    errors = []
    for number in range(count):
        damaged = bytearray(data)
        if number % 2:
            damaged = damaged[: choice.randrange(len(data))]
        else:
            damaged[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
        path.write_bytes(damaged)
        try:
            answers += ask(path).found
        except RacetapeError as error:
            errors.append(str(error))
    assert answers
    assert errors
    assert not any("\n" in row for row in errors)


def test_a_tape_that_ends_before_ready_says_so(wrong_zone: Record, tmp_path: Path) -> None:
    with Tape(wrong_zone()) as tape:
        cut = next(row.offset for row in tape.choices_chunks if row.end_step >= tape.header.ready_step)
    path = tmp_path / "cut.tape"
    path.write_bytes(wrong_zone().read_bytes()[:cut])
    with pytest.raises(RacetapeError, match="before set-up is over"):
        ask(path)


@pytest.mark.parametrize("counter", [f" {ITEM}", f"{ITEM} ", f"\t{ITEM} \t", f" {DMA} "])
def test_blanks_around_a_counter_mean_nothing(wrong_zone: Record, counter: str) -> None:
    assert ask(wrong_zone(), counter).json() == ask(wrong_zone(), counter.strip()).json()


@pytest.mark.parametrize(
    "counter",
    [
        "current_task", "contig_page_data.node_zones[0].lru[0].list", "contig_page_data.node_zones[0].lru[0]",
        "vm_stat", "vm_stat[1000000]", "vm_stat[-1]", "contig_page_data.node_zones[3].vm_stat[0]",
    ],
)  # fmt: skip
def test_only_integers_inside_their_arrays_are_counters(wrong_zone: Record, counter: str) -> None:
    with pytest.raises(ExpressionError, match=r"not an integer|outside of an array"):
        ask(wrong_zone(), counter)


def test_an_unsigned_value_is_never_negative(wrong_zone: Record) -> None:
    unsigned, signed = (ask(wrong_zone(), f"*({kind} char *)&current_task") for kind in ("unsigned", "signed"))
    assert signed.first_negative is not None
    assert not unsigned.found
    assert unsigned.balances[0].value >= 0
    assert any("never negative" in row for row in unsigned.notes)
    assert "stays true" not in unsigned.text()
    assert unsigned.json()["has_ghost"] is False


def test_part_of_a_zone_counter_has_no_ghost(wrong_zone: Record) -> None:
    assert not ask(wrong_zone(), f"*(unsigned char *)&{DMA}").has_ghost
    assert ask(wrong_zone(), f"*(unsigned long *)&{DMA}").has_ghost


def test_a_sum_that_stays_true_does_not_speak_for_its_zones(wrong_zone: Record) -> None:
    text = ask(wrong_zone(), f"vm_stat[{ITEM}]").text()
    assert text.startswith(f"vm_stat[{ITEM}]: the global sum stays true on ")
    assert "the zones shown may differ" in text


@pytest.fixture
def cut_tape(wrong_zone: Record, tmp_path: Path) -> Path:
    """The buggy recording without its footer."""
    with Tape(wrong_zone()) as tape:
        end = tape.chunks[-1].offset
    path = tmp_path / "cut.tape"
    path.write_bytes(wrong_zone().read_bytes()[:end])
    return path


def test_a_cut_tape_is_not_called_true(cut_tape: Path) -> None:
    found = ask(cut_tape, "NR_FREE_PAGES")
    assert found.text().startswith(f"NR_FREE_PAGES is true up to @{found.steps}, where the tape is cut, on ")
    assert [found.json()[key] for key in ("complete", "has_ghost", "steps")] == [False, True, found.steps]


def test_a_recording_that_stops_at_its_limit_is_not_called_true(tmp_path: Path) -> None:
    path = tmp_path / "short.tape"
    prepared = prepare("wrong-zone-small", "buggy", "up-2level")
    replace(prepared, step_max=prepared.ready_step + 2000).record(path)
    found = ask(path)
    assert not found.complete
    assert f"is true up to @{found.steps}, where the recording stops (step limit), on " in found.text()


def test_debugging_a_cut_tape_says_so(cut_tape: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Tape(cut_tape) as tape:
        line = f"racetape: {cut_tape}: the tape is cut; everything up to @{tape.end_step} is there\n"
    assert run(cut_tape, ["print 1", "print 2"], batch=True) == 2
    assert capsys.readouterr() == ("1\n2\n", line)
    assert run(cut_tape, ["quit"]) == 0
    assert capsys.readouterr().err == line


def test_the_banner_comes_before_the_commands(
    wrong_zone: Record, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("print 2\n"))
    assert run(wrong_zone(), ["print 1"]) == 0
    banner, *rest = capsys.readouterr().out.splitlines()
    assert "'help' lists the commands" in banner
    assert rest == ["1", "2"]


EXAMPLES = [(row.name, line) for row in REGISTRY for line in row.examples]


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_every_example_of_the_help_works(wrong_zone: Record, name: str, line: str) -> None:
    with Tape(wrong_zone("buggy", "smp2-2level")) as tape:
        session = Session(tape)
        # Something to delete, to go on with, and to go back and forward to.
        for before in ("watch vm_stat[0]", "seek 70%", "list", "seek 80%", "seek 90%", "back"):
            session.execute(before)
        session.execute(line)
        assert session.finished == (name == "quit")


@pytest.mark.parametrize("text", ["compaction.c:129", "mm/compaction.c:129"])
def test_list_finds_a_file_by_its_name(session: Session, text: str) -> None:
    rows = session.execute(f"list {text}").splitlines()
    assert [rows[0].split()[0], rows[-1].split()[0]] == ["124", "133"]


def test_list_of_ranges_and_addresses(session: Session) -> None:
    def numbers(line: str) -> list[int]:
        return [int(row.replace("=>", "").split()[0]) for row in session.execute(line).splitlines()]

    assert numbers("list compaction.c:5,9") == [5, 6, 7, 8, 9]
    assert numbers("list") == list(range(10, 20))
    assert numbers("list 30,31") == [30, 31]
    assert numbers("list 40,") == list(range(40, 50))
    assert numbers("list ,20") == list(range(11, 21))
    assert numbers("list 7,7") == [7]
    session.execute("seek ready")
    assert any(row.startswith("=>") for row in session.execute("list *$eip").splitlines())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("list compacton.c:129", "no source file 'compacton.c'; did you mean mm/compaction.c"),
        ("list 9,5", "there are no lines 9 to 5"),
        ("list 0,5", "there are no lines 0 to 5"),
        ("list ,", "',' is no range"),
        ("list a,b", "'a,b' is no range"),
        ("list 999999,1000000", "has only"),
        ("list *0x10", "no source is known for"),
        ("list *", "an expression is missing"),
    ],
)
def test_list_of_what_is_not_there(session: Session, line: str, message: str) -> None:
    with pytest.raises(RacetapeError, match=message.replace("*", r"\*")):
        session.execute(line)


@pytest.mark.parametrize("text", ["vm_stat[1000000]", "vm_stat[-1]", "contig_page_data.node_zones[3].vm_stat[0]"])
def test_watching_outside_of_an_array(session: Session, text: str) -> None:
    with pytest.raises(ExpressionError, match="outside of an array"):
        session.execute(f"watch {text}")
