"""Sizes of a model for data that nobody has tuned for: from their size, and by trial.

Widths, epochs and batches follow from how much data there is. Rank, penalty and, if asked, lags are
tried: each candidate is fitted without the last part of every trajectory and predicts that part
open loop.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import ranges
from persim_jax.data.dataset import OfflineDataset, validate
from persim_jax.data.lags import runs_before, with_lags
from persim_jax.methods.base import Monitor
from persim_jax.methods.persim import PersimConfig, fit, fit_model
from persim_jax.models.factor import factor_model
from persim_jax.models.factor_ranks import limit_ranks
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.training import TrainConfig, TrainState
from persim_jax.types import Task
from persim_jax.validation.config import CannotJudgeError, ValidationConfig
from persim_jax.validation.errors import squared_errors
from persim_jax.validation.open_loop import forecast
from persim_jax.validation.procedure import scale_of
from persim_jax.validation.queries import windows
from persim_jax.validation.splits import tail_starts

RANKS = (1, 2, 3, 5, 8)
PENALTIES = (0.01, 0.1, 1.0)
TRIED_LAGS = (1, 2, 4, 6)
"""Candidates where nothing else is asked for."""
UPDATES = 5000
"""Steps of Adam in a whole training, whatever the size of the data."""
TRIAL_UPDATES = 1500
"""In the training of a candidate, which has one member."""
HELD_OUT = ValidationConfig(tail_share=0.2, horizon=10, max_windows=3)
"""What a candidate predicts: the last fifth of every trajectory, ten steps at a time."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """Everything that a fit depends on beside the data; hashable, and a plain record in JSON.

    Attributes:
      lags: L, see `lags.with_lags`.
      rank: See `PersimConfig`, as for all that follow but the seed.
      agent_penalty: Likewise.
      state_features: Likewise.
      ensemble_size: Likewise.
      spare_members: Likewise.
      num_epochs: Of `TrainConfig`, as for the next two.
      batch_size: Likewise.
      learning_rate: Likewise.
      seed: Of the initialisation and of the order of minibatches.
    """

    lags: int = 1
    rank: int = 3
    agent_penalty: float = 0.1
    state_features: tuple[int, ...] = (32,)
    ensemble_size: int = 5
    spare_members: int = 1
    num_epochs: int = 100
    batch_size: int = 256
    learning_rate: float = 1e-2
    seed: int = 0

    def config(self) -> PersimConfig:
        """The settings of the method."""
        train = TrainConfig(self.num_epochs, self.batch_size, self.learning_rate)
        return PersimConfig(
            rank=self.rank,
            train=train,
            spare_members=self.spare_members,
            state_features=self.state_features,
            ensemble_size=self.ensemble_size,
            agent_penalty=self.agent_penalty,
            normalize_actions=True,
        )

    def key(self, purpose: int) -> jax.Array:
        """Key of the trials (0), of the fit (1) or of a validation (2)."""
        return jax.random.fold_in(jax.random.key(self.seed), purpose)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Choices:
        """Builds the record from what JSON made of it.

        Raises:
          ValueError: A field is unknown or missing.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != known:
            raise ValueError(
                f"choices have the fields {sorted(fields)}, but {sorted(known)} are due: they were "
                "made by another version; fit again"
            )
        return cls(**fields | {"state_features": tuple(fields["state_features"])})


class Trial(NamedTuple):
    """A candidate and how far off it was.

    Attributes:
      lags: Of the candidate.
      rank: Of the candidate.
      agent_penalty: Of the candidate.
      error: RMSE over ten steps of what was held out, in standard deviations of a coordinate, or in
        its own units where it never differs in what was not held out.
      by_agent: Mean squared error of each agent that was scored.
    """

    lags: int
    rank: int
    agent_penalty: float
    error: float
    by_agent: tuple[float, ...]


