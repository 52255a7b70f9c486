"""Products in fewer bits: what is rounded, and that nothing else is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from persim_jax import training
from persim_jax.flops import _jaxprs
from persim_jax.models.base import DynamicsModel, History
from persim_jax.models.cadm import cadm_model
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.models.factor_basis import factor_basis
from persim_jax.networks import MLP
from persim_jax.normalizer import identity
from persim_jax.personalization import posterior
from persim_jax.personalization.prior import population_prior, residual_noise
from persim_jax.precision import dot_general, products_in
from persim_jax.training import TrainConfig
from persim_jax.types import Transitions
from persim_jax.validation import per_agent, support
from tests.models.cadms import random_params, small
from tests.models.test_reward import fitted
from tests.test_training import make_data
from tests.toys import factor_params

DENSE = (((1,), (0,)), ((), ()))


def rounded(x):
    """To bfloat16, in double precision."""
    return np.float64(np.asarray(x).astype(jnp.bfloat16))


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def product(precision):
    @jax.jit
    def call(x, kernel):
        with products_in(precision):
            return dot_general(x, kernel, DENSE)

    return call


def precisions(jaxpr):
    """What each matrix product of a program was asked to be, those inside other programs too."""
    found = [e.params["precision"] for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    for equation in jaxpr.eqns:
        for part in _jaxprs(tuple(equation.params.values())):
            found += precisions(part)
    return found


def test_bf16_rounds_what_enters_and_nothing_else():
    x, kernel = draw(7, 300), draw(300, 5, seed=1)
    found = product("bf16")(x, kernel)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-5)
    exact = np.float64(x) @ kernel
    assert np.abs(found - exact).max() > 1e-2
    np.testing.assert_allclose(product("highest")(x, kernel), exact, rtol=1e-5, atol=1e-5)


def test_sums_are_float32():
    # bfloat16 cannot count beyond 256.
    ones = np.ones((2, 5000), np.float32)
    np.testing.assert_array_equal(product("bf16")(ones, ones.T), 5000.0)


def test_both_products_of_the_gradient_are_rounded_alike():
    x, kernel, weights = draw(7, 30), draw(30, 5, seed=1), draw(7, 5, seed=2)
    total = lambda x, kernel: (weights * product("bf16")(x, kernel)).sum()  # noqa: E731
    of_x, of_kernel = jax.grad(total, (0, 1))(x, kernel)
    assert of_x.dtype == of_kernel.dtype == jnp.float32
    np.testing.assert_allclose(of_x, rounded(weights) @ rounded(kernel).T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_kernel, rounded(x).T @ rounded(weights), rtol=1e-5, atol=1e-5)


def test_members_side_by_side_are_each_alone():
    x, kernels = draw(7, 30), draw(3, 30, 5, seed=1)
    found = jax.vmap(product("bf16"), (None, 0))(x, kernels)
    for one, kernel in zip(found, kernels, strict=True):
        np.testing.assert_allclose(one, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-5)


def test_a_vector_goes_through_a_layer_too():
    x, kernel = draw(30), draw(30, 5, seed=1)
    with products_in("bf16"):
        found, pull = jax.vjp(lambda x, k: dot_general(x, k, (((0,), (0,)), ((), ()))), x, kernel)
    np.testing.assert_allclose(found, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-5)
    of_x, of_kernel = pull(jnp.ones(5))
    np.testing.assert_allclose(of_x, rounded(kernel).sum(axis=1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_kernel, np.tile(rounded(x)[:, None], 5), rtol=1e-5)


def test_layers_outside_are_left_alone():
    x, network = draw(7, 30), MLP((4,))
    params = network.init(jax.random.key(0), x)
    weights = params["params"]["dense_0"]
    exact = np.float64(x) @ np.asarray(weights["kernel"]) + np.asarray(weights["bias"])
    with products_in("bf16"):
        assert np.abs(network.apply(params, x) - exact).max() > 1e-3
    np.testing.assert_allclose(network.apply(params, x), exact, rtol=1e-5, atol=1e-5)


def test_unknown_precisions_are_told_the_known_ones():
    with pytest.raises(ValueError, match="'fp8' is unknown: use one of highest, tf32, bf16"):
        TrainConfig(num_epochs=1, batch_size=1, precision="fp8")
    with pytest.raises(ValueError, match="'fp8' is unknown"), products_in("fp8"):
        pass


@functools.cache
def perceptron():
    """Two members that regress rewards on observations with one hidden layer."""
    network = MLP((16, 1), "tanh")

    def loss(params, batch, key):
        predicted = jax.vmap(network.apply)(params.weights, batch.obs)[..., 0]
        return jnp.square(predicted - batch.rewards).mean(axis=1), {}

    def init(key):
        return jax.vmap(network.init, (0, None))(jax.random.split(key, 2), jnp.zeros(3))

    return DynamicsModel(2, init, lambda data: (), loss, None, None, None, None, None)


def test_training_in_bf16_is_close_to_float32_and_its_state_is_float32():
    config = TrainConfig(num_epochs=10, batch_size=16, learning_rate=0.01)
    data, model, found = make_data(), perceptron(), {}
    for name in ("highest", "bf16"):
        own = dataclasses.replace(config, precision=name)
        state = training.init(jax.random.key(0), model, data, own)
        found[name] = training.train(model, own, state, data)
    for leaf in jax.tree.leaves((found["bf16"].params, found["bf16"].opt_state)):
        assert leaf.dtype in (jnp.float32, jnp.int32)
    highest, bf16 = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(found[name].params)])
        for name in ("highest", "bf16")
    )
    assert 1e-5 < np.abs(bf16 - highest).max() < 0.05


def program(function, precision):
    config = TrainConfig(num_epochs=1, batch_size=16, polish_steps=2, precision=precision)
    state = jax.eval_shape(
        lambda: training.init(jax.random.key(0), perceptron(), make_data(), config)
    )
    traced = function.trace(perceptron(), config, state, jax.tree.map(jnp.asarray, make_data()))
    return str(traced.jaxpr)


def test_each_precision_reaches_the_products_of_an_epoch_and_none_those_of_polishing():
    epochs = {name: program(training.run_epoch, name) for name in ("highest", "tf32", "bf16")}
    assert ["bf16" in epochs[name] for name in epochs] == [False, False, True]
    assert ["HIGHEST" in epochs[name] for name in epochs] == [True, False, False]
    # What JAX calls ten bits: exact on a CPU, which has no such products.
    assert "Precision.HIGH" in epochs["tf32"]
    x, kernel = draw(7, 30), draw(30, 5, seed=1)
    np.testing.assert_array_equal(product("tf32")(x, kernel), product("highest")(x, kernel))
    polishing = program(training.polish, "bf16")
    assert "bf16" not in polishing
    assert "HIGHEST" in polishing


FACTOR = FactorConfig(
    num_agents=2, obs_size=3, action_size=2, discrete=False, rank=2, state_features=(4,),
    action_features=(4,), ensemble_size=2,
)  # fmt: skip
MODELS = {
    "factor": (factor_model(FACTOR), factor_params(FACTOR)),
    "cadm": (cadm_model(small(False)), random_params(small(False))),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("asked", "expected"), [(None, "highest"), ("bfloat16", "default")])
def test_predictions_are_float32_on_every_device_unless_asked_otherwise(name, asked, expected):
    model, params = MODELS[name]

    def one_step(params, obs, action):
        bound = model.bind(params, jnp.asarray(0), None)
        state, encoded = model.start(bound, obs), model.encode_actions(bound, action)
        return model.step(jax.random.key(0), bound, state, encoded)

    with jax.default_matmul_precision(asked):
        found = precisions(jax.make_jaxpr(one_step)(params, jnp.zeros(3), jnp.zeros(2)).jaxpr)
    wanted = lax.Precision(expected)
    assert len(found) >= 3
    assert all(each == (wanted, wanted) for each in found)


def test_newcomers_learned_rewards_and_what_validation_compares_with_are_float32_too():
    params, reward = MODELS["factor"][1], fitted()
    noise, mask, one = jnp.ones(3), jnp.ones(4, bool), jnp.asarray(1.0)
    data = Transitions(
        agent=jnp.zeros(4, jnp.int32), obs=jnp.zeros((4, 3)), actions=jnp.zeros((4, 2)),
        rewards=jnp.zeros(4), next_obs=jnp.ones((4, 3)), terminated=jnp.zeros(4, bool),
    )  # fmt: skip

    def newcomer(params, basis, key):
        prior = jax.tree.map(lambda leaf: leaf[0], population_prior(FACTOR, params))
        start = posterior.start(prior)
        known = posterior.condition(start, basis, jnp.zeros((4, 3)), noise, mask, one)
        spread = posterior.covariance(known)
        return posterior.sample(key, known, 4), spread, posterior.predict(known, basis[0], noise)

    sizes = per_agent.RidgeConfig(size=3, lags=1, num_actions=0, degree=2)
    own = History(data.obs, data.actions, data.next_obs, mask)
    alone = jax.tree.map(lambda leaf: leaf[None], own)
    scaling = per_agent.Scaling(identity(3), identity(2), -noise, noise)
    coefficients = jnp.zeros((18, 3))  # of 1, three states, two actions, and their products
    ridge = per_agent.RidgeParams(coefficients, *scaling)
    step = per_agent.ridge_model(sizes).step
    traced = [
        jax.make_jaxpr(functools.partial(per_agent._fit_each, config=sizes))(alone, scaling, noise),
        jax.make_jaxpr(step)(jax.random.key(0), ridge, data.obs[:1], data.actions[0]),
        jax.make_jaxpr(support._nearest)(data.obs, data.obs),
        jax.make_jaxpr(functools.partial(factor_basis, FACTOR))(params, data.obs, data.actions),
        jax.make_jaxpr(reward)(jnp.zeros(2), jnp.zeros(1), jnp.zeros(2)),
        jax.make_jaxpr(newcomer)(params, jnp.zeros((4, 3, 2)), jax.random.key(0)),
        jax.make_jaxpr(functools.partial(residual_noise, FACTOR))(params, data),
    ]
    for program in traced:
        found = precisions(program.jaxpr)
        assert found
        assert all(each == (lax.Precision.HIGHEST,) * 2 for each in found)
