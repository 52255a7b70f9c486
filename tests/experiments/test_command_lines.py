"""A mistake on a command line ends in one line that says what to do, and with the exit status 1."""

import runpy
import sys
import warnings

import pytest
from absl import app, flags
from absl.testing import flagsaver

CART_POLE = ("--config=configs/cart_pole.py:smoke", "--workdir=W/new")

WRONG = {
    "policies of no numbers": (
        "train_policies", ("--environment=cart_pole", "--behavior_targets=a,150"),
        "--behavior_targets=a,150 are no numbers: give two, such as -200,-150",
    ),
    # No return is above NaN: training would go on until its budget ends.
    "policies of nan": (
        "train_policies", ("--environment=cart_pole", "--behavior_targets=nan,150"),
        "--behavior_targets=nan,150 are no numbers",
    ),
    "policies of one number": (
        "train_policies", ("--environment=cart_pole", "--behavior_targets=120"),
        "behavior_targets are [120.0]: give two",
    ),
    "policies of no backend": (
        "train_policies", ("--environment=cart_pole", "--backend=mjx"),
        "cart_pole has no backends to choose from",
    ),
    "policies into a file": (
        "train_policies", ("--environment=cart_pole", "--out=W/file.txt"),
        "file.txt is a file: --out is a folder",
    ),
    "policies' rows into a folder": (
        "train_policies", ("--environment=cart_pole", "--out=W/new", "--rows=W/empty"),
        "empty is a folder: --rows is a file",
    ),
    "policies of an argument": (
        "train_policies", ("--environment=cart_pole", "cart_pole"), "unknown arguments: cart_pole",
    ),
    "tuning of nothing": ("tune_baselines", (), "give --config and --workdir to tune, or --choose"),
    "tuning of no folder": ("tune_baselines", CART_POLE[:1], "give --config and --workdir"),
    "choice without a file": ("tune_baselines", ("--choose=W/none",), "no rows at W/none"),
    "choice without rows": (
        "tune_baselines", ("--choose=W/empty",), "W/empty has no rows of validation_return_mean",
    ),
    "tuning of no config": (
        "tune_baselines", ("--config=configs/acrobot.py", "--workdir=W/new"),
        "there is no config file configs/acrobot.py: use configs/mountain_car.py",
    ),
    "tuning of a field": (
        "tune_baselines", (*CART_POLE, "--config.nothing=1"),
        "--config.nothing=1: the config has no such field",
    ),
    "tuning of a behavior": (
        "tune_baselines", (*CART_POLE, "--config.behavior=noisy"),
        "config.behavior is 'noisy': use one of random, pure",
    ),
    "tuning of a learner": (
        "tune_baselines", (*CART_POLE, "--learners=bcq,iql"),
        "learner 'iql' is unknown: use some of bcq, cql",
    ),
    "tuning of no learner": ("tune_baselines", (*CART_POLE, "--learners="), "there is no learner"),
    "tuning of a view": (
        "tune_baselines", (*CART_POLE, "--views=p,x"),
        "view 'x' is unknown: use some of p, a, k",
    ),
    "tuning in a file": (
        "tune_baselines", (*CART_POLE, "--workdir=W/file.txt"), "file.txt is a file: --workdir is",
    ),
    "MOReL of a config": (
        "tune_morel", ("--config=configs/acrobot.py", "--workdir=W/new"), "there is no config file",
    ),
    "MOReL of a method": (
        "tune_morel", (*CART_POLE, "--methods=morel_p,persim"),
        "'persim' is no form of MOReL: use some of morel_p, morel_a",
    ),
    "MOReL of no method": ("tune_morel", (*CART_POLE, "--methods="), "there is no method"),
    "an idea of no model": (
        "try_settings", (*CART_POLE, "--method=bcq_p"), "method 'bcq_p' learns no model: use one",
    ),
    "an idea that is no config": (
        "try_settings", ("--config=configs/sweeps.py", "--workdir=W/new"),
        "configs/sweeps.py has no get_config(variant): it is no environment's config",
    ),
    "an idea of negative decisions": (
        "try_settings", (*CART_POLE, "--decisions=-1"), "decisions is -1: it must not be negative",
    ),
    "speed of no stage": ("benchmark", (*CART_POLE, "--stages="), "there is no stage: use some of"),
    "speed of a stage": ("benchmark", (*CART_POLE, "--stages=fly"), "stage 'fly' is unknown"),
    "speed of no steps": ("benchmark", (*CART_POLE, "--steps=0"), "must be at least 1"),
    "speed against nothing": ("benchmark", (*CART_POLE, "--compare=W/none"), "no rows at W/none"),
    "speed into a file": (
        "benchmark", (*CART_POLE, "--workdir=W/file.txt"), "file.txt is a file: --workdir is",
    ),
    "horizons of nothing": (
        "figures.horizons", ("--rows=W/none", "--out=W/a.png"), "no rows at W/none",
    ),
    "horizons of no rows": (
        "figures.horizons", ("--rows=W/empty", "--out=W/a.png"),
        "there are no errors over the horizon: run the prediction test first",
    ),
    "horizons of an argument": (
        "figures.horizons", ("W/empty", "--out=W/a.png"), "unknown arguments: W/empty",
    ),
    "learners of nothing": (
        "figures.augmentation", ("--rows=W/none", "--out=W/a.png"), "no rows at W/none",
    ),
    "learners of no rows": (
        "figures.augmentation", ("--rows=W/empty", "--out=W/a.png"),
        "no row has synthetic trajectories: run persim_bcq_5 and others first",
    ),
}  # fmt: skip


def start(module, words, monkeypatch):
    """A launcher as `python -m` starts it, in this process; flags are as before afterwards."""

    def run_main(main, flags_parser=flags.FLAGS):
        main(flags_parser(sys.argv))

    monkeypatch.setattr(app, "run", run_main)
    monkeypatch.setattr(sys, "argv", [module, *words])
    # Under this name ml_collections keeps what it has read of the last config file.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    saved = flagsaver.save_flag_values()
    try:
        with warnings.catch_warnings():
            # Its module may have been imported before, and ml_collections loads as of old.
            warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)
            warnings.filterwarnings("ignore", ".*load_module", DeprecationWarning)
            runpy.run_module(f"experiments.{module}", run_name="__main__")
    finally:
        flagsaver.restore_flag_values(saved)


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, case):
    module, words, message = WRONG[case]
    (tmp_path / "file.txt").write_text("x", "utf8")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as stopped:
        start(module, [word.replace("W/", f"{tmp_path}/") for word in words], monkeypatch)
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert stopped.value.code == 1
    assert line.startswith("error: ")
    assert message.replace("W/", f"{tmp_path}/") in line
    assert said.out == ""
    assert sorted(tmp_path.iterdir()) == before
