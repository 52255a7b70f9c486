"""The speed of training as rows and in words, from a curve whose times are known."""

import json

import numpy as np
import pytest

from experiments import throughput
from experiments.settings import persim_config
from experiments.throughput import epoch_seconds, measure_training
from experiments.workdir import Workdir
from tests.experiments.jobs import dataset_of, tiny
from tests.experiments.test_stages import world as world


def write_curve(path, ends, polish=()):
    lines = [{"phase": "adam", "wall_s": end} for end in ends]
    lines += [{"phase": "polish", "wall_s": end} for end in polish]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_an_epoch_takes_what_most_epochs_take(tmp_path):
    curve = tmp_path / "metrics.jsonl"
    # The first epoch compiles, and a kill after the third made the fourth compile as well.
    assert epoch_seconds(write_curve(curve, [9, 11, 13, 21, 23], [90])) == (2.0, False)
    assert epoch_seconds(write_curve(curve, [9, 12])) == (3.0, False)
    assert epoch_seconds(write_curve(curve, [9], [90])) == (9.0, True)
    seconds, _ = epoch_seconds(write_curve(curve, []))
    assert np.isnan(seconds)


@pytest.mark.parametrize("world", ["cart_pole"], indirect=True)
@pytest.mark.parametrize("precision", ["highest", "bf16"])
def test_rows_and_words_say_what_was_reached_and_what_could_be(
    tmp_path, monkeypatch, world, precision
):
    config = tiny("cart_pole", train__precision=precision, train__batch_size=32)
    where, dataset = Workdir(tmp_path, config), dataset_of(world)
    write_curve(tmp_path / "metrics.jsonl", [5, 7, 9])
    rate = lambda precision, mesh: {"highest": 1e9, "bf16": 4e9}[precision] * mesh.size  # noqa: E731
    monkeypatch.setattr(throughput, "measured_product_rate", rate)
    (train, product), text = measure_training(where, dataset, persim_config(config))
    # Minibatches of 32 for each of two members: 4 coordinates -> 8 hidden, with the 4 themselves
    # -> 4 x 5 factors; 2 actions -> 5 factors.
    one = 2 * 32 * (2 * 4 * 8 + 3 * (8 + 4) * 20 + 2 * 2 * 5)
    count = 2 * (dataset.mask.sum() // 32)
    assert train["flops_per_epoch"] == count * one
    assert train["value"] == pytest.approx(train["flops_per_epoch"] / 2)
    assert train["share"] == pytest.approx(train["value"] / product["value"])
    assert (train["metric"], train["method"]) == ("train_flops_per_second", "persim")
    assert (product["metric"], product["method"]) == ("matmul_flops_per_second", "any")
    assert product["value"] == {"highest": 1e9, "bf16": 4e9}[precision]
    for row in (train, product):
        assert (row["precision"], row["mesh"]) == (precision, "1x1")
    shares = {"highest": "0.026 %", "bf16": "0.0064 %"}
    assert f"{shares[precision]} of a large matrix product's " in text
    assert text.endswith(f" GFLOP/s ({precision}, mesh 1x1)")


def test_rates_are_said_in_units_that_fit():
    assert throughput._flops_text(41.26e9) == "41.3 GFLOP/s"
    assert throughput._flops_text(3.5e6) == "3.5 MFLOP/s"
    assert throughput._flops_text(700.4e12) == "700 TFLOP/s"
