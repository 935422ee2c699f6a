"""Driving our own core by plans, without the recorder."""

from __future__ import annotations

import random
import struct

from machine import Machine, _core, images

TIMER_VECTOR = 0xEF
STEP_MAX = 40_000_000


def step(op: int, cpu: int, count: int, flags: int = 0) -> bytes:
    return struct.pack("<BBHIQ", op, cpu, flags, 0, count)


def run_default(machine: Machine, step_max: int = STEP_MAX) -> str:
    """The default schedule to the end; the reason why it stopped."""
    return machine.execute(step(_core.AUTO, 0, step_max))[0]


def boot_to_ready(name: str, cpus: int = 1, command_line: str = "") -> Machine:
    scenario = next(row for row in images.scenarios() if row.flavour == name.split("-")[0])
    machine = Machine(cpus=cpus, ram_bytes=scenario.ram_bytes)
    images.boot(machine, images.image_bytes(name), command_line or scenario.command_line)
    machine.stop_at_trace = 1
    assert run_default(machine) == "trace"
    machine.stop_at_trace = 0
    return machine


def random_plan(seed: int, cpus: int, pieces: int = 250) -> bytes:
    """Switches, held stores, drains and timer ticks anywhere, then the default schedule."""
    chance = random.Random(seed)
    plan = []
    for _ in range(pieces):
        cpu = chance.randrange(cpus)
        flags = _core.HOLD if seed % 2 and chance.random() < 0.5 else 0
        plan.append(step(_core.RUN, cpu, chance.choice([1, 5, 50, 500, 1500]), flags))
        if chance.random() < 0.5:
            plan.append(step(_core.DRAIN, chance.randrange(cpus), chance.randrange(1, 5)))
        if chance.random() < 0.6:
            plan.append(step(_core.IRQ, chance.randrange(cpus), TIMER_VECTOR))
    return b"".join([*plan, step(_core.AUTO, 0, STEP_MAX)])
