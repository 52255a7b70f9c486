"""What is chosen for data whose truth is known, and how sizes follow from them."""

import dataclasses
import json

import numpy as np
import pytest

from persim_jax import choices as choices_lib
from persim_jax.choices import Asked, Choices, Trial, choose, fit_with, sized
from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.models.base import ModelParams
from persim_jax.validation.open_loop import Forecast


def pushed(gains, steps=30, hidden=False, seed=0):
    """Agents on a line, moved by gain * push, push -1, 0 or 1, with a little noise.

    Where it is hidden, the push of the step before counts, too, half as much.
    """
    rng = np.random.default_rng(seed)
    count = len(gains)
    actions = rng.integers(3, size=(count, steps)).astype(np.int32)
    push = actions - 1.0
    if hidden:
        push[:, 1:] += 0.5 * (actions[:, :-1] - 1.0)
    moved = np.asarray(gains)[:, None] * push + 0.01 * rng.normal(size=push.shape)
    obs = np.concatenate([np.zeros((count, 1)), moved.cumsum(axis=1)], axis=1)
    return OfflineDataset(
        obs=obs[..., None].astype(np.float32), actions=actions,
        rewards=np.zeros((count, steps), np.float32), terminated=np.zeros((count, steps), bool),
        mask=np.ones((count, steps), bool), agent_ids=np.arange(count, dtype=np.int32),
        covariates=np.zeros((count, 0), np.float32),
        info=DatasetInfo("line", "random", ("x",), (), 3, 3),
    )  # fmt: skip


def trial(rank, *by_agent):
    return Trial(1, rank, 0.1, float(np.sqrt(np.mean(by_agent))), by_agent)


def test_the_simplest_that_is_not_clearly_worse_is_taken():
    best = trial(3, 1.0, 2.0, 3.0, 2.0)
    # On average 0.1 worse, with differences of which one deviation of the mean is 0.5 * 0.424.
    close = trial(2, 1.1, 2.7, 2.5, 2.1)
    clear = trial(1, 1.3, 2.3, 3.3, 2.3)
    assert choices_lib._simplest([clear, close, best]) == close
    assert choices_lib._simplest([clear, best]) == best
    assert choices_lib._simplest([best]) == best


@pytest.mark.parametrize(
    ("agents", "steps", "batch", "epochs"),
    [(2, 10, 32, 500), (100, 64, 64, 50), (500, 200, 256, 13), (500, 4000, 256, 4)],
)
def test_sizes_follow_from_the_number_of_transitions(agents, steps, batch, epochs):
    choices = sized(pushed(np.ones(agents), steps), seed=3)
    assert (choices.batch_size, choices.num_epochs, choices.seed) == (batch, epochs, 3)
    if 4 < epochs < 500:
        updates = epochs * (agents * steps // batch)
        assert abs(updates - choices_lib.UPDATES) < 0.1 * choices_lib.UPDATES


def test_choices_pass_through_json_and_others_are_refused():
    choices = Choices(rank=2, state_features=(16, 16))
    fields = json.loads(json.dumps(dataclasses.asdict(choices)))
    assert Choices.from_json(fields) == choices
    config = choices.config()
    assert (config.rank, config.train.num_epochs, config.normalize_actions) == (2, 100, True)
    del fields["rank"]
    with pytest.raises(ValueError, match="made by another version; fit again"):
        Choices.from_json(fields)


def test_one_candidate_is_taken_without_trial():
    never = lambda candidate, trial: pytest.fail("nothing is to be tried")  # noqa: E731
    choices, trials = choose(pushed([1.0, 2.0]), Asked((2,), (2,), (0.5,)), seed=1, run=never)
    assert (choices.lags, choices.rank, choices.agent_penalty, trials) == (2, 2, 0.5, [])
    # More factors than agents make no sense.
    assert choose(pushed([1.0, 2.0]), Asked((1,), (1, 5), (0.5,)), run=never)[0].rank == 1
    assert choose(pushed([1.0, 2.0]), Asked((1,), (8, 5), (0.5,)), run=never)[0].rank == 5


def test_lags_that_some_agent_is_too_short_for_are_no_candidates():
    short = pushed([1.0, 2.0], steps=5)
    mask = np.array(short.mask)
    mask[1, 2:] = False
    short = short.replace(mask=mask)
    made_up = lambda candidate, trial: [Trial(candidate.lags, 1, 0.1, 1.0, (1.0,))]  # noqa: E731
    trials = choose(short, Asked((1, 2, 3), (1,), (0.1,)), run=made_up)[1]
    assert [found.lags for found in trials] == [1, 2]
    with pytest.raises(ValueError, match="agent 1 has no run of 4 rows"):
        choose(short, Asked((3,), (1,), (0.1,)), run=made_up)


def test_data_that_are_not_valid_are_refused_before_anything_is_tried():
    data = pushed([1.0, 2.0])
    data.obs[1, 3] = np.nan
    with pytest.raises(ValueError, match="agent 1 at step 3, x"):
        choose(data)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(ranks=(0, 1)), "one of ranks is 0: it must be at least 1"),
        (Asked(ranks=(1.5, 2)), r"one of ranks is 1\.5: .* a whole number"),
        (Asked(lags=()), "lags are empty: name at least one candidate"),
        (Asked(penalties=(0.1, -1.0)), r"one of penalties is -1\.0: it must not be negative"),
        (Asked(penalties=(np.nan,)), "one of penalties is nan"),
    ],
)
def test_candidates_without_sense_are_refused_before_anything_is_tried(asked, message):
    never = lambda candidate, trial: pytest.fail("nothing is to be tried")  # noqa: E731
    with pytest.raises(ValueError, match=message):
        choose(pushed([1.0, 2.0]), asked, run=never)


