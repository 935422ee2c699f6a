"""The command `racetape litmus`: finds the tests, has them judged, prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

from recorder.litmus import (
    MODELS,
    SEARCHES,
    STATES_MAX,
    Assembled,
    LitmusError,
    LitmusTest,
    Verdict,
    assemble,
    judge,
    parse_file,
    report,
)
from recorder.litmus.bundled import find_all, groups, in_group
from recorder.litmus.constraint import parse_condition
from recorder.litmus.tokens import Tokens

CONTRADICTED, BAD = 1, 2

__all__ = ["MODELS", "SEARCHES", "STATES_MAX", "list_bundled", "run_litmus"]


def list_bundled() -> None:
    """Print the names of the bundled tests, group by group."""
    for group in groups():
        names = [path.stem for path in in_group(group)]
        click.echo(f"{group} ({len(names)} tests): {' '.join(names)}")


def run_litmus(
    names: Sequence[str],
    *,
    model: str,
    as_json: bool,
    witness: bool,
    as_table: bool,
    condition: str | None,
    states_max: int,
    search: str,
) -> int:
    """Judge tests and print the verdicts as they come; the exit status.

    One bad test does not keep the others from running.
    """
    asked = parse_condition(Tokens("--condition", condition, 1)) if condition is not None else None
    status = 0
    tests: list[LitmusTest] = []
    for path in find_all(names):
        try:
            tests.append(parse_file(path))
        except LitmusError as error:
            status = _complain(error)
    if as_table and not as_json:
        click.echo(report.HEADER)
    for assembled in _assemble(tests):
        try:
            if isinstance(assembled, LitmusError):
                raise assembled
            verdict = judge(assembled, model, asked, states_max, search)
        except LitmusError as error:
            status = _complain(error)
            continue
        _print(verdict, as_json, as_table, witness)
        if (verdict.contradictions or verdict.cut) and status == 0:
            status = CONTRADICTED
    return status


def _assemble(tests: list[LitmusTest]) -> list[Assembled | LitmusError]:
    """All tests at once, which is fast; if one is bad, each by itself."""
    try:
        return [*assemble(tests)]
    except LitmusError:
        results: list[Assembled | LitmusError] = []
        for test in tests:
            try:
                results += assemble([test])
            except LitmusError as error:
                results.append(error)
        return results


def _complain(error: LitmusError) -> int:
    sys.stdout.flush()
    click.echo(f"racetape: {' '.join(str(error).split())}", err=True)
    return BAD


def _print(verdict: Verdict, as_json: bool, as_table: bool, witness: bool) -> None:
    if as_json:
        answer = verdict.json()
        if witness:
            found = verdict.witness()
            answer["witness"] = found and {
                "state": list(found[0].values),
                "schedule": [line.split(None, 1)[1] for line in report.step_lines(verdict, found[1])],
            }
        click.echo(json.dumps(answer))
        for text in verdict.contradictions:
            click.echo(f"racetape: {verdict.assembled.test.path}: {text}", err=True)
        if verdict.cut:
            click.echo(f"racetape: {verdict.assembled.test.path}: incomplete: {verdict.cut}", err=True)
        return
    click.echo(report.row(verdict) if as_table else report.log(verdict))
    if witness:
        click.echo(report.witness(verdict))
    if not as_table:
        click.echo()
