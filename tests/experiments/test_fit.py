"""From a file to simulators: what is stored, what is gone on with, and what is refused."""

import io
import json
import types

import numpy as np
import pytest
from rich.console import Console

from experiments import fit as launcher
from persim_jax import choices as choices_lib
from persim_jax.choices import Asked
from persim_jax.data.dataset import OfflineDataset
from persim_jax.data.tables import Columns, DataError
from persim_jax.simulators import PersonalizedSimulators
from tests.test_choices import pushed

pytestmark = pytest.mark.optimizes
QUICK = Asked((1,), (1, 2), (0.1,))


def table_of(data: OfflineDataset, path):
    """Writes a dataset of the line as a table of text actions."""
    lines = ["agent,time,state,action"]
    names = np.asarray(["left", "stay", "right"])
    for row, obs in enumerate(data.obs[..., 0]):
        actions = [*names[data.actions[row]], ""]
        lines += [
            f"car_{row},{t},{x},{a}" for t, (x, a) in enumerate(zip(obs, actions, strict=True))
        ]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A workdir of a quick fit, its table and what was said."""
    folder = tmp_path_factory.mktemp("fit")
    table = table_of(pushed(np.linspace(0.5, 2.0, 6)), folder / "line.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choices_lib, "TRIAL_UPDATES", 60)
        patch.setattr(choices_lib, "UPDATES", 60)
        said = fit_quietly(table, folder / "work")
    return types.SimpleNamespace(table=table, workdir=folder / "work", said=said)


def fit_quietly(table, workdir, **options):
    """Fits and returns what was said."""
    said = io.StringIO()
    console = Console(width=200, file=said)
    launcher.fit(str(table), workdir, **{"asked": QUICK, "console": console} | options)
    return said.getvalue()


@pytest.mark.slow
def test_everything_is_stored_and_told(fitted):
    dataset, choices = launcher.read_fit(fitted.workdir)
    assert dataset.info.action_names == ("left", "right", "stay")
    simulators = PersonalizedSimulators.load(fitted.workdir / "simulators")
    assert simulators.agent_names == tuple(f"car_{row}" for row in range(6))
    assert (simulators.config.rank, simulators.config.lags) == (choices.rank, choices.lags)
    stored = json.loads((fitted.workdir / "choices.json").read_text())
    assert [trial["rank"] for trial in stored["trials"]] == [1, 2]
    assert all(np.isfinite(trial["error"]) for trial in stored["trials"])
    # An accelerator would round products elsewise, and validation judge other simulators.
    stamp = json.loads((fitted.workdir / "environment.json").read_text())
    assert stamp["matmul_precision"] == "highest"
    for line in (
        "6 agents, 180 transitions, 30 to 30 of each, 0 gaps in time",
        "states: state; action: one of 3: left, right, stay",
        f"rank {choices.rank}, penalty 0.1",
    ):
        assert line in fitted.said
    # What was fitted follows the actions: right is to the right of left.
    ahead = [simulators.step("car_5", [0.0], action).mean[0] for action in (0, 1)]
    assert ahead[1] > ahead[0] + 1


@pytest.mark.slow
def test_the_same_command_has_nothing_left_to_do(fitted, monkeypatch):
    before = {path: path.read_bytes() for path in fitted.workdir.rglob("*.npz")}
    monkeypatch.setattr(choices_lib, "fit_with", lambda *args, **kwargs: pytest.fail("done before"))
    said = fit_quietly(fitted.table, fitted.workdir)
    assert "chosen before" in said
    assert "fitted before" in said
    assert {path: path.read_bytes() for path in fitted.workdir.rglob("*.npz")} == before


@pytest.mark.slow
def test_a_workdir_of_other_data_or_settings_is_refused(fitted, tmp_path):
    with pytest.raises(ValueError, match=r"work was made with another config.*seed \(was 0, now 1"):
        fit_quietly(fitted.table, fitted.workdir, seed=1)
    other = table_of(pushed([1.0, 2.0]), tmp_path / "other.csv")
    with pytest.raises(ValueError, match=r"another config.*data_sha256"):
        fit_quietly(other, fitted.workdir)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file is a file: --workdir is a folder"):
        fit_quietly(other, tmp_path / "file")


@pytest.mark.slow
def test_what_was_interrupted_goes_on_and_repeats_no_trial(fitted, tmp_path, monkeypatch):
    work = tmp_path / "work"
    monkeypatch.setattr(choices_lib, "UPDATES", 60)
    monkeypatch.setattr(choices_lib, "TRIAL_UPDATES", 60)

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(choices_lib, "fit_with", killed)
        with pytest.raises(KeyboardInterrupt):
            fit_quietly(fitted.table, work)
    assert not (work / "simulators").exists()
    (work / "choices.json").unlink()  # as if it had been killed right after the trials
    with monkeypatch.context() as patch:
        patch.setattr(choices_lib, "try_ranks", killed)
        fit_quietly(fitted.table, work)
    for name in ("choices.json", "simulators/simulators.npz"):
        assert (work / name).read_bytes() == (fitted.workdir / name).read_bytes()


def test_bad_input_leaves_no_workdir_behind(tmp_path):
    (tmp_path / "bad.csv").write_text("agent,time,state\na,0,1\na,1,x\n")
    with pytest.raises(DataError, match="agent a, row 2, column 'state': 'x' is no number"):
        fit_quietly(tmp_path / "bad.csv", tmp_path / "work")
    with pytest.raises(FileNotFoundError):
        fit_quietly(tmp_path / "absent.csv", tmp_path / "work")
    # Two rows allow one lag: with three the folder must stay free for a better command.
    (tmp_path / "short.csv").write_text("agent,time,state\na,0,1\na,1,2\nb,0,3\nb,1,5\n")
    with pytest.raises(ValueError, match="no run of 4 rows without a gap, which 3 lags need"):
        fit_quietly(tmp_path / "short.csv", tmp_path / "work", asked=Asked(lags=(3,)))
    assert not (tmp_path / "work").exists()


def test_a_folder_without_choices_or_with_others_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no choices"):
        launcher.read_fit(tmp_path)
    (tmp_path / "choices.json").write_text('{"format": "other/9"}')
    with pytest.raises(ValueError, match=r"format 'other/9'.*fit again"):
        launcher.read_fit(tmp_path)


def flags_of(**changes):
    values = {
        "agent_column": "who", "time_column": "when", "state_columns": ["a", "b"],
        "action_columns": None, "input_columns": [], "covariate_columns": None,
        "reward_column": None, "lags": "1", "ranks": ["2", "3"], "penalties": ["0.5"],
    }  # fmt: skip
    return types.SimpleNamespace(**values | changes)


def test_flags_become_columns_and_candidates():
    assert launcher.columns_of(flags_of()) == Columns("who", "when", ("a", "b"), None, (), None)
    assert launcher.asked_of(flags_of()) == Asked((1,), (2, 3), (0.5,))
    assert launcher.asked_of(flags_of(lags="auto")).lags == choices_lib.TRIED_LAGS
    assert launcher.asked_of(flags_of(lags="2,4")).lags == (2, 4)
    for wrong in (
        {"lags": "some"}, {"lags": "0"}, {"ranks": ["x"]}, {"penalties": ["-"]},
        {"penalties": ["0.1", "-1"]}, {"penalties": ["nan"]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="--lags, --ranks and --penalties are positive"):
            launcher.asked_of(flags_of(**wrong))
