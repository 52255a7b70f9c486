"""How agents differ: ranges of the covariates and which agents play which role.

An agent has an id, an explicit integer that is stored next to its covariates, and test agents are
scattered among the ids: nothing may be read from a position.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# Distances on scaled covariates that differ by less than this are equal: some agents lie halfway
# between two others, and rounding must not decide for them.
_TIE = 1e-6


@dataclasses.dataclass(frozen=True)
class CovariateTable:
    """The covariates of one environment and the agents that have a role, each a tuple of length C.

    Attributes:
      names: Names of the covariates.
      low: Lower ends of the ranges from which agents are drawn uniformly.
      high: Upper ends.
      default: The agent on which test policies are trained.
      test_agents: The agents of the tables.
      paper_labels: How the paper prints each test agent; not unique, since it slips decimals.
      training_agents: The agents on which the policies of the pure data are trained.
      validation_targets: The sampled agents nearest to these choose settings.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    default: tuple[float, ...]
    test_agents: tuple[tuple[float, ...], ...]
    paper_labels: tuple[str, ...]
    training_agents: tuple[tuple[float, ...], ...]
    validation_targets: tuple[tuple[float, ...], ...]


COVARIATES = {
    "mountain_car": CovariateTable(
        names=("gravity",),
        low=(0.0001,),
        high=(0.0035,),
        default=(0.0025,),
        test_agents=((0.0001,), (0.0005,), (0.001,), (0.0025,), (0.0035,)),
        paper_labels=("0.01", "0.05", "0.01", "0.025", "0.035"),
        training_agents=((0.0003,), (0.00075,), (0.00175,), (0.0025,), (0.003,)),
        validation_targets=((0.0003,), (0.0008,), (0.0015,), (0.002,), (0.003,)),
    ),
    "cart_pole": CovariateTable(
        names=("force", "length"),
        low=(2.0, 0.15),
        high=(18.0, 0.85),
        default=(10.0, 0.5),
        test_agents=((2.0, 0.5), (10.0, 0.5), (18.0, 0.5), (10.0, 0.85), (10.0, 0.15)),
        paper_labels=("2/0.5", "10/0.5", "18/0.5", "10/0.85", "10/0.15"),
        training_agents=((6.0, 0.5), (14.0, 0.5), (10.0, 0.5), (10.0, 0.675), (10.0, 0.325)),
        validation_targets=((4.0, 0.3), (14.0, 0.3), (14.0, 0.7), (4.0, 0.7), (10.0, 0.6)),
    ),
    "half_cheetah": CovariateTable(
        names=("mass_scale", "damping_scale"),
        low=(0.2, 0.2),
        high=(1.8, 1.8),
        default=(1.0, 1.0),
        test_agents=((0.3, 1.7), (1.7, 0.3), (0.3, 0.3), (1.7, 1.7), (1.0, 1.0)),
        paper_labels=("0.3/1.7", "1.7/0.3", "0.3/0.3", "1.7/1.7", "1/1"),
        training_agents=((1.4, 0.6), (1.4, 1.4), (0.6, 0.6), (0.6, 1.4)),
        validation_targets=((0.5, 1.5), (1.5, 0.5), (0.5, 0.5), (1.5, 1.5), (0.8, 1.2)),
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class AgentTable:
    """The agents of an experiment.

    Attributes:
      environment: Name of the environment.
      covariate_names: Names of the C covariates.
      agent_ids: `[N]` int32, unique.
      covariates: `[N, C]` float32, one row for each id.
      test_ids: Ids of the test agents, in the order of the paper's tables.
      validation_ids: Ids of the validation agents, in the order of the protocol's targets.
      paper_labels: How the paper prints the test agent with this id.
    """

    environment: str
    covariate_names: tuple[str, ...]
    agent_ids: np.ndarray
    covariates: np.ndarray
    test_ids: tuple[int, ...]
    validation_ids: tuple[int, ...]
    paper_labels: dict[int, str]

    @property
    def num_agents(self) -> int:
        """Number of agents, N."""
        return len(self.agent_ids)

    def row_of(self, agent_id: int) -> int:
        """Returns the row of the agent with this id.

        Raises:
          KeyError: No agent has this id.
        """
        rows = np.flatnonzero(self.agent_ids == agent_id)
        if rows.size == 0:
            raise KeyError(
                f"No agent of {self.environment} has the id {agent_id}; use one of `agent_ids`."
            )
        return int(rows[0])

    def covariates_of(self, agent_id: int) -> dict[str, float]:
        """Returns the covariates of an agent by name, as result rows print them: 0.0025.

        Raises:
          KeyError: No agent has this id.
        """
        values = self.covariates[self.row_of(agent_id)]
        # Through the shortest text of the float32, or 0.0025 would read 0.0024999999441206455.
        return {
            name: float(str(value))
            for name, value in zip(self.covariate_names, values, strict=True)
        }


def get(name: str) -> CovariateTable:
    """Returns the covariates of the environment called `name`.

    Raises:
      ValueError: There is no environment of that name.
    """
    if name not in COVARIATES:
        raise ValueError(
            f"There are no covariates for {name!r}; use one of {', '.join(COVARIATES)}."
        )
    return COVARIATES[name]


def nearest(name: str, covariates: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Returns for each of `covariates [..., C]` the index of the nearest of `candidates [K, C]`.

    Distances are Euclidean on covariates scaled to [0, 1] by the ranges of environment `name`; of
    candidates that are equally near, the one with the lowest index counts. The result is `[...]`.
    """
    table = get(name)
    width = np.subtract(table.high, table.low)
    points = np.asarray(covariates, np.float64)[..., None, :] / width
    distances = np.linalg.norm(points - np.asarray(candidates, np.float64) / width, axis=-1)
    return np.argmax(distances <= distances.min(axis=-1, keepdims=True) + _TIE, axis=-1)


def make_agents(name: str, num_agents: int = 500, seed: int = 0) -> AgentTable:
    """Returns the test agents of environment `name` among agents drawn uniformly from the ranges.

    The same arguments always give the same table. Ids are 0 to N - 1; which of them are test
    agents is drawn. Validation agents are the drawn agents nearest to the protocol's targets, each
    target in turn taking one that is still free; where fewer than five agents are drawn, the last
    targets go without.

    Args:
      name: Name of the environment.
      num_agents: Number of agents, N, the test agents included.
      seed: Seed of the draw.

    Raises:
      ValueError: The environment is unknown, or there is no room for the test agents.
    """
    table = get(name)
    num_test = len(table.test_agents)
    if num_agents < num_test:
        raise ValueError(
            f"num_agents is {num_agents}, but {name} has {num_test} test agents, which are always "
            f"part of the table; use at least {num_test}."
        )
    rng = np.random.default_rng(seed)
    test_ids = rng.permutation(num_agents)[:num_test]
    sampled_ids = np.setdiff1d(np.arange(num_agents), test_ids)
    covariates = np.empty((num_agents, len(table.names)))
    covariates[test_ids] = table.test_agents
    covariates[sampled_ids] = rng.uniform(
        table.low, table.high, (len(sampled_ids), len(table.names))
    )
    return AgentTable(
        environment=name,
        covariate_names=table.names,
        agent_ids=np.arange(num_agents, dtype=np.int32),
        covariates=covariates.astype(np.float32),
        test_ids=tuple(test_ids.tolist()),
        validation_ids=_choose_validation(name, covariates, sampled_ids),
        paper_labels=dict(zip(test_ids.tolist(), table.paper_labels, strict=True)),
    )


def _choose_validation(
    name: str, covariates: np.ndarray, sampled_ids: np.ndarray
) -> tuple[int, ...]:
    """Returns ids out of `sampled_ids`, all different, nearest to each validation target."""
    free = sampled_ids
    chosen = []
    for target in get(name).validation_targets[: len(sampled_ids)]:
        index = int(nearest(name, np.asarray(target), covariates[free]))
        chosen.append(int(free[index]))
        free = np.delete(free, index)
    return tuple(chosen)
