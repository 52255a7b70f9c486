"""Words that say what numbers mean, and figures that show them."""

import dataclasses

import numpy as np
import pytest

from experiments.figures.validation import plot_agents, plot_coverage, plot_gain, plot_rivals
from experiments.reporting import validation_words as words
from experiments.reporting.validation_page import _intervals as intervals_section
from experiments.reporting.validation_page import to_page
from persim_jax.validation.config import ValidationConfig
from persim_jax.validation.errors import Heterogeneity
from persim_jax.validation.intervals import Coverage
from persim_jax.validation.judgement import Findings, PartFindings
from persim_jax.validation.verdicts import AgentVerdict

CONFIG = ValidationConfig()
STEPS = np.arange(1, 5)


def part(gain=Heterogeneity(0.5, 0.4, 0.6, 30, 60)):  # noqa: B008 - immutable
    curves = {
        "personalized": 0.05 * STEPS, "pooled": 0.1 * STEPS, "one_per_agent": 0.2 * STEPS,
        "persistence": 0.3 * STEPS,
    }  # fmt: skip
    told = [Coverage(p, h, p - 0.1, p - 0.2, p, 60) for p in (0.5, 0.8, 0.95) for h in (1, 4)]
    better = [c._replace(share=c.level) for c in told]
    return PartFindings(
        curves, np.full(4, 60), 30, told, better, np.ones((3, 4, 2)), gain, outside=0.25
    )


def verdicts(count):
    """Of each kind in turn."""
    kinds = (
        ("trust", 4, 4, ""), ("trust_up_to", 2, 4, "after 3 steps the error is <big>"),
        ("do_not_trust", 0, 0, "its record leaves no step to judge it by"),
    )  # fmt: skip
    return [
        AgentVerdict(f"p{i}", True, v, s, n, 0.1 if n else np.nan, 0.2 if n else np.nan, 0.9, why)
        for i in range(count)
        for v, s, n, why in [kinds[i % 3]]
    ]


def findings(count=6, **parts):
    return Findings(part(**parts), part(**parts), verdicts(count), 4)


def test_words_count_agents():
    assert words.headline(findings()) == (
        "2 of 6 agents can be trusted for every step that was tested, 2 up to some number of "
        "steps, 2 should not be trusted, 2 of them since their records leave nothing to test."
    )
    assert [words.verdict_words(v) for v in verdicts(3)] == [
        "trust", "trust up to 2 steps", "do not trust",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((12, 0, 0), "12 of 12 agents can be trusted for every step that was tested."),
        ((11, 0, 1), "11 of 12 agents can be trusted for every step that was tested, 1 should not "
         "be trusted, since its record leaves nothing to test."),
        ((0, 0, 12), "0 of 12 agents can be trusted for every step that was tested, 12 should not "
         "be trusted, 12 of them since their records leave nothing to test."),
    ],
)  # fmt: skip
def test_words_of_all_one_or_no_agents(kinds, expected):
    some = [v for v, count in zip(verdicts(3), kinds, strict=True) for _ in range(count)]
    assert words.headline(Findings(part(), part(), some, 4)) == expected


def test_one_thing_is_told_in_the_singular():
    curves = {name: curve[:1] for name, curve in part().errors.items()}
    alone = Heterogeneity(0.0, -0.1, 0.1, 1, 1)
    short = part(alone)._replace(errors=curves, windows=np.ones(1, int), num_agents=1)
    found = Findings(short, short, [verdicts(2)[1]._replace(steps=1)], 1)
    config = dataclasses.replace(CONFIG, transitions=1)
    said = " ".join([*words.sentences(found, config), *words.how_judged(found, config)])
    assert "After 1 simulated step on" in said
    assert "(1 of 1 path, 1 agent)" in said
    assert "from their first step, the error" in said
    assert "shows its first step, from which" in said
    assert "(what they save: 0%; 95 % interval -10% to 10%, 1 agent)" in said
    assert "Paths of up to 1 step were" in said
    assert words.verdict_words(found.verdicts[0]) == "trust up to 1 step"


def test_words_say_what_the_numbers_are():
    said = " ".join(words.sentences(findings(), CONFIG))
    assert "After 4 simulated steps" in said
    assert "the error is 20% of a value's usual spread" in said
    assert "nothing changes gives 120%, one simulator for all agents 40%" in said
    assert "personal simulators err 50% less than one simulator for all (95 % interval 40%" in said
    assert "1 step: 85%, rescaled 95%" in said
    assert "25% of the steps that were predicted are unlike anything in the data" in said


def test_words_are_of_what_most_paths_say():
    # One long record is no basis for a headline, nor its error at the end that of all.
    few = part()._replace(windows=np.asarray([60, 40, 30, 1]))
    said = words.sentences(Findings(few, few, verdicts(6), 4), CONFIG)[0]
    assert said.startswith("After 3 simulated steps")
    assert "the error is 15% of" in said
    assert said.endswith("(30 of 60 paths, 30 agents).")


