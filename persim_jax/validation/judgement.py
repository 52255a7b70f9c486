"""Everything that a validation finds, from predictions beside the truth."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from persim_jax.validation import intervals
from persim_jax.validation.config import ValidationConfig
from persim_jax.validation.errors import (
    Heterogeneity,
    heterogeneity,
    rmse_over_horizon,
    squared_errors,
)
from persim_jax.validation.intervals import Coverage
from persim_jax.validation.procedure import PERSISTENCE, PERSONALIZED, POOLED, Evidence, Part
from persim_jax.validation.support import outside, support_of
from persim_jax.validation.verdicts import AgentVerdict, judge


class PartFindings(NamedTuple):
    """What is found on one kind of held-out steps.

    Attributes:
      errors: By method, RMSE at each step in standard deviations, `[H]`.
      windows: `[H]`, how many there are at each step.
      num_agents: Agents with at least one window.
      before: Coverage of the intervals as the model gives them.
      after: Of those rescaled by other held-out agents.
      widths: `[levels, H, D]`, half widths in the model's standard deviations, from all agents: for
        intervals of agents to come.
      gain: Of personalization over pooling.
      outside: Share of steps outside the data.
    """

    errors: dict[str, np.ndarray]
    windows: np.ndarray
    num_agents: int
    before: list[Coverage]
    after: list[Coverage]
    widths: np.ndarray
    gain: Heterogeneity
    outside: float


class Findings(NamedTuple):
    """A validation.

    Attributes:
      tails: Of known agents' tails.
      unseen: Of agents that training did not see.
      verdicts: On every agent, in the order of the data.
      horizon: Steps that were predicted.
    """

    tails: PartFindings
    unseen: PartFindings
    verdicts: list[AgentVerdict]
    horizon: int


def conclude(evidence: Evidence, config: ValidationConfig, seed: int = 0) -> Findings:
    """Draws conclusions.

    Args:
      evidence: From `procedure.gather`.
      config: Levels, steps and thresholds.
      seed: Of the draws of agents.
    """
    cloud = support_of(evidence.split.train)
    findings: list[PartFindings] = []
    verdicts: dict[int, AgentVerdict] = {}
    for known, part in ((True, evidence.tails), (False, evidence.unseen)):
        far = outside(cloud, part.queries, part.dataset.info.num_actions)
        squared = {
            name: squared_errors(own, part.queries, evidence.scale)
            for name, own in part.forecasts.items()
        }
        found, inside = _part(part, squared, far, config, seed)
        findings.append(found)
        for row in range(part.dataset.num_agents):
            own = part.queries.agent == row
            verdicts[int(np.asarray(part.dataset.agent_ids)[row])] = judge(
                part.dataset.name_of(row), known, squared[PERSONALIZED][own],
                squared[PERSISTENCE][own], far[own], inside[own], config.trust,
                max(config.levels),
            )  # fmt: skip
    horizon = max(part.queries.horizon for part in (evidence.tails, evidence.unseen))
    order = sorted(verdicts)
    tails, unseen = findings
    return Findings(tails, unseen, [verdicts[agent_id] for agent_id in order], horizon)


def _part(
    part: Part,
    squared: dict[str, np.ndarray],
    far: np.ndarray,
    config: ValidationConfig,
    seed: int,
) -> tuple[PartFindings, np.ndarray]:
    """Findings, and whether values lie in their rescaled widest intervals `[Q, H, D]`."""
    queries, levels = part.queries, config.levels
    scored = intervals.scores(part.forecasts[PERSONALIZED], queries)
    rng = np.random.default_rng(seed)
    half = rng.permutation(part.dataset.num_agents) < part.dataset.num_agents // 2
    repaired = intervals.cross_fitted(scored, queries.agent, half, levels)
    asked = (queries.agent, levels, config.steps, config.num_bootstraps, seed)
    there = queries.mask.sum(axis=0)
    found = PartFindings(
        errors={name: rmse_over_horizon(own) for name, own in squared.items()},
        windows=there,
        num_agents=len(np.unique(queries.agent)),
        before=intervals.coverage(intervals.contained(scored, intervals.nominal(levels)), *asked),
        after=intervals.coverage(repaired, *asked),
        widths=intervals.conformal_widths(scored, levels),
        gain=heterogeneity(
            squared[PERSONALIZED], squared[POOLED], queries.agent, config.num_bootstraps, seed
        ),
        outside=float(np.average(far, weights=queries.mask.sum(axis=1))),
    )
    return found, repaired[int(np.argmax(levels))]


def as_json(findings: Findings, config: ValidationConfig) -> dict[str, Any]:
    """What `verdict.json` holds; a number that there is not is null.

    `coverage` is that of unseen agents after rescaling by others; `heterogeneity` is the gain on
    known agents' tails; `errors` are RMSEs in standard deviations at some steps on those tails, and
    under names that end in `_unseen` on agents that training did not see.
    """
    coverage: dict[str, dict[str, float | None]] = {}
    for found in findings.unseen.after:
        coverage.setdefault(f"{found.level:g}", {})[str(found.step)] = _number(found.share)
    gain = findings.tails.gain
    return {
        "agents": {
            str(v.agent): {"verdict": v.verdict, "steps": v.steps} for v in findings.verdicts
        },
        "coverage": coverage,
        "heterogeneity": {
            "gain": _number(gain.gain),
            "interval": [_number(gain.low), _number(gain.high)],
        },
        "errors": {
            f"{name}{suffix}": {
                str(step): _number(curve[step - 1]) for step in config.steps if step <= len(curve)
            }
            for suffix, part in (("", findings.tails), ("_unseen", findings.unseen))
            for name, curve in part.errors.items()
        },
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
