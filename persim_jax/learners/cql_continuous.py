"""CQL for continuous actions: SAC whose critics are kept low where the data have no actions.

CQL(H) of Kumar et al., 2020, with a fixed weight or with one that a Lagrange multiplier sets.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from persim_jax import ranges
from persim_jax.learners import continuous, sac
from persim_jax.learners.base import Learner
from persim_jax.learners.continuous import adam, critic_values, descend
from persim_jax.learners.sac import SACConfig, SACState
from persim_jax.types import Metrics, Params, Spec, Transitions

MAX_MULTIPLIER = 1e6


@dataclasses.dataclass(frozen=True)
class ContinuousCQLConfig(SACConfig):
    """Settings of continuous CQL; hashable.

    Attributes:
      weight: Of the conservative term; 0 is SAC. Authors and d3rlpy have 5 or 10.
      num_samples: Actions of each of the three kinds in the soft maximum.
      threshold: Gap, in units of value and after `weight`, that the multiplier holds; negative:
        there is no multiplier. The authors have 5 or 10, of a sum over samples where we take their
        mean: their gap is larger by `weight` times log(3 `num_samples`).
      multiplier_rate: Learning rate of the multiplier, which starts at 1.
    """

    weight: float = 5.0
    num_samples: int = 10
    threshold: float = -1.0
    multiplier_rate: float = 1e-4

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant."""
        super().__post_init__()
        ranges.not_negative(self, "weight")
        ranges.counts(self, 1, "num_samples")
        ranges.positive(self, "multiplier_rate")
        if not math.isfinite(self.threshold):
            raise ValueError(
                f"threshold is {self.threshold}: give a gap, or a negative number for no multiplier"
            )


@chex.dataclass(frozen=True)
class ContinuousCQLState:
    """What continuous CQL has learned.

    Attributes:
      sac: Everything of SAC.
      log_multiplier: `[]`, of the Lagrange multiplier; 0 and untouched without one.
      opt_state: Of the multiplier's Adam.
    """

    sac: SACState
    log_multiplier: jax.Array
    opt_state: optax.OptState


