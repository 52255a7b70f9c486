"""From errors to words: whether one agent's simulator may be trusted, and for how many steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from persim_jax.validation.config import TrustConfig

TRUST, TRUST_UP_TO, DO_NOT_TRUST = "trust", "trust_up_to", "do_not_trust"


class AgentVerdict(NamedTuple):
    """What is said of one agent.

    Attributes:
      agent: Its name or id.
      known: Whether training saw it, so that its tail is judged; else it was personalized.
      verdict: "trust", "trust_up_to" or "do_not_trust".
      steps: Up to how many steps; all that could be judged where it is "trust", else 0 for none.
      judged: Steps that could be judged.
      error: RMSE of these, in standard deviations.
      outside: Share of its queries outside the data.
      coverage: Share of its values in the widest rescaled intervals; NaN if there are none.
      reason: In words, what limits it; empty for "trust".
    """

    agent: int | str
    known: bool
    verdict: str
    steps: int
    judged: int
    error: float
    outside: float
    coverage: float
    reason: str


def judge(
    agent: int | str,
    known: bool,
    squared: np.ndarray,
    unchanged: np.ndarray,
    outside: np.ndarray,
    inside: np.ndarray,
    config: TrustConfig,
    level: float = 0.95,
) -> AgentVerdict:
    """The verdict on one agent from its windows.

    Args:
      agent: Its name or id.
      known: See `AgentVerdict`.
      squared: Squared errors `[Q, H]` in standard deviations, NaN where there was no step.
      unchanged: The same if nothing changed.
      outside: `[Q]` shares of queries outside the data.
      inside: `[Q, H, D]`, whether values lie in their rescaled widest intervals.
      config: Thresholds.
      level: Nominal coverage of these intervals.
    """
    there = ~np.isnan(squared)
    judged = int(there.any(axis=0).sum())
    if not judged:
        reason = "its record leaves no step to judge it by"
        return AgentVerdict(agent, known, DO_NOT_TRUST, 0, 0, np.nan, np.nan, np.nan, reason)
    error, rival = (up_to(x)[:judged] for x in (squared, unchanged))
    good = (error <= config.max_error) & ((error <= rival) | (error <= config.negligible))
    # Of one step alone chance says more than the simulator: the fewest steps are judged as one.
    fewest = min(config.min_steps, judged)
    good[:fewest] = good[fewest - 1]
    steps = judged if good.all() else int(good.argmin())
    far = float(np.average(outside, weights=there.sum(axis=1)))
    covered = float(np.nanmean(inside)) if not np.isnan(inside).all() else float("nan")
    verdict, reason = TRUST, ""
    if steps < judged:
        verdict = TRUST_UP_TO
        end = max(steps + 1, fewest)
        ours, still = error[end - 1], rival[end - 1]
        reason = f"over {counted(end, 'step')} " + (
            f"the error is {ours:.2g} standard deviations"
            if ours > config.max_error
            else f"assuming that nothing changes errs less: {still:.3g} standard deviations, the "
            f"simulator {ours:.3g}"
        )
    if steps < fewest:
        verdict = DO_NOT_TRUST
    # What was predicted well was predicted well, wherever it lies.
    matters = error[-1] > config.negligible
    if matters and far > config.max_outside:
        verdict = DO_NOT_TRUST
        reason = f"{100 * far:.0f} % of its states and actions are unlike the data"
    if matters and covered < config.min_coverage:
        verdict = DO_NOT_TRUST
        reason = f"only {100 * covered:.0f} % of its values are in the {100 * level:g} % intervals"
    steps = 0 if verdict == DO_NOT_TRUST else steps
    return AgentVerdict(
        agent, known, verdict, steps, judged, float(error[-1]), far, covered, reason
    )


def counted(number: int, noun: str) -> str:
    """A number of things: 1 step, 2 steps."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def up_to(squared: np.ndarray) -> np.ndarray:
    """RMSE over the first h steps for each h, `[Q, H] -> [H]`."""
    there = ~np.isnan(squared)
    total = np.where(there, squared, 0.0).sum(axis=0).cumsum()
    count = there.sum(axis=0).cumsum()
    curve: np.ndarray = np.sqrt(total / np.maximum(count, 1))
    return curve
