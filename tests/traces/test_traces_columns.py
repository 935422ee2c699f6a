"""Columns survive coding; writes are found; bad payloads are refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tapes import some_events

from traces import Event, Events
from traces.chunks import FormatError
from traces.columns import decode_events, encode_events
from traces.schema import COLUMNS, DEVICE, DRAINED, KINDS

U64, U8 = st.integers(0, 2**64 - 1), st.integers(0, 255)
ROW = st.builds(Event, U64, U64, U64, U64, U64, U8, U8, U8, U8)


@given(st.lists(ROW, max_size=40), U64)
def test_round_trip(rows: list[Event], state_hash: int) -> None:
    events = Events.from_rows(rows)
    assert list(events.rows()) == rows
    found_hash, found = decode_events(encode_events(events, state_hash))
    assert found_hash == state_hash
    assert found == events
    assert [c.dtype for c in found.columns()] == [np.dtype(d) for _, d in COLUMNS]


def test_no_events() -> None:
    assert decode_events(encode_events(Events.empty(), 5)) == (5, Events.empty())
    assert len(Events.concatenate([])) == 0
    assert list(Events.empty().rows()) == []


def test_rows_and_slices() -> None:
    events = some_events(10, 50, 200)
    assert events.row(-1) == list(events.rows())[-1]
    part = events.between(20, 29)
    assert len(part) == int(((events.step >= 20) & (events.step <= 29)).sum())
    assert len(events.between(30, 20)) == 0
    assert len(events.between(-5, -1)) == 0
    assert events.between(0, 1 << 60) == events
    assert Events.concatenate([events[:50], events[50:]]) == events


def test_writes() -> None:
    def row(step: int, kind: str, phys: int, size: int, info: int = 0) -> Event:
        return Event(step, 0, phys, phys, 1, KINDS[kind], 0, size, info)

    events = Events.from_rows(
        [
            row(0, "store", 100, 4),  # still in the buffer
            row(1, "store", 100, 4, DRAINED),
            row(2, "drain", 103, 1),
            row(3, "load", 100, 4),
            row(4, "store", 96, 4, DRAINED),  # ends right before
            row(5, "store", 104, 4, DRAINED),  # starts right behind
            row(6, "ad_update", 101, 0, 1),
            row(7, "store", 100, 4, DRAINED | DEVICE),
            row(8, "drain", 98, 4),
        ]
    )
    assert events.writes(100, 4).step.tolist() == [1, 2, 6, 8]
    assert events.writes(96, 12).step.tolist() == [1, 2, 4, 5, 6, 8]


def test_bad_payloads_are_refused() -> None:
    good = encode_events(some_events(0, 100, 64), 1)
    for bad in (b"", good[:40], good[:-1], good + b"x", good[:8] + b"\xff\xff\xff\x7f" + good[12:]):
        with pytest.raises(FormatError):
            decode_events(bad)


@given(st.integers(0, 10_000), U8)
def test_damaged_payload_never_raises_anything_else(at: int, value: int) -> None:
    payload = bytearray(encode_events(some_events(0, 100, 64), 1))
    payload[at % len(payload)] = value
    with contextlib.suppress(FormatError):
        decode_events(bytes(payload))
