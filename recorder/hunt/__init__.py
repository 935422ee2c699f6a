"""Hunting: many schedules of one scenario, until one fails or the budget is spent."""

from recorder.hunt.checks import Check, Checks, Failure, ending_failure, endings_only
from recorder.hunt.search import Found, Search, Tally, schedule_seed
from recorder.hunt.verdict import Hunt, Verdict, hunt

__all__ = [
    "Check",
    "Checks",
    "Failure",
    "Found",
    "Hunt",
    "Search",
    "Tally",
    "Verdict",
    "ending_failure",
    "endings_only",
    "hunt",
    "schedule_seed",
]
