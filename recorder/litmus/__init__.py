"""Litmus tests: small programs of two or more threads, every schedule of them, and what can come of it.

parse_file, parse: a file in herd's X86 or X86_64 format.
assemble: machine code for any number of tests.
explore, reduce: all schedules of one, by its states or by its classes of equivalent schedules.
judge: all final states under x86-TSO ("tso"), sequential consistency ("sc") or preemption on one CPU ("up").
"""

from __future__ import annotations

from recorder.litmus import report
from recorder.litmus.assembler import Assembled, assemble
from recorder.litmus.errors import LitmusError
from recorder.litmus.explore import MODELS, STATES_MAX, Exploration, explore
from recorder.litmus.parser import parse, parse_file
from recorder.litmus.program import LitmusTest
from recorder.litmus.reduction import Reduction, reduce
from recorder.litmus.verdict import SEARCHES, State, Verdict, judge

__all__ = [
    "MODELS",
    "SEARCHES",
    "STATES_MAX",
    "Assembled",
    "Exploration",
    "LitmusError",
    "LitmusTest",
    "Reduction",
    "State",
    "Verdict",
    "assemble",
    "explore",
    "judge",
    "parse",
    "parse_file",
    "reduce",
    "report",
]
