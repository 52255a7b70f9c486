"""Budgets of the ablations, by hand and by search, and that each trains as PerSim does."""

import dataclasses
import itertools

import numpy as np
import pytest

from experiments.families import method_settings
from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.methods.ablations import (
    AGENTS,
    RECIPES,
    AblationSettings,
    ablation_settings,
    hidden_within,
    mlp_config,
    parameter_budget,
)
from persim_jax.methods.model_based import parameter_count
from persim_jax.methods.persim import PersimConfig
from persim_jax.models.mlp import MLPConfig, mlp_model
from persim_jax.optimization import steps_per_epoch
from tests.test_configs import config_of

# D, A, whether discrete, and the parameters of PerSim's default model, all and of one agent, summed
# up by hand: state encoder, action encoder, shared bias, N r factors.
SIZES = {
    "mountain_car": (2, 3, True, (2 * 64 + 64) + (64 * 6 + 6) + (3 * 3 + 3) + 3, 3),
    "cart_pole": (4, 2, True, (4 * 32 + 32) + (36 * 20 + 20) + (2 * 5 + 5) + 5, 5),
    "half_cheetah": (
        18, 6, False,
        (18 * 256 + 256) + (256 * 256 + 256) + (274 * 270 + 270) + (6 * 15 + 15) + 15, 15,
    ),
}  # fmt: skip


# As docs/model_baselines.md prints them.
WIDTHS = {
    "mountain_car": {"concat_mlp": (54,), "pooled_mlp": (262,), "per_agent_mlp": (75,)},
    "cart_pole": {"concat_mlp": (54,), "pooled_mlp": (308,), "per_agent_mlp": (82,)},
    "half_cheetah": {
        "concat_mlp": (352, 352), "pooled_mlp": (369, 369), "per_agent_mlp": (359, 359)
    },
}  # fmt: skip


def dataset_of(environment, num_agents=500, lengths=(7,)):
    """No data but their sizes."""
    size, actions, discrete, *_ = SIZES[environment]
    steps = max(lengths)
    mask = np.arange(steps) < np.resize(lengths, num_agents)[:, None]
    shape = (num_agents, steps)
    return OfflineDataset(
        obs=np.zeros((num_agents, steps + 1, size), np.float32),
        actions=np.zeros(shape if discrete else (*shape, actions), np.int32),
        rewards=np.zeros(shape, np.float32), terminated=np.zeros(shape, bool), mask=mask,
        agent_ids=np.arange(num_agents), covariates=np.zeros((num_agents, 1), np.float32),
        info=DatasetInfo(
            environment, "random", tuple(f"x{i}" for i in range(size)), ("c",),
            actions if discrete else 0, actions,
        ),
    )  # fmt: skip


def count_by_hand(config):
    """Weights and biases of one network."""
    widths = (config.input_size, *config.hidden)
    hidden = sum(a * b + b for a, b in itertools.pairwise(widths))
    last = widths[-1] + config.skip * config.input_size
    return hidden + last * config.obs_size + config.obs_size


@pytest.mark.parametrize("environment", list(SIZES))
def test_every_ablation_has_the_parameters_of_persim(environment):
    config, dataset = config_of(environment, "default").to_dict(), dataset_of(environment)
    *_, shared, rank = SIZES[environment]
    total, of_one = shared + 500 * rank, shared + rank
    for name in AGENTS:
        settings = method_settings(config, name, (3, 1)).network
        found = mlp_config(name, dataset, settings, 5)
        assert found.hidden == WIDTHS[environment][name]
        expected = of_one if name == "per_agent_mlp" else total
        assert parameter_budget(dataset, settings.persim, name) == expected
        own = count_by_hand(found) + (500 * rank if name == "concat_mlp" else 0)
        assert own == pytest.approx(expected, rel=0.02)  # the bound is 10 %
        networks = 2 if name == "per_agent_mlp" else 1
        assert parameter_count(mlp_model(found)) == networks * own
        assert found.num_parameters == own
        assert found.ensemble_size == settings.persim.ensemble_size == 5
        for field in ("activation", "skip", "layer_norm", "target", "huber", "normalize_obs"):
            assert getattr(found, field) == getattr(settings.persim, field)


@pytest.mark.parametrize("shape", [(7,), (8, 4)])
def test_widths_are_the_nearest_ones_in_proportion(shape):
    config = MLPConfig(num_agents=5, obs_size=3, action_size=2, discrete=True, skip=True)
    budget = 700
    every = [tuple(max(1, round(k * w / shape[0])) for w in shape) for k in range(1, 100)]
    distance = [
        abs(count_by_hand(dataclasses.replace(config, hidden=hidden)) - budget) for hidden in every
    ]
    assert hidden_within(config, shape, budget) == every[int(np.argmin(distance))]


def test_own_networks_take_as_many_steps_as_persim_on_minibatches_of_their_own():
    persim = PersimConfig(
        train=dataclasses.replace(
            PersimConfig().train, num_epochs=20, batch_size=16, schedule="halve", halve_every=10
        )
    )
    settings = ablation_settings(AblationSettings(persim, networks=(0, 2), own_batch_size=4))
    dataset = dataset_of("cart_pole", num_agents=8, lengths=(11, 50, 22))
    own = RECIPES["per_agent_mlp"].train(dataset, settings)
    steps = 20 * steps_per_epoch(persim.train, int(dataset.mask.sum()))
    assert own.batch_size == 4
    # The longest of the two trajectories has 22 transitions: five minibatches.
    assert abs(own.num_epochs * 5 - steps) <= 5 / 2
    assert own.num_epochs / own.halve_every == pytest.approx(2, rel=0.05)
    same = ("learning_rate", "schedule", "polish_rounds", "polish_steps", "polish_size")
    assert all(getattr(own, name) == getattr(persim.train, name) for name in same)
    data = RECIPES["per_agent_mlp"].data(dataset, settings)
    assert data.obs.shape == (22, 2, 4)
    # The others train as PerSim does, to the letter.
    assert RECIPES["concat_mlp"].train(dataset, settings) == persim.train
    assert RECIPES["pooled_mlp"].data(dataset, settings).obs.shape == (dataset.mask.sum(), 4)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="own_batch_size is 0"):
        AblationSettings(own_batch_size=0)
    with pytest.raises(ValueError, match=r"angles are \(1,\)"):
        AblationSettings(persim=PersimConfig(angles=(1,)))
