"""Replay: follow a tape exactly, in either direction, and check that it is what happened."""

from replayer.compare import describe_event
from replayer.rebuild import Rebuilt, rebuild
from replayer.timeline import Timeline
from replayer.verify import ReplayResult, VerifyReport, replay, verify

__all__ = ["Rebuilt", "ReplayResult", "Timeline", "VerifyReport", "describe_event", "rebuild", "replay", "verify"]
