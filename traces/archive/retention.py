"""Which tapes an archive keeps. A tape stays if any rule keeps it; without rules, all stay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from traces.archive.catalogue import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What to keep.

    Attributes:
        days: tapes first archived less than so many days ago.
        per_signature: of each scenario and failure signature the so many shortest (fewest steps; of equal ones those
            archived first). Those that did not fail count as one signature for each variant and configuration.
        tags: tapes with any of these tags.
    """

    days: float | None = None
    per_signature: int | None = None
    tags: tuple[str, ...] = ()

    @property
    def any(self) -> bool:
        return self.days is not None or self.per_signature is not None or bool(self.tags)


def to_remove(rows: Sequence[Row], rules: Rules, now: float) -> list[Row]:
    """The tapes that no rule keeps, in the order given; none if there is no rule.

    now: the time, in seconds since 1970.
    """
    if not rules.any:
        return []
    kept = {row.tape for row in rows if not set(rules.tags).isdisjoint(row.tags)}
    if rules.days is not None:
        kept |= {row.tape for row in rows if now - row.time < rules.days * 86400}
    if rules.per_signature is not None:
        groups = defaultdict[tuple[str, ...], list[Row]](list)
        for row in rows:
            facts = row.facts
            passed = (facts.variant, facts.configuration) if row.signature is None else (row.signature,)
            groups[facts.scenario, *passed].append(row)
        for group in groups.values():
            group.sort(key=lambda row: (row.facts.steps, row.time, row.tape))
            kept |= {row.tape for row in group[: rules.per_signature]}
    return [row for row in rows if row.tape not in kept]
