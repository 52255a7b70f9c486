"""What trained policies earn: measured, told in their sidecar, and published as rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs import covariates
from experiments.policies import dqn_config, greedy_act
from experiments.records import Row, RowContext, make_row
from persim_jax.learners.online import Kept, OnlineConfig
from persim_jax.learners.worlds import episode_returns
from persim_jax.types import Environment, Params

EPISODES = 100
QUANTILES = (0.05, 0.25, 0.75, 0.95)


class Lanes(NamedTuple):
    """The L agents that are trained: those of the pure policies, then that of the test policy.

    Attributes:
      environment: Name of the environment.
      behaviors: "pure", ..., "test".
      covariates: `[L, C]`.
      targets: `[L]`.
      seeds: One per lane.
    """

    environment: str
    behaviors: list[str]
    covariates: np.ndarray
    targets: np.ndarray
    seeds: list[int]


class Measured(NamedTuple):
    """What trained policies are worth.

    Attributes:
      kept: The outcome of training, leaves `[L, ...]`.
      own: Returns of fresh episodes on the policies' own agents, `[L, episodes]`.
      everyone: Mean return of each of the 500 agents, by behavior: "pure" is with the policy of
        the nearest training agent.
      train_seconds: Of training all lanes, compilation included.
    """

    kept: Kept
    own: np.ndarray
    everyone: dict[str, np.ndarray]
    train_seconds: float


@functools.partial(jax.jit, static_argnames=("environment", "act", "episodes"))
def returns_by_agent(
    key: jax.Array,
    environment: Environment,
    act: Callable[[jax.Array, Params, jax.Array], jax.Array],
    params: Params,
    env_params: Params,
    episodes: int,
) -> jax.Array:
    """Plays fresh episodes of N agents, each with its own policy.

    Args:
      key: Consumed.
      environment: The true environment, static.
      act: `(key, params, obs) -> action`, static.
      params: Of the policies, leaves `[N, ...]`.
      env_params: Physics, leaves `[N, ...]`.
      episodes: Of each agent, static.

    Returns:
      Returns `[N, episodes]`.
    """
    num_agents = jax.tree.leaves(env_params)[0].shape[0]

    def one(lane: tuple[jax.Array, Params, Params]) -> jax.Array:
        return episode_returns(environment, act, *lane, episodes)

    # Agent after agent: the ones whose episodes end early then cost no more than those take.
    return jax.lax.map(one, (jax.random.split(key, num_agents), params, env_params))


def returns_of_everyone(key: jax.Array, lanes: Lanes, params: Params) -> dict[str, np.ndarray]:
    """Returns the mean return of each of the 500 agents, `[500]`, by behavior; consumes `key`."""
    env = envs.make(lanes.environment)
    agents = covariates.make_agents(lanes.environment).covariates
    env_params = jax.vmap(env.params)(jnp.asarray(agents))
    choices = {
        "pure": covariates.nearest(lanes.environment, agents, lanes.covariates[:-1]),
        "test": np.full(len(agents), len(lanes.behaviors) - 1),
    }
    means = {}
    for number, (behavior, choice) in enumerate(choices.items()):
        of_agents = jax.tree.map(lambda leaf, choice=choice: leaf[choice], params)
        behavior_key = jax.random.fold_in(key, number)
        act = greedy_act(lanes.environment)
        returns = returns_by_agent(behavior_key, env, act, of_agents, env_params, EPISODES)
        means[behavior] = np.asarray(returns).mean(axis=1)
    return means


def sidecar_facts(
    lanes: Lanes, config: OnlineConfig, measured: Measured, stamp: dict[str, Any]
) -> dict[str, Any]:
    """Returns what the sidecar says about training and returns."""
    kept = measured.kept
    policies = [
        {
            "behavior": behavior,
            "covariates": covariates_by_name(lanes, lane),
            "target": float(lanes.targets[lane]),
            "reached": bool(kept.reached[lane]),
            "seed": lanes.seeds[lane],
            "steps": int(kept.steps[lane]),
            "return_at_stop": round(float(kept.mean_return[lane]), 3),
            "return_mean": round(float(measured.own[lane].mean()), 3),
            "return_std": round(float(measured.own[lane].std()), 3),
            "num_episodes": measured.own.shape[1],
        }
        for lane, behavior in enumerate(lanes.behaviors)
    ]
    everyone = {
        behavior: {
            "num_agents": len(means),
            "num_episodes": EPISODES,
            "mean": round(float(means.mean()), 3),
            "median": round(float(np.median(means)), 3),
            "quantiles": {str(q): round(float(np.quantile(means, q)), 3) for q in QUANTILES},
        }
        for behavior, means in measured.everyone.items()
    }
    return {
        "method": "dqn",
        "exploration": "uniformly random actions, each held for 1 to max_hold steps, begun with "
        "probability hold; no reward shaping",
        "training": dataclasses.asdict(config),
        "policies": policies,
        "all_agents": everyone,
        "train_seconds": round(measured.train_seconds, 1),
        "code_version": stamp["code_version"],
        "jax_version": stamp["jax"],
        "device": stamp["device"],
    }


def make_rows(
    lanes: Lanes, config: OnlineConfig, measured: Measured, stamp: dict[str, Any]
) -> Iterator[Row]:
    """Yields one row per number: every policy on its own agent, both behaviors on all agents."""
    common: dict[str, Any] = {"method": "dqn", "wall_s": measured.train_seconds}
    for lane, returns in enumerate(measured.own):
        own, target = covariates_by_name(lanes, lane), float(lanes.targets[lane])
        context = _context(lanes, lane, config, stamp, {"target": target, "covariates": own})
        about = common | {
            "agent_id": _agent_id(lanes, lane),
            "covariates": own,
            "num_episodes": returns.size,
            "scope": "own_agent",
            "target": target,
            "steps": int(measured.kept.steps[lane]),
        }
        yield make_row(context, metric="return_mean", value=returns.mean(), **about)
        yield make_row(context, metric="return_std", value=returns.std(), **about)
    for behavior, means in measured.everyone.items():
        targets = {"scope": "all_agents", "targets": lanes.targets.tolist()}
        context = _context(lanes, lanes.behaviors.index(behavior), config, stamp, targets)
        about = common | {"num_episodes": EPISODES * means.size, "scope": "all_agents"}
        yield make_row(context, metric="return_mean", value=means.mean(), **about)


def covariates_by_name(lanes: Lanes, lane: int) -> dict[str, float]:
    """Returns a lane's covariates as rows print them: 0.0025."""
    names = covariates.get(lanes.environment).names
    # Through the shortest text of the float32, or 0.0025 would read 0.0024999999441206455.
    return {
        name: float(str(value)) for name, value in zip(names, lanes.covariates[lane], strict=True)
    }


def _context(
    lanes: Lanes, lane: int, config: OnlineConfig, stamp: dict[str, Any], facts: dict[str, Any]
) -> RowContext:
    """Returns a context whose digest differs by policy: most training agents have no id."""
    return RowContext.from_config(
        {
            "environment": lanes.environment,
            "behavior": lanes.behaviors[lane],
            "variant": "default",
            "trial": 0,
            "seed": lanes.seeds[lane],
            "dqn": dataclasses.asdict(dqn_config(lanes.environment)),
            "online": dataclasses.asdict(config),
            **facts,
        },
        stamp,
    )


def _agent_id(lanes: Lanes, lane: int) -> int | None:
    """Returns the id of the agent with a lane's covariates, None if it is not among the 500."""
    agents = covariates.make_agents(lanes.environment)
    same = (agents.covariates == lanes.covariates[lane]).all(axis=1)
    return int(agents.agent_ids[same][0]) if same.any() else None
