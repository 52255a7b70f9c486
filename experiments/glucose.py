"""Glucose and insulin of made-up patients: an example of users' own data that is no benchmark.

    python -m experiments.glucose --out=runs/glucose.csv
    python -m experiments.fit --data=runs/glucose.csv --workdir=runs/glucose --lags=4

Bergman's minimal model (Bergman, Ider, Bowden, Cobelli, Am. J. Physiol. 236, E667, 1979; Bergman,
Phillips, Cobelli, J. Clin. Invest. 68, 1456, 1981), with insulin from outside and a meal that is
absorbed from a gut compartment (Fisher, IEEE Trans. Biomed. Eng. 38, 57, 1991):

    dG/dt = -(p1 + X) G + p1 Gb + F ka Q / VG    glucose in blood, mg/dL, which a sensor sees
    dX/dt = -p2 X + p2 SI (I - Ib)               remote insulin, 1/min, hidden
    dI/dt = -n (I - Ib) + u / VI                 insulin in plasma, mU/L, hidden
    dQ/dt = -ka Q + meal                         carbohydrates in the gut, mg, hidden

Every patient has own constants. What is written is one record of each: a noisy sensor every few
minutes, meals, insulin doses by a policy that does not know the constants, body weight, gaps.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app, flags

from persim_jax.files import write_atomically

FLAGS = flags.FLAGS

# Median and standard deviation of the logarithm. p1 and SI are those of people with normal glucose
# tolerance (0.021 +- 0.008 per minute and 2.6 +- 2.2 in 1e-4, Bergman, Diabetes 56, 1489, 2007), SI
# with a little less spread; p2 and n are Fisher's; what is left are choices of ours.
CONSTANTS = {
    "p1": (0.02, 0.35),  # 1/min, glucose effectiveness
    "p2": (0.025, 0.2),  # 1/min
    "si": (2.6e-4, 0.6),  # L/mU/min, insulin sensitivity
    "n": (0.0926, 0.2),  # 1/min
    "ka": (0.018, 0.25),  # 1/min
    "gb": (125.0, 0.12),  # mg/dL
    "weight": (72.0, 0.18),  # kg
}
GLUCOSE_VOLUME = 1.6  # dL/kg
INSULIN_VOLUME = 0.12  # L/kg
ABSORBED = 0.8  # F, share of the carbohydrates that reach the blood
HEADER = ("agent", "time", "state_glucose", "action_insulin", "input_meal", "covariate_weight")
DAY = 24 * 60
BEFORE = 6 * 60
"""Minutes that are lived before a record begins, so that it does not begin at rest."""


@dataclasses.dataclass(frozen=True)
class Patients:
    """Constants of N patients, each `[N]`, as in `CONSTANTS`.

    Attributes:
      recorded_weight: What the table says they weigh.
    """

    p1: np.ndarray
    p2: np.ndarray
    si: np.ndarray
    n: np.ndarray
    ka: np.ndarray
    gb: np.ndarray
    weight: np.ndarray
    recorded_weight: np.ndarray

    def __len__(self) -> int:
        return len(self.p1)


def draw_patients(rng: np.random.Generator, count: int, heterogeneity: bool = True) -> Patients:
    """Draws log-normal constants.

    Without heterogeneity all patients have the medians, and only the weight that is recorded
    differs, which then tells nothing.
    """
    drawn = {
        name: median * np.exp(sigma * rng.standard_normal(count))
        for name, (median, sigma) in CONSTANTS.items()
    }
    recorded = np.round(drawn["weight"], 1)
    if not heterogeneity:
        drawn = {name: np.full(count, median) for name, (median, _) in CONSTANTS.items()}
    return Patients(**drawn, recorded_weight=recorded)


def rest(patients: Patients) -> np.ndarray:
    """The steady state without meals and doses, `[N, 4]`: G = Gb, X = I - Ib = Q = 0."""
    state = np.zeros((len(patients), 4))
    state[:, 0] = patients.gb
    return state


def slope(
    patients: Patients, state: np.ndarray, insulin: np.ndarray, meal: np.ndarray
) -> np.ndarray:
    """Time derivative of the states G, X, I - Ib, Q.

    Args:
      patients: N of them.
      state: `[N, 4]`.
      insulin: `[N]` U/min.
      meal: `[N]` g/min.

    Returns:
      `[N, 4]` per minute.
    """
    p = patients
    glucose, remote, plasma, gut = state.T
    appearance = ABSORBED * p.ka * gut / (GLUCOSE_VOLUME * p.weight)
    return np.stack(
        [
            -(p.p1 + remote) * glucose + p.p1 * p.gb + appearance,
            p.p2 * (p.si * plasma - remote),
            -p.n * plasma + 1000 * insulin / (INSULIN_VOLUME * p.weight),
            -p.ka * gut + 1000 * meal,
        ],
        axis=-1,
    )


def advance(
    patients: Patients, state: np.ndarray, dose: np.ndarray, meal: np.ndarray, minutes: int
) -> np.ndarray:
    """The states after one interval over which dose `[N]` U and meal `[N]` g are spread evenly.

    By the classical Runge-Kutta method in steps of a minute.
    """
    for _ in range(minutes):
        f = lambda state: slope(patients, state, dose / minutes, meal / minutes)  # noqa: E731
        k1 = f(state)
        k2 = f(state + k1 / 2)
        k3 = f(state + k2 / 2)
        k4 = f(state + k3)
        state = state + (k1 + 2 * k2 + 2 * k3 + k4) / 6
    return state


def draw_meals(rng: np.random.Generator, count: int, steps: int, minutes: int) -> np.ndarray:
    """Carbohydrates eaten in each interval `[N, steps]` g: three meals a day and maybe a snack.

    Each record begins at another time of the day.
    """
    meals = np.zeros((count, steps))
    start = DAY * rng.random(count)
    days = 1 + -(-steps * minutes // DAY)
    for day in range(days):
        for hour, spread, size, chance in ((1.5, 0.7, 35, 1.0), (6.5, 0.8, 45, 1.0),
                                           (13.0, 0.9, 50, 1.0), (10.0, 1.5, 20, 0.6)):  # fmt: skip
            clock = day * DAY + 60 * (6 + hour + spread * rng.standard_normal(count))
            when = clock - start
            grams = np.round(size * np.exp(0.3 * rng.standard_normal(count)))
            step = np.floor(when / minutes).astype(int)
            eaten = (rng.random(count) < chance) & (step >= 0) & (step < steps)
            meals[np.flatnonzero(eaten), step[eaten]] += grams[eaten]
    return meals


def planned_doses(rng: np.random.Generator, meals: np.ndarray) -> np.ndarray:
    """Doses for meals `[N, steps]` U, about a unit per 20 g: guessed, early, late or forgotten."""
    steps = meals.shape[1]
    doses = np.zeros_like(meals)
    for patient, step in np.argwhere(meals > 0):
        if rng.random() < 0.9:
            when = min(max(step + rng.integers(-2, 4), 0), steps - 1)
            doses[patient, when] += meals[patient, step] / 20 * np.exp(0.35 * rng.standard_normal())
    return doses


def simulate_records(
    rng: np.random.Generator, patients: Patients, steps: int, minutes: int, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Records of all patients: what the sensor shows, the doses that were given, and the meals.

    To the doses for meals come corrections, now and then and without knowing the patient, where the
    sensor shows much.

    Args:
      rng: Drawn from.
      patients: N of them, at rest some hours before.
      steps: T.
      minutes: Length of a step.
      noise: Standard deviation of the sensor, mg/dL.

    Returns:
      Glucose `[N, T + 1]`, doses `[N, T]` U, meals `[N, T]` g.
    """
    before = BEFORE // minutes
    steps += before
    meals = draw_meals(rng, len(patients), steps, minutes)
    doses = planned_doses(rng, meals)
    state = rest(patients)
    seen = np.zeros((len(patients), steps + 1))
    for step in range(steps + 1):
        seen[:, step] = state[:, 0] + noise * rng.standard_normal(len(patients))
        if step < steps:
            high = (seen[:, step] > 180) & (rng.random(len(patients)) < minutes / 90)
            extra = (seen[:, step] - 130) / 80 * np.exp(0.35 * rng.standard_normal(len(patients)))
            doses[:, step] = np.round(doses[:, step] + np.where(high, extra, 0.0), 1)
            state = advance(patients, state, doses[:, step], meals[:, step], minutes)
    return seen[:, before:], doses[:, before:], meals[:, before:]


