"""How weights are improved: Adam under a schedule for minibatches, L-BFGS for large ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import lax

from persim_jax import precision as precision_lib
from persim_jax import ranges
from persim_jax.mesh import AUTO
from persim_jax.types import PyTree

MEMORY_SIZE = 30
"""Past steps from which L-BFGS builds its curvature."""
SCHEDULES = ("constant", "cosine", "halve")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How an ensemble is trained; hashable.

    Attributes:
      num_epochs: Passes over the data.
      batch_size: Transitions in a minibatch, for each member.
      learning_rate: Adam's, at the start.
      schedule: "cosine" to zero over all steps, "halve" after every `halve_every` epochs (the
        authors'), or "constant".
      halve_every: Epochs between two halvings.
      weight_decay: Decoupled (AdamW); zero is Adam.
      polish_rounds: Rounds of L-BFGS after the epochs; each draws its transitions afresh.
      polish_steps: L-BFGS steps in a round.
      polish_size: Transitions in a round, for each member; all where there are fewer.
      member_chunk: Members of a device that are trained side by side; 0 is all of them, -1 is 1 on
        a CPU, where small batched products cost three times as much as single ones, and else 0.
      max_epoch_steps: Minibatches in an epoch at most, of data that are drawn afresh each time; 0
        is all of the data. Checkpoints are written between epochs.
      bootstrap: Each member trains on its own sample of the items, as many, with replacement.
      precision: Of the epochs' matrix products, a name in `persim_jax.precision.PRECISIONS`.
        Parameters and sums are float32 in each. Polishing always is "highest": a line search does
        not find its way through losses that are rounded.
    """

    num_epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    halve_every: int = 150
    weight_decay: float = 0.0
    polish_rounds: int = 0
    polish_steps: int = 200
    polish_size: int = 16384
    member_chunk: int = AUTO
    max_epoch_steps: int = 0
    bootstrap: bool = False
    precision: str = "highest"

    @property
    def num_rounds(self) -> int:
        """Epochs and polishing rounds together."""
        return self.num_epochs + self.polish_rounds

    def __post_init__(self) -> None:
        """Refuses what could only fail later, inside a trace."""
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r} is unknown: use one of {SCHEDULES}")
        sizes = ("num_epochs", "batch_size", "halve_every", "polish_steps", "polish_size")
        ranges.counts(self, 1, *sizes)
        ranges.counts(self, 0, "polish_rounds")
        ranges.positive(self, "learning_rate")
        ranges.not_negative(self, "weight_decay")
        if self.max_epoch_steps < 0:
            raise ValueError(
                f"max_epoch_steps is {self.max_epoch_steps}: give a number of minibatches, or 0 "
                "for all of the data"
            )
        if self.member_chunk < AUTO:
            raise ValueError(
                f"member_chunk is {self.member_chunk}: give a number of members, 0 for all or -1"
            )
        precision_lib.check(self.precision)


def steps_per_epoch(config: TrainConfig, num_transitions: int) -> int:
    """Minibatches in an epoch; the last, smaller one is left out, a lone smaller one is kept."""
    steps = max(1, num_transitions // config.batch_size)
    return min(steps, config.max_epoch_steps) if config.max_epoch_steps else steps


def optimizer(config: TrainConfig, num_transitions: int) -> optax.GradientTransformation:
    """Adam or AdamW with the config's schedule, for one member."""
    per_epoch = steps_per_epoch(config, num_transitions)
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = optax.cosine_decay_schedule(config.learning_rate, per_epoch * config.num_epochs)
    elif config.schedule == "halve":
        every = per_epoch * config.halve_every
        rate = optax.exponential_decay(config.learning_rate, every, 0.5, staircase=True)
    return (
        optax.adamw(rate, weight_decay=config.weight_decay)
        if config.weight_decay
        else (optax.adam(rate))
    )


def batch_sizes(config: TrainConfig, num_transitions: int) -> tuple[int, ...]:
    """Transitions that a member sees at once, in an epoch and, if there are any, in a round."""
    sizes = [config.batch_size] + [config.polish_size] * bool(config.polish_rounds)
    return tuple(min(size, num_transitions) for size in sizes)


def relaxed(function: Callable) -> Callable:
    """Runs a function of optax, which mixes scalars and arrays, under JAX's standard promotion."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return call


def lbfgs(
    loss: Callable[[PyTree], jax.Array], weights: PyTree, num_steps: int
) -> tuple[PyTree, jax.Array]:
    """Minimises `loss` from `weights`; returns the new weights and their loss `[]`."""
    method = optax.lbfgs(memory_size=MEMORY_SIZE)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
        weights, opt_state = carry
        value, grad = value_and_grad(weights, state=opt_state)
        updates, opt_state = method.update(
            grad, opt_state, weights, value=value, grad=grad, value_fn=loss
        )
        return (optax.apply_updates(weights, updates), opt_state), None

    start = (weights, relaxed(method.init)(weights))
    (weights, _), _ = lax.scan(relaxed(step), start, length=num_steps)
    return weights, loss(weights)
