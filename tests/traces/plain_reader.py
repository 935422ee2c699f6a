"""A second reader of tapes, written from docs/tape-format.md alone: slow, without any code of `traces`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from hashlib import blake2b, sha256
from typing import Any

import msgpack
import zstandard
from streams import Decoder

MAGIC = b"\x89RTAPE\r\n"
KINDS = {
    1: "header", 2: "image", 3: "choices", 4: "events", 5: "pages", 6: "checkpoint", 7: "footer", 8: "index",
    9: "attachment", 10: "contents",
}  # fmt: skip
COLUMNS = "QQQQQBBBB"
U64 = (1 << 64) - 1


def unpack(frame: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(frame) if frame else b""


class PlainReader:
    """What is on a tape, as values that JSON can hold. Anything wrong is an AssertionError."""

    def __init__(self, data: bytes) -> None:
        assert data.startswith(MAGIC)
        self.data = data
        self.chunks = list(self._chunks())
        self.header = self._maps("header")[0]
        whole = self.chunks[-1][0] == "footer" and data.endswith(MAGIC)
        self.footer = self._maps("footer")[0] if whole else None

    def _chunks(self) -> Iterator[tuple[str, int, int, int, bytes]]:
        at, previous = len(MAGIC), bytes(16)
        while len(self.data) - at >= 64:
            head = self.data[at : at + 64]
            kind, _, reserved, size, first, end, stated, *crcs = struct.unpack("<BBHIQQ16sII", head[:48])
            payload = self.data[at + 64 : at + 64 + size]
            if len(payload) < size:
                return
            assert (stated, reserved) == (previous, 0)
            assert crcs == [zlib.crc32(head[:40]), zlib.crc32(payload)]
            previous = blake2b(head[:48] + payload, digest_size=16).digest()
            assert previous == head[48:]
            yield KINDS[kind], first, end, at, payload
            at += 64 + size
            if KINDS[kind] == "footer":
                self._check_offsets(at)
                return

    def _check_offsets(self, at: int) -> None:
        rest = self.data[at:]
        if self.header_of_file()["format"] >= 5:
            contents, footer, crc, zero = struct.unpack("<QQII", rest[:24])
            assert (crc, zero) == (zlib.crc32(rest[:16]), 0)
            assert self.data[contents] == 10
            assert self.data[footer] == 7
            rest = rest[24:]
        assert rest == MAGIC

    def header_of_file(self) -> dict[str, Any]:
        size = struct.unpack_from("<I", self.data, len(MAGIC) + 4)[0]
        return dict(msgpack.unpackb(self.data[len(MAGIC) + 64 : len(MAGIC) + 64 + size]))

    def _payloads(self, name: str) -> list[bytes]:
        return [payload for kind, *_, payload in self.chunks if kind == name]

    def _maps(self, name: str) -> list[dict[str, Any]]:
        return [plain(msgpack.unpackb(payload)) for payload in self._payloads(name)]

    def image(self) -> bytes:
        return b"".join(unpack(payload) for payload in self._payloads("image"))

    def choices(self) -> list[dict[str, Any]]:
        rows = []
        for kind, first, end, _, payload in self.chunks:
            if kind == "choices":
                state_hash, count, _ = struct.unpack_from("<QII", payload)
                records = [list(row) for row in struct.iter_unpack("<BBHIQ", unpack(payload[16:]))]
                assert len(records) == count
                rows.append({"first_step": first, "end_step": end, "state_hash": state_hash, "records": records})
        return rows

    def events(self) -> list[dict[str, Any]]:
        rows = []
        for kind, first, end, _, payload in self.chunks:
            if kind == "events":
                state_hash, count, _ = struct.unpack_from("<QII", payload)
                events = [list(row) for row in self._events(payload, count)]
                rows.append({"first_step": first, "end_step": end, "state_hash": state_hash, "events": events})
        return rows

    def _events(self, payload: bytes, count: int) -> list[tuple[int, ...]]:
        table = [struct.unpack_from("<B3xI", payload, 16 + 8 * i) for i in range(9)]
        parts, at = [], 88
        for _, size in table:
            parts.append(payload[at : at + size])
            at += size
        assert at == len(payload)
        codec = table[0][0]
        if codec in (3, 4):
            sizes = struct.unpack_from("<4I", parts[0])
            if codec == 3:
                streams = unpack(parts[0][16:])
            else:
                cut = 20 + struct.unpack_from("<I", parts[0], 16)[0]
                streams = unpack(parts[0][20:cut]) + unpack(parts[0][cut:])
            return [tuple(event) for event in Decoder(streams, sizes, codec).events(count)]
        columns = []
        for (codec, _), part, letter in zip(table, parts, COLUMNS, strict=True):
            values = list(struct.unpack(f"<{count}{letter}", unpack(part))) if codec else [0] * count
            if codec == 2:
                width, total = struct.calcsize(letter) * 8, 0
                for i, value in enumerate(values):
                    total = values[i] = (total + value) % (1 << width)
            columns.append(values)
        return list(zip(*columns, strict=True))

    def checkpoints(self) -> list[dict[str, Any]]:
        pages: list[bytes] = []
        rows = []
        for kind, first, _, _, payload in self.chunks:
            if kind == "pages":
                number, count = struct.unpack_from("<II", payload)
                assert number == len(pages)
                data = unpack(payload[8:])
                pages += [data[4096 * i : 4096 * i + 4096] for i in range(count)]
            if kind == "checkpoint":
                found = msgpack.unpackb(unpack(payload))
                frames, numbers = (struct.unpack(f"<{len(found[k]) // 4}I", found[k]) for k in ("frames", "pages"))
                rows.append(
                    {
                        "step": first,
                        "state_version": found["state_version"],
                        "state_hash": found["state_hash"],
                        "state": found["state"].hex(),
                        "pages": {
                            str(frame): sha256(pages[n]).hexdigest() for frame, n in zip(frames, numbers, strict=True)
                        },
                    }
                )
        return rows

    def attachments(self) -> list[dict[str, Any]]:
        return [plain(msgpack.unpackb(unpack(payload))) for payload in self._payloads("attachment")]

    def indexes(self) -> list[dict[str, Any]]:
        return [index(unpack(payload)) for payload in self._payloads("index")]

    def check_contents(self) -> None:
        for kind, *_, at, payload in self.chunks:
            if kind == "contents":
                before = [c for c in self.chunks if c[3] < at]
                assert payload == b"".join(self.data[c[3] : c[3] + 64] for c in before)


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """Bytes as hexadecimal digits."""
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in found.items()}


class Numbers:
    """A row of varints."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def __call__(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value & U64


