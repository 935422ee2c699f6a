"""Tapes with good checksums and bad content: an answer or one clear line, never another exception."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import mini
import pytest
from tampering import with_payloads

from machine.errors import RacetapeError
from recorder import session
from replayer import Timeline, replay, verify
from traces import Tape, chunks

ZSTD_AT = {chunks.IMAGE: 0, chunks.CHOICES: 16, chunks.PAGES: 8, chunks.CHECKPOINT: 0}
"""Where the zstd frame of a payload starts, for kinds with a single one."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tape]:
    path = tmp_path_factory.mktemp("tapes") / "a.tape"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "CHUNK_STEPS", 700)
        patch.setattr(session, "CHECKPOINT_STEPS", 900)
        mini.prepared(2).record(path, strategy="random-walk", seed=21)
    with Tape(path) as tape:
        yield tape


def scrambled(payload: bytes, rng: random.Random) -> bytes:
    data = bytearray(payload)
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def travel_all(tape: Tape) -> None:
    travel = Timeline(tape)
    travel.seek(travel.last_step)
    travel.events(0, travel.last_step)
    travel.back(10)


@pytest.mark.parametrize(("seed", "count"), [(1, 60), pytest.param(2, 2000, marks=pytest.mark.soak)])
def test_scrambled_content(seed: int, count: int, good: Tape, tmp_path: Path) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        chunk = rng.choice(good.chunks)
        payload = good.payload(chunk)
        at = ZSTD_AT.get(chunk.kind)
        if at is None or rng.random() < 0.3:
            payload = scrambled(payload, rng)
        else:
            payload = payload[:at] + chunks.zstd_pack(scrambled(chunks.zstd_unpack(payload[at:]), rng))
        with_payloads(good, tmp_path / "bad.tape", {chunk.offset: payload})
        for use in (verify, replay, Tape.check, travel_all):
            try:
                with Tape(tmp_path / "bad.tape") as tape:
                    use(tape)
            except RacetapeError as error:
                assert "\n" not in str(error)  # noqa: PT017
