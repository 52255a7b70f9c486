"""Risk over members: by hand, by its definition as a maximum, and in a planner's decision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persim_jax.planning.mpc import PlannerConfig, candidate_score, mpc_policy
from persim_jax.planning.risk import over_members, tail_weights
from tests.toys import gains_model, line_env

RETURNS = np.float32([4.0, -2.0, 10.0, 0.0, 3.0])


@pytest.mark.parametrize(
    ("risk", "level", "expected"),
    [
        ("mean", 0.4, 3.0),
        ("worst", 0.4, -2.0),
        ("cvar", 0.2, -2.0),
        ("cvar", 0.01, -2.0),
        ("cvar", 0.4, (-2 + 0) / 2),
        # One and a half members: the worst, and half of the next.
        ("cvar", 0.3, (-2 + 0.5 * 0) / 1.5),
        ("cvar", 0.7, (-2 + 0 + 3 + 0.5 * 4) / 3.5),
        ("cvar", 1.0, 3.0),
    ],
)
def test_numbers_by_hand(risk, level, expected):
    assert float(over_members(jnp.asarray(RETURNS), risk, level)) == pytest.approx(expected)


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9),
    st.floats(0.01, 1.0),
)
def test_worst_is_below_cvar_which_is_below_the_mean_and_grows_with_the_level(values, level):
    returns = jnp.asarray(values, jnp.float32)
    worst, mean = (float(over_members(returns, risk, level)) for risk in ("worst", "mean"))
    cvar, wider = (
        float(over_members(returns, "cvar", share)) for share in (level, (1 + level) / 2)
    )
    slack = 1e-3
    assert worst <= cvar + slack
    assert cvar <= wider + slack
    assert wider <= mean + slack
    assert tail_weights(len(values), level).sum() == pytest.approx(1.0)
    # Rockafellar and Uryasev: the maximum over c of c - E[(c - return)+] / level, reached at one
    # of the returns.
    host = np.asarray(values, np.float64)
    auxiliary = [c - np.maximum(c - host, 0).mean() / level for c in host]
    assert cvar == pytest.approx(max(auxiliary), abs=1e-2)


@pytest.mark.parametrize("risk", ["mean", "worst", "cvar"])
def test_a_member_that_left_the_numbers_makes_the_candidate_worthless(risk):
    assert np.isnan(over_members(jnp.asarray([1.0, jnp.nan, 3.0]), risk, 0.3))


# A push to the right is worth 3 times its gain, no push 1; members disagree about the gain.
DISAGREE = jnp.asarray([1.0, 1.0, -1.0, 1.0])


def risky_task():
    def reward(obs, action, next_obs):
        return jnp.where(action == 1, 1.0, 3.0 * (next_obs[0] - obs[0]))

    return line_env(3)._replace(reward=reward, terminated=lambda obs: obs[0] > 1e9)


def test_scores_of_a_risky_and_a_safe_plan_by_hand():
    task, model = risky_task(), gains_model(4)

    def score(action, risk, level):
        actions = jnp.asarray([action], jnp.int32)
        encoded = model.encode_actions(DISAGREE, actions)
        return float(
            candidate_score(
                jax.random.key(0), model, DISAGREE, task, jnp.zeros(2), actions, encoded, 0.0,
                risk=risk, risk_level=level,
            )
        )  # fmt: skip

    # Right: 3, 3, -3, 3.
    assert score(2, "mean", 0.5) == pytest.approx(1.5)
    assert score(2, "worst", 0.5) == pytest.approx(-3.0)
    assert score(2, "cvar", 0.5) == pytest.approx(0.0)
    assert score(2, "cvar", 0.75) == pytest.approx(1.0)
    for risk in ("mean", "worst", "cvar"):
        assert score(1, risk, 0.5) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("risk", "level", "expected"),
    [("mean", 0.5, 2), ("cvar", 1.0, 2), ("cvar", 0.9, 2), ("cvar", 0.5, 1), ("worst", 0.5, 1)],
)
def test_a_careful_planner_takes_what_no_member_regrets(risk, level, expected):
    config = PlannerConfig(num_candidates=40, horizon=1, risk=risk, risk_level=level)
    policy = mpc_policy(gains_model(4), DISAGREE, risky_task(), config)
    action, _ = jax.jit(policy.act)(jax.random.key(0), policy.init(), jnp.zeros(2))
    assert int(action) == expected


def test_the_default_is_the_mean_over_members():
    assert PlannerConfig() == PlannerConfig(risk="mean")
