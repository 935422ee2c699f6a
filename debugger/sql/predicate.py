"""Predicates that DuckDB hands down to a scan: which chunks may hold rows for them, and which rows they keep.

DuckDB gives a predicate as a pyarrow Expression and does not look at it again, so it has to be applied exactly. An
Expression cannot be walked from Python; its pickle form, an Arrow file whose metadata are the expression in prefix
form, can. What is not understood there is applied by Arrow itself and skips nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

Ranges = tuple[tuple[int, int], ...]
"""Ascending (first, last), both included, not touching."""

EVERYTHING: Final[Ranges] = ((-(1 << 64), 1 << 64),)
_LOW, _HIGH = EVERYTHING[0]


@dataclass(frozen=True)
class Call:
    """A function of Arrow with its arguments; `options` are a pyarrow structure, None where it has none."""

    name: str
    arguments: tuple[Node, ...]
    options: Any = None


@dataclass(frozen=True)
class Field:
    """A column."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A value, as a pyarrow scalar."""

    value: Any


Node = Call | Field | Literal

_NO_OPTIONS: Final = frozenset(
    (
        "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
        "and_kleene", "or_kleene", "invert", "is_valid", "if_else",
    )
)  # fmt: skip


def parse(expression: pc.Expression) -> Node | None:
    """The tree of an expression; None if it has something in it that is not known here."""
    try:
        _, (buffer, *_) = expression.__reduce__()[:2]
        batch = pa.ipc.open_file(buffer).get_batch(0)
        text = batch.schema.to_string(show_schema_metadata=True, truncate_metadata=False)
        _, _, metadata = text.partition("-- schema metadata --\n")
        tokens = [tuple(line.split(": ", 1)) for line in metadata.splitlines()]
        literals = [column[0] for column in batch.columns]
        node, rest = _parse([(key, value.strip("'")) for key, value in tokens], literals)
    except (ValueError, TypeError, IndexError, AttributeError, pa.ArrowException):
        return None
    return node if not rest else None


def _parse(tokens: list[tuple[str, str]], literals: list[Any]) -> tuple[Node, list[tuple[str, str]]]:
    (key, value), rest = tokens[0], tokens[1:]
    if key == "literal":
        return Literal(literals[int(value)]), rest
    if key == "field_ref":
        return Field(value), rest
    if key != "call":
        raise ValueError(key)
    arguments: list[Node] = []
    options = None
    while rest[0] != ("end", value):
        if rest[0][0] == "options":
            options = literals[int(rest[0][1])]
            rest = rest[1:]
            continue
        argument, rest = _parse(rest, literals)
        arguments.append(argument)
    if value not in _NO_OPTIONS and value not in ("is_in", "is_null"):
        raise ValueError(value)
    return Call(value, tuple(arguments), options), rest[1:]


def conjuncts(node: Node) -> list[Node]:
    """The predicates that all have to hold for `node` to hold."""
    if isinstance(node, Call) and node.name == "and_kleene":
        return [part for argument in node.arguments for part in conjuncts(argument)]
    return [node]


def fields(node: Node) -> set[str]:
    """Names of the columns in it."""
    if isinstance(node, Field):
        return {node.name}
    return set().union(*(fields(row) for row in node.arguments)) if isinstance(node, Call) else set()


# -- ranges --


def ranges_of(node: Node, column: str, literal: Callable[[Any], Ranges | None] | None = None) -> Ranges:
    """What `column` can be where `node` holds: wider than true at most, never narrower.

    Args:
        literal: gives the ranges of a column that equals a literal; None: the literal itself, an integer.
    """
    if not isinstance(node, Call):
        return EVERYTHING
    if node.name == "and_kleene":
        return both(*(ranges_of(row, column, literal) for row in node.arguments))
    if node.name == "or_kleene":
        return either(*(ranges_of(row, column, literal) for row in node.arguments))
    if node.name == "if_else" and _is_null(node.arguments[2]):
        return ranges_of(node.arguments[1], column, literal)
    if node.name == "is_in" and node.arguments == (Field(column),) and node.options is not None:
        values = node.options["value_set"].as_py()
        return either(*(_point(value, literal) for value in values)) if values else EVERYTHING
    return _comparison(node, column, literal)


