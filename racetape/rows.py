"""Prints rows while they come: a table for people, JSON or CSV for programs."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TextIO

WIDTH_ROWS: Final = 200
"""So many rows are looked at before the first line of a table is printed; later ones may be wider."""

Row = Sequence[Any]


def print_table(
    columns: Sequence[str],
    rows: Iterable[Row],
    *,
    positions: Collection[str] = (),
    addresses: Collection[str] = (),
    out: TextIO | None = None,
) -> int:
    """Print rows under their columns' names; how many there were.

    Args:
        positions, addresses: names of the columns whose numbers are written `@81204` and `0xc0101234`.
    """
    out = out or sys.stdout
    shown = [_show(name, positions, addresses) for name in columns]
    left = iter(rows)
    first = [_texts(row, shown) for row in islice(left, WIDTH_ROWS)]
    numeric = [False] * len(columns)
    widths = [len(name) for name in columns]
    for texts in first:
        for index, (text, number) in enumerate(texts):
            widths[index] = max(widths[index], len(text))
            numeric[index] = numeric[index] or number
    out.write(_line([(name, number) for name, number in zip(columns, numeric, strict=True)], widths, numeric))
    out.write("  ".join("-" * width for width in widths) + "\n")
    count = 0
    for texts in _chain(first, (_texts(row, shown) for row in left)):
        out.write(_line(texts, widths, numeric))
        count += 1
    return count


def _chain(first: list[list[tuple[str, bool]]], rest: Iterator[list[tuple[str, bool]]]) -> Iterator[Any]:
    yield from first
    yield from rest


def _show(name: str, positions: Collection[str], addresses: Collection[str]) -> str:
    return "position" if name in positions else "address" if name in addresses else ""


def _texts(row: Row, shown: Sequence[str]) -> list[tuple[str, bool]]:
    return [
        (_text(value, how), isinstance(value, (int, float)) and not isinstance(value, bool))
        for value, how in zip(row, shown, strict=True)
    ]


def _text(value: Any, how: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and how == "position":
        return f"@{value}"
    if isinstance(value, int) and how == "address":
        return f"{value:#x}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bytes):
        return value.hex()
    # What a query makes of a stranger's tape must not steer the terminal.
    return "".join(c if c.isprintable() else "?" for c in str(value))


def _line(texts: Sequence[tuple[str, bool]], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    cells = (
        text.rjust(width) if right else text.ljust(width)
        for (text, _), width, right in zip(texts, widths, numeric, strict=True)
    )
    return "  ".join(cells).rstrip() + "\n"


def print_json(columns: Sequence[str], rows: Iterable[Row], out: TextIO | None = None) -> int:
    """Print one JSON object a line; how many there were. Names that come twice are numbered."""
    out = out or sys.stdout
    names: list[str] = []
    for name in columns:
        count = 0
        unique = name
        while unique in names:
            count += 1
            unique = f"{name}_{count}"
        names.append(unique)
    count = 0
    for row in rows:
        values = {name: _plain(value) for name, value in zip(names, row, strict=True)}
        out.write(json.dumps(values) + "\n")
        count += 1
    return count


def _plain(value: Any) -> Any:
    """What JSON can say: no NaN, no bytes, no dates."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)


def print_csv(columns: Sequence[str], rows: Iterable[Row], out: TextIO | None = None) -> int:
    """Print comma-separated values with a head line, NULL as nothing; how many rows there were."""
    writer = csv.writer(out or sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow(["" if value is None else value.hex() if isinstance(value, bytes) else value for value in row])
        count += 1
    return count
