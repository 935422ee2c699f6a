"""Framing, bounded decompression, and where a single wrong bit is."""

from __future__ import annotations

import contextlib
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from traces import chunks
from traces.chunks import CHUNK_BYTES_MAX, FormatError, flipped_bit, zstd_pack, zstd_unpack


@given(st.binary(min_size=1, max_size=300), st.data())
def test_single_flipped_bit_is_located(payload: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    damaged = bytearray(payload)
    damaged[bit // 8] ^= 1 << bit % 8
    assert flipped_bit(bytes(damaged), zlib.crc32(payload)) == bit
    assert flipped_bit(payload, zlib.crc32(payload)) is None


def test_two_flipped_bits_are_no_single_one() -> None:
    payload = bytes(1000)
    damaged = bytearray(payload)
    damaged[3] ^= 1
    damaged[700] ^= 16
    assert flipped_bit(bytes(damaged), zlib.crc32(payload)) is None


def test_header_round_trip() -> None:
    data = chunks.pack_header(chunks.EVENTS, b"payload", first_step=3, end_step=1 << 40, previous=b"p" * 16)
    chunk = chunks.unpack_header(data, 77, b"p" * 16)
    assert (chunk.kind, chunk.first_step, chunk.end_step, chunk.payload_bytes) == (chunks.EVENTS, 3, 1 << 40, 7)
    assert chunk.chained
    assert chunk.matches(b"payload")
    assert not chunk.matches(b"Payload")
    assert not chunk.layer_a
    assert not chunks.unpack_header(data, 77, b"q" * 16).chained


def test_any_flipped_header_bit_is_noticed() -> None:
    data = chunks.pack_header(chunks.CHOICES, b"payload", first_step=3, end_step=9, previous=b"p" * 16)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(FormatError):
            assert not chunks.unpack_header(bytes(damaged), 0, b"p" * 16).matches(b"payload")


def test_bomb_is_refused_before_it_goes_off() -> None:
    bomb = zstandard.compress(bytes(CHUNK_BYTES_MAX + 1))
    assert len(bomb) < 10_000
    with pytest.raises(FormatError, match="16777217"):
        zstd_unpack(bomb)
    with pytest.raises(FormatError):
        zstd_unpack(zstd_pack(bytes(100)), 99)
    with pytest.raises(FormatError):
        zstd_unpack(b"\x28\xb5\x2f\xfdgarbage", 4)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"abc")
    with pytest.raises(FormatError):
        zstd_unpack(unsized)
    assert len(zstd_unpack(zstd_pack(bytes(CHUNK_BYTES_MAX)))) == CHUNK_BYTES_MAX
