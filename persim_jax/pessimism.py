"""MOReL's pessimistic MDP (Kidambi et al., 2020): an ensemble with an end to what it knows.

Where the members of an ensemble disagree, the data know nothing. In the pessimistic MDP a step that
leads there leads to HALT, an absorbing state that pays less than anything else could, so that a
policy that is good in it stays where the model can be trusted. It is a `DynamicsModel` and a `Task`
like any other: `rollout.unroll` follows a policy in it unchanged.

Its observation is that of the task and one coordinate more, 0 outside HALT and 1 inside.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
from jax import lax

from persim_jax import normalizer as normalizer_lib
from persim_jax.models.base import DynamicsModel
from persim_jax.types import PyTree, Spec, Task, Transitions

DISTANCES = ("raw", "scaled")


class Pessimism(NamedTuple):
    """What binds an ensemble to a pessimistic MDP.

    Attributes:
      bound: The ensemble bound to an agent.
      member: `[]` int32, the member whose states are followed.
      threshold: `[]`, the largest disagreement that is not unknown; infinite trusts everything.
      scale: `[D]`, what coordinates are divided by before distances are taken.
    """

    bound: PyTree
    member: jax.Array
    threshold: jax.Array
    scale: jax.Array


def disagreement(predictions: jax.Array, scale: jax.Array) -> jax.Array:
    """The largest distance between two members' predictions.

    `max_{i, j} ||(f_i(s, a) - f_j(s, a)) / scale||_2`, 0 for one member.

    Args:
      predictions: Next states `[M, D]`.
      scale: `[D]`, ones for states in their own units.

    Returns:
      `[]`.
    """
    scaled = predictions / jnp.broadcast_to(scale, predictions.shape)
    pairs = scaled[:, None] - scaled[None]
    return jnp.sqrt(jnp.square(pairs).sum(axis=-1).max())


def distance_scale(data: Transitions, distance: str) -> jax.Array:
    """What coordinates are divided by before distances are taken, `[D]`.

    Args:
      data: B transitions.
      distance: "raw", states in their own units as in the authors' code, or "scaled", by the
        standard deviation of the data's state differences, so that no coordinate drowns the others.

    Raises:
      ValueError: There is no such distance.
    """
    check_distance(distance)
    if distance == "raw":
        return jnp.ones(data.obs.shape[-1])
    scale: jax.Array = normalizer_lib.fit(jnp.asarray(data.next_obs - data.obs)).std
    return scale


def check_distance(distance: str) -> None:
    """Raises if there is no such distance.

    Raises:
      ValueError: There is not; says which there are.
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance {distance!r} is unknown: use one of {', '.join(DISTANCES)}")


