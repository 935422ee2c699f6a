"""Reports as text and JSON, and the failure families of docs and history."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debugger.report import Balance, DivergenceReport, Moment, family
from machine.unwind import StackFrame


def balances(dma: int, normal: int, whole: int) -> list[Balance]:
    """Final errors of two zones and their sum."""
    rows = (("DMA", dma), ("Normal", normal), (None, whole))
    return [Balance(f"{zone or 'global'} ITEM", zone, 10 + error, 10) for zone, error in rows]


@pytest.mark.parametrize(
    ("errors", "partner", "name"),
    [
        ((32, -32, 0), (0, 0, 0), "wrong zone: DMA +32, Normal -32, global sum exact"),
        ((7, -7, 0), (25, -25, 0), "wrong zone"),
        ((-2, 0, -2), (0, 0, 0), "missing increment: DMA -2, global sum -2"),
        ((2, 3, 5), (0, 0, 0), "missing decrement"),
        ((1, 0, 1), (-1, 0, -1), "class flip"),
        ((1023, 0, 1023), (0, 0, 0), "unit mismatch"),
        ((-511, 0, -511), (0, 0, 0), "unit mismatch"),
        (((1 << 32) - 5, 0, 0), (0, 0, 0), "sign or width error"),
        ((3, -1, 2), (0, 0, 0), "mixed"),
    ],
)
def test_families(errors: tuple[int, int, int], partner: tuple[int, int, int], name: str) -> None:
    found = family(balances(*errors), balances(*partner))
    assert found is not None
    assert found.startswith(name)


def test_no_family_where_nothing_is_wrong() -> None:
    assert family(balances(0, 0, 0), []) is None


FRAMES = [
    StackFrame(0xC0100000, "atomic_add", "arch/x86/include/asm/atomic.h", 33, True, 0x1000),
    StackFrame(0xC0100000, "acct_isolated", "mm/compaction.c", 231, False, 0x1000),
]


def report(**moments: Moment | None) -> DivergenceReport:
    """A report with the given moments."""
    every = dict.fromkeys(("first_divergence", "first_negative", "first_misled_reader")) | moments
    return DivergenceReport(
        counter="ITEM", tape=Path("a b.tape"), smp=False, cpus=1, steps=1000, balances=balances(32, -32, 0),
        notes=["a note"], **every,
    )  # fmt: skip


def test_text_and_json() -> None:
    moment = Moment(
        step=812, cpu=0, function="acct_isolated", file="mm/compaction.c", line=231, zone="DMA", value=32, expected=0,
        pc=0xC0100000, source="\tadd(zone, n);", via=FRAMES[:1], backtrace=FRAMES,
    )  # fmt: skip
    found = report(first_divergence=moment)
    assert found.found
    text = found.text()
    for part in (
        "first divergence: @812 cpu0 acct_isolated () at mm/compaction.c:231",
        "zone DMA: counter 32, true count 0 (+32)",
        "231  add(zone, n);",
        "through atomic_add (arch/x86/include/asm/atomic.h:33)",
        "#0  (inlined) in atomic_add ()",
        "racetape debug 'a b.tape' -ex 'seek 812'",
        "first negative: none",
        "note: a note",
    ):
        assert part in text
    data = json.loads(json.dumps(found.json()))
    assert list(data)[:4] == ["counter", "first_divergence", "first_negative", "first_misled_reader"]
    assert {"step", "cpu", "function", "file", "line", "zone", "value", "expected"} <= data["first_divergence"].keys()
    assert data["first_negative"] is None


def test_without_ghost_there_is_no_expected_value() -> None:
    moment = Moment(
        step=1, cpu=0, function="f", file="", line=0, zone=None, value=-1, expected=None, pc=0,
    )  # fmt: skip
    found = report(first_negative=moment)
    assert "expected" not in found.json()["first_negative"]
    assert "counter -1" in found.text()


def test_clean() -> None:
    found = report()
    assert not found.found
    assert "ITEM stays true" in found.text()
    assert [found.json()[key] for key in ("first_divergence", "first_negative", "first_misled_reader")] == [None] * 3


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"ending": "the tape is cut"}, "ITEM is true up to @1000, where the tape is cut, on a b.tape ("),
        (
            {"ending": "the recording stops (interrupted)"},
            "ITEM is true up to @1000, where the recording stops (interrupted), on",
        ),
        ({"has_ghost": False}, "no negative value of ITEM found (its true value is not known) on a b.tape ("),
        (
            {"has_ghost": False, "ending": "the tape is cut"},
            "no negative value of ITEM found (its true value is not known) up to @1000, where the tape is cut, on",
        ),
        ({"scope": "the global sum"}, "ITEM: the global sum stays true on"),
    ],
)
def test_the_headline_claims_no_more_than_is_known(changes: dict[str, Any], headline: str) -> None:
    found = replace(report(), **changes)
    text = found.text()
    assert text.startswith(headline)
    assert ("(only the global sum was asked for; the zones shown may differ)" in text) == ("scope" in changes)
    assert ("at the end:" in text) == found.complete
    data = found.json()
    assert data["complete"] == ("ending" not in changes)
    assert data["has_ghost"] == ("has_ghost" not in changes)
    assert data["steps"] == 1000


def test_what_goes_wrong_on_a_cut_tape_is_marked() -> None:
    moment = Moment(step=1, cpu=0, function="f", file="", line=0, zone=None, value=-1, expected=None, pc=0)
    text = replace(report(first_negative=moment), ending="the tape is cut").text()
    assert text.splitlines()[:2] == [
        "ITEM goes wrong on a b.tape (UP build, 1 CPU, 1,000 steps)",
        "this is what is known up to @1000, where the tape is cut",
    ]