class Asked(NamedTuple):
    """What a user decides instead of leaving it to the data.

    Attributes:
      lags: Candidates.
      ranks: Candidates.
      penalties: Candidates.
    """

    lags: tuple[int, ...] = (1,)
    ranks: tuple[int, ...] = RANKS
    penalties: tuple[float, ...] = PENALTIES


def sized(dataset: OfflineDataset, seed: int = 0) -> Choices:
    """Width, batch and epochs that suit the number of transitions.

    A batch is about a hundredth of the data, from 32 to 256. Epochs are as many as `UPDATES` steps
    take, from 4 to 500.
    """
    count = int(dataset.lengths.sum())
    batch = int(2 ** np.clip(np.round(np.log2(count / 100)), 5, 8))
    wide = len(dataset.info.target_names) > 6
    return Choices(
        state_features=(64,) if wide else (32,),
        batch_size=batch,
        num_epochs=_epochs(UPDATES, count, batch),
        seed=seed,
    )


def _epochs(updates: int, count: int, batch: int) -> int:
    return int(np.clip(round(updates / max(count // batch, 1)), 4, 500))


Run = Callable[[Choices, Callable[[], list[Trial]]], list[Trial]]
"""`(candidate, trial) -> trials`: calls `trial`, or remembers what it returned."""


def choose(
    dataset: OfflineDataset,
    asked: Asked = Asked(),  # noqa: B008 - immutable
    seed: int = 0,
    run: Run = lambda candidate, trial: trial(),
) -> tuple[Choices, list[Trial]]:
    """Chooses lags, then rank and penalty, by held-out tails.

    The best penalty is taken; of lags and ranks the smallest that is not clearly worse than the
    best: its squared errors are, agent by agent, above the best's by at most the standard error of
    that difference (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3,
    paired).

    Args:
      dataset: Without lags.
      asked: Candidates; one alone is taken without trial.
      seed: Of all that is random.
      run: Calls a trial.

    Returns:
      The choices, and what was tried, in order. Where nothing can be held out of records of one
      step, candidates in the middle are taken and nothing was tried.

    Raises:
      ValueError: The dataset is not valid, says which agent and step; or a candidate makes no
        sense, or none for these data.
    """
    validate(dataset)
    _check_asked(asked)
    choices = sized(dataset, seed)
    ranks = tuple(r for r in sorted(asked.ranks) if r <= dataset.num_agents) or (min(asked.ranks),)
    # What is longer than an agent's longest run is no candidate; alone, it is an error.
    longest = int(runs_before(np.asarray(dataset.mask)).max(axis=1).min())
    all_lags = [lags for lags in sorted(asked.lags) if lags <= longest] or [min(asked.lags)]
    penalties = sorted(asked.penalties)
    common = np.asarray(with_lags(dataset, all_lags[-1]).mask)
    tried: dict[tuple[int, float], list[Trial]] = {}

    def attempt(lags: int, penalty: float) -> list[Trial]:
        if (lags, penalty) not in tried:
            candidate = dataclasses.replace(choices, lags=lags, agent_penalty=penalty)
            found = run(candidate, lambda: try_ranks(dataset, candidate, ranks, common))
            tried[lags, penalty] = found
        return tried[lags, penalty]

    middle = penalties[len(penalties) // 2]
    lags, rank, penalty = all_lags[0], ranks[len(ranks) // 2], middle
    try:
        if len(all_lags) > 1:
            best = [min(attempt(value, middle), key=lambda t: t.error) for value in all_lags]
            lags = _simplest(best).lags
        if len(ranks) > 1 or len(penalties) > 1:
            tables = [attempt(lags, value) for value in penalties]
            table = min(tables, key=lambda found: min(trial.error for trial in found))
            rank, penalty = _simplest(table).rank, table[0].agent_penalty
    except CannotJudgeError:
        pass  # nothing was tried: the middle must do
    trials = [trial for found in tried.values() for trial in found]
    return dataclasses.replace(choices, lags=lags, rank=rank, agent_penalty=penalty), trials


def _check_asked(asked: Asked) -> None:
    """Refuses candidates that would be tried for long and then fitted never."""
    for name, values in asked._asdict().items():
        if not values:
            raise ValueError(f"{name} are empty: name at least one candidate")
    for name in ("lags", "ranks"):
        for value in getattr(asked, name):
            ranges.count(f"one of {name}", value)
    for value in asked.penalties:
        if not 0 <= value < math.inf:
            raise ValueError(f"one of penalties is {value}: it must not be negative")


def try_ranks(
    dataset: OfflineDataset, choices: Choices, ranks: tuple[int, ...], scored: np.ndarray
) -> list[Trial]:
    """Fits one member of each rank without the tails of all trajectories and predicts these.

    Args:
      dataset: Without lags.
      choices: The candidate but for its rank.
      ranks: In rising order.
      scored: `[N, T]`, steps that may be scored: the same for all candidates.

    Raises:
      CannotJudgeError: No trajectory is long enough to be cut.
    """
    lagged = with_lags(dataset, choices.lags)
    tails = tail_starts(scored, HELD_OUT.tail_share)
    seen = np.asarray(lagged.mask) & (np.arange(scored.shape[1]) < tails[:, None])
    train = lagged.replace(mask=seen, terminated=np.asarray(lagged.terminated) & seen)
    queries = windows(lagged.replace(mask=scored), tails, HELD_OUT)
    count = int(seen.sum())
    batch = min(choices.batch_size, max(count // 8, 1))
    config = dataclasses.replace(
        choices,
        rank=max(ranks),
        ensemble_size=len(ranks),
        spare_members=0,
        batch_size=batch,
        num_epochs=_epochs(TRIAL_UPDATES, count, batch),
    ).config()
    kept, data = config.factor(train), jax.tree.map(jnp.asarray, train.transitions())
    restricted = Monitor(restore=lambda state: _restricted(state, ranks))
    params, _ = fit_model(choices.key(0), kept, data, config, restricted)
    model = factor_model(dataclasses.replace(kept, ensemble_size=1))
    # Of steps that all candidates see: more lags lose more of a record's first ones.
    scale = scale_of(train.replace(mask=seen & scored))
    trials = []
    for member, rank in enumerate(ranks):
        own = jax.tree.map(lambda leaf, m=member: leaf[m : m + 1], params.weights)
        predicted = forecast(model, params._replace(weights=own), queries, scale)
        squared = squared_errors(predicted, queries, scale)
        by_agent = tuple(
            float(np.nanmean(squared[queries.agent == agent])) for agent in np.unique(queries.agent)
        )
        error = float(np.sqrt(np.nanmean(squared)))
        trials.append(Trial(choices.lags, rank, choices.agent_penalty, error, by_agent))
    return trials


def _restricted(state: TrainState, ranks: tuple[int, ...]) -> TrainState:
    weights = limit_ranks(state.params.weights, ranks)
    return state._replace(params=state.params._replace(weights=weights))


def _simplest(trials: Sequence[Trial]) -> Trial:
    """The first trial that is not clearly worse than the best."""
    errors = np.asarray([trial.by_agent for trial in trials])  # [candidates, agents]
    worse = errors - errors[np.argmin([trial.error for trial in trials])]
    spread = worse.std(axis=1) / np.sqrt(max(errors.shape[1], 1))
    return trials[int(np.argmax(worse.mean(axis=1) <= spread))]


def fit_with(
    dataset: OfflineDataset,
    choices: Choices,
    task: Task | None = None,
    monitor: Monitor | None = None,
) -> PersonalizedSimulators:
    """Fits simulators to all of a dataset with given choices.

    Args:
      dataset: Without lags.
      choices: From `choose`, or stored.
      task: Reward and termination, needed for planning only.
      monitor: Watches training and restores it.
    """
    return fit(choices.key(1), with_lags(dataset, choices.lags), task, choices.config(), monitor)
