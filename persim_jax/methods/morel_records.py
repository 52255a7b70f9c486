"""Settings of MOReL and the records that its training goes on from."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax

from persim_jax import ranges
from persim_jax.learners.natural_gradient import NaturalGradientConfig, NaturalGradientState
from persim_jax.normalizer import Normalizer
from persim_jax.pessimism import check_distance
from persim_jax.training import TrainConfig, TrainState
from persim_jax.types import Metrics, Transitions

AUTO = -1
GOOD = -1
"""`diverged_at` of a lane that did not diverge, and `diverged_member` of one whose members did not.
"""


class PathConfig(NamedTuple):
    """Settings of imagined episodes and of how many are imagined together; see `MorelConfig`."""

    ensemble_size: int
    num_paths: int
    horizon: int
    chunk: int
    width: int
    discount: float


@dataclasses.dataclass(frozen=True)
class MorelConfig:
    """Settings of MOReL; hashable.

    Attributes:
      train: How the ensemble is trained; a batch larger than a lane's data is cut to them.
      learner: Of the policy.
      hidden: Widths of a member's layers.
      activation: Of a member.
      ensemble_size: M.
      pessimism_coef: The threshold is the largest disagreement in the data divided by this; 0 marks
        nothing unknown.
      distance: Of the disagreement, a name in `pessimism.DISTANCES`.
      num_iterations: Policy updates, a multiple of `chunk`.
      num_paths: Imagined episodes of an update, a multiple of M: each member makes as many.
      horizon: Their length at most; 0 is that of the task's episodes. One that is cut off goes on
        in the value network's eyes.
      buffer_share: Share of the episodes that begin in any state of the data and not in the first
        of a trajectory.
      chunk: Updates of one compiled call, between which a run can be resumed.
      width: Lanes side by side, 0 for all and -1 for 1 on a CPU, where small batched products are
        slow, and all elsewhere.
    """

    train: TrainConfig = TrainConfig(num_epochs=30, batch_size=256)
    learner: NaturalGradientConfig = NaturalGradientConfig()
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "relu"
    ensemble_size: int = 4
    pessimism_coef: float = 1.0
    distance: str = "raw"
    num_iterations: int = 100
    num_paths: int = 100
    horizon: int = 0
    buffer_share: float = 0.0
    chunk: int = 5
    width: int = AUTO

    def __post_init__(self) -> None:
        """Refuses settings that would silently be rounded or fail inside a trace."""
        ranges.counts(self, 1, "ensemble_size", "num_iterations", "num_paths", "chunk")
        if self.num_paths % self.ensemble_size:
            raise ValueError(
                f"num_paths is {self.num_paths}: make it a multiple of ensemble_size, "
                f"{self.ensemble_size}, so that each member makes as many"
            )
        if self.num_iterations % self.chunk:
            raise ValueError(
                f"num_iterations is {self.num_iterations}: make it a multiple of chunk, "
                f"{self.chunk}"
            )
        if self.train.polish_rounds:
            raise ValueError(
                f"train.polish_rounds is {self.train.polish_rounds}: MOReL's members are trained "
                "by epochs alone, set it to 0"
            )
        check_distance(self.distance)
        ranges.between(self, 0, 1, "buffer_share")
        ranges.at_least(self, 0, "pessimism_coef")
        ranges.counts(self, 0, "horizon")
        ranges.counts(self, AUTO, "width")
        ranges.widths(self, "hidden")

    @property
    def paths(self) -> PathConfig:
        """What the program of the policy's updates depends on."""
        shared = {name: getattr(self, name) for name in PathConfig._fields[:-1]}
        return PathConfig(discount=self.learner.discount, **shared)

    @property
    def num_steps(self) -> int:
        """Epochs and policy updates together."""
        return self.train.num_epochs + self.num_iterations


class Lane(NamedTuple):
    """What one policy is learned from; L of them have leaves `[L, ...]`.

    Attributes:
      key: Root of all that is random.
      data: Transitions, leaves `[B, ...]`, agent 0; those past `size` repeat the first ones.
      size: `[]` int32, how many there are.
      starts: Observations of which trajectories took their first steps, `[S, D]`.
      normalizer: Of the observations, for policy and values.
      lowest: `[]`, smallest reward in the data.
      highest: `[]`, largest.
    """

    key: jax.Array
    data: Transitions
    size: jax.Array
    starts: jax.Array
    normalizer: Normalizer
    lowest: jax.Array
    highest: jax.Array


class Knowledge(NamedTuple):
    """What an ensemble knows, by lane.

    Attributes:
      threshold: `[L]`, disagreement above which it knows nothing.
      scale: `[L, D]`, of the disagreement.
      unknown: `[L]`, share of the data that it marks unknown.
    """

    threshold: jax.Array
    scale: jax.Array
    unknown: jax.Array


class MorelState(NamedTuple):
    """Everything that training goes on from, so that a resumed run repeats an unbroken one.

    Attributes:
      step: `[]` int32, epochs and policy updates so far.
      models: The ensembles, leaves `[L, ...]`.
      learner: The policies, leaves `[L, ...]`.
      diverged_at: `[L]` int32, the step, the first being 1, at which a lane left the finite
        numbers, or `GOOD`. Such a lane stays as it was before.
      diverged_member: `[L]` int32, the member that did, or `GOOD` if none.
      metrics: Of the last updates, `[L]` each: "return", the mean undiscounted one of imagined
        episodes; "unknown", the share of their steps that led into HALT; "halted", the share of
        episodes that ended there; "value_loss"; "gain".
    """

    step: jax.Array
    models: TrainState
    learner: NaturalGradientState
    diverged_at: jax.Array
    diverged_member: jax.Array
    metrics: Metrics


METRICS = ("return", "unknown", "halted", "value_loss", "gain")
