"""CQL for discrete actions: double DQN that is kept from overrating actions the data lack.

CQL(H) of Kumar et al., 2020: the TD loss plus `weight * mean(logsumexp_a Q(s, a) - Q(s, a_data))`.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from persim_jax import ranges
from persim_jax.learners import discrete
from persim_jax.learners.base import Learner, random_action
from persim_jax.learners.discrete import DiscreteConfig, DiscreteState
from persim_jax.learners.dqn import td_loss
from persim_jax.types import Metrics, Params, Spec, Transitions


@dataclasses.dataclass(frozen=True)
class DiscreteCQLConfig(DiscreteConfig):
    """Settings of discrete CQL; hashable.

    Attributes:
      weight: Of the conservative term. 0 is double DQN; d3rlpy has 1, the authors 1 or 4 on Atari.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        super().__post_init__()
        ranges.not_negative(self, "weight")


def conservative_gap(values: jax.Array, actions: jax.Array) -> jax.Array:
    """How far the soft maximum over actions lies above the value of the action in the data.

    `mean_B(logsumexp_a Q(s, a) - Q(s, a_data))`, at least 0.

    Args:
      values: `Q(s, .)`, `[B, actions]`.
      actions: `[B]` int32, those of the data.

    Returns:
      `[]`.
    """
    return (jax.nn.logsumexp(values, axis=-1) - discrete.of_actions(values, actions)).mean()


def discrete_cql_loss(
    spec: Spec,
    config: DiscreteCQLConfig,
    params: dict[str, Params],
    state: DiscreteState,
    batch: Transitions,
) -> tuple[jax.Array, Metrics]:
    """Huber loss of double Q-learning plus the weighted conservative gap.

    Args:
      spec: Of the task.
      config: Settings.
      params: Differentiated; equal to those of `state`, through which no gradient flows.
      state: Before the gradient step.
      batch: B transitions.

    Returns:
      The loss `[]`, and metrics: "loss", "q" (mean value of the best action) and "gap".
    """
    net = discrete.network(spec, config)
    next_target_values = net.apply(state.target_params, batch.next_obs)
    choices = jnp.argmax(net.apply(state.params["q"], batch.next_obs), axis=-1)
    targets = discrete.bootstrapped(batch, next_target_values, choices, config.discount)
    values = net.apply(params["q"], batch.obs)
    gap = conservative_gap(values, batch.actions)
    loss = td_loss(values, batch.actions, targets) + config.weight * gap
    return loss, {"loss": loss, "q": values.max(axis=-1).mean(), "gap": gap}


@functools.lru_cache(maxsize=64)
def make_discrete_cql(spec: Spec, config: DiscreteCQLConfig) -> Learner:
    """Builds CQL for a task with discrete actions.

    Args:
      spec: Of the task.
      config: Settings.

    Returns:
      A learner over `DiscreteState`; `explore` of `act` is the probability of a random action.

    Raises:
      ValueError: If actions are continuous.
    """
    discrete.check_discrete(spec, "discrete CQL", "make_continuous_cql")
    net, loss_of = (
        discrete.network(spec, config),
        functools.partial(discrete_cql_loss, spec, config),
    )

    def init(key: jax.Array) -> DiscreteState:
        return discrete.init_state(config, {"q": net.init(key, jnp.zeros(spec.obs_size))})

    def update(
        key: jax.Array, state: DiscreteState, batch: Transitions
    ) -> tuple[DiscreteState, Metrics]:
        del key  # nothing in the update is random
        return discrete.update_state(config, loss_of, state, batch)

    def act(key: jax.Array, state: DiscreteState, obs: jax.Array, explore: jax.Array) -> jax.Array:
        chance_key, action_key = jax.random.split(key)
        greedy = jnp.argmax(net.apply(state.params["q"], obs)).astype(jnp.int32)
        explores = jax.random.uniform(chance_key) < explore
        return jnp.where(explores, random_action(action_key, spec), greedy)

    return Learner(init=init, update=update, act=act)
