"""Measures the baselines' grid of configs/baselines.py on the validation agents.

    python -m experiments.tune_baselines --config=configs/mountain_car.py --workdir=runs/tuning \
        --config.behavior=pure --views=p,a

Each setting leaves a row of `validation_return_mean` for each validation agent in the workdir's
`rows.jsonl`; what has rows is not measured again. `--choose=results` reads rows, of this run or of
many, and says which setting has the best mean return over agents and behaviors.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

from configs.baselines import CONTINUOUS_GRID, CONTINUOUS_STEPS, GRID, STEPS
from experiments import run, settings
from experiments.baseline_settings import SECTION, method_digest, offline_settings
from experiments.baselines import synthetic_of
from experiments.errors import one_line_each
from experiments.measure import agent_fields, episode_obs
from experiments.progress import Display
from experiments.records import Row, make_row, read_rows
from experiments.stages import World, make_dataset, make_simulators, make_world
from experiments.workdir import Workdir, opened
from persim_jax.data.dataset import OfflineDataset
from persim_jax.evaluation.returns import evaluate_returns
from persim_jax.methods import Monitor, find_method, parse_name
from persim_jax.methods.offline import AUGMENTED, OWN, POOLED, OfflineSettings

FLAGS = flags.FLAGS
METRIC = "validation_return_mean"
NUM_SYNTHETIC = 5
VIEWS = (POOLED, OWN, AUGMENTED)


class Setting(NamedTuple):
    """One point of the grid: a method and the value of its field."""

    method: str
    field: str
    value: float


def grid_settings(
    discrete: bool, learners: Sequence[str], views: Sequence[str]
) -> Iterator[Setting]:
    """All points of the grid of these learners and views.

    Raises:
      ValueError: A learner or a view is unknown, or there is none.
    """
    grid = GRID if discrete else CONTINUOUS_GRID
    for kind, asked, known in (("learner", learners, (*grid,)), ("view", views, VIEWS)):
        unknown = [name for name in asked if name not in known]
        if unknown or not asked:
            what = f"{kind} {unknown[0]!r} is unknown" if unknown else f"there is no {kind}"
            raise ValueError(f"{what}: use some of {', '.join(known)}")
    for learner, view in itertools.product(learners, views):
        augmented = f"persim_{learner}_{NUM_SYNTHETIC}"
        method = augmented if view == AUGMENTED else f"{learner}_{view}"
        for field, values in grid[learner].items():
            for value in values:
                yield Setting(method, field, value)


def changed(config: Mapping[str, Any], setting: Setting, num_steps: int) -> dict[str, Any]:
    """The config with a setting of the grid and a number of gradient steps."""
    about, new = parse_name(setting.method), copy.deepcopy(dict(config))
    assert about is not None
    new[SECTION][about.learner][about.view] = {setting.field: setting.value, "num_steps": num_steps}
    return new


def tune(
    workdir: Workdir,
    world: World,
    dataset: OfflineDataset,
    found: Sequence[Setting],
    steps: Sequence[int],
    display: Display,
    episodes: int = 20,
) -> None:
    """Trains and evaluates every setting that has no rows yet.

    The numbers of gradient steps are stops on the way of one training.

    Args:
      workdir: Of the run.
      world: Its environment and agents.
      dataset: Its data.
      found: Points of the grid.
      steps: Numbers of gradient steps.
      display: Shows progress.
      episodes: Of each validation agent.
    """
    agents = [world.agents.row_of(agent_id) for agent_id in world.agents.validation_ids]
    config, key = workdir.config, settings.stage_key(workdir.config, "offline")
    synthetic = None
    if any(setting.method.startswith("persim") for setting in found):
        simulators = make_simulators(workdir, world, dataset, display)
        synthetic = synthetic_of(workdir, world, simulators, NUM_SYNTHETIC, agents)
    done = {row["config_digest"] for row in workdir.rows()}
    for setting in found:
        longest = changed(config, setting, max(steps))
        if method_digest(longest, setting.method) in done:
            continue
        own = offline_settings(longest, setting.method)._replace(
            agents=tuple(agents), synthetic=synthetic
        )
        name = f"{setting.method} {setting.field} {setting.value:g}"
        with display.stage(workdir, name, len(steps)) as stage:
            stops = _states_at(key, world, dataset, setting.method, own, steps)
            rows: list[Row] = []
            for index, (count, fitted) in enumerate(zip(sorted(steps), stops, strict=True)):
                values = validation_returns(workdir, world, setting.method, fitted, episodes)
                rows += _rows(workdir, world, setting, count, values)
                stage.step(index + 1, f"{count} steps: {values.mean():.1f}")
            # All stops at once: the longest stands for the setting.
            workdir.add(rows)


def _states_at(
    key: jax.Array,
    world: World,
    dataset: OfflineDataset,
    name: str,
    own: OfflineSettings,
    steps: Sequence[int],
) -> list[Any]:
    """What a method has learned after each of the numbers of gradient steps."""
    states: list[Any] = []

    def keep(state: Any, losses: jax.Array) -> None:
        if int(state.step) in steps:
            states.append(state)

    monitor = Monitor(on_epoch=keep)
    fitted = find_method(name).fit(key, dataset, world.env, world.env_params, own, monitor)
    return [fitted.replace(states=s.learner, diverged_at=s.diverged_at) for s in states]


def validation_returns(
    workdir: Workdir, world: World, name: str, fitted: Any, episodes: int
) -> np.ndarray:
    """Returns of the validation agents' own episodes, `[agents, episodes]`, in one program.

    Who diverged has -inf, the worst that there is, so that no setting is chosen for it.
    """
    ids = world.agents.validation_ids
    obs = jnp.concatenate([episode_obs(workdir, world, i, episodes) for i in ids])
    rows = jnp.repeat(jnp.asarray([world.agents.row_of(i) for i in ids], jnp.int32), episodes)
    found, _ = evaluate_returns(
        settings.stage_key(workdir.config, "planning"), world.env, world.env_params,
        find_method(name).policy, fitted, None, rows, obs, None,
        workdir.config["evaluation"]["width"] or len(rows),
    )  # fmt: skip
    values = np.array(found, np.float64).reshape(len(ids), episodes)
    lost = [fitted.diverged(world.agents.row_of(i)) is not None for i in ids]
    values[np.asarray(lost)] = -np.inf
    return values


def _rows(
    workdir: Workdir, world: World, setting: Setting, num_steps: int, values: np.ndarray
) -> list[Row]:
    digest = method_digest(changed(workdir.config, setting, num_steps), setting.method)
    context = workdir.context_of(setting.method)
    rows = []
    for agent_id, own in zip(world.agents.validation_ids, values, strict=True):
        row = make_row(
            context, method=setting.method, metric=METRIC, value=own.mean(), num_episodes=len(own),
            num_steps=num_steps, field=setting.field, field_value=setting.value,
            **agent_fields(world, agent_id),
        )  # fmt: skip
        rows.append(row | {"config_digest": digest})
    return rows


def choose(rows: Sequence[Row]) -> list[str]:
    """Says for each environment and method how the settings did, the best first."""
    found: dict[tuple[str, str], dict[tuple[Any, ...], list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        if row["metric"] == METRIC:
            setting = (row["field"], row["field_value"], row["num_steps"])
            value = -np.inf if row["value"] is None else float(row["value"])
            found[row["environment"], row["method"]][setting].append(value)
    lines = []
    for (environment, method), settings_ in sorted(found.items()):
        means = sorted(((np.mean(v), s, len(v)) for s, v in settings_.items()), reverse=True)
        for mean, (field, value, steps), count in means:
            lines.append(
                f"{environment} {method}: {field} {value:g}, {steps} steps: mean return "
                f"{mean:.1f} over {count} agents and behaviors"
            )
    return lines


def main(argv: Sequence[str]) -> None:
    """Tunes or, with `--choose`, shows what was found."""
    del argv
    with one_line_each():
        if FLAGS.choose:
            rows = read_rows(FLAGS.choose)
        elif FLAGS.config is None or not FLAGS.workdir:
            raise ValueError("give --config and --workdir to tune, or --choose=FOLDER to read rows")
        else:
            rows = _tuned(FLAGS.config.to_dict())
        lines = choose(rows)
        if not lines:
            raise ValueError(f"{FLAGS.choose or FLAGS.workdir} has no rows of {METRIC}: tune first")
    print("\n".join(lines))


def _tuned(config: Mapping[str, Any]) -> list[Row]:
    """Tunes as the flags say; the rows that there are then."""
    settings.check(config, ("bcq_a",))
    run.set_up_jax(deterministic=True, compile_cache=None)
    world = make_world(config)
    discrete = world.env.spec.discrete
    found = list(grid_settings(discrete, FLAGS.learners, FLAGS.views))
    steps = STEPS if discrete else CONTINUOUS_STEPS
    with (
        jax.default_matmul_precision(config["matmul_precision"]),
        Display(Console()) as display,
        opened(FLAGS.workdir, config) as workdir,
    ):
        dataset = make_dataset(workdir, world, display)
        tune(workdir, world, dataset, found, steps, display, FLAGS.episodes)
        return workdir.rows()


if __name__ == "__main__":
    config_flags.DEFINE_config_file("config", None, "configs/ENV.py", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run, made if missing.")
    flags.DEFINE_list("learners", list(GRID), "Which learners.")
    flags.DEFINE_list("views", list(VIEWS), "Which views of the data; k trains simulators.")
    flags.DEFINE_integer("episodes", 20, "Of each validation agent.", lower_bound=1)
    flags.DEFINE_string("choose", None, "File or folder of rows to read instead.")
    app.run(main, flags_parser=run.parse_flags)
