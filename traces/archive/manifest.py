"""The manifest: what an archive knows of a tape, and how to put it together again (docs/archive.md).

Manifests are written once and never changed. Archiving a tape again, say with another note, makes another manifest of
the same tape, so that nobody who adds ever has to read, change and write what somebody else may be changing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any, Final

import msgpack
import zstandard

from machine.errors import ArchiveError
from traces import Tape, chunks
from traces.archive.layout import BLOB_BYTES_MAX, LISTED, RAW, Blob, Layout, Piece, Stream
from traces.chunks import CHUNK_BYTES_MAX, HEADER_BYTES

ARCHIVE_VERSION: Final = 1
_LEVEL: Final = 9
_U64_MAX: Final = (1 << 64) - 1
_TIME_MAX: Final = 253_402_300_799
"""The last second of the year 9999."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where a counter first went wrong: the innermost function outside of headers, its line, the step."""

    counter: str
    function: str
    file: str
    line: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a tape shows, as far as anybody has looked.

    Attributes:
        signature: equal for the same bug under other schedules; None if the run did not fail or nobody knows.
        failure: what is wrong in this run, one line.
        divergences: of the counters that the scenario names, those that went wrong, the earliest first.
        note: why there is no diagnosis, or not all of it; "" if there is.
    """

    signature: str | None = None
    failure: str | None = None
    divergences: tuple[Divergence, ...] = ()
    note: str = ""


Diagnose = Callable[[Tape], Diagnosis]
"""Looks at an undamaged tape. Comes from above: it takes a machine to say how a run failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What one searches tapes by. Fields as in the tape's header and footer, None if there is no footer.

    Attributes:
        image_sha256: in hexadecimal.
        steps: the last position.
        unfinished, damaged: of the tape as it was archived.
    """

    format: int
    tool: str
    scenario: str
    variant: str
    configuration: str
    cpus: int
    image_sha256: str
    strategy: str
    seed: int
    stop: str | None
    exit_status: int | None
    steps: int
    events: int | None
    unfinished: bool
    damaged: bool

    @classmethod
    def of(cls, tape: Tape, *, damaged: bool) -> Facts:
        """Those of an open tape; `damaged`: it is, whatever opening it has found."""
        header, footer = tape.header, tape.footer
        return cls(
            format=header.format,
            tool=header.tool,
            scenario=header.scenario,
            variant=header.variant,
            configuration=header.configuration,
            cpus=header.cpus,
            image_sha256=header.image_sha256.hex(),
            strategy=header.strategy,
            seed=header.seed,
            stop=footer.stop if footer else None,
            exit_status=footer.exit_status if footer else None,
            steps=tape.end_step,
            events=footer.events if footer else None,
            unfinished=tape.unfinished,
            damaged=damaged,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What whoever archived a tape said of it.

    Attributes:
        time: when, in seconds since 1970.
        file: the name that the tape had.
        tags: sorted, each once.
        note: "" if there is none.
    """

    time: float
    file: str
    tags: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One manifest."""

    layout: Layout
    facts: Facts
    diagnosis: Diagnosis
    label: Label

    @property
    def tape(self) -> str:
        """The tape's identity: its SHA-256 in hexadecimal."""
        return self.layout.sha256.hex()

    def encode(self) -> tuple[str, bytes]:
        """(name, bytes). Raises ArchiveError if the tape has too many chunks for one manifest."""
        layout = self.layout
        body = {
            "archive": ARCHIVE_VERSION,
            "sha256": layout.sha256,
            "size_bytes": layout.size_bytes,
            "pieces": [[p.stream, p.size_bytes, p.first_step, p.end_step - p.first_step] for p in layout.pieces],
            "streams": [
                [number, [[blob.hash, blob.size_bytes] for blob in stream.blobs], stream.inline]
                for number, stream in layout.streams.items()
            ],
            "facts": asdict(self.facts),
            "diagnosis": asdict(self.diagnosis),
            "label": asdict(self.label),
        }
        packed = bytes(msgpack.packb(body))
        if len(packed) > CHUNK_BYTES_MAX:
            raise ArchiveError("the tape has too many chunks to be archived")
        data = zstandard.ZstdCompressor(level=_LEVEL).compress(packed)
        return f"{self.tape}-{sha256(data).hexdigest()[:32]}", data


def tape_of(name: str) -> str | None:
    """The tape that a manifest of this name is of; None if no manifest has such a name."""
    tape, dash, own = name.partition("-")
    hexadecimal = all(c in "0123456789abcdef" for c in tape + own)
    return tape if dash and len(tape) == 64 and len(own) == 32 and hexadecimal else None


