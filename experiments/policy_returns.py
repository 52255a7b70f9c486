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
from experiments.policies import algorithm, greedy_act, policy_config
from experiments.records import Row, RowContext, make_row
from persim_jax.learners.online import Kept, OnlineConfig
from persim_jax.learners.worlds import episode_returns
from persim_jax.types import Environment, Params

EPISODES = 100
"""Of each policy on its own agent."""
QUANTILES = (0.05, 0.25, 0.75, 0.95)


class Lanes(NamedTuple):
    """The L agents that are trained: those of the pure policies, then that of the test policy.

    Attributes:
      environment: Name of the environment.
      behaviors: "pure", ..., "test".
      covariates: `[L, C]`.
      targets: `[L]`.
      seeds: One per lane.
      backend: What steps the environment, where there is a choice; else empty.
    """

    environment: str
    behaviors: list[str]
    covariates: np.ndarray
    targets: np.ndarray
    seeds: list[int]
    backend: str = ""


class Measured(NamedTuple):
    """What trained policies are worth.

    Attributes:
      kept: The outcome of training, leaves `[L, ...]`.
      own: Returns of fresh episodes on the policies' own agents, `[L, episodes]`.
      everyone: Returns of each of the 500 agents, `[500, episodes]`, by behavior: "pure" is with
        the policy of the nearest training agent.
      train_seconds: Of training all lanes, compilation included.
    """

    kept: Kept
    own: np.ndarray
    everyone: dict[str, np.ndarray]
    train_seconds: float


@functools.partial(jax.jit, static_argnames=("environment", "act", "episodes", "chunk"))
def returns_by_agent(
    key: jax.Array,
    environment: Environment,
    act: Callable[[jax.Array, Params, jax.Array], jax.Array],
    params: Params,
    env_params: Params,
    episodes: int,
    chunk: int | None = None,
) -> jax.Array:
    """Plays fresh episodes of N agents, each with its own policy.

    Args:
      key: Consumed.
      environment: The true environment, static.
      act: `(key, params, obs) -> action`, static.
      params: Of the policies, leaves `[N, ...]`.
      env_params: Physics, leaves `[N, ...]`.
      episodes: Of each agent, static.
      chunk: Agents that play side by side, static. None is agent after agent: the ones whose
        episodes end early then cost no more than those take. Where no episode ends early and a
        step is dear in small batches, as with MuJoCo's threads, several at a time are faster.

    Returns:
      Returns `[N, episodes]`.
    """
    num_agents = jax.tree.leaves(env_params)[0].shape[0]

    def one(lane: tuple[jax.Array, Params, Params]) -> jax.Array:
        return episode_returns(environment, act, *lane, episodes)

    keys = jax.random.split(key, num_agents)
    return jax.lax.map(one, (keys, params, env_params), batch_size=chunk)


def make_env(lanes: Lanes) -> envs.Env:
    """Returns the environment that the lanes are trained and measured in."""
    return envs.make(lanes.environment, lanes.backend or None)


def returns_of_everyone(
    key: jax.Array,
    lanes: Lanes,
    params: Params,
    episodes: int = EPISODES,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """Plays fresh episodes of each of the 500 agents.

    Args:
      key: Consumed.
      lanes: The policies' agents.
      params: Of the policies, leaves `[L, ...]`.
      episodes: Of each agent.
      chunk: As in `returns_by_agent`.

    Returns:
      Returns `[500, episodes]` by behavior.
    """
    env = make_env(lanes)
    agents = covariates.make_agents(lanes.environment).covariates
    env_params = jax.vmap(env.params)(jnp.asarray(agents))
    choices = {
        "pure": covariates.nearest(lanes.environment, agents, lanes.covariates[:-1]),
        "test": np.full(len(agents), len(lanes.behaviors) - 1),
    }
    returns = {}
    for number, (behavior, choice) in enumerate(choices.items()):
        of_agents = jax.tree.map(lambda leaf, choice=choice: leaf[choice], params)
        behavior_key = jax.random.fold_in(key, number)
        act = greedy_act(lanes.environment)
        found = returns_by_agent(behavior_key, env, act, of_agents, env_params, episodes, chunk)
        returns[behavior] = np.asarray(found)
    return returns


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
            "num_episodes": measured.everyone[behavior].shape[1],
            "mean": round(float(means.mean()), 3),
            "median": round(float(np.median(means)), 3),
            "quantiles": {str(q): round(float(np.quantile(means, q)), 3) for q in QUANTILES},
        }
        for behavior, means in _means(measured).items()
    }
    return {
        "exploration": "uniformly random actions, each held for 1 to max_hold steps, begun with "
        "probability hold; besides them the learner's own by explore, of DQN the chance of a "
        "random action, of TD3 the standard deviation of noise in half ranges; no reward shaping",
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
    common: dict[str, Any] = {
        "method": algorithm(lanes.environment).name,
        "wall_s": measured.train_seconds,
        **_backend(lanes),
    }
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
    for behavior, means in _means(measured).items():
        targets = {"scope": "all_agents", "targets": lanes.targets.tolist()}
        context = _context(lanes, lanes.behaviors.index(behavior), config, stamp, targets)
        about = common | {"num_episodes": measured.everyone[behavior].size, "scope": "all_agents"}
        yield make_row(context, metric="return_mean", value=means.mean(), **about)


def _means(measured: Measured) -> dict[str, np.ndarray]:
    """Returns the mean return of each agent `[500]` by behavior."""
    return {behavior: returns.mean(axis=1) for behavior, returns in measured.everyone.items()}


def covariates_by_name(lanes: Lanes, lane: int) -> dict[str, float]:
    """Returns a lane's covariates as rows print them: 0.0025."""
    names = covariates.get(lanes.environment).names
    # Through the shortest text of the float32, or 0.0025 would read 0.0024999999441206455.
    return {
        name: float(str(value)) for name, value in zip(names, lanes.covariates[lane], strict=True)
    }


def _context(
    lanes: Lanes, lane: int, online: OnlineConfig, stamp: dict[str, Any], facts: dict[str, Any]
) -> RowContext:
    """Returns a context whose digest differs by policy: most training agents have no id."""
    config: dict[str, Any] = {
        "environment": lanes.environment,
        "behavior": lanes.behaviors[lane],
        "variant": "default",
        "trial": 0,
        "seed": lanes.seeds[lane],
        algorithm(lanes.environment).name: dataclasses.asdict(policy_config(lanes.environment)),
        "online": dataclasses.asdict(online),
        **_backend(lanes),
        **facts,
    }
    return RowContext.from_config(config, stamp)


def _backend(lanes: Lanes) -> dict[str, str]:
    """Returns what rows say of who stepped the environment, nothing where there is no choice."""
    return {"backend": lanes.backend} if lanes.backend else {}


def _agent_id(lanes: Lanes, lane: int) -> int | None:
    """Returns the id of the agent with a lane's covariates, None if it is not among the 500."""
    agents = covariates.make_agents(lanes.environment)
    same = (agents.covariates == lanes.covariates[lane]).all(axis=1)
    return int(agents.agent_ids[same][0]) if same.any() else None
