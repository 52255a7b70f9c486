"""How a procedure is judged: what is held out, and by which thresholds agents are trusted."""

from __future__ import annotations

import dataclasses

from persim_jax import ranges


class CannotJudgeError(ValueError):
    """There are too few agents or steps for any verdict."""


@dataclasses.dataclass(frozen=True)
class TrustConfig:
    """Thresholds of the verdict on one agent; errors are in standard deviations of a coordinate.

    An agent is trusted up to the largest h such that for each number of steps from `min_steps` to h
    the root mean square error over these steps is below `max_error`, and below that of assuming
    that nothing changes. Queries far from the data, or intervals that miss, are no trust.

    Attributes:
      max_error: Largest error over the first h steps.
      negligible: Error that is good enough however little changes, and wherever the queries lie.
      min_steps: Fewest steps that are of any use; all of the agent's where it has fewer.
      max_outside: Largest share of the agent's queries outside the support of the data.
      min_coverage: Least share of the agent's values in its rescaled 95 % intervals.
    """

    max_error: float = 0.5
    negligible: float = 0.05
    min_steps: int = 5
    max_outside: float = 0.5
    min_coverage: float = 0.6

    def __post_init__(self) -> None:
        """Refuses thresholds that all agents or none would pass."""
        if not self.max_error > 0:
            raise ValueError(f"max_error is {self.max_error}: it must be above 0")
        ranges.at_least(self, 0, "negligible")
        ranges.count("min_steps", self.min_steps)
        ranges.between(self, 0, 1, "max_outside", "min_coverage")


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """What is held out and how it is scored; hashable.

    Attributes:
      tail_share: Last part of each known agent's steps, which training does not see.
      agent_share: Agents that training does not see at all.
      transitions: k, steps from which a held-out agent is personalized; those after are predicted.
      horizon: H, steps that are predicted open loop; fewer where no record is long enough.
      max_windows: Starts of predictions within one agent's record, H steps apart.
      num_particles: Guesses of a held-out agent's factors for each member.
      levels: Nominal coverage of the intervals.
      steps: Steps at which coverage and errors are told.
      num_bootstraps: Draws of agents behind an interval.
      trust: Thresholds of the verdicts.
    """

    tail_share: float = 0.2
    agent_share: float = 0.1
    transitions: int = 20
    horizon: int = 50
    max_windows: int = 4
    num_particles: int = 4
    levels: tuple[float, ...] = (0.5, 0.8, 0.95)
    steps: tuple[int, ...] = (1, 10, 50)
    num_bootstraps: int = 1000
    trust: TrustConfig = TrustConfig()

    def __post_init__(self) -> None:
        """Refuses shares and numbers without sense."""
        for name in ("tail_share", "agent_share"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be between 0 and 1")
        for name in ("transitions", "horizon", "max_windows", "num_particles", "num_bootstraps"):
            ranges.count(name, getattr(self, name))
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise ValueError(f"levels are {self.levels}: give some between 0 and 1")
        if not self.steps:
            raise ValueError("steps are empty: name those at which coverage and errors are told")
        for step in self.steps:
            ranges.count("one of steps", step)
