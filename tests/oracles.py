"""What the tests hold to be true, said again in numpy: nothing of ours is imported here."""

import itertools

import numpy as np


def mountain_car_paper(gravity, state, push):
    """The paper's unclipped MountainCar map (Appendix A), states `[..., 2]`.

    s1' = s1 + s2 - g cos(3 s1) / 2 + a / 2 and s2' = s2 - g cos(3 s1) + a.
    """
    position, velocity = state[..., 0], state[..., 1]
    slope = gravity * np.cos(3 * position)
    return np.stack([position + velocity - slope / 2 + push / 2, velocity - slope + push], axis=-1)


def mountain_car_gymnasium(gravity, state, push):
    """Gymnasium's unclipped map: the position moves with the new velocity."""
    position, velocity = state[..., 0], state[..., 1]
    velocity = velocity - gravity * np.cos(3 * position) + push
    return np.stack([position + velocity, velocity], axis=-1)


def mountain_car_factors(gravity, state, push, half):
    """Factors of rank 3 of the map's differences: u `[3]`, v `[2, 3]`, w `[3]`.

    Args:
      gravity: The agent's constant.
      state: `[2]`.
      push: The action in units of velocity.
      half: Share of the acceleration that reaches the position: 1/2 in the paper's form, 1 in
        gymnasium's.
    """
    slope = np.cos(3 * state[0])
    v = np.array([[state[1], -half * slope, half], [0.0, -slope, 1.0]])
    return np.array([1.0, gravity, 1.0]), v, np.array([1.0, 1.0, push])


def rmse(true, predicted, mask):
    """Root of the mean squared error over the steps of `mask [S]` and the coordinates."""
    error = [true[t] - predicted[t] for t in range(len(mask)) if mask[t]]
    return float(np.sqrt(np.mean(np.square(error))))


def r2(true, predicted, mask):
    """R^2 of each coordinate over the steps of `mask [S]`, averaged with variances as weights."""
    true, predicted = true[mask], predicted[mask]
    variance = true.var(axis=0)
    moving = variance > 0
    residual = np.mean((true - predicted) ** 2, axis=0)
    each = 1 - residual[moving] / variance[moving]
    still = residual[~moving].sum()  # a coordinate that stands still has a residual all the same
    return float((each @ variance[moving] - still) / variance.sum())


def all_sequences(num_actions, horizon):
    """Every sequence of discrete actions, `[num_actions ** horizon, horizon]`."""
    return np.array(list(itertools.product(range(num_actions), repeat=horizon)), np.int32)


def brute_force(members, reward, terminated, obs, num_actions, horizon, from_mean=False):
    """Scores of every sequence of actions, `[num_actions ** horizon]`, with the mean over members.

    Args:
      members: Dynamics `(obs, action) -> next_obs`, one for each member.
      reward: `(obs, action, next_obs) -> float`.
      terminated: `(obs) -> bool`.
      obs: `[D]`.
      num_actions: Number of actions.
      horizon: Length of the sequences.
      from_mean: Step every member from the mean of the members' states, as the authors' code does
        for continuous actions, and not from its own.
    """
    scores = []
    for actions in all_sequences(num_actions, horizon):
        states = [np.array(obs, np.float64) for _ in members]
        returns, alive = np.zeros(len(members)), [True] * len(members)
        for action in actions:
            mean = np.mean(states, axis=0)
            for m, member in enumerate(members):
                if alive[m]:
                    before = mean if from_mean else states[m]
                    states[m] = member(before, action)
                    returns[m] += reward(before, action, states[m])
                    alive[m] = not terminated(states[m])
        scores.append(returns.mean())
    return np.array(scores)


def bayesian_regression(mean, covariance, inputs, target, noise):
    """Posterior of u ~ N(mean, covariance) after target = inputs u + N(0, diag(noise^2)), float64.

    `mean [r]`, `covariance [r, r]`, `inputs [K, r]`, `target [K]`, `noise [K]`. By the gain form,
    which inverts K x K and never the prior, unlike the code under test.
    """
    mean, covariance, inputs, target, noise = (
        np.asarray(x, np.float64) for x in (mean, covariance, inputs, target, noise)
    )
    cross = covariance @ inputs.T
    gain = np.linalg.solve(inputs @ cross + np.diag(noise**2), cross.T).T
    return mean + gain @ (target - inputs @ mean), covariance - gain @ cross.T


def forgetful_regression(mean, covariance, inputs, target, noise, forgetting):
    """The same, transition by transition in information form, with a forgetting factor.

    `inputs [T, D, r]`, `target [T, D]`, `noise [D]`. Before each transition the information falls
    back towards the prior's by a share of 1 - forgetting.
    """
    prior = np.linalg.inv(np.asarray(covariance, np.float64))
    information, vector = prior.copy(), prior @ mean
    for basis, value in zip(np.asarray(inputs, np.float64), target, strict=True):
        weighted = basis.T / np.asarray(noise, np.float64) ** 2
        information = forgetting * information + (1 - forgetting) * prior + weighted @ basis
        vector = forgetting * vector + (1 - forgetting) * prior @ mean + weighted @ value
    covariance = np.linalg.inv(information)
    return covariance @ vector, covariance
