"""Learning rates over time, sizes of minibatches, and settings that are refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import training
from persim_jax.training import TrainConfig


def test_the_last_smaller_minibatch_is_left_out_and_a_lone_one_is_kept():
    sizes = {(50, 16): 3, (50, 50): 1, (50, 51): 1, (48, 16): 3, (1, 64): 1}
    for (size, batch_size), steps in sizes.items():
        config = TrainConfig(num_epochs=1, batch_size=batch_size)
        assert training.steps_per_epoch(config, size) == steps


def test_an_epoch_may_be_a_part_of_the_data():
    config = TrainConfig(num_epochs=1, batch_size=16, max_epoch_steps=2)
    assert [training.steps_per_epoch(config, size) for size in (10, 20, 50, 5000)] == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="max_epoch_steps is -1"):
        TrainConfig(num_epochs=1, batch_size=1, max_epoch_steps=-1)


@pytest.mark.optimizes
@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "cosine"}, 0.5 + 0.5 * np.cos(np.pi * np.arange(8) / 8)),
        # Two minibatches an epoch, halved after every second epoch.
        ({"schedule": "halve", "halve_every": 2}, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_schedules(fields, rates):
    config = TrainConfig(num_epochs=4, batch_size=5, learning_rate=0.1, **fields)
    method, weights, found = training.optimizer(config, 11), jnp.zeros(1), []
    state = method.init(weights)
    for _ in range(8):
        # Under a constant gradient a step of Adam is the learning rate.
        update, state = method.update(jnp.ones(1), state, weights)
        found.append(-float(update[0]))
    np.testing.assert_allclose(found, 0.1 * np.asarray(rates), rtol=1e-4, atol=1e-7)


@pytest.mark.optimizes
def test_weight_decay_is_decoupled_from_the_gradient():
    config = TrainConfig(
        num_epochs=3, batch_size=16, learning_rate=0.05, schedule="constant", weight_decay=0.2
    )
    method, weights = training.optimizer(config, 50), jnp.asarray([3.0])
    update, _ = method.update(jnp.zeros(1), method.init(weights), weights)
    np.testing.assert_allclose(update, [-0.05 * 0.2 * 3.0], rtol=1e-5)


@pytest.mark.parametrize("field", ["num_epochs", "batch_size", "halve_every", "polish_steps"])
def test_sizes_below_one_and_unknown_schedules_are_refused(field):
    with pytest.raises(ValueError, match=f"{field} is 0"):
        TrainConfig(**{"num_epochs": 1, "batch_size": 1, field: 0})
    with pytest.raises(ValueError, match="'linear' is unknown"):
        TrainConfig(num_epochs=1, batch_size=1, schedule="linear")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", -0.001),  # uphill, without a word
        ("learning_rate", float("nan")),
        ("weight_decay", -1.0),
        ("polish_rounds", -3),  # as many epochs less
    ],
)
def test_numbers_that_would_train_another_way_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}: it must"):
        TrainConfig(**{"num_epochs": 5, "batch_size": 1, field: value})
