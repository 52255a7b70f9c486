import json
import math
import pathlib
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments import stamps
from experiments.baseline_settings import method_digest
from tests.experiments.jobs import tiny

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def without_infinities(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [without_infinities(item) for item in value]
    if isinstance(value, dict):
        return {key: without_infinities(item) for key, item in value.items()}
    return value


@given(PLAIN)
def test_plain_data_passes_through_json_unchanged(value: Any) -> None:
    made = stamps.jsonable(value)
    assert json.loads(json.dumps(made, allow_nan=False)) == without_infinities(value)
    assert stamps.jsonable(made) == made


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([np.nan, np.inf, 1.0]), [None, None, 1.0]),
        (jnp.arange(3), [0, 1, 2]),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: {"a": (np.float64("nan"),)}}, {"1": {"a": [None]}}),
        (pathlib.PurePosixPath("runs/a"), "runs/a"),
    ],
)
def test_arrays_and_scalars_become_plain(value: Any, expected: Any) -> None:
    made = stamps.jsonable(value)
    assert made == expected
    assert type(made) is type(expected)


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(TypeError, match=r"of type object cannot be written as JSON; give numbers"):
        stamps.jsonable({"a": [object()]})


@given(st.dictionaries(st.text(), PLAIN, max_size=4), st.randoms())
def test_digest_does_not_depend_on_order(config: dict[str, Any], random: Any) -> None:
    shuffled = list(config.items())
    random.shuffle(shuffled)
    assert stamps.config_digest(config) == stamps.config_digest(dict(shuffled))


def test_digest_leaves_out_what_it_is_told_to() -> None:
    base = {"a": 1, "trial": 0, "workdir": "x"}
    assert stamps.config_digest(base) == stamps.config_digest(base | {"trial": 4})
    assert stamps.config_digest(base) != stamps.config_digest(base | {"workdir": "y"})
    both = ("trial", "workdir")
    assert stamps.config_digest(base, both) == stamps.config_digest({"a": 1})
    # Only at the top: a field of the same name deeper inside is a setting.
    assert stamps.config_digest({"a": {"trial": 1}}) != stamps.config_digest({"a": {"trial": 2}})


def test_digest_is_the_same_for_ever() -> None:
    # Rows are found by it years later: sha256 of {"a":1,"b":[1,2.5,null]}.
    assert stamps.config_digest({"b": (1, 2.5, math.nan), "a": 1}) == "d364ec9be012"


def test_an_option_that_came_later_is_in_no_digest_until_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = {"planner": {"horizon": 5}, "trial": 0}
    digest = stamps.config_digest(old)
    new = {"planner": {"horizon": 5, "sizes": (1, 2)}, "seed": 3}
    monkeypatch.setattr(stamps, "LATER_FIELDS", {"planner.sizes": (1, 2), "seed": 3, "a.b.c": 0})
    assert stamps.config_digest(old) == digest
    assert stamps.config_digest(new) == digest
    assert stamps.config_digest(new | {"seed": 4}) != digest
    assert stamps.config_digest({"planner": {"horizon": 5, "sizes": (1, 3)}}) != digest
    assert new == {"planner": {"horizon": 5, "sizes": (1, 2)}, "seed": 3}


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("cadm_pets", "baselines.cadm.network.new"),
        ("morel_a", "baselines.morel.new"),
        ("concat_mlp", "baselines.ablations.new"),
        ("bcq_p", "baselines.train.new"),
        ("persim", "planner.new"),
    ],
)
def test_a_later_option_of_a_method_renames_no_row_of_it(
    method: str, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, used = (tiny("cart_pole") for _ in range(3))
    for config, value in ((new, 0), (used, 1)):
        section = config
        *path, last = field.split(".")
        for name in path:
            section = section[name]
        section[last] = value
    before = method_digest(old, method)
    assert method_digest(new, method) != before
    monkeypatch.setattr(stamps, "LATER_FIELDS", {field: 0})
    assert method_digest(new, method) == before
    assert method_digest(used, method) != before


def test_the_command_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/opt/a b/python3", "-m", "experiments.run", "--workdir=runs/my run"]
    monkeypatch.setattr(sys, "orig_argv", words)
    assert stamps._command() == "python -m experiments.run '--workdir=runs/my run'"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert stamps._git("rev-parse", "HEAD") is None
    assert stamps._version("no-such-package-anywhere") is None