def test_records_that_cannot_be_cut_are_fitted_untried():
    short = pushed([1.0, 2.0, 3.0], steps=1)
    choices, trials = choose(short, Asked(ranks=(1, 2, 3)))
    assert (choices.rank, choices.agent_penalty, trials) == (2, 0.1, [])


def test_lags_rank_and_penalty_are_chosen_in_turn():
    """Errors are made up: two lags are as good as three, rank two is best, little penalty too."""
    asked = []

    def run(candidate, trial):
        asked.append((candidate.lags, candidate.agent_penalty))
        error = {1: 5.0, 2: 1.0, 3: 1.0}[candidate.lags] + 0.1 * candidate.agent_penalty
        return [
            Trial(candidate.lags, rank, candidate.agent_penalty, error + miss, (error + miss,) * 2)
            for rank, miss in ((1, 0.5), (2, 0.0), (3, 0.1))
        ]

    data = pushed(np.ones(4))
    choices, trials = choose(data, Asked((3, 1, 2), (3, 1, 2), (1.0, 0.01, 0.1)), run=run)
    assert (choices.lags, choices.rank, choices.agent_penalty) == (2, 2, 0.01)
    assert asked == [(1, 0.1), (2, 0.1), (3, 0.1), (2, 0.01), (2, 1.0)]
    assert len(trials) == len(set(trials)) == 15


def off_by_a_hundredth(monkeypatch):
    """Trials fit nothing, and each prediction is off by 0.01."""
    nearly = lambda model, params, queries, scale: Forecast(queries.truth + 0.01, queries.truth)  # noqa: E731
    monkeypatch.setattr(choices_lib, "fit_model", lambda *args: (ModelParams((), ()), None))
    monkeypatch.setattr(choices_lib, "forecast", nearly)


def test_candidates_with_more_lags_are_judged_in_the_same_units(monkeypatch):
    # Records begin with a leap, which a candidate with lags does not see.
    data = pushed(np.linspace(0.5, 3.0, 8))
    data.obs[:, 1] += 50.0
    off_by_a_hundredth(monkeypatch)
    trials = choose(data, Asked(lags=(1, 3), ranks=(1,), penalties=(0.1,)))[1]
    assert [trial.lags for trial in trials] == [1, 3]
    np.testing.assert_allclose(trials[0].error, trials[1].error, rtol=1e-6)


def test_a_coordinate_that_never_differs_does_not_drown_the_others(monkeypatch):
    # A flag, always 5: an error of it is no number of its deviations, which are 0.
    data = pushed(np.linspace(0.5, 3.0, 8))
    flagged = data.replace(
        obs=np.concatenate([data.obs, np.full_like(data.obs, 5.0)], axis=-1),
        info=dataclasses.replace(data.info, obs_names=("x", "flag")),
    )
    off_by_a_hundredth(monkeypatch)
    (found,) = choices_lib.try_ranks(flagged, sized(flagged), (1,), np.asarray(flagged.mask))
    assert 0.01 / np.sqrt(2) < found.error < 0.01


@pytest.mark.slow
@pytest.mark.optimizes
def test_lags_are_chosen_where_the_past_counts_and_the_fit_follows_each_agent(monkeypatch):
    monkeypatch.setattr(choices_lib, "TRIAL_UPDATES", 400)
    gains = np.linspace(0.5, 3.0, 20)
    data = pushed(gains, steps=60, hidden=True)
    choices, trials = choose(data, Asked((1, 2), (1, 2), (0.1,)))
    assert choices.lags == 2
    errors = {(t.lags, t.rank): t.error for t in trials}
    assert min(errors[2, 1], errors[2, 2]) < 0.5 * min(errors[1, 1], errors[1, 2])
    small = dataclasses.replace(choices, ensemble_size=2, spare_members=0, num_epochs=40)
    simulators = fit_with(data, small)
    assert simulators.config.lags == 2
    # A push to the right after rest: each agent moves by its gain.
    for row in (0, 10, 19):
        moved = simulators.step(row, [0.0, 0.0, 0.0, 1.0, 0.0], 2).mean[0]
        np.testing.assert_allclose(moved, gains[row], atol=0.1)
