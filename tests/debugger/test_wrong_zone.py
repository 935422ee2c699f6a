"""The founding case end to end: answers and transcripts on real recordings of the guest kernel."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from debugger.divergence import first_divergence
from debugger.prompt import run
from debugger.report import DivergenceReport
from debugger.session import Session
from machine.errors import ExpressionError, RacetapeError
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
