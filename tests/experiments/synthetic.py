"""Rows and workdirs with known numbers, for the tests of tables, figures and reports."""

import json
import pathlib
from typing import Any

import numpy as np

from experiments.records import Row, RowContext, append_rows, make_row
from persim_jax.evaluation import paper

STAMP = {
    "command": "python -m experiments.run --config=configs/mountain_car.py",
    "code_version": "abc123def0",
    "jax": "0.10.2",
    "device": "cpu",
    "device_kind": "cpu",
}


def config(environment: str = "mountain_car", **changes: Any) -> dict[str, Any]:
    fields = {"environment": environment, "behavior": "random", "variant": "default"}
    return fields | {"trial": 0, "seed": 0, "model": {"rank": 3}} | changes


def context(environment: str = "mountain_car", **changes: Any) -> RowContext:
    stamp = STAMP | {k: changes.pop(k) for k in ("code_version", "device") if k in changes}
    return RowContext.from_config(config(environment, **changes), stamp)


def row(metric: str, value: Any, agent: int = 0, method: str = "persim", **fields: Any) -> Row:
    """A row of test agent number `agent`; fields of the context may be given, too."""
    names = ("behavior", "variant", "trial", "seed", "code_version", "device", "model")
    shared = {name: fields.pop(name) for name in names if name in fields}
    environment = fields.pop("environment", "mountain_car")
    covariates = paper.paper_agents(environment)[agent]
    return make_row(
        context(environment, **shared),
        method=method,
        metric=metric,
        value=value,
        agent_id=agent,
        covariates=covariates,
        paper_label=paper.paper_label(environment, covariates),
        **fields,
    )


def returns(values: list[float], agent: int = 0, method: str = "persim", **fields: Any) -> Row:
    """A row of `return_mean` with its episodes."""
    fields |= {"num_episodes": len(values), "episode_values": values}
    return row("return_mean", float(np.mean(values)), agent, method, **fields)


def write_workdir(path: pathlib.Path, environment: str = "mountain_car") -> pathlib.Path:
    """A small finished run: two agents' factors short of nothing, one ended episode."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config(environment)))
    (path / "environment.json").write_text(json.dumps(STAMP))
    rows = []
    for agent in range(5):
        rows.append(row("rmse_mean", 0.001, agent, environment=environment, num_episodes=200))
        rows.append(row("r2_median", 1.0, agent, environment=environment, num_episodes=200))
        rows.append(returns([-100.0, -110.0], agent, environment=environment))
        rows.append(returns([-95.0, -105.0], agent, "true_env", environment=environment))
    rows.append(make_row(context(environment), method="persim", metric="train_seconds", value=12.0))
    append_rows(path / "rows.jsonl", rows)
    write_arrays(path, environment)
    curve = [{"epoch": e, "loss": [1.0 / (e + 1), 2.0 / (e + 1)], "wall_s": e} for e in range(4)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    (path / "timings.json").write_text(json.dumps({"dataset": 2.0, "train persim": 12.0}))
    return path


def write_arrays(path: pathlib.Path, environment: str) -> None:
    agents = [list(agent.values()) for agent in paper.paper_agents(environment)]
    rng = np.random.default_rng(0)
    covariates = np.concatenate([agents, rng.uniform(0.1, 1.0, (25, len(agents[0])))])
    factors = np.stack([covariates @ rng.normal(size=(len(agents[0]), 3)) for _ in range(2)])
    (path / "arrays").mkdir(exist_ok=True)
    np.savez(
        path / "arrays" / "factors.npz",
        factors=factors + 0.01 * rng.normal(size=factors.shape),
        covariates=covariates,
        agent_ids=np.arange(30),
        test_rows=np.arange(5),
    )
    true, predicted = states(environment)
    error = np.geomspace(0.001, 0.1, true.shape[1] - 1) * np.ones((5, 1))
    np.savez(
        path / "arrays" / "predictions.npz",
        agent_ids=np.arange(5),
        true=true,
        predicted=predicted,
        covariates=np.array(agents),
        rmse_per_step=error,
        rmse_per_step_low=0.5 * error,
        rmse_per_step_high=2.0 * error,
    )


def states(environment: str, steps: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted states `[5, S + 1, D]`; the last agent's episode ends half way."""
    size = {"mountain_car": 2, "cart_pole": 4, "half_cheetah": 18}[environment]
    true = np.linspace(-0.5, 0.2, steps + 1)[None, :, None] * np.ones((5, 1, size))
    predicted = true + 0.05
    true[4, steps // 2 :] = predicted[4, steps // 2 :] = np.nan
    return true, predicted