def decode_manifest(name: str, data: bytes) -> Manifest:
    """The manifest of that name, every field checked. Raises ArchiveError."""
    if sha256(data).hexdigest()[:32] != name.rpartition("-")[2]:
        raise ArchiveError(f"manifest {name} is damaged: wrong checksum")
    try:
        body = msgpack.unpackb(chunks.zstd_unpack(data))
        if not isinstance(body, dict) or not isinstance(body.get("archive"), int):
            raise ValueError("it is no map")
        if body["archive"] > ARCHIVE_VERSION:
            raise ArchiveError(f"manifest {name} was made by a newer racetape; use a newer one")
        diagnosis = _fields(Diagnosis, body["diagnosis"])
        diagnosis["divergences"] = tuple(
            Divergence(**_fields(Divergence, row)) for row in _list(diagnosis["divergences"])
        )
        label = _fields(Label, body["label"])
        label["tags"] = tuple(_text(tag) for tag in _list(label["tags"]))
        manifest = Manifest(
            layout=_layout(body),
            facts=Facts(**_fields(Facts, body["facts"])),
            diagnosis=Diagnosis(**diagnosis),
            label=Label(**label),
        )
    except ArchiveError:
        raise
    except Exception as error:  # Whatever a stranger's bytes make of the unpacker.
        raise ArchiveError(f"manifest {name} is no manifest: {error}") from None
    if manifest.tape != tape_of(name):
        raise ArchiveError(f"manifest {name} is of another tape than its name says")
    return manifest


_KINDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
}


def _fields(kind: type, row: Any) -> dict[str, Any]:
    """The fields of a dataclass out of a map, each of its type; unknown keys are left out. Raises ValueError."""
    if not isinstance(row, dict):
        raise ValueError(f"{kind.__name__} is no map")
    found = {}
    for field in fields(kind):
        value = row.get(field.name)
        wanted = _KINDS.get(str(field.type))
        if wanted is not None and (
            not isinstance(value, wanted) or (isinstance(value, bool) and field.type not in ("bool",))
        ):
            raise ValueError(f"{kind.__name__}.{field.name} is {value!r}")
        most = _TIME_MAX if field.type == "float" else _U64_MAX
        if isinstance(value, int | float) and not 0 <= value <= most:
            raise ValueError(f"{kind.__name__}.{field.name} is out of range")
        found[field.name] = value
    return found


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list is missing")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is missing")
    return value


def _number(value: Any, most: int = _U64_MAX) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is no number from 0 to {most}")
    return value


def _hash(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != 32:
        raise ValueError("a SHA-256 is missing")
    return value


def _layout(body: Mapping[str, Any]) -> Layout:
    """Raises ValueError unless pieces, streams and length agree: what follows them can then rely on it."""
    streams: dict[int, Stream] = {}
    for number, blobs, inline in _list(body["streams"]):
        if not isinstance(inline, bytes):
            raise ValueError("a stream's end is missing")
        rows = [Blob(_hash(key), _number(size, BLOB_BYTES_MAX)) for key, size in _list(blobs)]
        if not all(blob.size_bytes for blob in rows):
            raise ValueError("a blob is empty")
        streams[_number(number, LISTED - 1)] = Stream(rows, inline)
    pieces, taken, size_bytes, headers = [], dict.fromkeys(streams, 0), 0, 0
    for stream, piece_bytes, first_step, steps in _list(body["pieces"]):
        if stream != LISTED and (stream not in streams or (stream != RAW and stream not in chunks.KIND_NAMES)):
            raise ValueError(f"there is no stream {stream!r}")
        header_bytes = 0 if stream == RAW else HEADER_BYTES
        piece = Piece(
            stream,
            _number(piece_bytes, BLOB_BYTES_MAX - header_bytes),
            _number(first_step),
            _number(first_step + _number(steps)),
        )
        pieces.append(piece)
        if stream == LISTED:
            piece_bytes = headers * HEADER_BYTES
            if piece.size_bytes or piece_bytes > CHUNK_BYTES_MAX:
                raise ValueError("contents that cannot be")
        else:
            taken[stream] += piece.size_bytes
        size_bytes += header_bytes + piece_bytes
        headers += header_bytes + piece_bytes >= HEADER_BYTES
    if size_bytes != _number(body["size_bytes"]) or any(
        taken[number] != stream.size_bytes for number, stream in streams.items()
    ):
        raise ValueError("its pieces do not add up")
    return Layout(_hash(body["sha256"]), size_bytes, tuple(pieces), streams)
