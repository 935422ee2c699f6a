"""`racetape diff`: where two runs part."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from racetape.commands.common import EXIT_FOUND, TapePath, emit, epilog, fail, json_option, opened

if TYPE_CHECKING:
    from replayer.diff import Access, Difference, Parting, Where

STACK_SHOWN = 6


@click.command(
    epilog=epilog(
        "racetape diff good.tape bad.tape",
        "racetape diff fixed.tape gallery:wrong-zone --json",
    )
)
@click.argument("tapes", nargs=2, metavar="A B", type=TapePath())
@click.option("--values", default=8, show_default=True, type=click.IntRange(1), help="Most differing values to show.")
@json_option
def diff(tapes: tuple[Path, Path], values: int, as_json: bool) -> None:
    """Find the first step at which two runs part, and the first value that differs.

    Tasks and interrupt handlers are compared with themselves, whenever and wherever they run; tapes of different images
    by function and line. Exit status 0 if both did the same, 1 if they differ.
    """
    from racetape.progress import ticking
    from replayer.diff import diff as compare

    with opened(tapes[0]) as a, opened(tapes[1]) as b:
        with ticking("comparing", max(a.end_step, b.end_step)) as tick:
            found = compare(a, b, tick, values_max=values)
        names = str(a.path), str(b.path)
        cut = [tape for tape in (a, b) if tape.unfinished]
    if as_json:
        emit(_json(found, names))
    else:
        click.echo(_text(found, names))
    if cut:
        sys.exit(fail(f"{cut[0].path}: the tape is cut; all of this is about the part up to @{cut[0].end_step}"))
    sys.exit(0 if found.same else EXIT_FOUND)


def _json(found: Difference, names: tuple[str, str]) -> dict[str, Any]:
    answer = asdict(found)
    answer["headers"] = {name: {"a": row[0], "b": row[1]} for name, row in found.headers.items()}
    return {"a": names[0], "b": names[1], "same": found.same, **answer}


_IMAGES = {
    "same": "",
    "alike": "",
    "data": "the images have the same code, but other data",
    "code": "the images are of different code: compared by function and line, from set-up on",
}


def _text(found: Difference, names: tuple[str, str]) -> str:
    lines = [f"A: {names[0]}", f"B: {names[1]}"]
    lines += [f"    {name}: A {one}, B {other}" for name, (one, other) in found.headers.items()]
    lines += [f"    {row}" for row in (_IMAGES[found.images], found.incomplete) if row]
    if found.same:
        return "\n".join([*lines, "both did the same"])
    if (parting := found.parting) is not None:
        lines += _parting(parting, found)
    if not found.values and not found.incomplete:
        lines.append("no value differs: every task and handler loads and stores the same in both")
    for number, row in enumerate(found.values):
        what = f"{row.kind} of {row.size_bytes} bytes, {row.name}, by {row.context}"
        lines.append(f"first value that differs: {what}" if number == 0 else f"then: {what}")
        elsewhere = row.a.addr != row.b.addr
        lines += [f"    {side} {_access(access, elsewhere)}" for side, access in (("A", row.a), ("B", row.b))]
        lines += _stacks(row.a.where, row.b.where)
    if (control := found.control) is not None:
        lines.append(f"first other way: {control.context}")
        lines += [f"    {side} {_where(where)}: {where.what}" for side, where in (("A", control.a), ("B", control.b))]
    jumps = _jumps(found)
    lines.append("go on with:")
    lines += [
        f"    racetape debug {name} -ex 'seek @{step}'"
        for name, step in zip(names, jumps, strict=True)
        if step is not None
    ]
    return "\n".join(lines)


def _parting(parting: Parting, found: Difference) -> list[str]:
    a, b = parting.a, parting.b
    one = a or b
    assert one is not None
    if parting.why == "end":
        which = "A" if a is None else "B"
        lines = [f"{which} ends at @{one.step}: up to there both do the same"]
    elif found.in_step:
        lines = [f"the runs part at @{one.step}: up to there both do the same"]
    else:
        lines = ["the runs part:"]
    for side, where, end in (("A", a, found.compared_to[0]), ("B", b, found.compared_to[1])):
        lines.append(f"    {side} ends here (@{end})" if where is None else f"    {side} {_where(where)}: {where.what}")
    return lines + _stacks(a, b)


def _where(where: Where) -> str:
    return f"@{where.step} cpu{where.cpu} {where.place}"


def _access(access: Access, elsewhere: bool) -> str:
    text = f"{_where(access.where)}: {access.value:#x}" + (f" at {access.addr:#x}" if elsewhere else "")
    if access.made is None:
        return text + (", as it was from the start" if access.loaded else "")
    made = access.made
    return f"{text}, made so @{made.step} by cpu{made.cpu} in {made.place}"


def _stacks(a: Where | None, b: Where | None) -> list[str]:
    """Where both are, once if it is the same."""
    rows = [(side, " < ".join(_short(where.stack))) for side, where in (("A", a), ("B", b)) if where and where.stack]
    if len({stack for _, stack in rows}) == 1:
        return [f"      in {rows[0][1]}"]
    return [f"      {side} in {stack}" for side, stack in rows]


def _short(stack: tuple[str, ...]) -> tuple[str, ...]:
    return stack if len(stack) <= STACK_SHOWN else (*stack[: STACK_SHOWN - 2], "...", *stack[-2:])


def _jumps(found: Difference) -> tuple[int | None, int | None]:
    """Where to look first on each tape: at the first value, else where they part."""
    if found.values:
        return found.values[0].a.where.step, found.values[0].b.where.step
    parting = found.parting
    if parting is None:
        assert found.control is not None
        return found.control.a.step, found.control.b.step
    return tuple(None if where is None else where.step for where in (parting.a, parting.b))  # type: ignore[return-value]
