"""Verdicts as text: a log like herd's for one test, a table for many, schedules in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recorder.litmus.layout import Layout
from recorder.litmus.threads import Step, Store
from recorder.litmus.verdict import Verdict

_KINDS = {"exists": "Allowed", "~exists": "Forbidden", "forall": "Required"}


def log(verdict: Verdict) -> str:
    """The log of one test in the form of herd's, so that tools which read those read it; then our own line."""
    positive, count = verdict.positive_count, len(verdict.states)
    often = "Always" if count and positive == count else "Sometimes" if positive else "Never"
    lines = [f"Test {verdict.name} {_KINDS[verdict.condition.quantifier]}", f"States {count}"]
    for state in verdict.states:
        shown = [f"{label}={value};" for label, value in zip(verdict.locations, state.values, strict=True)]
        lines.append(" ".join(shown))
    lines += [
        "Ok" if verdict.satisfied else "No",
        "Witnesses",
        f"Positive: {positive} Negative: {count - positive}",
        f"Condition {verdict.condition.text}",
        f"Observation {verdict.name} {often} {positive} {count - positive}",
        "",
        f"{answer(verdict)} under {verdict.model}; {verdict.exploration.effort}, {completeness(verdict)}",
    ]
    lines += [f"contradicted: {row}" for row in verdict.contradictions]
    return "\n".join(lines)


def answer(verdict: Verdict) -> str:
    """Allowed or Forbidden, for `forall` Holds or Fails; of an incomplete set only what was seen."""
    if verdict.condition.quantifier == "forall":
        return "Fails" if not verdict.satisfied else "Not refuted" if verdict.cut else "Holds"
    if verdict.allowed:
        return "Allowed"
    return "Not seen" if verdict.cut else "Forbidden"


def completeness(verdict: Verdict) -> str:
    """Whether every final state was found, in words."""
    return f"INCOMPLETE: {verdict.cut}" if verdict.cut else "complete"


HEADER = f"{'test':<28} {'verdict':<11} {'states':>6} {'positive':>8} {'schedules':>12}  condition"
"""Head of the table that `row` fills."""


def row(verdict: Verdict) -> str:
    """One line of the table for many tests."""
    notes = [completeness(verdict)] if verdict.cut else []
    notes += [f"contradicted: {text}" for text in verdict.contradictions]
    return (
        f"{verdict.name:<28} {answer(verdict):<11} {len(verdict.states):>6} {verdict.positive_count:>8} "
        f"{verdict.exploration.schedules:>12,}  {verdict.condition.text}{''.join('  ' + note for note in notes)}"
    )


def witness(verdict: Verdict) -> str:
    """A schedule that decides the condition, a line for each step."""
    found = verdict.witness()
    if found is None:
        what = verdict.condition.text.split(None, 1)[1]
        return f"no schedule {'ends without' if verdict.condition.quantifier == 'forall' else 'reaches'} {what}"
    state, steps = found
    values = " ".join(f"{label}={value};" for label, value in zip(verdict.locations, state.values, strict=True))
    return "\n".join([f"A schedule to {values}", *step_lines(verdict, steps)])


def step_lines(verdict: Verdict, steps: Sequence[Step]) -> Iterable[str]:
    """Steps in words."""
    test, layout = verdict.assembled.test, verdict.assembled.layout
    for number, step in enumerate(steps):
        thread = f"P{test.thread_names[step.thread]}"
        if step.instruction is not None:
            line = f"line {step.instruction.line}{', the first of its loads' if step.partial else ''}"
            yield f"{number:>4}  {thread}  {step.instruction.text:<36} {line}"
        elif step.drained is not None:
            yield f"{number:>4}  {thread}  drain: {store(layout, step.drained)}"


def store(layout: Layout, held: Store) -> str:
    """A store as `x=1`, with the place inside the variable and the size where they are not the variable's own."""
    for name, slot in layout.slots.items():
        offset = held.address - slot.address
        if 0 <= offset < slot.size_bytes * len(slot.variable.values):
            whole = offset == 0 and held.size_bytes == slot.size_bytes
            place = name if not offset else f"{name}+{offset}"
            value = held.value - (1 << 8 * held.size_bytes) * (held.value >> 8 * held.size_bytes - 1)
            return f"{place}={value}" + ("" if whole else f" ({held.size_bytes} bytes)")
    return f"{held.address:#x}={held.value} ({held.size_bytes} bytes)"
