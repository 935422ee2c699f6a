"""Writes the worked example of docs/tape-format.md anew: PYTHONPATH=. python tests/traces/write_example.py"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from test_traces_format import DOCUMENT, write_example

from traces import TapeFile, chunks

_FIELDS = (
    (0, 1, "kind {kind}: {name}"), (1, 3, "flags{flag}, reserved"), (4, 4, "payload_bytes {payload_bytes}"),
    (8, 8, "first_step {first_step}"), (16, 8, "end_step {end_step}"), (24, 16, "previous"), (40, 4, "header_crc"),
    (44, 4, "payload_crc"), (48, 16, "hash"),
)  # fmt: skip
_PAYLOAD = {
    "header": "map", "footer": "map", "image": "zstd frame of 7f 45 4c 46", "choices": "state hash, count, zstd frame",
    "events": "state hash, count, columns, streams", "index": "zstd frame", "contents": "the headers above",
}  # fmt: skip


def lines(data: bytes, note: str) -> Iterator[str]:
    """16 bytes a line, the note beside the first."""
    for at in range(0, len(data), 16):
        text = data[at : at + 16].hex(" ")
        yield f"{text:<47} | {note}" if at == 0 else text


def blocks(path: Path) -> Iterator[str]:
    """The hex blocks, a chunk each."""
    data = path.read_bytes()
    with TapeFile(path) as tape:
        for number, chunk in enumerate(tape.chunks):
            rows = list(lines(chunks.MAGIC, "magic")) if number == 0 else []
            values = {**vars(chunk), "name": chunk.name, "flag": " A" if chunk.layer_a else ""}
            for at, size, note in _FIELDS:
                start = chunk.offset + at
                rows += lines(data[start : start + size], note.format(**values))
            rows += lines(data[chunk.offset + 64 : chunk.end_offset], _PAYLOAD[chunk.name])
            if chunk is tape.chunks[-1]:
                rows += lines(data[chunk.end_offset : -8], "offsets")
                rows += lines(chunks.MAGIC, "magic")
            yield "\n".join(rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.tape"
        write_example(path)
        text = "\n\n".join(f"```hex\n{block}\n```" for block in blocks(path))
        size_bytes = path.stat().st_size
    head, rest = DOCUMENT.read_text().split("```hex\n", 1)
    tail = rest.rsplit("```", 1)[1]
    head = re.sub(r"A whole tape of \d+ bytes", f"A whole tape of {size_bytes} bytes", head)
    DOCUMENT.write_text(head + text + tail)


if __name__ == "__main__":
    main()