def drawn_actions(
    key: jax.Array, spec: Spec, config: ContinuousCQLConfig, actor: Params, batch: Transitions
) -> tuple[jax.Array, jax.Array]:
    """Actions at which the soft maximum over all actions is estimated.

    Args:
      key: Consumed.
      spec: Of the task.
      config: Settings; n is `num_samples`.
      actor: Of the policy; no gradient flows back to it.
      batch: B transitions.

    Returns:
      Unit actions `[B, 3 n, A]`, of the policy in s and in s' and uniform ones, and the log density
      `[B, 3 n]` that each was drawn with: its importance is the inverse.
    """
    here_key, next_key, uniform_key = jax.random.split(key, 3)

    def of_policy(key: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        many = jnp.repeat(obs[:, None], config.num_samples, axis=1)
        return sac.sample_actions(key, spec, config, actor, many)

    here, here_density = of_policy(here_key, batch.obs)
    following, next_density = of_policy(next_key, batch.next_obs)
    uniform = jax.random.uniform(uniform_key, here.shape, here.dtype, -1.0, 1.0)
    uniform_density = jnp.full(here_density.shape, spec.action_size * jnp.log(0.5))
    actions = jnp.concatenate([here, following, uniform], axis=1)
    densities = jnp.concatenate([here_density, next_density, uniform_density], axis=1)
    return jax.lax.stop_gradient(actions), jax.lax.stop_gradient(densities)


def conservative_gap(
    data_values: jax.Array, drawn_values: jax.Array, densities: jax.Array
) -> jax.Array:
    """How far the soft maximum over actions lies above the value of the action in the data.

    `mean_B(log(1/n sum_j exp(Q(s, a_j)) / p(a_j)) - Q(s, a_data))`: the sum estimates the integral
    of exp(Q) over all actions.

    Args:
      data_values: `[2, B]`.
      drawn_values: `[2, B, n]`, at actions drawn with the densities `exp(densities)`.
      densities: `[B, n]`, logarithms.

    Returns:
      Sum over the two critics, `[]`.
    """
    weighted = drawn_values - densities[None]
    soft = jax.nn.logsumexp(weighted, axis=-1) - jnp.log(float(densities.shape[-1]))
    return (soft - data_values).mean(axis=1).sum()


@functools.lru_cache(maxsize=64)
def make_continuous_cql(spec: Spec, config: ContinuousCQLConfig) -> Learner:
    """Builds CQL for a task with continuous actions.

    Args:
      spec: Of the task.
      config: Settings.

    Returns:
      A learner over `ContinuousCQLState`; `explore` of `act` scales the policy's own noise.

    Raises:
      ValueError: If actions are discrete.
    """
    continuous.check_continuous(spec, "continuous CQL", "make_discrete_cql")

    def init(key: jax.Array) -> ContinuousCQLState:
        log_multiplier = jnp.zeros(())
        return ContinuousCQLState(
            sac=sac.init_sac(spec, config, key),
            log_multiplier=log_multiplier,
            opt_state=adam(config.multiplier_rate).init(log_multiplier),
        )

    def act(key: jax.Array, state: Any, obs: jax.Array, explore: jax.Array) -> jax.Array:
        return sac.act_sac(spec, config, key, state.sac, obs, explore)

    return Learner(init=init, update=functools.partial(_update, spec, config), act=act)


def _update(
    spec: Spec,
    config: ContinuousCQLConfig,
    key: jax.Array,
    state: ContinuousCQLState,
    batch: Transitions,
) -> tuple[ContinuousCQLState, Metrics]:
    # The first two keys as in SAC, which this is where the weight is 0.
    target_key, actor_key = jax.random.split(key)
    targets = sac.sac_targets(target_key, spec, config, state.sac, batch)
    actions = continuous.to_unit(spec, batch.actions)
    drawn_key = jax.random.fold_in(key, 2)  # 0 and 1 are those of the split
    drawn, densities = drawn_actions(drawn_key, spec, config, state.sac.actor, batch)
    many = jnp.repeat(batch.obs[:, None], drawn.shape[1], axis=1)
    lagrange = config.threshold >= 0
    # Two critics, so that the threshold, which is that of one, counts twice.
    threshold = 2.0 * config.threshold if lagrange else 0.0
    multiplier = jnp.clip(jnp.exp(state.log_multiplier), 0.0, MAX_MULTIPLIER)

    def loss_of(critics: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
        values = critic_values(config.hidden, critics, batch.obs, actions)
        drawn_values = critic_values(config.hidden, critics, many, drawn)
        gap = conservative_gap(values, drawn_values, densities)
        error = sac.td_error(values, targets)
        scale = multiplier if lagrange else 1.0
        return error + scale * (config.weight * gap - threshold), (error, values.mean(), gap)

    gradient, (error, q, gap) = jax.grad(loss_of, has_aux=True)(state.sac.critics)
    base: Any = state.sac
    opt_states = dict(base.opt_states)
    critics, opt_states["critics"] = descend(
        config.critic_rate, gradient, opt_states["critics"], base.critics
    )
    base = base.replace(critics=critics, opt_states=opt_states)
    new = state.replace(sac=sac.improve_actor(actor_key, spec, config, base, batch))  # type: ignore[attr-defined]
    if lagrange:
        # The multiplier rises while the gap is above the threshold.
        slope = -multiplier * (config.weight * gap - threshold)
        log_multiplier, opt_state = descend(
            config.multiplier_rate, slope, state.opt_state, state.log_multiplier
        )
        new = new.replace(log_multiplier=log_multiplier, opt_state=opt_state)
    return new, {"loss": error, "q": q, "gap": gap}
