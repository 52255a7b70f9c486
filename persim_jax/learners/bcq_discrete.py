"""BCQ for discrete actions: double DQN among the actions that the data's policy may have taken.

Fujimoto et al., 2019, "Benchmarking batch deep reinforcement learning algorithms".
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
class DiscreteBCQConfig(DiscreteConfig):
    """Settings of discrete BCQ; hashable.

    Attributes:
      threshold: An action may be chosen if its probability under the imitated policy is at least
        this share of the likeliest action's, in [0, 1]: 0 allows all, which is double DQN, and 1
        the likeliest alone, which is imitation. The authors have 0.3.
      logit_penalty: Weight of the mean squared logit; the authors have 1e-2, d3rlpy 0.5.
    """

    threshold: float = 0.3
    logit_penalty: float = 1e-2

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        super().__post_init__()
        ranges.between(self, 0, 1, "threshold")
        ranges.not_negative(self, "logit_penalty")


def allowed_actions(logits: jax.Array, threshold: float) -> jax.Array:
    """Actions that the data's policy takes often enough.

    `p(a | s) >= threshold * max_a' p(a' | s)`, of which the likeliest action always is one.

    Args:
      logits: Of the imitated policy, `[..., actions]`.
      threshold: In [0, 1].

    Returns:
      `[..., actions]` bool.
    """
    odds = jnp.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds >= threshold


def choose(values: jax.Array, logits: jax.Array, threshold: float) -> jax.Array:
    """The best of the allowed actions.

    Those that are not allowed get minus infinity: a zero instead, as some implementations have it,
    is the largest value wherever all values are negative.

    Args:
      values: `Q(s, .)`, `[..., actions]`.
      logits: `[..., actions]`.
      threshold: In [0, 1].

    Returns:
      `[...]` int32.
    """
    masked = jnp.where(allowed_actions(logits, threshold), values, -jnp.inf)
    return jnp.argmax(masked, axis=-1).astype(jnp.int32)


def imitation_loss(logits: jax.Array, actions: jax.Array, penalty: float) -> jax.Array:
    """`mean(-log p(a_data | s)) + penalty * mean(logits^2)` of `[B, actions]` and `[B]`, `[]`."""
    likelihood = discrete.of_actions(jax.nn.log_softmax(logits, axis=-1), actions)
    return penalty * jnp.square(logits).mean() - likelihood.mean()


def discrete_bcq_loss(
    spec: Spec,
    config: DiscreteBCQConfig,
    params: dict[str, Params],
    state: DiscreteState,
    batch: Transitions,
) -> tuple[jax.Array, Metrics]:
    """Huber loss of double Q-learning among allowed actions plus the imitation's loss.

    The learned networks choose the next action, the target network values it. The two networks
    share nothing, so each learns from its own loss.

    Args:
      spec: Of the task.
      config: Settings.
      params: "q" and "imitation", differentiated; equal to those of `state`, through which no
        gradient flows.
      state: Before the gradient step.
      batch: B transitions.

    Returns:
      The loss `[]`, and metrics: "loss", "q" (mean value of the best action) and "imitation".
    """
    net = discrete.network(spec, config)
    choices = choose(
        net.apply(state.params["q"], batch.next_obs),
        net.apply(state.params["imitation"], batch.next_obs),
        config.threshold,
    )
    next_target_values = net.apply(state.target_params, batch.next_obs)
    targets = discrete.bootstrapped(batch, next_target_values, choices, config.discount)
    values = net.apply(params["q"], batch.obs)
    logits = net.apply(params["imitation"], batch.obs)
    imitation = imitation_loss(logits, batch.actions, config.logit_penalty)
    loss = td_loss(values, batch.actions, targets) + imitation
    return loss, {"loss": loss, "q": values.max(axis=-1).mean(), "imitation": imitation}


@functools.lru_cache(maxsize=64)
def make_discrete_bcq(spec: Spec, config: DiscreteBCQConfig) -> Learner:
    """Builds BCQ for a task with discrete actions.

    Args:
      spec: Of the task.
      config: Settings.

    Returns:
      A learner over `DiscreteState`; `explore` of `act` is the probability of a random action.

    Raises:
      ValueError: If actions are continuous.
    """
    discrete.check_discrete(spec, "discrete BCQ", "make_continuous_bcq")
    net, loss_of = (
        discrete.network(spec, config),
        functools.partial(discrete_bcq_loss, spec, config),
    )

    def init(key: jax.Array) -> DiscreteState:
        # The Q network as in discrete CQL, so that limits of the two can be compared.
        obs = jnp.zeros(spec.obs_size)
        imitation = net.init(jax.random.fold_in(key, 1), obs)
        return discrete.init_state(config, {"q": net.init(key, obs), "imitation": imitation})

    def update(
        key: jax.Array, state: DiscreteState, batch: Transitions
    ) -> tuple[DiscreteState, Metrics]:
        del key  # nothing in the update is random
        return discrete.update_state(config, loss_of, state, batch)

    def act(key: jax.Array, state: DiscreteState, obs: jax.Array, explore: jax.Array) -> jax.Array:
        chance_key, action_key = jax.random.split(key)
        values = net.apply(state.params["q"], obs)
        greedy = choose(values, net.apply(state.params["imitation"], obs), config.threshold)
        explores = jax.random.uniform(chance_key) < explore
        return jnp.where(explores, random_action(action_key, spec), greedy)

    return Learner(init=init, update=update, act=act)
