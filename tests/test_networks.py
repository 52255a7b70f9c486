"""The perceptron against numpy, and its initialisers against the bounds they promise."""

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.networks import ACTIVATIONS, MLP, standardize, uniform_fan_in

NUMPY_ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0.0),
    "swish": lambda x: x / (1.0 + np.exp(-x)),
    "tanh": np.tanh,
}


def numpy_mlp(params, x, activation, activate_final):
    layers = [params["params"][f"dense_{i}"] for i in range(len(params["params"]))]
    for index, layer in enumerate(layers):
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        if activate_final or index + 1 < len(layers):
            x = NUMPY_ACTIVATIONS[activation](x)
    return x


def test_every_activation_has_an_oracle():
    assert set(ACTIVATIONS) == set(NUMPY_ACTIVATIONS)


@pytest.mark.parametrize("activate_final", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(4,), (7, 4), (2, 3, 4)])
def test_forward_pass_is_numpys(key, shape, activation, activate_final):
    network = MLP((5, 6, 3), activation=activation, activate_final=activate_final)
    params_key, x_key = jax.random.split(key)
    params = network.init(params_key, jnp.zeros(4))
    x = 3.0 * jax.random.normal(x_key, shape)
    expected = numpy_mlp(params, np.asarray(x, np.float64), activation, activate_final)
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-5, atol=1e-5)


def test_parameters_do_not_depend_on_the_batch(key):
    network = MLP((8, 2))
    alone, batched = network.init(key, jnp.zeros(3)), network.init(key, jnp.zeros((5, 3)))
    jax.tree.map(np.testing.assert_array_equal, alone, batched)


def test_torch_draws_kernel_and_bias_uniformly_within_one_over_root_fan_in(key):
    params = MLP((400, 300)).init(key, jnp.zeros(100))["params"]
    for layer, fan_in in (("dense_0", 100), ("dense_1", 400)):
        bound = 1.0 / np.sqrt(fan_in)
        for name in ("kernel", "bias"):
            values = np.asarray(params[layer][name])
            assert np.abs(values).max() <= bound
            assert np.abs(values).max() > 0.98 * bound
            # The standard deviation of U(-b, b) is b / sqrt(3).
            np.testing.assert_allclose(values.std(), bound / np.sqrt(3.0), rtol=0.1)


def test_lecun_has_no_bias_and_unit_gain(key):
    params = MLP((400,), initializer="lecun").init(key, jnp.zeros(100))["params"]["dense_0"]
    np.testing.assert_array_equal(params["bias"], 0.0)
    np.testing.assert_allclose(np.asarray(params["kernel"]).std(), 0.1, rtol=0.05)


def test_members_of_an_ensemble_differ(key):
    network = MLP((3,))
    params = jax.vmap(network.init, (0, None))(jax.random.split(key, 2), jnp.zeros(3))
    kernel = params["params"]["dense_0"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": ()}, "features is empty"),
        ({"features": (2,), "activation": "gelu"}, "activation 'gelu' is unknown.*relu"),
        ({"features": (2,), "initializer": "he"}, "initializer 'he' is unknown.*torch"),
    ],
)
def test_unknown_settings_are_refused_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)


def test_no_inputs_are_refused():
    with pytest.raises(ValueError, match="fan_in is 0"):
        uniform_fan_in(0)


def test_wrong_input_width_is_refused(key):
    network = MLP((2,))
    params = network.init(key, jnp.zeros(3))
    with pytest.raises(flax.errors.ScopeParamShapeError):
        network.apply(params, jnp.zeros(4))


def test_layer_normalisation_standardises_what_activations_see():
    x = np.random.default_rng(0).normal(3.0, 5.0, (4, 6)).astype(np.float32)
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(standardize(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)
    plain, normed = (MLP((5, 2), layer_norm=on) for on in (False, True))
    params = plain.init(jax.random.key(0), jnp.zeros(6))
    hidden = jnp.asarray(x) @ params["params"]["dense_0"]["kernel"]
    hidden = jax.nn.relu(standardize(hidden + params["params"]["dense_0"]["bias"][None]))
    out = hidden @ params["params"]["dense_1"]["kernel"] + params["params"]["dense_1"]["bias"][None]
    np.testing.assert_allclose(normed.apply(params, jnp.asarray(x)), out, rtol=1e-4, atol=1e-5)
    # However far the input, what comes out stays bounded.
    far = normed.apply(params, jnp.asarray(x) * 1e6)
    assert float(jnp.abs(far).max()) < 10 < float(jnp.abs(plain.apply(params, x * 1e6)).max())
