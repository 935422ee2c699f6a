"""The commands, one module per topic. Importing this package registers them all."""

from debugger.commands import general, inspect, memory, time, watch

__all__ = ["general", "inspect", "memory", "time", "watch"]
