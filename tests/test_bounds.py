"""Actions outside their bounds: counted by hand, clipped as the environment clips them."""

import jax.numpy as jnp
import numpy as np
import pytest

from envs import cart_pole
from envs.half_cheetah import SPEC
from persim_jax import bounds

INSIDE = jnp.zeros((3, 6))
ACTIONS = INSIDE.at[0, 2].set(1.5).at[2, 0].set(-1.25).at[2, 5].set(7.0)


def test_an_action_counts_once_however_many_of_its_coordinates_are_outside():
    assert bounds.num_outside(SPEC, ACTIONS) == 2
    assert bounds.num_outside(SPEC, ACTIONS[None].repeat(4, axis=0)) == 8
    assert bounds.num_outside(SPEC, INSIDE + 1.0) == 0
    assert bounds.num_outside(cart_pole.SPEC, jnp.array([0, 1, 1])) == 0


def test_clipping_says_how_many_and_leaves_the_others_alone():
    with pytest.warns(UserWarning, match="2 of 3 actions were outside the bounds of half_cheetah"):
        clipped = bounds.clip(SPEC, ACTIONS)
    np.testing.assert_array_equal(clipped, np.clip(np.asarray(ACTIONS), -1.0, 1.0))
    # Warnings are errors in these tests: here there is none.
    np.testing.assert_array_equal(bounds.clip(SPEC, INSIDE + 0.5), INSIDE + 0.5)
    discrete = jnp.array([0, 5])
    assert bounds.clip(cart_pole.SPEC, discrete) is discrete