def index(body: bytes) -> dict[str, Any]:
    """An index as words ([word, flags, row of the last visible write]), pcs, operands ([key, value]) and kinds."""
    take = Numbers(body)
    words = []
    page = 0
    for _ in range(take()):
        page += take()
        end = take() + take.at
        at = before = distance = 0
        while take.at < end:
            at += take()
            length = take()
            flags = body[take.at]
            take.at += 1
            for _ in range(length):
                row = 0
                if flags & 2:
                    x = take()
                    row = before + distance + (x >> 1 ^ -(x & 1))
                    before, distance = row, row - before
                words.append([page * 512 + at, flags, row])
                at += 1
    pcs = []
    pc = 0
    for _ in range(take()):
        pc += take()
        pcs.append(pc)
    operands = []
    key = value = 0
    for _ in range(take()):
        more = take()
        key += more
        value = take() + (0 if more else value)
        operands.append([key, value & U64])
    kinds = {}
    for _ in range(take()):
        kind = take()
        kinds[str(kind)] = take()
    assert take.at == len(body)
    return {"words": words, "pcs": pcs, "operands": operands, "kinds": kinds}


def contents(data: bytes) -> dict[str, Any]:
    """All that a tape says."""
    tape = PlainReader(data)
    tape.check_contents()
    return {
        "header": tape.header,
        "image_sha256": sha256(tape.image()).hexdigest(),
        "choices": tape.choices(),
        "events": tape.events(),
        "indexes": tape.indexes(),
        "checkpoints": tape.checkpoints(),
        "attachments": tape.attachments(),
        "footer": tape.footer,
    }
