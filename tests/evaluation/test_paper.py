import csv
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persim_jax.evaluation import paper


def test_numbers_read_off_the_printed_tables() -> None:
    value = paper.paper_value
    gravity = {"gravity": 0.0025}
    assert value(1, "mountain_car", gravity, "pure", "cadm_vanilla", "r2_median") == (-18.4, None)
    assert value(1, "mountain_car", gravity, "random", "persim", "rmse_mean") == (0.01, None)
    pole = {"force": 10.0, "length": 0.15}
    assert value(2, "cart_pole", pole, "pure", "persim", "return_mean") == (192.0, 2.28)
    assert value(2, "cart_pole", pole, "pure_eps40", "morel_a", "return_mean") == (10.8, 8.8)
    cheetah = {"mass_scale": 1.7, "damping_scale": 0.3}
    assert value(2, "half_cheetah", cheetah, "any", "true_env", "return_mean") == (42893.0, 6959.0)
    default = {"mass_scale": 1.0, "damping_scale": 1.0}
    assert value(3, "half_cheetah", default, "random", "persim_cql_5", "return_mean") == (
        94.2,
        102.8,
    )


def test_true_env_is_the_same_for_every_behavior() -> None:
    agent = {"gravity": 0.0001}
    found = {
        paper.paper_value(2, "mountain_car", agent, behavior, "true_env", "return_mean")
        for behavior in paper.BEHAVIORS
    }
    assert found == {(-53.95, 4.1)}


def test_what_the_paper_does_not_print_is_none() -> None:
    value = paper.paper_value
    # The source has a blank there.
    assert value(2, "mountain_car", {"gravity": 0.0025}, "pure", "persim", "return_mean") is None
    # Two of the five agents are in the appendix only.
    assert value(1, "mountain_car", {"gravity": 0.001}, "pure", "persim", "rmse_mean") is None
    assert value(1, "cart_pole", {"force": 2, "length": 0.5}, "pure", "bcq_p", "rmse_mean") is None
    assert value(2, "cart_pole", {"force": 2, "length": 0.5}, "x", "persim", "return_mean") is None
    assert value(1, "my_own", {"size": 2.0}, "pure", "persim", "rmse_mean") is None
    assert value(1, "mountain_car", {"gravity": 0.0025}, "pure", "concat_mlp", "rmse_mean") is None


def test_every_line_of_the_file_is_reached_under_our_names() -> None:
    reached = 0
    cases = [
        (table, environment, behavior, method, metric, agent)
        for table, metrics in ((1, ("rmse_mean", "r2_median")), (2, ("return_mean",)))
        for environment in paper.ENVIRONMENTS
        for behavior in ("pure", "random", "pure_eps20", "pure_eps40")
        for method in paper.METHODS
        for metric in metrics
        for agent in paper.paper_agents(environment)
    ]
    for table, environment, behavior, method, metric, agent in cases:
        # `true_env` has one line for all behaviors.
        if method != "true_env" or behavior == "pure":
            found = paper.paper_cell(table, environment, agent, behavior, method, metric)
            reached += found is not None
    for environment in paper.ENVIRONMENTS:
        for method in paper.METHODS:
            for agent in paper.paper_agents(environment):
                reached += bool(
                    paper.paper_cell(3, environment, agent, "random", method, "return_mean")
                )
    with paper.TABLES_FILE.open(encoding="utf8") as file:
        assert reached == len(list(csv.reader(file))) - 1 == 638


def test_labels_and_covariates_name_the_same_agent() -> None:
    for environment in paper.ENVIRONMENTS:
        for agent in paper.paper_agents(environment):
            label = paper.paper_label(environment, agent)
            assert label is not None
            by_agent = paper.paper_cell(2, environment, agent, "random", "persim", "return_mean")
            by_label = paper.paper_cell(2, environment, label, "random", "persim", "return_mean")
            # "0.01" means two gravities; Table 2 has only the smaller one.
            if agent != {"gravity": 0.001}:
                assert by_label == by_agent
    assert paper.paper_cell(1, "cart_pole", "(2.0/0.5)", "pure", "persim", "rmse_mean")


def test_a_label_of_two_agents_is_refused_in_table_3() -> None:
    with pytest.raises(ValueError, match="names 2 agents in Table 3; give the covariates"):
        paper.paper_cell(3, "mountain_car", "0.01", "random", "bcq_p", "return_mean")


def test_test_agents_are_those_of_the_protocol() -> None:
    gravities = [agent["gravity"] for agent in paper.paper_agents("mountain_car")]
    assert gravities == [0.0001, 0.0005, 0.001, 0.0025, 0.0035]
    poles = [(agent["force"], agent["length"]) for agent in paper.paper_agents("cart_pole")]
    assert poles == [(2, 0.5), (10, 0.5), (18, 0.5), (10, 0.85), (10, 0.15)]
    assert paper.paper_agents("my_own") == ()
    assert paper.paper_label("mountain_car", {"gravity": 0.0005}) == "0.05"
    assert paper.paper_label("mountain_car", {"gravity": 0.0007}) is None


def test_float32_covariates_find_their_cell() -> None:
    import numpy as np

    agent = {"force": np.float32(10), "length": np.float32(0.85)}
    assert paper.paper_value(1, "cart_pole", agent, "pure", "persim", "rmse_mean") == (0.01, None)


def test_bad_names_say_what_to_give() -> None:
    with pytest.raises(ValueError, match="table is 4"):
        paper.paper_cell(4, "cart_pole", "2/0.5", "pure", "persim", "rmse_mean")
    with pytest.raises(ValueError, match="lack length"):
        paper.paper_cell(1, "cart_pole", {"force": 2.0}, "pure", "persim", "rmse_mean")
    with pytest.raises(ValueError, match="not numbers joined by '/'"):
        paper.paper_cell(1, "cart_pole", "two", "pure", "persim", "rmse_mean")


def test_text_is_as_printed() -> None:
    cell = paper.paper_cell(
        2, "mountain_car", {"gravity": 0.0035}, "any", "true_env", "return_mean"
    )
    assert cell is not None
    assert cell.text == "-197.5 ± 20.7"
    cell = paper.paper_cell(1, "mountain_car", {"gravity": 0.0035}, "pure", "persim", "r2_median")
    assert cell is not None
    assert (cell.text, cell.decimals) == ("0.80", 2)


@given(st.floats(-1000, 1000), st.integers(0, 3))
def test_equal_as_printed_is_half_a_unit_of_the_last_digit(value: float, decimals: int) -> None:
    printed = round(value, decimals)
    cell = paper.PaperCell(printed, None, decimals, "")
    unit = 10.0**-decimals
    assert paper.equal_as_printed(value, cell)
    assert not paper.equal_as_printed(printed + 0.6 * unit, cell)
    assert not paper.equal_as_printed(math.nan, cell)
