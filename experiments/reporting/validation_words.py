"""What a validation says, in words for a reader who is no specialist."""

from __future__ import annotations

import math
from collections import Counter

from experiments.figures.validation import precise
from persim_jax.validation.config import ValidationConfig
from persim_jax.validation.errors import Heterogeneity
from persim_jax.validation.intervals import Coverage
from persim_jax.validation.judgement import Findings, PartFindings
from persim_jax.validation.procedure import PERSISTENCE, PERSONALIZED, POOLED
from persim_jax.validation.verdicts import DO_NOT_TRUST, TRUST, TRUST_UP_TO, AgentVerdict, counted

WORDS = {
    TRUST: "trust",
    TRUST_UP_TO: "trust up to {steps}",
    DO_NOT_TRUST: "do not trust",
}


def headline(findings: Findings) -> str:
    """The verdict on all agents in one sentence."""
    counts = Counter(verdict.verdict for verdict in findings.verdicts)
    total = len(findings.verdicts)
    parts = [f"{counts[TRUST]} of {total} agents can be trusted for every step that was tested"]
    if counts[TRUST_UP_TO]:
        parts.append(f"{counts[TRUST_UP_TO]} up to some number of steps")
    if counts[DO_NOT_TRUST]:
        untested = sum(not verdict.judged for verdict in findings.verdicts)
        whose = "its record leaves" if untested == 1 else "their records leave"
        some = f"{untested} of them " if counts[DO_NOT_TRUST] > 1 else ""
        why = f", {some}since {whose} nothing to test" if untested else ""
        parts.append(f"{counts[DO_NOT_TRUST]} should not be trusted{why}")
    return ", ".join(parts) + "."


def sentences(findings: Findings, config: ValidationConfig) -> list[str]:
    """What stands below the headline: errors, gain, intervals, support."""
    found = [
        _error(findings.tails, "the last part of records, which training did not see"),
        _error(
            findings.unseen,
            f"agents that training never saw, from their {_first(config)}",
        ),
        heterogeneity_sentence(findings.tails.gain),
        _intervals(findings.unseen, config),
    ]
    far = findings.tails.outside
    found.append(
        f"{far:.0%} of the steps that were predicted are unlike anything in the data; there a "
        "simulator guesses beyond what it has seen."
    )
    return found


def _error(part: PartFindings, what: str) -> str:
    curves = part.errors
    # The last steps are those of the few longest records: no basis for a headline.
    last = max(int((2 * part.windows >= part.windows[0]).sum()), 1)
    ours, still, pooled = (
        float(curves[name][last - 1]) for name in (PERSONALIZED, PERSISTENCE, POOLED)
    )
    return (
        f"After {counted(last, 'simulated step')} on {what}, the error is {_share(ours)} of a "
        f"value's usual spread; assuming that nothing changes gives {_share(still)}, one simulator "
        f"for all agents {_share(pooled)} ({part.windows[last - 1]} of "
        f"{counted(part.windows[0], 'path')}, {counted(part.num_agents, 'agent')})."
    )


def _share(ratio: float) -> str:
    if ratio >= 10:
        return "more than ten times"
    return f"{ratio:.1%}" if ratio < 0.1 else f"{ratio:.0%}"


def heterogeneity_sentence(gain: Heterogeneity) -> str:
    """Whether agents differ in a way that personalization uses."""
    ends = f"{precise(gain.low)} to {precise(gain.high)}"
    interval = f"95 % interval {ends}, {counted(gain.num_agents, 'agent')}"
    if gain.found:
        return (
            f"Agents differ, and it pays to know how: personal simulators err {precise(gain.gain)} "
            f"less than one simulator for all ({interval})."
        )
    if gain.high < 0:
        return (
            f"Personal simulators err {precise(-gain.gain)} more than one simulator for all "
            f"(what they save: {interval}): use one for all, or fit with another rank or "
            "penalty."
        )
    return (
        "No difference between agents was found: personal simulators do not err less than one "
        f"simulator for all (what they save: {gain.gain:.0%}; {interval}). One simulator for all "
        "would do."
    )


def _intervals(part: PartFindings, config: ValidationConfig) -> str:
    level = max(config.levels)
    pairs = [
        (old, new)
        for old, new in zip(part.before, part.after, strict=True)
        if new.level == level and math.isfinite(new.share)
    ]
    if not pairs:
        return "There were too few steps to test intervals."
    told = "; ".join(
        f"{counted(new.step, 'step')}: {old.share:.0%}, rescaled {new.share:.0%}"
        for old, new in pairs
    )
    return f"Intervals that should hold {level:.0%} of new agents' values hold, at {told}."


def verdict_words(verdict: AgentVerdict) -> str:
    """The verdict on one agent."""
    return WORDS[verdict.verdict].format(steps=counted(verdict.steps, "step"))


def share_text(share: float) -> str:
    """A share of values, where there were any."""
    return f"{share:.1%}" if math.isfinite(share) else "no step that far"


def rescaled_text(given: Coverage, rescaled: Coverage) -> str:
    """The share in rescaled intervals with its own interval, beside that in intervals as given."""
    if math.isfinite(rescaled.share):
        return f"{rescaled.share:.1%} ({rescaled.low:.1%} to {rescaled.high:.1%})"
    reached = math.isfinite(given.share)
    return "no other agents to rescale by" if reached else share_text(rescaled.share)


def how_judged(findings: Findings, config: ValidationConfig) -> list[str]:
    """How the numbers came about, step by step."""
    # Not the share that was asked for: of few agents more are needed.
    total, new = len(findings.verdicts), sum(not verdict.known for verdict in findings.verdicts)
    return [
        f"The last {config.tail_share:.0%} of each record and, at random, {new} of {total} agents "
        "were laid aside. Simulators were fitted again to the rest with the same choices.",
        f"Paths of up to {counted(findings.horizon, 'step')} were then simulated without "
        "looking: given where a path starts and the actions, and nothing else. What "
        "really happened was compared.",
        f"An agent that was laid aside shows its {_first(config)}, from which its simulator "
        "is made in closed form; what comes after is predicted.",
        "Errors are in usual spreads (standard deviations) of each value over all data, so that "
        "100 % is about the error of always guessing the average.",
        "Three rivals show what is easy: nothing changes; one simulator of the same kind and "
        "training for all agents; and for each agent a simple model of its own record alone.",
        "Intervals around a prediction were widened or narrowed by what was seen on one half of "
        "the agents and tested on the other half.",
        "All intervals of numbers on this page are 95 % intervals from drawing agents anew, since "
        "values of one agent are not independent of each other.",
    ]


def _first(config: ValidationConfig) -> str:
    """What a newcomer shows of itself."""
    return "first step" if config.transitions == 1 else f"first {config.transitions} steps"


def thresholds(config: ValidationConfig) -> list[str]:
    """The rules behind verdicts."""
    trust = config.trust
    return [
        f"A simulator is trusted up to the largest number of steps, at least {trust.min_steps}, "
        f"over which its error stays below {trust.max_error:.0%} of a value's usual spread and "
        f"below that of assuming that nothing changes; where it is below {trust.negligible:.0%} it "
        "need not beat the latter.",
        "Where values hardly change along a path, assuming that nothing changes is hard to beat. A "
        "simulator that does not may be close to the truth, but these data do not show that it "
        "knows what moves the agent.",
        f"More than {trust.max_outside:.0%} of steps unlike the data, or less than "
        f"{trust.min_coverage:.0%} of values in the rescaled {max(config.levels):.0%} intervals, "
        f"mean: do not trust, unless the error is below {trust.negligible:.0%} all the same.",
    ]
