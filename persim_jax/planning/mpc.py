"""Model predictive control: the paper's Section 4, Step 2.

Candidate action sequences are scored by their return, averaged over the M members, each from its
own predicted states. What a sampler makes of the scores gives the next action.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from persim_jax.models.base import DynamicsModel
from persim_jax.planning import risk as risk_lib
from persim_jax.planning.config import PlannerConfig as PlannerConfig
from persim_jax.planning.config import make_sampler as make_sampler
from persim_jax.planning.samplers import Sampler, nan_is_worst
from persim_jax.rollout import Policy
from persim_jax.types import PyTree, Task


def candidate_score(
    key: jax.Array,
    model: DynamicsModel,
    bound: PyTree,
    task: Task,
    obs: jax.Array,
    actions: jax.Array,
    encoded: PyTree,
    bonus_weight: float,
    propagate: str = "members",
    risk: str = "mean",
    risk_level: float = 1.0,
) -> jax.Array:
    """Return of one action sequence, averaged over members or with another view of risk.

    Each member follows its own states; or, with `propagate="mean"`, each step starts all of them
    anew at the mean of their states, so that whatever else a model carries along is forgotten.
    A member's rewards after its predicted termination do not count, and its state stays where it
    ended (and counts in the mean). The planning bonus, if it has a weight, is computed from these
    states.

    Args:
      key: Consumed.
      model: Dynamics.
      bound: The model bound to one agent.
      task: Reward, termination and bonus.
      obs: Initial observation `[D]`.
      actions: `[H]` or `[H, A]`.
      encoded: The same, encoded, leaves `[H, ...]`.
      bonus_weight: Static; 0 leaves the bonus out of the program.
      propagate: Static, "members" or "mean".
      risk: Static, see `persim_jax.planning.risk.over_members`. The bonus is no part of the return
        and is averaged in any case.
      risk_level: Static.

    Returns:
      Score `[]`; NaN, which no sampler prefers, where a member leaves the finite numbers.
    """
    members = functools.partial(jnp.broadcast_to, shape=(model.num_paths, *obs.shape))
    reward_of = jax.vmap(task.reward, in_axes=(0, None, 0))

    def step(carry: Any, xs: Any) -> Any:
        model_state, obs, alive, total = carry
        t, action, encoded_action = xs
        before = obs
        if propagate == "mean":
            before = members(obs.mean(axis=0))
            model_state = model.start(bound, before[0])
        model_state = model.step(jax.random.fold_in(key, t), bound, model_state, encoded_action)
        next_obs = jnp.where(alive[:, None], model.observe(model_state), obs)
        total = total + jnp.where(alive, reward_of(before, action, next_obs), 0.0)
        alive = alive & ~jax.vmap(task.terminated)(next_obs)
        return (model_state, next_obs, alive, total), (next_obs if bonus_weight else None)

    first = members(obs)
    alive = jnp.ones(model.num_paths, bool)
    carry = (model.start(bound, obs), first, alive, jnp.zeros(model.num_paths, obs.dtype))
    times = jnp.arange(actions.shape[0])
    (_, last, _, total), path = lax.scan(step, carry, (times, actions, encoded))
    score = risk_lib.over_members(total, risk, risk_level)
    # A reward that does not look at the state is a number where the state is none.
    score = jnp.where(jnp.isfinite(last).all(), score, jnp.nan)
    if bonus_weight:
        score = score + bonus_weight * jax.vmap(task.planning_bonus, in_axes=1)(path).mean()
    return score


def plan(
    key: jax.Array,
    model: DynamicsModel,
    bound: PyTree,
    task: Task,
    sampler: Sampler,
    sampler_state: PyTree,
    obs: jax.Array,
    config: PlannerConfig,
) -> tuple[jax.Array, PyTree]:
    """One decision: the sampler's rounds of candidates, scored under the model.

    Args:
      key: Consumed.
      model: Dynamics.
      bound: The model bound to one agent.
      task: Reward, termination and bonus.
      sampler: Source of candidates.
      sampler_state: Its state, the warm start.
      obs: Current observation `[D]`.
      config: Static.

    Returns:
      The action, and the sampler's state shifted to the next step.
    """
    action, state, _ = decide(key, model, bound, task, sampler, sampler_state, obs, config)
    return action, state


def decide(
    key: jax.Array,
    model: DynamicsModel,
    bound: PyTree,
    task: Task,
    sampler: Sampler,
    sampler_state: PyTree,
    obs: jax.Array,
    config: PlannerConfig,
) -> tuple[jax.Array, PyTree, jax.Array]:
    """As `plan`, and the score `[]` of the last round's best candidate; -inf if none has any."""
    chunk = config.resolved_chunk()

    def score_chunk(key: jax.Array, actions: jax.Array) -> jax.Array:
        encoded = model.encode_actions(bound, actions)

        def score(actions: jax.Array, encoded: PyTree) -> jax.Array:
            options = (config.bonus_weight, config.propagate, config.risk, config.risk_level)
            return candidate_score(key, model, bound, task, obs, actions, encoded, *options)

        return jax.vmap(score)(actions, encoded)

    def one_round(state: PyTree, key: jax.Array) -> tuple[PyTree, jax.Array]:
        # A noisy model meets all candidates of a round with the same noise (common random numbers):
        # what differs between scores is the actions, and noise is drawn once, not K times.
        key_sample, key_model = jax.random.split(key)
        actions, state = sampler.sample(key_sample, state)
        if chunk:
            chunks = actions.reshape(-1, chunk, *actions.shape[1:])
            scores = lax.map(lambda xs: score_chunk(key_model, xs), chunks).reshape(-1)
        else:
            scores = score_chunk(key_model, actions)
        return sampler.update(state, actions, scores), nan_is_worst(scores).max()

    keys = jax.random.split(key, sampler.num_rounds)
    state, best = lax.scan(one_round, sampler_state, keys)
    return sampler.best(state), sampler.shift(state), best[-1]


def mpc_policy(model: DynamicsModel, bound: PyTree, task: Task, config: PlannerConfig) -> Policy:
    """A planner as a policy: the warm start is the policy's state."""
    sampler = make_sampler(task.spec, config)

    def act(key: jax.Array, state: PyTree, obs: jax.Array) -> tuple[jax.Array, PyTree]:
        return plan(key, model, bound, task, sampler, state, obs, config)

    return Policy(init=lambda: sampler.init(task.spec), act=act)
