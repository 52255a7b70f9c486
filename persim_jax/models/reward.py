"""A reward learned from data, for users who have rewards in a column and no function for them.

The paper takes the reward as known. Where it is not, ridge regression finds it: a linear function
of the transition, its products in pairs, and random features that bend, shared by all agents, since
agents differ in how they move and not in what is wanted of them. What it says of transitions far
from the data is a guess, and a planner looks for such guesses, so it never promises more than the
best reward of the data, nor less than the worst. Mind its held-out error, and prefer a function if
there is one.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import normalizer as normalizer_lib
from persim_jax.data.dataset import OfflineDataset
from persim_jax.normalizer import Normalizer
from persim_jax.types import Transitions

PENALTIES = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
"""Choices of the ridge, relative to the mean square of a feature."""
MIN_TRANSITIONS = 20
MIN_AGENTS = 5
"""Agents from which on whole ones are held out."""
LEAST = 0.25
"""Of its share of the transitions, what a part must have where whole agents are dealt out."""


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """How a reward is learned; hashable.

    Attributes:
      num_random: Number of random features, tanh of a random projection (Rahimi and Recht, 2007,
        with another nonlinearity); 0 is a quadratic.
      num_transitions: At most so many transitions are used, drawn at random.
      held_out: Share of the agents that is kept from the fit and tells the error; of the
        transitions where there are fewer than five agents, or where records are so unlike in length
        that whole agents leave a part next to nothing. As many choose the penalty.
    """

    num_random: int = 256
    num_transitions: int = 8192
    held_out: float = 0.2

    def __post_init__(self) -> None:
        """Refuses what leaves nothing to learn from or to judge by."""
        if not 0 < self.held_out < 0.5:
            raise ValueError(
                f"held_out is {self.held_out}: it is taken twice, so above 0 and below 0.5"
            )
        if self.num_random < 0 or self.num_transitions < MIN_TRANSITIONS:
            raise ValueError(
                f"num_random {self.num_random} must not be negative and num_transitions "
                f"{self.num_transitions} at least {MIN_TRANSITIONS}"
            )


# Identity is its equality: arrays have no hash, and a reward is a static argument of jit.
@dataclasses.dataclass(frozen=True, eq=False)
class LearnedReward:
    """`(obs [D], action, next_obs [D]) -> []`, as any other reward function.

    Attributes:
      weights: `[F]` of the scaled features.
      projection: `[I + 1, R]`, of the random features; the last row is their bias.
      inputs: Scaling of what the reward may depend on, `[I]`.
      low: The least reward of the data, and the least that is predicted.
      high: The greatest.
      num_actions: Number of discrete actions; 0 when actions are continuous.
      rmse: Root of the mean squared error on held-out transitions, in units of the reward.
      r2: Share of the held-out rewards' variance that is explained.
      num_held_out: Number of held-out transitions.
    """

    weights: np.ndarray
    projection: np.ndarray
    inputs: Normalizer
    low: float
    high: float
    num_actions: int
    rmse: float
    r2: float
    num_held_out: int

    def __call__(self, obs: jax.Array, action: jax.Array, next_obs: jax.Array) -> jax.Array:
        """The reward of one transition, `[]`.

        Raises:
          ValueError: The observation has another size than those that it was learned from.
        """
        rest = self.num_actions or action.shape[-1]
        size = (self.inputs.mean.shape[0] - rest) // 2
        if obs.shape != (size,):
            raise ValueError(
                f"this reward was learned from observations of {size} numbers and meets one of "
                f"shape {obs.shape}: learn it from data with the lags of the simulators, "
                "persim_jax.with_lags(dataset, lags)"
            )
        x = normalizer_lib.apply(self.inputs, _inputs(obs, action, next_obs, self.num_actions))
        weights = jnp.asarray(self.weights, x.dtype)
        value = jnp.dot(_basis(x, self.projection), weights, precision="highest")
        return jnp.clip(value, self.low, self.high)

    def __str__(self) -> str:
        return (
            f"learned reward, error {self.rmse:.3g} and R^2 {self.r2:.3f} on "
            f"{self.num_held_out} held-out transitions"
        )


def learn_reward(
    key: jax.Array, dataset: OfflineDataset, config: RewardConfig | None = None
) -> LearnedReward:
    """Learns a reward from a dataset's own column; see `fit_reward`.

    Exogenous inputs are left out, as rewards are functions of states and actions.
    """
    data = dataset.replace(inputs=None).transitions()
    return fit_reward(key, data, dataset.info.num_actions, config)


def fit_reward(
    key: jax.Array, data: Transitions, num_actions: int, config: RewardConfig | None = None
) -> LearnedReward:
    """Learns a reward from transitions of all agents in closed form.

    Weights w = argmin |B w - rewards|^2 + penalty F |w|^2 over the features B of the transitions
    that are left for the fit, the penalty from `PENALTIES` by the error on a second part.

    Args:
      key: Consumed.
      data: B transitions with rewards.
      num_actions: Number of discrete actions; 0 when actions are continuous.
      config: Defaults to `RewardConfig()`.

    Returns:
      The reward with its error on a third part, which nothing was chosen by.

    Raises:
      ValueError: There are too few transitions, or all rewards are equal.
    """
    config = config or RewardConfig()
    rewards = np.asarray(data.rewards, np.float64)
    if rewards.size < MIN_TRANSITIONS:
        raise ValueError(
            f"there are {rewards.size} transitions: a reward needs {MIN_TRANSITIONS} at least"
        )
    if rewards.min() == rewards.max():
        raise ValueError(
            f"all {rewards.size} rewards in the data are {rewards[0]}: there is nothing to learn; "
            "give a reward function, or data with a column of rewards"
        )
    key_split, key_features = jax.random.split(key)
    train, choose, test = _split(key_split, np.asarray(data.agent), config)
    raw = np.asarray(_all_inputs(data.obs, data.actions, data.next_obs, num_actions))
    inputs = normalizer_lib.fit(jnp.asarray(raw[train]))
    size = raw.shape[1]
    projection = jax.random.normal(key_features, (size + 1, config.num_random))
    projection = np.asarray(projection) / np.append(np.full(size, size**0.5), 1.0)[:, None]
    features = np.asarray(_all_features(inputs, raw, projection), np.float64)
    low, high = float(rewards.min()), float(rewards.max())

    def errors(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.square(np.clip(features[rows] @ weights, low, high) - rewards[rows])

    candidates = _ridge(features[train], rewards[train])
    weights = min(candidates, key=lambda w: float(errors(w, choose).mean()))
    squared, variance = errors(weights, test).mean(), rewards[test].var()
    r2 = float(1 - squared / variance) if variance > 0 else float("nan")
    return LearnedReward(
        weights=weights, projection=projection, inputs=inputs, low=low, high=high,
        num_actions=num_actions, rmse=float(squared**0.5), r2=r2, num_held_out=len(test),
    )  # fmt: skip


def _inputs(obs: jax.Array, action: jax.Array, next_obs: jax.Array, num_actions: int) -> jax.Array:
    """What the reward may depend on, `[2 D + A]`; next_obs as its difference, which says more."""
    encoded = jax.nn.one_hot(action, num_actions, dtype=obs.dtype) if num_actions else action
    return jnp.concatenate([obs, next_obs - obs, encoded])


def _basis(x: jax.Array, projection: jax.Array | np.ndarray) -> jax.Array:
    """Features of scaled inputs: `[I] -> [1 + I + I (I + 1) / 2 + R]`."""
    rows, columns = np.triu_indices(x.shape[0])
    matrix = jnp.asarray(projection, x.dtype)
    bent = jnp.tanh(jnp.matmul(x, matrix[:-1], precision="highest") + matrix[-1])
    return jnp.concatenate([jnp.ones(1, x.dtype), x, x[rows] * x[columns], bent])


@functools.partial(jax.jit, static_argnums=3)
def _all_inputs(
    obs: jax.Array, actions: jax.Array, next_obs: jax.Array, num_actions: int
) -> jax.Array:
    return jax.vmap(lambda o, a, n: _inputs(o, a, n, num_actions))(obs, actions, next_obs)


@jax.jit
def _all_features(inputs: Normalizer, raw: jax.Array, projection: jax.Array) -> jax.Array:
    return jax.vmap(lambda x: _basis(normalizer_lib.apply(inputs, x), projection))(raw)


def _ridge(features: np.ndarray, rewards: np.ndarray) -> list[np.ndarray]:
    """Weights `[F]` for each of `PENALTIES`, from one eigendecomposition."""
    values, vectors = np.linalg.eigh(features.T @ features / len(features))
    target = vectors.T @ (features.T @ rewards / len(features))
    scale = np.square(features).mean()
    return [vectors @ (target / (np.maximum(values, 0) + p * scale)) for p in PENALTIES]


def _split(key: jax.Array, agents: np.ndarray, config: RewardConfig) -> list[np.ndarray]:
    """Rows to fit, to choose the penalty by and to judge; whole agents where these are enough."""
    key_groups, key_rows = jax.random.split(key)
    shuffled = np.asarray(jax.random.permutation(key_rows, agents.size))
    rows = np.sort(shuffled[: config.num_transitions])
    if np.unique(agents).size >= MIN_AGENTS:
        parts = _by_group(key_groups, agents, rows, config.held_out)
        shares = np.asarray([1 - 2 * config.held_out, config.held_out, config.held_out])
        # Of records of very different lengths a part may be next to nothing.
        if all(len(part) >= LEAST * rows.size * s for part, s in zip(parts, shares, strict=True)):
            return parts
    return _by_group(key_groups, np.arange(agents.size), rows, config.held_out)


def _by_group(
    key: jax.Array, groups: np.ndarray, rows: np.ndarray, share: float
) -> list[np.ndarray]:
    """Deals out rows by the group of each: the two shares that are held out come last."""
    order = np.asarray(jax.random.permutation(key, np.unique(groups)))
    count = max(1, round(share * order.size))
    test, choose = (np.isin(groups[rows], part) for part in (order[:count], order[count:][:count]))
    return [rows[~test & ~choose], rows[choose], rows[test]]
