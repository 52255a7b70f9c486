"""A member that was limited to r factors is a model of rank r, and training keeps it one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.factor import FactorConfig, factor_model, predict_delta
from persim_jax.models.factor_ranks import limit_ranks
from persim_jax.types import Transitions
from tests.toys import factor_params

CONFIG = FactorConfig(
    num_agents=3, obs_size=2, action_size=2, discrete=True, rank=4, state_features=(5,),
    activation="tanh", skip=True, ensemble_size=3, agent_penalty=0.1,
)  # fmt: skip


def first_factors(weights, member, rank):
    """The weights of one member cut down to a model of rank `rank`, by hand."""
    cut = jax.tree.map(lambda leaf: leaf[member : member + 1], weights)
    head = cut["state_head"]
    kernel = head["kernel"].reshape(1, -1, 2, 4)[..., :rank].reshape(1, -1, 2 * rank)
    bias = head["bias"].reshape(1, 2, 4)[..., :rank].reshape(1, -1)
    encoder = {"dense_0": jax.tree.map(lambda x: x[..., :rank], cut["action_encoder"]["dense_0"])}
    return {
        **cut,
        "agent_encoder": {"embedding": cut["agent_encoder"]["embedding"][..., :rank]},
        "agent_bias": cut["agent_bias"][..., :rank],
        "state_head": {"kernel": kernel, "bias": bias},
        "action_encoder": encoder,
    }


@pytest.mark.parametrize("features", [(), (3,)])
def test_a_limited_member_predicts_as_the_smaller_model(features):
    config = dataclasses.replace(CONFIG, action_features=features)
    params = factor_params(config)
    limited = params._replace(weights=limit_ranks(params.weights, (1, 3, 4)))
    query = jnp.asarray(2), jnp.asarray([0.3, -0.2]), jnp.asarray(1)
    found = jax.jit(predict_delta, static_argnums=0)(config, limited, *query)
    np.testing.assert_allclose(found[2], predict_delta(config, params, *query)[2], rtol=1e-5)
    if not features:
        for member, rank in enumerate((1, 3)):
            small = dataclasses.replace(config, rank=rank, ensemble_size=1)
            cut = params._replace(weights=first_factors(params.weights, member, rank))
            np.testing.assert_allclose(
                found[member], predict_delta(small, cut, *query)[0], rtol=1e-4, atol=1e-5
            )


def test_what_is_switched_off_has_no_gradient():
    params = factor_params(CONFIG)
    weights = limit_ranks(params.weights, (1, 3, 4))
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(3, 8, 2)), jnp.float32)
    batch = Transitions(
        agent=jnp.asarray(rng.integers(3, size=(3, 8))), obs=obs, rewards=None, terminated=None,
        actions=jnp.asarray(rng.integers(2, size=(3, 8))), next_obs=obs + 1,
    )  # fmt: skip
    total = lambda w: (  # noqa: E731
        factor_model(CONFIG).loss(params._replace(weights=w), batch, jax.random.key(0))[0].sum()
    )
    gradient = jax.jit(jax.grad(total))(weights)
    for leaf in (
        gradient["agent_encoder"]["embedding"],
        gradient["agent_bias"],
        gradient["action_encoder"]["dense_0"]["kernel"],
    ):
        np.testing.assert_array_equal(leaf[0, ..., 1:], 0.0)
        np.testing.assert_array_equal(leaf[1, ..., 3:], 0.0)
        assert np.abs(leaf[0, ..., 0]).max() > 0
    head = gradient["state_head"]["bias"].reshape(3, 2, 4)
    np.testing.assert_array_equal(head[1, :, 3], 0.0)
    assert np.abs(head[2, :, 3]).min() > 0


@pytest.mark.parametrize("ranks", [(1, 2), (1, 2, 5)])
def test_ranks_that_do_not_fit_are_refused(ranks):
    with pytest.raises(ValueError, match="one for each of 3 members is due, at most 4"):
        limit_ranks(factor_params(CONFIG).weights, ranks)