def _comparison(node: Call, column: str, literal: Callable[[Any], Ranges | None] | None) -> Ranges:
    name, arguments = node.name, node.arguments
    mirrored = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}
    if len(arguments) == 2 and isinstance(arguments[0], Literal):
        name, arguments = mirrored.get(name, name), (arguments[1], arguments[0])
    if len(arguments) != 2 or arguments[0] != Field(column) or not isinstance(arguments[1], Literal):
        return EVERYTHING
    value = arguments[1].value.as_py()
    if name == "equal":
        return _point(value, literal)
    if not isinstance(value, int):
        return EVERYTHING
    bounds = {
        "less": (_LOW, value - 1),
        "less_equal": (_LOW, value),
        "greater": (value + 1, _HIGH),
        "greater_equal": (value, _HIGH),
    }
    return (bounds[name],) if name in bounds else EVERYTHING


def _point(value: Any, literal: Callable[[Any], Ranges | None] | None) -> Ranges:
    if literal is not None:
        found = literal(value)
        return EVERYTHING if found is None else found
    return ((value, value),) if isinstance(value, int) else EVERYTHING


def _is_null(node: Node) -> bool:
    return isinstance(node, Literal) and not node.value.is_valid


def both(first: Ranges, *others: Ranges) -> Ranges:
    """What is in all of them."""
    for other in others:
        first = tuple(
            (max(a, c), min(b, d)) for a, b in first for c, d in other if max(a, c) <= min(b, d)
        )  # both ascend, so the product does
    return first


def either(*parts: Ranges) -> Ranges:
    """What is in any of them."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(row for part in parts for row in part):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)


def overlaps(ranges: Ranges, low: int, high: int) -> bool:
    """Whether any of `low` to `high`, both included, is in `ranges`."""
    return any(first <= high and low <= last for first, last in ranges)


# -- rows --


class Columns(Protocol):
    """Rows whose columns are made when they are asked for."""

    def column(self, name: str) -> pa.Array: ...


class NotUnderstoodError(Exception):
    """A function or option that has to be left to Arrow."""


@dataclass
class Evaluator:
    """Applies the parts of a predicate to rows, with what Arrow itself would say."""

    rows: Columns
    _known: dict[str, Any] = field(default_factory=dict)

    def value(self, node: Node) -> Any:
        """A pyarrow array or scalar."""
        names = fields(node)
        if isinstance(node, Call) and len(names) == 1:
            name = next(iter(names))
            column = self._column(name)
            if pa.types.is_dictionary(column.type):
                # Once for each distinct value, not for each row.
                numbers = column.indices.fill_null(len(column.dictionary))
                words = pa.concat_arrays([column.dictionary, pa.nulls(1, column.dictionary.type)])
                found = Evaluator(self.rows, {name: words}).value(node)
                return found if isinstance(found, pa.Scalar) else found.take(numbers)
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Field):
            column = self._column(node.name)
            return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        return pc.call_function(node.name, [self.value(row) for row in node.arguments], _options(node))

    def _column(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = self.rows.column(name)
        return self._known[name]


def _options(node: Call) -> Any:
    if node.name == "is_null":
        return pc.NullOptions(nan_is_null=bool(node.options["nan_is_null"].as_py()))
    if node.name == "is_in":
        matching = node.options["null_matching_behavior"].as_py()
        if matching not in (0, 1):
            raise NotUnderstoodError(f"is_in with null_matching_behavior {matching}")
        return pc.SetLookupOptions(value_set=node.options["value_set"].values, skip_nulls=matching == 1)
    return None
