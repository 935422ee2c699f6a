"""Hunting: many schedules of one scenario, until one fails or the budget is spent."""

from recorder.hunt.checks import Check, Checks, Failure, ending_failure, endings_only, freed_failure
from recorder.hunt.search import Found, Search, Tally, schedule_seed
from recorder.hunt.systematic import SYSTEMATIC, Extent, Systematic
from recorder.hunt.verdict import Hunt, PctBound, Verdict, hunt

__all__ = [
    "SYSTEMATIC",
    "Check",
    "Checks",
    "Extent",
    "Failure",
    "Found",
    "Hunt",
    "PctBound",
    "Search",
    "Systematic",
    "Tally",
    "Verdict",
    "ending_failure",
    "endings_only",
    "freed_failure",
    "hunt",
    "schedule_seed",
]
