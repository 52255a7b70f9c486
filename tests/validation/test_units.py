"""Data in any unit are judged as the same data in another: verdicts, coverage, choices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.factor import FactorConfig
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.validation import procedure
from persim_jax.validation import queries as queries_lib
from persim_jax.validation.config import ValidationConfig
from persim_jax.validation.judgement import conclude
from persim_jax.validation.procedure import Evidence, Part, scale_of
from persim_jax.validation.splits import Split
from tests.toys import factor_params
from tests.validation.records import line_data

CONFIG = ValidationConfig(horizon=8, steps=(1, 4, 8), num_bootstraps=50)
MODEL = FactorConfig(
    8, 2, 3, True, rank=2, state_features=(6,), activation="tanh", ensemble_size=3
)  # fmt: skip
# Squares of the smallest and of the largest are no float32.
UNITS = [2.0**-90, 2.0**90]
GAINS = np.linspace(0.1, 0.8, 8)


def in_units(unit, seed=0):
    """The same records, whose numbers are `unit` times as large."""
    data = line_data(GAINS, steps=24, noise=0.05, seed=seed)
    return data.replace(obs=np.float32(data.obs * unit))


def params_in(config, unit):
    """Untrained params of a model of such records, which nearly predicts that nothing changes."""
    params = factor_params(config)
    norm = params.normalizer
    obs, delta = (
        dataclasses.replace(own, mean=own.mean * own_unit, std=jnp.abs(own.std) * own_unit)
        for own, own_unit in ((norm.obs, unit), (norm.delta, unit / 64))
    )
    return params._replace(normalizer=norm._replace(obs=obs, delta=delta))


def evidence_in(unit):
    known, new = in_units(unit), in_units(unit, seed=1)
    tails = np.full(len(GAINS), 16)
    train = known.replace(mask=np.asarray(known.mask) & (np.arange(24) < 16))
    first = new.replace(mask=train.mask)
    simulators = PersonalizedSimulators(
        params_in(MODEL, unit), np.asarray(known.agent_ids), np.zeros((8, 0)), MODEL,
        noise=jnp.full((3, 2), 0.5),
    )  # fmt: skip
    alike = dataclasses.replace(MODEL, num_agents=1)
    pooled = (alike, params_in(alike, unit))
    parts = [
        Part(data, asked, procedure._forecasts(simulators, pooled, train, own, asked))
        for data, own in ((known, train), (new, first))
        for asked in [queries_lib.windows(data, tails, CONFIG)]
    ]
    return Evidence(Split(train, known, tails, new), scale_of(train), *parts)


@functools.cache
def found_in(unit):
    return conclude(evidence_in(unit), CONFIG)


@pytest.mark.parametrize("unit", UNITS)
def test_verdicts_and_coverage_do_not_depend_on_units(unit):
    usual, ours = found_in(1.0), found_in(unit)
    assert {v.verdict for v in usual.verdicts} >= {"trust_up_to", "do_not_trust"}
    for own, due in zip(jax.tree.leaves(ours), jax.tree.leaves(usual), strict=True):
        if isinstance(due, str):
            assert own == due
        else:
            np.testing.assert_allclose(own, due, rtol=1e-3)


def test_what_is_as_small_as_rounding_is_no_deviation_in_any_unit():
    data = line_data(GAINS)
    data.obs[..., 1] = 0.01
    data.obs[:, ::2, 1] = np.nextafter(np.float32(0.01), np.float32(1))
    assert scale_of(data)[1] == 1.0
    data.obs[..., 1] = 1e-9 * data.obs[..., 0]
    np.testing.assert_allclose(scale_of(data)[1], 1e-9 * scale_of(data)[0], rtol=1e-5)
