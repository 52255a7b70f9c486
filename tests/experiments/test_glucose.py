"""Bergman's model against scipy's integrator and steady states by hand, and the table it fills."""

import dataclasses

import numpy as np
import pytest
from absl import app
from scipy.integrate import solve_ivp

from experiments import glucose
from persim_jax.data.from_table import load_table
from persim_jax.data.tables import Columns


def one_patient():
    """Round numbers: volumes of 112 dL and 8.4 L at 70 kg."""
    values = {
        "p1": 0.02,
        "p2": 0.025,
        "si": 4e-4,
        "n": 0.1,
        "ka": 0.02,
        "gb": 120.0,
        "weight": 70.0,
    }
    fields = {name: np.asarray([value]) for name, value in values.items()}
    return glucose.Patients(**fields, recorded_weight=np.asarray([70.0]))


def test_a_day_agrees_with_an_independent_integrator():
    patient = one_patient()
    rng = np.random.default_rng(0)
    doses, meals = rng.uniform(0, 2, 20), rng.uniform(0, 20, 20)

    def rates(time, state, dose, meal):
        g, x, i, q = state
        appears = 0.8 * 0.02 * q / (1.6 * 70)
        return [
            -(0.02 + x) * g + 0.02 * 120 + appears,
            -0.025 * x + 0.025 * 4e-4 * i,
            -0.1 * i + 1000 * dose / 15 / (0.12 * 70),
            -0.02 * q + 1000 * meal / 15,
        ]

    ours, theirs = glucose.rest(patient), np.asarray([120.0, 0, 0, 0])
    for dose, meal in zip(doses, meals, strict=True):
        ours = glucose.advance(patient, ours, np.asarray([dose]), np.asarray([meal]), 15)
        found = solve_ivp(rates, (0, 15), theirs, args=(dose, meal), rtol=1e-10, atol=1e-10)
        theirs = found.y[:, -1]
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-5)
    assert abs(theirs[0] - 120) > 10


def test_steady_states_by_hand():
    patient = one_patient()
    zero = np.zeros(1)
    np.testing.assert_array_equal(
        glucose.advance(patient, glucose.rest(patient), zero, zero, 600), [[120, 0, 0, 0]]
    )
    # 0.0042 U/min keep 1000 * 0.0042 / 8.4 / 0.1 = 5 mU/L and X = 4e-4 * 5 = 0.002, so that glucose
    # settles at 120 * 0.02 / 0.022.
    state = glucose.advance(patient, glucose.rest(patient), np.asarray([0.0042 * 3000]), zero, 3000)
    np.testing.assert_allclose(state[0], [120 / 1.1, 0.002, 5.0, 0.0], rtol=1e-6)
    # A meal that is absorbed for ever: 0.112 g/min keep 5.6 g in the gut, and 0.8 of it appear:
    # 0.8 * 112 / 112 = 0.8 mg/dL/min, against which 0.02 per minute holds 40 mg/dL.
    state = glucose.advance(patient, glucose.rest(patient), zero, np.asarray([0.112 * 3000]), 3000)
    np.testing.assert_allclose(state[0], [160, 0, 0, 5600], rtol=1e-6)


def test_a_more_sensitive_patient_falls_lower():
    patient = one_patient()
    twice = dataclasses.replace(patient, si=2 * patient.si)
    dose, zero = np.asarray([2.0]), np.zeros(1)
    reached = [
        glucose.advance(p, glucose.advance(p, glucose.rest(p), dose, zero, 15), zero, zero, 45)[
            0, 0
        ]
        for p in (patient, twice)
    ]
    assert reached[1] < reached[0] - 5 < 110


def test_constants_have_the_stated_medians_and_spreads():
    patients = glucose.draw_patients(np.random.default_rng(1), 4000)
    for name, (median, sigma) in glucose.CONSTANTS.items():
        logs = np.log(getattr(patients, name))
        np.testing.assert_allclose(np.exp(np.median(logs)), median, rtol=0.03)
        np.testing.assert_allclose(logs.std(), sigma, rtol=0.05)


def test_patients_who_are_alike_differ_in_what_is_recorded_only():
    patients = glucose.draw_patients(np.random.default_rng(1), 50, heterogeneity=False)
    for name, (median, _) in glucose.CONSTANTS.items():
        np.testing.assert_array_equal(getattr(patients, name), median)
    assert patients.recorded_weight.std() > 5


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    rng = np.random.default_rng(0)
    patients = glucose.draw_patients(rng, 20)
    path = tmp_path_factory.mktemp("glucose") / "glucose.csv"
    path.write_text(glucose.table_of(rng, patients, 96))
    return path, patients


def test_the_table_is_a_dataset_by_the_naming_rule(written):
    path, patients = written
    data = load_table(path, Columns())
    assert (data.num_agents, data.info.time_step) == (20, 15.0)
    assert data.info.obs_names == ("state_glucose",)
    assert data.info.input_names == ("input_meal",)
    assert data.info.action_names == ("action_insulin",)
    assert not data.info.discrete
    np.testing.assert_allclose(data.covariates[:, 0], patients.recorded_weight, rtol=1e-6)
    # A lost hour: four rows less, and a hole in the mask.
    whole = data.lengths == 96
    np.testing.assert_array_equal(data.lengths[~whole], 91)
    assert 0 < (~whole).sum() < 20
    # Nobody is out of this world.
    assert 20 < data.obs.min() < data.obs.max() < 600
    assert 0 < (data.actions > 0).mean() < 0.15


def test_the_same_seed_is_the_same_table_and_noise_is_the_sensors():
    records = []
    for noise in (0.0, 3.0, 3.0):
        rng = np.random.default_rng(4)
        patients = glucose.draw_patients(rng, 3)
        records.append(glucose.simulate_records(rng, patients, 8, 15, noise)[0])
    np.testing.assert_array_equal(records[1], records[2])
    assert 1 < (records[1] - records[0]).std() < 6


def test_a_file_that_is_there_is_not_overwritten(tmp_path, monkeypatch):
    class Flags:
        out, patients, hours, minutes, noise = str(tmp_path / "g.csv"), 2, 6, 15, 3.0
        seed, no_heterogeneity = 0, False

    monkeypatch.setattr(glucose, "FLAGS", Flags)
    glucose.main([])
    content = (tmp_path / "g.csv").read_bytes()
    glucose.main([])  # the same content is no loss
    Flags.seed = 1
    with pytest.raises(app.UsageError, match=r"g\.csv exists with other content"):
        glucose.main([])
    assert (tmp_path / "g.csv").read_bytes() == content
    Flags.minutes = 120
    with pytest.raises(app.UsageError, match="records of 3 steps: at least 4 are needed"):
        glucose.main([])
    Flags.minutes, Flags.out = 90, str(tmp_path)  # four steps are enough, a folder is no file
    with pytest.raises(app.UsageError, match="exists with other content"):
        glucose.main([])
