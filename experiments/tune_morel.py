"""Measures MOReL's grid of configs/morel.py on the validation agents.

    python -m experiments.tune_morel --config=configs/cart_pole.py --workdir=runs/tuning \
        --config.behavior=pure --methods=morel_p,morel_a

Each setting leaves a row of `validation_return_mean` for each validation agent in the workdir's
`rows.jsonl`; what has rows is not measured again. The numbers of iterations are stops on the way of
one training. `python -m experiments.tune_baselines --choose=FOLDER` reads rows of many runs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

from configs.morel import GRID
from experiments import families, run, settings
from experiments.baseline_settings import SECTION, method_digest
from experiments.errors import one_line_each
from experiments.measure import agent_fields
from experiments.progress import Display
from experiments.records import Row, make_row
from experiments.stages import World, make_dataset, make_world
from experiments.tune_baselines import METRIC, choose, validation_returns
from experiments.workdir import Workdir, opened
from persim_jax.data.dataset import OfflineDataset
from persim_jax.methods import Monitor, find_method, morel

FLAGS = flags.FLAGS
FIELD = "pessimism_coef"


def changed(
    config: Mapping[str, Any], name: str, coefficient: float, iterations: int
) -> dict[str, Any]:
    """The config with a point of the grid."""
    new = copy.deepcopy(dict(config))
    new[SECTION]["morel"][name[-1]] |= {FIELD: coefficient, "num_iterations": iterations}
    return new


def tune(
    workdir: Workdir,
    world: World,
    dataset: OfflineDataset,
    methods: Sequence[str],
    grid: Mapping[str, Sequence[float]],
    display: Display,
    episodes: int = 20,
) -> None:
    """Trains and evaluates every setting that has no rows yet.

    Args:
      workdir: Of the run.
      world: Its environment and agents.
      dataset: Its data.
      methods: `morel_p`, `morel_a` or both.
      grid: As `configs.morel.GRID`.
      display: Shows progress.
      episodes: Of each validation agent.
    """
    stops = sorted(int(count) for count in grid["num_iterations"])
    done = {row["config_digest"] for row in workdir.rows()}
    for name in methods:
        for coefficient in grid[FIELD]:
            longest = changed(workdir.config, name, coefficient, stops[-1])
            if method_digest(longest, name) in done:
                continue
            with display.stage(workdir, f"{name} {FIELD} {coefficient:g}", len(stops)) as stage:
                found = _fitted_at(longest, world, dataset, name, stops)
                if len(found) < len(stops):
                    stage.note = f"no lane is left after {len(found)} of {len(stops)} stops: no row"
                    continue
                rows: list[Row] = []
                for index, (count, fitted) in enumerate(zip(stops, found, strict=True)):
                    values = validation_returns(workdir, world, name, fitted, episodes)
                    rows += _rows(workdir, world, name, coefficient, count, values)
                    stage.step(index + 1, f"{count} iterations: {values.mean():.1f}")
                # All stops at once: the longest stands for the setting.
                workdir.add(rows)


def _fitted_at(
    config: Mapping[str, Any],
    world: World,
    dataset: OfflineDataset,
    name: str,
    stops: Sequence[int],
) -> list[morel.MorelPolicies]:
    """What a method has learned after each of the numbers of iterations, as far as it came.

    Training stops early where every lane has left the finite numbers.
    """
    agents = tuple(world.agents.row_of(agent_id) for agent_id in world.agents.validation_ids)
    own = families.method_settings(config, name, agents)
    epochs, states = own.config.train.num_epochs, []

    def keep(state: Any, losses: jax.Array) -> None:
        if int(state.step) - epochs in stops:
            states.append(state)

    key, monitor = settings.stage_key(config, "offline"), Monitor(on_epoch=keep)
    fitted = find_method(name).fit(key, dataset, world.env, world.env_params, own, monitor)
    return [fitted.replace(params=s.learner.params, diverged_at=s.diverged_at) for s in states]


def _rows(
    workdir: Workdir, world: World, name: str, coefficient: float, count: int, values: Any
) -> list[Row]:
    digest = method_digest(changed(workdir.config, name, coefficient, count), name)
    rows = []
    for agent_id, own in zip(world.agents.validation_ids, values, strict=True):
        row = make_row(
            workdir.context_of(name), method=name, metric=METRIC, value=own.mean(),
            num_episodes=len(own), num_steps=count, field=FIELD, field_value=coefficient,
            **agent_fields(world, agent_id),
        )  # fmt: skip
        rows.append(row | {"config_digest": digest})
    return rows


def main(argv: Sequence[str]) -> None:
    """Tunes and shows what was found."""
    del argv
    with one_line_each():
        rows = _tuned(FLAGS.config.to_dict(), tuple(FLAGS.methods))
    print("\n".join(choose(rows)))


def _tuned(config: Mapping[str, Any], methods: tuple[str, ...]) -> list[Row]:
    """Tunes as the flags say; the rows that there are then."""
    for name in methods:
        if name not in morel.NAMES:
            raise ValueError(f"{name!r} is no form of MOReL: use some of {', '.join(morel.NAMES)}")
    settings.check(config, methods)
    families.check(config, methods)
    run.set_up_jax(deterministic=True, compile_cache=None)
    world = make_world(config)
    with (
        jax.default_matmul_precision(config["matmul_precision"]),
        Display(Console()) as display,
        opened(FLAGS.workdir, config) as workdir,
    ):
        dataset = make_dataset(workdir, world, display)
        tune(workdir, world, dataset, methods, GRID, display, FLAGS.episodes)
        return workdir.rows()


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "configs/ENV.py", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run, made if missing.")
    flags.DEFINE_list("methods", list(morel.NAMES), "Some of morel_p and morel_a.")
    flags.DEFINE_integer("episodes", 20, "Of each validation agent.", lower_bound=1)
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=run.parse_flags)