def predictions_of(
    model: DynamicsModel, bound: PyTree, key: jax.Array, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """What each member says comes next, `[M, D]`, of one state and action; consumes `key`."""
    encoded = model.encode_actions(bound, action)
    return model.observe(model.step(key, bound, model.start(bound, obs), encoded))


def data_disagreement(
    key: jax.Array,
    model: DynamicsModel,
    params: PyTree,
    data: Transitions,
    scale: jax.Array,
    batch_size: int = 4096,
) -> jax.Array:
    """The ensemble's disagreement at each of B transitions, `[B]`.

    Args:
      key: Consumed; of models that are deterministic nothing depends on it.
      model: Dynamics, static.
      params: Its parameters.
      data: Leaves `[B, ...]`; `agent` says whom a transition is of.
      scale: `[D]`.
      batch_size: Transitions side by side.
    """

    def one(xs: tuple[jax.Array, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        index, agent, obs, action = xs
        bound = model.bind(params, agent, None)
        own_key = jax.random.fold_in(key, index)
        return disagreement(predictions_of(model, bound, own_key, obs, action), scale)

    rows = data.obs.shape[0]
    xs = (jnp.arange(rows), data.agent, data.obs, data.actions)
    return lax.map(one, xs, batch_size=min(batch_size, rows))


def unknown_threshold(distances: jax.Array, mask: jax.Array, coefficient: float) -> jax.Array:
    """The largest disagreement that is not unknown: `max over the data / coefficient`.

    Args:
      distances: Disagreement at the data, `[B]`.
      mask: `[B]` bool, which of them are data.
      coefficient: The larger, the more pessimistic; above 1 a part of the data is unknown, too. 0
        marks nothing unknown. Static.

    Returns:
      `[]`.

    Raises:
      ValueError: The coefficient is negative.
    """
    if coefficient < 0:
        raise ValueError(
            f"pessimism_coef is {coefficient}: it must be positive, or 0 to mark nothing unknown"
        )
    if coefficient == 0:
        return jnp.asarray(jnp.inf)
    return jnp.where(mask, distances, 0.0).max() / coefficient


def halt_reward(
    lowest: jax.Array, highest: jax.Array, discount: float, max_steps: int
) -> jax.Array:
    """What entering HALT pays: less than any way to go on could bring.

    A reward is at least `lowest` and an episode lasts at least one step, so discounted rewards of
    however many steps add up to at least `min(lowest, lowest / (1 - discount))`; without a discount
    `max_steps` takes the place of `1 / (1 - discount)`. HALT pays that, less one reward of the
    largest size, and nothing afterwards.

    Args:
      lowest: `[]`, smallest reward of a step; the pessimistic task pays no less.
      highest: `[]`, largest reward in sight.
      discount: Of one step, static.
      max_steps: Of an episode, static.

    Returns:
      `[]`.
    """
    steps = 1.0 / (1.0 - discount) if discount < 1 else float(max_steps)
    worst = jnp.minimum(lowest, steps * lowest)
    size = jnp.maximum(jnp.abs(lowest), jnp.abs(highest))
    return worst - jnp.where(size > 0, size, 1.0)


@dataclasses.dataclass(frozen=True)
class PessimisticTask:
    """Reward and end of the pessimistic MDP; hashable where its two rewards are plain numbers.

    Attributes:
      task: Reward and end outside HALT.
      lowest: Least that a step outside HALT pays.
      halt: What the step into HALT pays, see `halt_reward`; a step from HALT pays nothing.
    """

    task: Any
    lowest: Any
    halt: Any

    @property
    def spec(self) -> Any:
        """The task's, with "halt" as one more coordinate."""
        known = self.task.spec
        return dataclasses.replace(known, obs_names=(*known.obs_names, "halt"))

    def reward(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
        """`0` from HALT, `halt` into it, else the task's reward but at least `lowest`."""
        action = within_bounds(self.task.spec, action)
        known = jnp.maximum(self.task.reward(obs[:-1], action, next_obs[:-1]), self.lowest)
        return jnp.where(in_halt(obs), 0.0, jnp.where(in_halt(next_obs), self.halt, known))

    def terminated(self, obs: jax.Array) -> jax.Array:
        """In HALT, from where nothing comes, and where the task ends."""
        return in_halt(obs) | self.task.terminated(obs[:-1])

    def planning_bonus(self, obs: jax.Array) -> jax.Array:
        """The task's."""
        bonus: jax.Array = self.task.planning_bonus(obs[:, :-1])
        return bonus


def in_halt(obs: jax.Array) -> jax.Array:
    """Whether observations `[..., D + 1]` are HALT, `[...]`."""
    return obs[..., -1] > 0.5


def start_obs(obs: jax.Array) -> jax.Array:
    """Observations `[..., D]` as those of the pessimistic MDP outside HALT, `[..., D + 1]`."""
    return jnp.concatenate([obs, jnp.zeros_like(obs[..., :1])], axis=-1)


def within_bounds(spec: Spec, action: jax.Array) -> jax.Array:
    """The nearest actions `[..., A]` that the task allows; discrete ones as they are."""
    if spec.discrete:
        return action
    low, high = (
        jnp.broadcast_to(jnp.asarray(bound, action.dtype), action.shape)
        for bound in (spec.action_low, spec.action_high)
    )
    return jnp.clip(action, low, high)


@functools.lru_cache
def pessimistic_model(model: DynamicsModel, task: Task) -> DynamicsModel:
    """The pessimistic MDP's dynamics as a model of one member, whose `bound` is a `Pessimism`.

    One member's states are followed, and all members are asked at each of them. HALT comes where
    they disagree by more than the threshold, or where the member followed leaves the finite
    numbers; the other coordinates then stay as they were. Continuous actions outside the task's
    bounds act as the nearest ones inside.

    Args:
      model: An ensemble whose states are observations: nothing of a state may be kept between
        steps but what `start` makes of an observation.
      task: Says which actions are allowed.

    Returns:
      The model; the same for the same arguments. It has nothing to train: `bind` takes a
      `Pessimism` as it is.
    """
    spec = task.spec

    def encode_actions(bound: Pessimism, actions: jax.Array) -> jax.Array:
        del bound
        return within_bounds(spec, actions)

    def step(key: jax.Array, bound: Pessimism, obs: jax.Array, action: jax.Array) -> jax.Array:
        found = predictions_of(model, bound.bound, key, obs[:-1], action)
        own = found[bound.member]
        # What is no number is no known distance either.
        known = (disagreement(found, bound.scale) <= bound.threshold) & jnp.isfinite(own).all()
        known &= ~in_halt(obs)
        halted = obs.at[-1].set(1.0)
        return jnp.where(known, start_obs(own), halted)

    return DynamicsModel(
        num_members=1,
        init=_nothing_to_train,
        fit_normalizer=_nothing_to_train,
        loss=_nothing_to_train,
        bind=lambda params, agent, history: params,
        encode_actions=encode_actions,
        start=lambda bound, obs: obs,
        step=step,
        observe=lambda obs: obs[None],
    )


def _nothing_to_train(*args: object) -> NoReturn:
    raise TypeError("the pessimistic MDP has no weights of its own: train the ensemble inside it")
