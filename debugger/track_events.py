"""Writes Perfetto traces: a small part of perfetto/trace/trace.proto, encoded by hand.

Field numbers are those of Perfetto's published definitions; the tests decode what is written here with these
themselves. Names are interned: each stands in the file once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Final

BEGIN: Final = 1
END: Final = 2
INSTANT: Final = 3
COUNTER: Final = 4

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_SEQUENCE: Final = 1
_CLEARED, _NEEDED = 1, 2  # TracePacket.SequenceFlags
_BUFFER_BYTES: Final = 1 << 20

Annotations = dict[str, int | str]
"""Name -> value, shown with a slice or instant. Numbers are shown as pointers, in hexadecimal."""


class TraceWriter:
    """One Perfetto trace. Packets may come in any order of time: viewers sort them, keeping equal times in order."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._names: dict[str, int] = {}
        self._categories: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._flags = _CLEARED | _NEEDED
        self._tracks = 0

    def track(self, name: str, parent: int = 0, *, counter: bool = False) -> int:
        """Announce a track; its number. Tracks of one parent stand in the order in which they are announced."""
        self._tracks += 1
        body = _number(1, self._tracks) + _text(2, name)
        if parent:
            body += _number(5, parent)
        if counter:
            body += _message(8, b"")
        body += _number(11, 3)  # children: explicit order
        body += _number(12, self._tracks)
        self._packet(_message(60, body) + self._sequence())
        return self._tracks

    def event(
        self,
        kind: int,
        track: int,
        step: int,
        name: str = "",
        *,
        category: str = "",
        annotations: Annotations | None = None,
        flows: Iterable[int] = (),
        ended_flows: Iterable[int] = (),
    ) -> None:
        """A slice's begin or end, or an instant."""
        interned = b""
        body = _number(9, kind) + _number(11, track)
        if name:
            number, new = _intern(self._names, name)
            interned += _message(2, _number(1, number) + _text(2, name)) if new else b""
            body += _number(10, number)
        if category:
            number, new = _intern(self._categories, category)
            interned += _message(1, _number(1, number) + _text(2, category)) if new else b""
            body += _number(3, number)
        for key, value in (annotations or {}).items():
            number, new = _intern(self._keys, key)
            interned += _message(3, _number(1, number) + _text(2, key)) if new else b""
            stated = _text(6, value) if isinstance(value, str) else _number(7, value)
            body += _message(4, _number(1, number) + stated)
        body += b"".join(_fixed(47, flow) for flow in flows)
        body += b"".join(_fixed(48, flow) for flow in ended_flows)
        packet = _number(8, step) + _message(11, body) + self._sequence()
        self._packet(packet + (_message(12, interned) if interned else b""))

    def counter(self, track: int, step: int, value: int) -> None:
        """A counter's value from `step` on."""
        body = _number(9, COUNTER) + _number(11, track) + _number(30, value)
        self._packet(_number(8, step) + _message(11, body) + self._sequence())

    def finish(self) -> None:
        """Write what is still held."""
        self._stream.write(self._buffer)
        self._buffer.clear()

    def _sequence(self) -> bytes:
        flags, self._flags = self._flags, _NEEDED
        return _number(10, _SEQUENCE) + _number(13, flags)

    def _packet(self, body: bytes) -> None:
        self._buffer += _message(1, body)
        if len(self._buffer) > _BUFFER_BYTES:
            self.finish()


def _intern(known: dict[str, int], text: str) -> tuple[int, bool]:
    """(its number, whether it is new)."""
    new = text not in known
    return known.setdefault(text, len(known) + 1), new


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _fixed(field: int, value: int) -> bytes:
    return _varint(field << 3 | _FIXED64) + value.to_bytes(8, "little")


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(body)) + body


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())
