"""Replay: follow a tape exactly, in either direction, and check that it is what happened."""

from replayer.compare import describe_event
from replayer.timeline import Timeline
from replayer.verify import ReplayResult, VerifyReport, replay, verify

__all__ = ["ReplayResult", "Timeline", "VerifyReport", "describe_event", "replay", "verify"]
