"""Recording: drive a machine under a schedule and write a tape."""

from recorder.record import Prepared, Summary, prepare, record
from recorder.schedule import Strategy
from recorder.strategies import STRATEGIES, Default, RandomWalk, Replay, strategy

__all__ = [
    "STRATEGIES",
    "Default",
    "Prepared",
    "RandomWalk",
    "Replay",
    "Strategy",
    "Summary",
    "prepare",
    "record",
    "strategy",
]