def test_words_count_the_agents_that_were_laid_aside():
    # Of few agents more than a tenth.
    known = [v if i < 8 else v._replace(known=False) for i, v in enumerate(verdicts(12))]
    said = words.how_judged(Findings(part(), part(), known, 4), CONFIG)[0]
    assert "The last 20% of each record and, at random, 4 of 12 agents were laid aside" in said


def test_what_was_never_that_long_is_no_number():
    far = {"share": np.nan, "low": np.nan, "high": np.nan, "windows": 0}
    told = [c._replace(**far) if c.step == 4 else c for c in part().before]
    short = part()._replace(before=told, after=told)
    section = intervals_section(Findings(short, short, verdicts(6), 4), CONFIG)
    table = section.partition("<table>")[2]
    assert "no step that far" in table
    assert "nan" not in table
    alone = part()._replace(after=[c._replace(**far) for c in part().after])
    section = intervals_section(Findings(alone, alone, verdicts(6), 4), CONFIG)
    assert section.count("<td>no other agents to rescale by</td>") == 6
    assert "no step that far" not in section


@pytest.mark.parametrize(
    ("gain", "low", "said"),
    [
        (0.02, -0.01, "No difference between agents was found"),
        (0.0, -0.01, "No difference between agents was found"),
        (-0.3, -0.4, "Personal simulators err 30% more than one simulator for all"),
        (0.998, 0.997, "err 99.8% less"),
        (0.5, 0.4, "Agents differ"),
    ],
)
def test_a_difference_is_claimed_only_above_zero(gain, low, said):
    found = Heterogeneity(gain, low, gain + 0.001, 10, 20)
    assert said in words.heterogeneity_sentence(found)


def test_a_page_ends_in_a_verdict_on_each_agent_and_escapes_what_it_shows():
    facts = {"data": "<clinic>", "agents": 6, "code version": "abc"}
    page = to_page(findings(), CONFIG, facts, dataclasses.asdict(CONFIG))
    assert "&lt;clinic&gt;" in page
    assert "<big>" not in page
    assert (
        page.rindex("Verdict on each agent") < page.rindex("p5") < page.rindex("Code version abc")
    )
    assert page.count('src="data:image/svg+xml;base64,') == 4
    assert "the 6 agents that can be trusted" not in page.lower()
    # Many agents: those without a limit are folded away.
    long = to_page(findings(count=90), CONFIG, facts, {})
    assert "The 30 agents that can be trusted" in long
    never = Findings(part(), part(), verdicts(2)[1:] * 90, 4)
    assert "agents that can be trusted</summary>" not in to_page(never, CONFIG, facts, {})
    for i in range(90):
        assert f"<td>p{i}</td>" in long


def test_figures_show_every_method_interval_and_agent(tmp_path):
    shown = part()
    rivals = plot_rivals({"a": shown.errors, "b": shown.errors}, tmp_path / "rivals.svg")
    for axes in rivals.axes:
        curves = [line.get_ydata() for line in axes.lines[:4]]
        np.testing.assert_allclose(curves, list(shown.errors.values()))
    told = [c[:5] for c in shown.after]
    coverage = plot_coverage([c[:3] for c in shown.before], told, tmp_path / "coverage.svg")
    assert [axes.get_title() for axes in coverage.axes] == [
        f"should hold {level} of values" for level in ("50%", "80%", "95%")
    ]
    # Ends of intervals are in sight.
    wide = plot_coverage([(0.95, 1, 1.0)], [(0.95, 1, 0.9, 0.1, 1.0)], tmp_path / "wide.svg")
    assert wide.axes[0].get_ylim()[0] < 0.1
    # Of one level only the first step was rescaled, of the other no step was reached.
    gone = (np.nan,) * 3
    before = [(p, h, 0.7 if p == 0.8 else np.nan) for p in (0.8, 0.95) for h in (1, 2, 3)]
    after = [(p, h, *((0.8, 0.7, 0.9) if (p, h) == (0.8, 1) else gone)) for p, h, _ in before]
    left = plot_coverage(before, after, tmp_path / "gone.svg")
    assert [len(axes.get_xticks()) for axes in left.axes] == [3, 0]
    gain = plot_gain({"known": (0.5, 0.4, 0.6), "new": (0.1, -0.2, 0.3)}, tmp_path / "gain.svg")
    assert [t.get_text() for t in gain.axes[0].texts] == ["50%", "10%"]
    agents = plot_agents([0.1, 0.2, 1.0], [0, 0.1, 0.9], [2, 1, 0], (0.5, 0.5), tmp_path / "a.svg")
    assert sum(len(c.get_offsets()) for c in agents.axes[0].collections) == 3
    for name in ("rivals", "coverage", "gain", "a"):
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000