def table_of(
    rng: np.random.Generator,
    patients: Patients,
    steps: int,
    minutes: int = 15,
    noise: float = 3.0,
    gap_chance: float = 0.3,
) -> str:
    """Records as a CSV table; a patient in three or so lost an hour of the sensor."""
    seen, doses, meals = simulate_records(rng, patients, steps, minutes, noise)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    hour = _steps_of_an_hour(minutes)
    for patient in range(len(patients)):
        gap = rng.integers(hour, steps - 2 * hour) if rng.random() < gap_chance else steps + 1
        for step in range(steps + 1):
            if gap <= step < gap + hour:
                continue
            given = (
                [f"{doses[patient, step]:g}", f"{meals[patient, step]:g}"]
                if step < steps
                else ["", ""]
            )
            row = [f"patient_{patient:03d}", step * minutes, f"{seen[patient, step]:.1f}", *given]
            writer.writerow([*row, f"{patients.recorded_weight[patient]:g}"])
    return out.getvalue()


def _steps_of_an_hour(minutes: int) -> int:
    return -(-60 // minutes)


def main(argv: Sequence[str]) -> None:
    """Writes the table."""
    del argv
    rng = np.random.default_rng(FLAGS.seed)
    patients = draw_patients(rng, FLAGS.patients, not FLAGS.no_heterogeneity)
    steps = FLAGS.hours * 60 // FLAGS.minutes
    least = 3 * _steps_of_an_hour(FLAGS.minutes) + 1
    if steps < least:
        raise app.UsageError(
            f"--hours={FLAGS.hours} and --minutes={FLAGS.minutes} make records of {steps} steps: "
            f"at least {least} are needed, as some lose an hour in between; ask for more hours or "
            "fewer minutes"
        )
    text = table_of(rng, patients, steps, FLAGS.minutes, FLAGS.noise)
    path = Path(FLAGS.out)
    if path.is_dir() or (path.exists() and path.read_bytes() != text.encode()):
        raise app.UsageError(f"{path} exists with other content: give another --out, or remove it")
    write_atomically(path, text.encode())
    print(f"{FLAGS.patients} patients, {steps + 1} moments of each at most: {path}")


def _define_flags() -> None:
    flags.DEFINE_string("out", None, "CSV file to write.", required=True)
    flags.DEFINE_integer("patients", 200, "How many.", lower_bound=1)
    flags.DEFINE_integer("hours", 24, "Length of each record.", lower_bound=6)
    flags.DEFINE_integer("minutes", 15, "Time between two values of the sensor.", lower_bound=1)
    flags.DEFINE_float("noise", 3.0, "Standard deviation of the sensor, mg/dL.", lower_bound=0.0)
    flags.DEFINE_integer("seed", 0, "Of patients and records.", lower_bound=0)
    flags.DEFINE_bool("no_heterogeneity", False, "All patients alike, as a check of the verdict.")


if __name__ == "__main__":
    _define_flags()
    app.run(main)
