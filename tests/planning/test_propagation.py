"""Members on their own states against members that step from the mean of their states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models import factor
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.mpc import PlannerConfig, candidate_score, mpc_policy
from tests import oracles
from tests.planning.continuous import plane_env, pulls_model
from tests.toys import END, factor_params, gains_model, line_env, line_params

CONTINUOUS = ("cem", "icem", "mppi")


@functools.partial(jax.jit, static_argnames=("model", "task", "propagate"))
def score_of(model, task, bound, obs, actions, propagate):
    encoded = model.encode_actions(bound, actions)
    key = jax.random.key(0)
    return candidate_score(key, model, bound, task, obs, actions, encoded, 0.0, propagate)


def scores_of(model, task, bound, obs, sequences, propagate):
    score = functools.partial(score_of, model, task, bound, obs, propagate=propagate)
    return np.array([score(jnp.asarray(actions)) for actions in sequences])


@functools.cache
def tug_of_war():
    """Pulled apart, the square of the distance pays; a pull of size a costs 1.5 a, 0 <= a <= 1."""
    env = plane_env((0.0, 0.0), (1.0, 1.0))
    pay = lambda obs, action, next_obs: jnp.square(next_obs[0]) - 1.5 * action[0]  # noqa: E731
    return env._replace(reward=pay)


# Returns of two pulls by members of gains 1 and -1. From their own states (a, a + b) and its
# mirror image: a^2 + (a + b)^2. From the mean state, which stays at 0: a^2 + b^2.
PULLS = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.5, 0.5)]
OWN = [1 + 4 - 3, 1 + 1 - 1.5, 1 - 1.5, 0, 0.25 + 1 - 1.5]
MEAN = [1 + 1 - 3, 1 - 1.5, 1 - 1.5, 0, 0.25 + 0.25 - 1.5]


@pytest.mark.parametrize(("propagate", "expected"), [("members", OWN), ("mean", MEAN)])
def test_returns_by_hand(propagate, expected):
    sequences = [[[a, 0.0], [b, 0.0]] for a, b in PULLS]
    model, bound = pulls_model(2), jnp.asarray([1.0, -1.0])
    scores = scores_of(model, tug_of_war(), bound, jnp.zeros(2), sequences, propagate)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize(("propagate", "best"), [("members", 1.0), ("mean", 0.0)])
def test_each_sampler_decides_by_the_way_that_the_config_names(key, name, propagate, best):
    # Two pulls of 1 earn 2 from the members' own states, and no pull earns 0: both are the best.
    config = PlannerConfig(
        name, 400, 2, propagate=propagate, num_rounds=12, num_elites=40, init_std=(0.6, 0.6)
    )
    policy = mpc_policy(pulls_model(2), jnp.asarray([1.0, -1.0]), tug_of_war(), config)
    action, _ = jax.jit(policy.act)(key, policy.init(), jnp.zeros(2))
    np.testing.assert_allclose(action[0], best, atol=0.1)


@pytest.mark.parametrize("position", [-1.0, 0.9, 1.6])
def test_the_mean_way_equals_brute_force_with_terminations(position):
    gains, horizon = [0.5, 2.5, -1.0], 4
    member = lambda gain: lambda obs, a: obs + np.array([gain * (a - 0.5), 1.0])  # noqa: E731
    reward = lambda obs, a, next_obs: next_obs[0] - 0.5 * obs[0] + 0.1 * a  # noqa: E731
    ended = lambda obs: obs[0] >= END  # noqa: E731
    arguments = ([member(g) for g in gains], reward, ended, np.array([position, 0.0]), 2, horizon)
    expected = oracles.brute_force(*arguments, from_mean=True)
    sequences = oracles.all_sequences(2, horizon)
    obs = jnp.asarray([position, 0.0])
    scores = scores_of(gains_model(3, 2), line_env(2), jnp.asarray(gains), obs, sequences, "mean")
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - oracles.brute_force(*arguments)).max() > 0.1


FACTOR = FactorConfig(
    num_agents=2, obs_size=2, action_size=2, discrete=False, rank=2, state_features=(6,),
    action_features=(4,), ensemble_size=3,
)  # fmt: skip


@pytest.mark.parametrize("propagate", ["members", "mean"])
def test_the_factor_model_both_ways(propagate):
    params, agent = factor_params(FACTOR), jnp.asarray(1)
    model, task = factor_model(FACTOR), plane_env()
    actions = np.random.default_rng(3).uniform(-1, 1, (4, 2)).astype(np.float32)
    start = jnp.asarray([0.2, -0.4])
    # One unfolded prediction after another, in plain Python.
    deltas = jax.jit(functools.partial(factor.predict_delta, FACTOR))
    states, returns = np.broadcast_to(start, (3, 2)), np.zeros(3)
    for action in actions:
        if propagate == "mean":
            states = np.broadcast_to(states.mean(axis=0), (3, 2))
        states = np.stack(
            [states[m] + deltas(params, agent, states[m], action)[m] for m in range(3)]
        )
        returns += -np.square(states).sum(axis=1) - 0.5 * np.square(action).sum()
    bound = model.bind(params, agent, None)
    score = score_of(model, task, bound, start, jnp.asarray(actions), propagate)
    np.testing.assert_allclose(score, returns.mean(), rtol=1e-4)


def test_for_one_member_both_ways_are_the_same():
    config = FactorConfig(
        num_agents=2, obs_size=2, action_size=2, discrete=False, rank=2, ensemble_size=1
    )
    fitted = factor_model(config)
    folded = fitted.bind(factor_params(config), jnp.asarray(0), None)
    plane, line = plane_env(), line_env(3)
    pulls = np.random.default_rng(0).uniform(-1, 1, (6, 4, 2)).astype(np.float32)
    steps = oracles.all_sequences(3, 3)
    for model, task, bound, sequences in (
        (fitted, plane, folded, pulls),
        (true_dynamics(plane), plane, {"gain": jnp.asarray(0.7)}, pulls),
        (true_dynamics(line), line, line_params(0.8), steps),
    ):
        arguments = (model, task, bound, jnp.asarray([0.2, -0.4]), sequences)
        own, mean = (scores_of(*arguments, way) for way in ("members", "mean"))
        np.testing.assert_array_equal(own, mean)
        assert own.std() > 0.01


@pytest.mark.parametrize("chunk_size", [0, 5])
@pytest.mark.parametrize("propagate", ["members", "mean"])
def test_actions_are_encoded_a_whole_round_at_a_time_and_not_in_the_rollout(
    key, chunk_size, propagate
):
    encoded, stepped = [], []
    plain = pulls_model(2)

    def encode_actions(bound, actions):
        encoded.append(actions.shape)
        return {"factors": jnp.concatenate([actions, 2 * actions], axis=-1)}

    def step(key, bound, state, action):
        stepped.append(action["factors"].shape)
        return plain.step(key, bound, state, action["factors"][:2])

    model = plain._replace(encode_actions=encode_actions, step=step)
    config = PlannerConfig(
        "cem", 10, 4, num_elites=3, chunk_size=chunk_size, propagate=propagate, num_rounds=2
    )
    bound, task, obs = jnp.asarray([1.0, 0.5]), plane_env(), jnp.asarray([0.4, -0.3])
    act, reference = (mpc_policy(m, bound, task, config) for m in (model, plain))
    action, _ = jax.jit(act.act)(key, act.init(), obs)
    # Plans of all candidates of a chunk, [K, H, A], and one step's row of them in the rollout.
    assert set(encoded) == {(chunk_size or 10, 4, 2)}
    assert set(stepped) == {(4,)}
    expected, _ = jax.jit(reference.act)(key, reference.init(), obs)
    np.testing.assert_allclose(action, expected, rtol=1e-6)
