"""The rescaling of intervals: by hand, through its file, and in an answer."""

import numpy as np
import pytest

from persim_jax import queries
from persim_jax.calibration import Calibration, load, save
from persim_jax.data.support import of_strangers
from persim_jax.files import CorruptFileError
from tests.users import actions_of, inputs_of, recent, untrained

KNOWN = np.float64([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[2.0, 4.0], [6.0, 8.0], [10.0, 12.0]]])
CALIBRATION = Calibration((0.5, 0.95), KNOWN, 10 * KNOWN)


def test_widths_are_those_of_the_level_and_stay_past_the_horizon():
    widths = CALIBRATION.widths((0.95,), 5)
    np.testing.assert_array_equal(widths[0, :, 0], [2, 6, 10, 10, 10])
    np.testing.assert_array_equal(CALIBRATION.widths((0.95, 0.5), 1)[:, 0, 1], [4, 2])
    np.testing.assert_array_equal(CALIBRATION.widths((0.5,), 2, is_known=False)[0, 1], [30, 40])
    assert CALIBRATION.widths((0.8,), 2) is None
    empty = CALIBRATION._replace(unseen=np.zeros((2, 0, 2)))
    assert empty.widths((0.5,), 2, is_known=False) is None


def test_a_file_keeps_numbers_and_gaps(tmp_path):
    gap = KNOWN.copy()
    gap[0, 2] = np.nan
    save(tmp_path / "c.json", CALIBRATION._replace(unseen=gap))
    found = load(tmp_path / "c.json")
    np.testing.assert_array_equal(found.known, KNOWN)
    np.testing.assert_array_equal(found.unseen, gap)
    assert (found.levels, found.horizon()) == ((0.5, 0.95), 3)
    assert found.widths((0.5,), 3, is_known=False) is None
    assert found.widths((0.95,), 3, is_known=False) is not None
    assert load(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": "persim_jax.Calibration/1"}']
)
def test_files_that_were_cut_or_altered_are_told(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(CorruptFileError, match=r"c\.json is no calibration.*validate again"):
        load(tmp_path / "c.json")


def test_an_answer_is_as_wide_as_validation_says():
    simulators = untrained()
    start = recent(simulators, [[100, -4], [99.5, -3.8]])
    asked = (actions_of(True, 4), start, inputs_of(4))
    answer = queries.ask(simulators, "bob", *asked, (0.5,), CALIBRATION)
    widths = np.float64([[1, 2], [3, 4], [5, 6], [5, 6]])
    np.testing.assert_allclose(answer.upper[0], answer.mean + widths * answer.std)
    np.testing.assert_allclose(answer.lower[0], answer.mean - widths * answer.std)
    assert answer.notes == (
        "intervals were calibrated for 3 steps: later ones are likely too narrow",
    )
    newcomer = queries.ask(simulators, "bob", *asked, (0.5,), CALIBRATION, is_known=False)
    wide, narrow = (a.upper - a.mean[None] for a in (newcomer, answer))
    np.testing.assert_allclose(wide, 10 * narrow, rtol=1e-6)
    # Simulators know whom they are of: nobody knows where a newcomer was last seen.
    strangers = simulators.replace(support=of_strangers(simulators.support, 3))
    told = queries.ask(strangers, "bob", *asked, (0.5,), CALIBRATION)
    np.testing.assert_array_equal(told.upper, newcomer.upper)
    told = queries.ask(strangers, "bob", *asked, (0.5,), CALIBRATION, is_known=True)
    np.testing.assert_array_equal(told.upper, answer.upper)
    # Newcomers are predicted over other numbers of steps than the tails of known agents.
    for steps, said in ((2, ("for 2 steps",)), (4, ())):
        other = CALIBRATION._replace(unseen=np.repeat(KNOWN[:, :1], steps, axis=1))
        answer = queries.ask(simulators, "bob", *asked, (0.5,), other, is_known=False)
        assert len(answer.notes) == len(said)
        assert all(text in note for text, note in zip(said, answer.notes, strict=True))
    plain = queries.ask(simulators, "bob", *asked, (0.8,), CALIBRATION)
    assert "did not calibrate intervals at 0.8: these assume normal errors" in plain.notes[0]
    np.testing.assert_array_equal(plain.upper, queries.ask(simulators, "bob", *asked, (0.8,)).upper)
