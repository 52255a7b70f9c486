"""Online training of one learner per agent, all agents as one program, until each is good enough.

Every agent has its own learner, replay buffer and parallel environments; a leading axis N made by
`vmap` runs through all of it. Evaluation is greedy and on environments of its own, so that it never
disturbs an episode of the training.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from persim_jax.learners import replay as replay_lib
from persim_jax.learners.base import Learner, LearnerState
from persim_jax.learners.online_config import OnlineConfig as OnlineConfig
from persim_jax.learners.worlds import World, episode_returns, fresh, interact
from persim_jax.types import Environment, Params, Transitions


@chex.dataclass(frozen=True)
class Kept:
    """What was best of one agent so far, and what stays once the agent reached its target.

    Attributes:
      learner: The learner's state at that evaluation, exactly.
      mean_return: `[]`, the mean return of that evaluation; minus infinity before the first.
      steps: `[]` int32, environment steps at that evaluation.
      reached: `[]` bool, whether `mean_return` is at or above the target.
    """

    learner: LearnerState
    mean_return: jax.Array
    steps: jax.Array
    reached: jax.Array


class Progress(NamedTuple):
    """What a caller hears after each evaluation.

    Attributes:
      steps: Environment steps of each agent so far.
      mean_returns: `[N]`, of this evaluation.
      kept: `Kept` with a leading axis N.
      seconds: Since the beginning.
    """

    steps: int
    mean_returns: jax.Array
    kept: Kept
    seconds: float


class _Lane(NamedTuple):
    """All that changes of one agent."""

    learner: LearnerState
    replay: replay_lib.Replay
    worlds: World
    key: jax.Array


class OnlineState(NamedTuple):
    """Everything that training goes on from, so that a resumed run repeats an unbroken one.

    Attributes:
      steps: `[]` int32, environment steps of each agent so far.
      lanes: Learners, buffers, environments and keys, leaves `[N, ...]`.
      kept: What was best, leaves `[N, ...]`.
    """

    steps: jax.Array
    lanes: _Lane
    kept: Kept


def train_online(
    environment: Environment,
    learner: Learner,
    config: OnlineConfig,
    keys: jax.Array,
    env_params: Params,
    targets: jax.Array,
    report: Callable[[Progress], None] | None = None,
    restore: Callable[[OnlineState], OnlineState] = lambda state: state,
    save: Callable[[OnlineState], None] = lambda state: None,
) -> Kept:
    """Trains one learner per agent until each has reached its target or the budget is spent.

    An agent is frozen at the first greedy evaluation whose mean return is at or above its target,
    with the parameters that met it. An agent that never does keeps the best that it had.

    Args:
      environment: Dynamics and reward.
      learner: From an `lru_cache`d factory.
      config: Settings.
      keys: `[N]` typed keys, one per agent; consumed.
      env_params: Physics, leaves `[N, ...]`.
      targets: `[N]` mean returns.
      report: Called after each evaluation.
      restore: Given the state at the beginning, returns the one to go on from.
      save: Called after each evaluation with the state, which is only valid during the call: the
        memory of its lanes is used again by the next round.

    Returns:
      `Kept` with a leading axis N; `reached` says which agents met their targets.

    Raises:
      ValueError: The budget is spent before the first gradient step is evaluated.
      FloatingPointError: A learner that has not reached its target, or its returns, left the
        finite numbers; says whose and when. `save` was last called with a good state.
    """
    begin = time.monotonic()
    if config.last_step <= config.warm_up:
        raise ValueError(
            f"the budget is {config.budget} and warm_up {config.warm_up}: the last evaluation, at "
            f"step {config.last_step}, would see a learner that has learned nothing; raise the one "
            "or lower the other"
        )
    state = restore(_start(environment, learner, config, keys, env_params))
    steps = int(state.steps)
    while steps < config.budget and not bool(state.kept.reached.all()):
        state, returns, finite = _round(environment, learner, config, *state, env_params, targets)
        steps += config.evaluate_every
        if not bool(finite.all()):
            raise FloatingPointError(
                f"agent(s) {jnp.flatnonzero(~finite).tolist()} left the finite numbers between "
                f"steps {steps - config.evaluate_every} and {steps}: lower the learning rate, or "
                "look for states that the simulation cannot step"
            )
        save(state)
        if report is not None:
            report(Progress(steps, returns, state.kept, time.monotonic() - begin))
    return state.kept


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _start(
    environment: Environment,
    learner: Learner,
    config: OnlineConfig,
    keys: jax.Array,
    env_params: Params,
) -> OnlineState:
    """Makes the lanes of N agents before the first step."""

    def one(key: jax.Array, params: Params) -> tuple[_Lane, Kept]:
        learner_key, reset_key, key = jax.random.split(key, 3)
        state = learner.init(learner_key)
        reset_keys = jax.random.split(reset_key, config.num_envs)
        worlds = jax.vmap(functools.partial(fresh, environment), (0, None))(reset_keys, params)
        obs = jnp.zeros(environment.spec.obs_size)
        example = Transitions(
            agent=jnp.zeros((), jnp.int32),
            obs=obs,
            actions=worlds.held[0],
            rewards=jnp.zeros(()),
            next_obs=obs,
            terminated=jnp.zeros((), bool),
        )
        buffer = replay_lib.init(config.capacity, example)
        kept = Kept(
            learner=state,
            # Not a weakly typed scalar, which would compile the second round anew.
            mean_return=jnp.full((), -jnp.inf, obs.dtype),
            steps=jnp.zeros((), jnp.int32),
            reached=jnp.zeros((), bool),
        )
        return _Lane(state, buffer, worlds, key), kept

    return OnlineState(jnp.zeros((), jnp.int32), *jax.vmap(one)(keys, env_params))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=(4,))
def _round(
    environment: Environment,
    learner: Learner,
    config: OnlineConfig,
    steps: jax.Array,
    lanes: _Lane,
    kept: Kept,
    env_params: Params,
    targets: jax.Array,
) -> tuple[OnlineState, jax.Array, jax.Array]:
    """Trains all agents until the next evaluation, evaluates them, keeps what is to be kept.

    Returns:
      The new state, the mean returns of the evaluation `[N]` and whether all that is still to be
      kept is finite `[N]`.
    """
    starts = steps + config.num_envs * jnp.arange(config.evaluate_every // config.num_envs)

    def one(
        lane: _Lane, kept: Kept, params: Params, target: jax.Array
    ) -> tuple[_Lane, Kept, jax.Array, jax.Array]:
        lane, _ = jax.lax.scan(
            lambda lane, start: (_advance(environment, learner, config, params, lane, start), None),
            lane,
            starts,
        )
        key, eval_key = jax.random.split(lane.key)
        returns = episode_returns(
            environment,
            lambda key, state, obs: learner.act(key, state, obs, jnp.zeros(())),
            eval_key,
            lane.learner,
            params,
            config.episodes,
        )
        mean_return = returns.mean()
        now = (steps + config.evaluate_every).astype(jnp.int32)
        # Before its first gradient step a learner is luck, even where luck reaches the target.
        judged = jnp.where(now > config.warm_up, mean_return, -jnp.inf)
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(lane.learner)]
        # An agent that is done learns on beside the others, which must not end on its account.
        finite_lane = jnp.stack([jnp.isfinite(mean_return), *finite]).all() | kept.reached
        kept = keep(kept, lane.learner, judged, now, target)
        return lane._replace(key=key), kept, mean_return, finite_lane

    def unless_reached(xs: Any) -> Any:
        lane, kept, _, _ = xs
        frozen = (lane, kept, kept.mean_return, jnp.asarray(True))
        return jax.lax.cond(kept.reached, lambda: frozen, lambda: one(*xs))

    xs = (lanes, kept, env_params, targets)
    lanes, kept, returns, finite = (
        jax.lax.map(unless_reached, xs) if config.sequential else jax.vmap(one)(*xs)
    )
    return OnlineState(steps + config.evaluate_every, lanes, kept), returns, finite


def keep(
    kept: Kept,
    learner: LearnerState,
    mean_return: jax.Array,
    steps: jax.Array,
    target: jax.Array,
) -> Kept:
    """Takes over a better learner until the target is reached, and nothing after that.

    Args:
      kept: What was best so far.
      learner: The learner just evaluated.
      mean_return: `[]`, of that evaluation.
      steps: `[]` int32, at that evaluation.
      target: `[]`.

    Returns:
      What is best now.
    """
    better = ~kept.reached & (mean_return > kept.mean_return)
    new = Kept(learner=learner, mean_return=mean_return, steps=steps, reached=mean_return >= target)
    return jax.tree.map(lambda old, new: jnp.where(better, new, old), kept, new)


def _advance(
    environment: Environment,
    learner: Learner,
    config: OnlineConfig,
    params: Params,
    lane: _Lane,
    steps: jax.Array,
) -> _Lane:
    """One step of the E environments of one agent and the gradient steps after it."""
    key, world_key, update_key = jax.random.split(lane.key, 3)
    explore, hold = config.explore(steps), config.hold(steps)
    worlds, rows = jax.vmap(
        functools.partial(
            interact,
            environment,
            learner,
            config.max_hold,
            config.episode_steps or environment.spec.max_steps,
        ),
        (0, None, None, 0, None, None),
    )(
        jax.random.split(world_key, config.num_envs),
        lane.learner,
        params,
        lane.worlds,
        explore,
        hold,
    )
    replay = replay_lib.add(lane.replay, rows)

    def update(state: LearnerState, key: jax.Array) -> tuple[LearnerState, None]:
        sample_key, key = jax.random.split(key)
        batch = replay_lib.sample(sample_key, replay, config.batch_size)
        return learner.update(key, state, batch)[0], None

    # The predicate is the same for all agents, so that it stays a branch under vmap.
    state = jax.lax.cond(
        steps + config.num_envs >= config.warm_up,
        lambda state: jax.lax.scan(update, state, jax.random.split(update_key, config.updates))[0],
        lambda state: state,
        lane.learner,
    )
    return _Lane(state, replay, worlds, key)
