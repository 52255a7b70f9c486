"""The paper's Proposition 1: MountainCar without its walls is a factor model of rank 3 exactly.

The product of factors is checked alone, then the whole network with weights set by hand. Its ReLU
encoder holds cos(3 x) as the interpolant between knots, so it is exact where a knot is, and between
two of them as far off as interpolation is and no further.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persim_jax.models.base import ModelParams
from persim_jax.models.factor import (
    FactorConfig,
    FactorNormalizer,
    factor_model,
    factor_product,
    predict_delta,
)
from persim_jax.normalizer import identity
from tests import oracles

FORMS = {
    "paper": (oracles.mountain_car_paper, 0.5),
    "gymnasium": (oracles.mountain_car_gymnasium, 1.0),
}
GRAVITIES = np.array([0.0001, 0.0012, 0.0025, 0.0035])
PUSHES = np.array([-0.001, 0.0, 0.001])
KNOTS = np.linspace(-1.2, 0.6, 37)
CONFIG = FactorConfig(
    num_agents=len(GRAVITIES),
    obs_size=2,
    action_size=len(PUSHES),
    discrete=True,
    rank=3,
    state_features=(len(KNOTS) + 1,),
    ensemble_size=1,
)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", FORMS)
@given(
    gravity=st.floats(0.0001, 0.0035),
    position=st.floats(-1.2, 0.6),
    velocity=st.floats(-0.07, 0.07),
    push=st.sampled_from(PUSHES.tolist()),
)
def test_the_product_of_three_factors_is_the_map(form, gravity, position, velocity, push):
    step, half = FORMS[form]
    state = np.array([position, velocity])
    u, v, w = oracles.mountain_car_factors(gravity, state, push, half)
    delta = factor_product(jnp.asarray(u), jnp.asarray(v), jnp.asarray(w))
    np.testing.assert_allclose(delta, step(gravity, state, push) - state, rtol=0, atol=4e-16)


def test_the_product_sums_over_factors_and_keeps_every_other_axis():
    rng = np.random.default_rng(0)
    u, v, w = rng.normal(size=(5, 3)), rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 3))
    product = factor_product(*(jnp.asarray(x, jnp.float32) for x in (u, v, w)))
    np.testing.assert_allclose(product, np.einsum("bl,bdl,bl->bd", u, v, w), rtol=1e-4, atol=1e-6)


def hand_set(half, skip):
    """Weights of the map's factors; without `skip` the velocity passes through shifted ReLUs."""
    values, slopes = np.cos(3 * KNOTS), np.diff(np.cos(3 * KNOTS)) / np.diff(KNOTS)
    # cos = value at the first knot + sum over knots of (change of slope) relu(x - knot).
    bends = np.append(np.diff(slopes, prepend=0.0), 0.0)
    hidden = len(KNOTS) + 1
    trunk = np.zeros((2, hidden))
    trunk[0, :-1] = 1.0
    trunk[1, -1] = 1.0  # the last unit is relu(velocity + 1) = velocity + 1
    head = np.zeros((hidden + 2 * skip, 2, 3))
    cosine = np.append(bends, 0.0)
    head[:hidden, 0, 1], head[:hidden, 1, 1] = -half * cosine, -cosine
    bias = np.array([[0.0, -half * values[0], half], [0.0, -values[0], 1.0]])
    if skip:
        head[hidden + 1, 0, 0] = 1.0
    else:
        head[hidden - 1, 0, 0], bias[0, 0] = 1.0, -1.0
    ones = np.ones(len(GRAVITIES))
    weights = {
        "agent_encoder": {"embedding": np.stack([ones, GRAVITIES - 0.5, ones], axis=1)},
        "agent_bias": np.array([0.0, 0.5, 0.0]),
        "state_trunk": {"dense_0": {"kernel": trunk, "bias": np.append(-KNOTS, 1.0)}},
        "state_head": {"kernel": head.reshape(-1, 6), "bias": bias.reshape(6)},
        "action_encoder": {
            "dense_0": {
                "kernel": np.stack([PUSHES * 0, PUSHES * 0, PUSHES], axis=1),
                "bias": np.array([1.0, 1.0, 0.0]),
            }
        },
    }
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], weights)


def predictions(positions, half, skip):
    """Next states of the bound network and of the unbound one, and the inputs, all [.., 2]."""
    config = dataclasses.replace(CONFIG, skip=skip)
    unit = identity(2)
    params = ModelParams(
        hand_set(half, skip), FactorNormalizer(unit, unit, jnp.ones_like(unit.mean))
    )
    model = factor_model(config)
    grid = np.meshgrid(np.arange(4), positions, [-0.07, 0.0, 0.033], np.arange(3), indexing="ij")
    agent, position, velocity, action = (x.reshape(-1) for x in grid)
    obs = np.stack([position, velocity], axis=-1)

    @jax.jit
    @jax.vmap
    def both(agent, obs, action):
        bound = model.bind(params, agent, None)
        encoded = model.encode_actions(bound, action)
        state = model.step(jax.random.key(0), bound, model.start(bound, obs), encoded)
        return model.observe(state)[0], obs + predict_delta(config, params, agent, obs, action)[0]

    return both(agent, obs, action), GRAVITIES[agent], obs, PUSHES[action]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_network_is_the_map_at_the_knots_of_its_encoder(form, skip):
    step, half = FORMS[form]
    predicted, gravity, obs, push = predictions(KNOTS, half, skip)
    for path in predicted:
        assert path.dtype == jnp.float64
        np.testing.assert_allclose(path, step(gravity, obs, push), rtol=0, atol=1e-15)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", FORMS)
def test_between_knots_the_network_is_off_by_interpolation_only(form):
    step, half = FORMS[form]
    middles = (KNOTS[1:] + KNOTS[:-1]) / 2
    predicted, gravity, obs, push = predictions(middles, half, skip=False)
    error = np.abs(np.asarray(predicted[0]) - step(gravity, obs, push))
    # Of a function whose second derivative is at most 9 g, between knots h apart: 9 g h^2 / 8.
    bound = 9 * gravity * (KNOTS[1] - KNOTS[0]) ** 2 / 8
    assert np.all(error[:, 1] <= bound)
    assert np.all(error[:, 0] <= half * bound + 1e-15)
    assert error[:, 1].max() > 0.5 * bound.max()  # and it is that, not luck


@pytest.mark.parametrize("form", FORMS)
def test_rank_three_suffices_and_rank_two_does_not(form):
    step, _ = FORMS[form]
    states = np.stack(np.meshgrid(np.linspace(-1.2, 0.6, 9), [-0.05, 0.02]), axis=-1).reshape(-1, 2)
    # A product of r factors has rank at most r in each unfolding, so this one excludes two.
    tensor = np.array(
        [[step(g, states, a) - states for a in PUSHES] for g in GRAVITIES]
    )  # [agents, actions, states, coordinates]
    unfolded = tensor.reshape(len(GRAVITIES) * len(PUSHES), -1)
    values = np.linalg.svd(unfolded, compute_uv=False)
    assert values[2] > 1e-3
    assert values[3] < 1e-15
