"""Natural policy gradient (Kakade, 2001), as MOReL plans with it in its pessimistic model.

An update takes advantages from episodes of the policy itself (`advantages`), takes the natural
gradient step that they point to (`natural_step`) and regresses a value network on what they
promise. Behavior cloning comes before the first of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from persim_jax import ranges
from persim_jax.learners.advantages import gae, whiten
from persim_jax.learners.behavior_cloning import adam, clone_behavior
from persim_jax.learners.natural_step import improve
from persim_jax.learners.policies import PolicyConfig, StochasticPolicy, make_policy
from persim_jax.networks import MLP
from persim_jax.types import Metrics, Params, Spec, Trajectory, Transitions


@dataclasses.dataclass(frozen=True)
class NaturalGradientConfig:
    """Settings of the learner; hashable.

    Attributes:
      policy: Of the policy.
      discount: Of a reward one step later.
      gae_lambda: See `advantages.gae`.
      max_kl: delta, the divergence of one update to second order; mjrl's step_size is twice this.
      cg_steps: Conjugate gradient steps.
      damping: What is added to the Fisher matrix's diagonal.
      fisher_every: Use one of so many samples in the Fisher products.
      backtracks: Halvings, at most, of a step that goes farther than `max_kl`; 0 takes each as it
        is.
      value_hidden: Widths of the value network's ReLU layers.
      value_rate: Adam's rate for it.
      value_steps: Adam's steps in an update.
      value_batch: Samples of a step, drawn with replacement.
      clone_steps: Adam's steps of behavior cloning before the first update; 0 is none.
      clone_rate: Their rate.
      clone_batch: Transitions of a step, drawn with replacement.
    """

    policy: PolicyConfig = PolicyConfig()
    discount: float = 0.99
    gae_lambda: float = 0.97
    max_kl: float = 0.01
    cg_steps: int = 20
    damping: float = 1e-3
    fisher_every: int = 1
    backtracks: int = 10
    value_hidden: tuple[int, ...] = (64, 64)
    value_rate: float = 1e-3
    value_steps: int = 100
    value_batch: int = 256
    clone_steps: int = 500
    clone_rate: float = 1e-3
    clone_batch: int = 256

    def __post_init__(self) -> None:
        """Refuses what could only fail later, inside a trace."""
        sizes = ("cg_steps", "fisher_every", "value_steps", "value_batch", "clone_batch")
        ranges.counts(self, 1, *sizes)
        ranges.counts(self, 0, "backtracks", "clone_steps")
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount is {self.discount}: it must lie in (0, 1]")
        ranges.between(self, 0, 1, "gae_lambda")
        ranges.not_negative(self, "damping")
        ranges.positive(self, "max_kl", "value_rate", "clone_rate")
        ranges.widths(self, "value_hidden")


@chex.dataclass(frozen=True)
class NaturalGradientState:
    """What the learner has learned.

    Attributes:
      params: Of the policy.
      value_params: Of the value network.
      value_opt: Adam's state.
    """

    params: Params
    value_params: Params
    value_opt: optax.OptState


class NaturalGradient(NamedTuple):
    """The learner as a record of pure functions; many learn at once through `vmap`.

    Attributes:
      policy: What it improves.
      init: `(key) -> state`; the key is consumed.
      clone: `(key, state, data, size []) -> state`: behavior cloning of the first `size`
        transitions; the key is consumed.
      update: `(key, state, episodes) -> (state, metrics)` with `Trajectory` leaves `[P, T, ...]`
        that the state's own policy made; the key is consumed. Returns should be of the order of 1,
        which the value network is made for; the policy's step does not depend on their scale.
    """

    policy: StochasticPolicy
    init: Callable[[jax.Array], NaturalGradientState]
    clone: Callable[[jax.Array, NaturalGradientState, Transitions, jax.Array], NaturalGradientState]
    update: Callable[
        [jax.Array, NaturalGradientState, Trajectory], tuple[NaturalGradientState, Metrics]
    ]


@functools.lru_cache
def make_natural_gradient(spec: Spec, config: NaturalGradientConfig) -> NaturalGradient:
    """Makes the learner of a task; the same for the same arguments."""
    policy = make_policy(spec, config.policy)
    value_net = MLP((*config.value_hidden, 1))

    def init(key: jax.Array) -> NaturalGradientState:
        key_policy, key_value = jax.random.split(key)
        value_params = value_net.init(key_value, jnp.zeros(spec.obs_size))
        return NaturalGradientState(
            params=policy.init(key_policy),
            value_params=value_params,
            value_opt=adam(config.value_rate).init(value_params),
        )

    def clone(
        key: jax.Array, state: NaturalGradientState, data: Transitions, size: jax.Array
    ) -> NaturalGradientState:
        params = clone_behavior(
            key, policy, state.params, data, size,
            config.clone_steps, config.clone_batch, config.clone_rate,
        )  # fmt: skip
        return state.replace(params=params)  # type: ignore[attr-defined,no-any-return]

    def update(
        key: jax.Array, state: NaturalGradientState, episodes: Trajectory
    ) -> tuple[NaturalGradientState, Metrics]:
        values = value_net.apply(state.value_params, episodes.obs)[..., 0]
        estimate = functools.partial(gae, discount=config.discount, gae_lambda=config.gae_lambda)
        advantages, targets = jax.vmap(estimate)(episodes, values)
        advantages = whiten(advantages, episodes.mask)
        obs, actions, mask, advantages, targets = (
            leaf.reshape(-1, *leaf.shape[2:])
            for leaf in (
                episodes.obs[:, :-1], episodes.actions, episodes.mask, advantages, targets
            )
        )  # fmt: skip
        weights = mask.astype(obs.dtype)
        params, step = improve(
            policy, state.params, obs, actions, weights, advantages,
            config.max_kl, config.damping, config.cg_steps, config.fisher_every, config.backtracks,
        )  # fmt: skip
        value_params, value_opt, value_loss = _fit_values(
            key, value_net, config, state, obs, targets, mask
        )
        metrics = {"return": episodes.rewards.sum(axis=1).mean(), "value_loss": value_loss, **step}
        new = NaturalGradientState(params=params, value_params=value_params, value_opt=value_opt)
        return new, metrics

    return NaturalGradient(policy, init, clone, update)


def _fit_values(
    key: jax.Array,
    value_net: MLP,
    config: NaturalGradientConfig,
    state: NaturalGradientState,
    obs: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
) -> tuple[Params, optax.OptState, jax.Array]:
    """Regresses the values on their targets; returns their mean squared error, too."""
    optimizer = adam(config.value_rate)

    def loss(params: Params, obs: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.square(value_net.apply(params, obs)[..., 0] - targets).mean()

    def step(carry: Any, places: jax.Array) -> tuple[Any, jax.Array]:
        params, opt_state = carry
        value, gradient = jax.value_and_grad(loss)(params, obs[places], targets[places])
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    # The n-th sample that counts is where the running count passes n.
    counts = jnp.cumsum(mask, dtype=jnp.int32)
    draws = jax.random.randint(key, (config.value_steps, config.value_batch), 0, counts[-1])
    places = jnp.searchsorted(counts, draws, side="right")
    carry = (state.value_params, state.value_opt)
    (params, opt_state), losses = jax.lax.scan(step, carry, places)
    return params, opt_state, losses.mean()
