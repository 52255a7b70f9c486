"""Newcomers' data are read by the names of the training data."""

import dataclasses

import numpy as np
import pytest

from persim_jax.data.dataset import DatasetInfo
from persim_jax.data.lags import with_lags
from persim_jax.personalization.evidence import evidence_of
from tests.personalization.toys import dataset_of, make, of_factors


def test_a_table_that_numbers_actions_in_another_way_is_read_by_their_names():
    known = DatasetInfo(
        "line", "random", ("a", "b"), ("c",), 3, 3, action_names=("none", "low", "high")
    )
    simulators = make().replace(info=known)
    told = of_factors(simulators, [0.7, -1.3])
    # This newcomer never took "none": its own table has two actions, in the order of the alphabet.
    chains = dataset_of([told.replace(actions=1 + told.actions % 2)], [7])
    named = dataclasses.replace(known, num_actions=2, action_size=2, action_names=("high", "low"))
    swapped = chains.replace(actions=2 - np.asarray(chains.actions), info=named)
    newcomers, expected = simulators.personalize(swapped), simulators.personalize(chains)
    np.testing.assert_array_equal(newcomers.mean(), expected.mean())
    refused = [
        ({"action_names": ("high", "off")}, "action 'off' is none of none, low, high"),
        ({"obs_names": ("b", "a")}, "states of the newcomers are b, a, those .* a, b: .* order"),
    ]
    for fields, message in refused:
        info = dataclasses.replace(named, **fields)
        with pytest.raises(ValueError, match=message):
            simulators.personalize(swapped.replace(info=info))
    np.testing.assert_array_equal(
        newcomers.update(swapped).mean(), expected.observe(evidence_of(chains)).mean()
    )
    # Who has no names has said nothing else.
    assert simulators.personalize(dataset_of([told], [7])).num_agents == 1


def test_newcomers_without_the_lags_of_the_training_data_are_told_how_to_get_them():
    told = dataset_of([of_factors(make(), [0.7, -1.3])], [7])
    lagged = with_lags(told, 2).info
    with pytest.raises(ValueError, match=r"lags .* are 1, .* 2: give .*with_lags\(dataset, 2\)"):
        make().replace(info=lagged).personalize(told)


def test_what_is_wrong_with_which_newcomer_is_said():
    simulators = make()
    told = dataset_of([of_factors(simulators, [0.7, -1.3])] * 2, [7, 8])
    newcomers, obs = simulators.personalize(told), np.array(told.obs)
    obs[1, 3] = np.nan
    with pytest.raises(ValueError, match="obs of transition 3 of the newcomer in row 1 is not"):
        newcomers.update(told.replace(obs=obs))


@pytest.mark.parametrize("kind", [np.float32, np.bool_])
def test_discrete_actions_are_integers(kind):
    # Half of an action was taken for a mixture of two.
    simulators = make()
    told = of_factors(simulators, [0.7, -1.3])
    with pytest.raises(ValueError, match="discrete actions are integers"):
        simulators.personalize(told.replace(actions=(0.5 * told.actions).astype(kind)))
