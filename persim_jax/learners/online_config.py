"""Settings of the online loop."""

from __future__ import annotations

import dataclasses

from persim_jax import ranges
from persim_jax.learners.base import Schedule


@dataclasses.dataclass(frozen=True)
class OnlineConfig:
    """Settings of the loop; hashable. Steps count those of all environments of one agent together.

    Attributes:
      num_envs: Parallel environments of each agent, E.
      evaluate_every: Steps between two evaluations, a multiple of E.
      budget: Steps after which training ends whatever was reached.
      capacity: Rows of the replay buffer.
      warm_up: Steps before the first gradient step.
      batch_size: Rows that `Learner.update` gets at a time.
      updates: Gradient steps after each step of all E environments.
      explore: What `Learner.act` gets as `explore`, by step.
      hold: Probability, by step, with which an environment begins to hold one random action.
      max_hold: A held action lasts 1 to this many steps. 1 makes `hold` an epsilon-greedy; longer
        ones reach what single random steps do not (Dabney et al., 2021).
      episodes: Of one evaluation.
      episode_steps: Steps after which an episode of training is cut short, for more beginnings in
        the data; 0 is the time limit. Evaluation always goes to the time limit.
      sequential: Whether agents are trained one after the other within a round, where one that has
        reached its target costs nothing: right on a CPU that one learner fills. Side by side is
        right where networks are tiny, and on an accelerator.
    """

    num_envs: int = 8
    evaluate_every: int = 1000
    budget: int = 400_000
    capacity: int = 50_000
    warm_up: int = 1000
    batch_size: int = 128
    updates: int = 1
    explore: Schedule = Schedule(0.0, 0.0, 0)
    hold: Schedule = Schedule(1.0, 0.05, 50_000)
    max_hold: int = 1
    episodes: int = 100
    episode_steps: int = 0
    sequential: bool = False

    def __post_init__(self) -> None:
        """Refuses settings that the loop would round without a word, or fail with in a trace."""
        sizes = ("num_envs", "capacity", "batch_size", "updates", "max_hold", "episodes")
        ranges.counts(self, 1, *sizes)
        ranges.counts(self, 0, "episode_steps")
        if self.evaluate_every < 1 or self.evaluate_every % self.num_envs:
            raise ValueError(
                f"evaluate_every is {self.evaluate_every}: make it a positive multiple of the "
                f"{self.num_envs} environments"
            )
        if self.warm_up < self.num_envs:
            raise ValueError(
                f"warm_up is {self.warm_up}: the buffer is empty before the first {self.num_envs} "
                "steps, let it be at least those"
            )
        if self.capacity < self.num_envs:
            raise ValueError(
                f"capacity is {self.capacity}: a step of {self.num_envs} environments makes as "
                "many rows, let it hold at least those"
            )
        if not all(0 <= share <= 1 for share in self.hold[:2]):
            raise ValueError(f"hold is {self.hold}: give probabilities, from 0 to 1")

    @property
    def last_step(self) -> int:
        """The step of the last evaluation: the budget, rounded up to whole rounds."""
        return -(-self.budget // self.evaluate_every) * self.evaluate_every
