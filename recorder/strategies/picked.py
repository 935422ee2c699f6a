"""What strategies by visible steps have in common: the core makes all of a run by one policy, its manner is drawn."""

from __future__ import annotations

from machine import Machine
from recorder.profile import Manner, Profile
from recorder.schedule import pick
from recorder.strategies.draws import Draws
from traces.schema import RecordArray


class Picked:
    """See the module.

    Attributes:
        policy: of the core's PICK.
        depth: of the current run, if the policy is PCT; else 0.
        manner: of the current run.
    """

    exact = False
    visible = True
    stop = "steps"
    policy: int
    depth = 0

    def __init__(self) -> None:
        self.profile = Profile(1)
        self.manner = Manner()

    def expect(self, profile: Profile) -> None:
        """How many visible steps there are to a run."""
        self.profile = profile

    @property
    def steps(self) -> int:
        """Visible steps that the current run is thought to have."""
        return self.profile.visible_steps(self.manner)

    def new_run(self, machine: Machine, seed: int) -> None:
        """Draw the manner."""
        self.draws = Draws(seed)
        self.manner = self.draws.manner(machine)

    def choose(self, machine: Machine) -> RecordArray:
        """All the rest of the run."""
        return pick(self.policy, self.draws.word(), self.manner, depth=self.depth, steps=self.steps)

    def answer(self, machine: Machine, cpu: int) -> int:
        """0 or 1: legal wherever there is a choice at all, but the recorder falls back to 0."""
        return self.draws.below(2)
