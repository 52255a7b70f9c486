"""The record that dynamics are: a learned ensemble and a true environment are two values of it.

A rollout, a planner and the prediction test see nothing but this record, so "True env + MPC" and
PerSim + MPC are one code path (the paper's Section 4, Step 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from persim_jax.types import Metrics, PyTree


class ModelParams(NamedTuple):
    """What a fitted model consists of.

    Attributes:
      weights: Trained arrays; every leaf has a leading member axis M.
      normalizer: Constants taken from the data, shared by the members; never trained.
    """

    weights: PyTree
    normalizer: PyTree


class History(NamedTuple):
    """The true steps that precede a prediction, oldest first.

    Attributes:
      obs: `[W, D]`.
      actions: `[W]` int32 or `[W, A]`.
      next_obs: `[W, D]`.
      mask: `[W]` bool; false where there was no step.
    """

    obs: jax.Array
    actions: jax.Array
    next_obs: jax.Array
    mask: jax.Array


class DynamicsModel(NamedTuple):
    """Dynamics of many agents as a record of pure functions, unbatched but for the member axis M.

    The ensemble axis belongs to the model: `init` makes all M members at once, `loss` takes a
    minibatch for each of them and `observe` shows what each of them believes. Everything else is
    written for one agent and one state and lifted with `vmap`.

    Attributes:
      num_members: M, static.
      init: `(key) -> weights`, leaves `[M, ...]`; the key is consumed.
      fit_normalizer: `(Items) -> normalizer`, computed once before training.
      loss: `(params, batch, key) -> (losses [M], metrics)`; `batch` is what the data's `take`
        returns, with leaves `[M, B, ...]`. Members must not meet: the gradient of the sum trains
        each on its own. A loss is a mean over its B items, so that a batch may be split over
        devices.
      bind: `(params, agent [], history or None) -> bound`, a pytree that holds whatever can be
        computed once for one agent: folded factors, a context.
      encode_actions: `(bound, actions) -> encoded`, hoisted out of rollouts. Any leading axes of
        `actions` are kept.
      start: `(bound, obs [D]) -> model_state`.
      step: `(key, bound, model_state, encoded_action) -> model_state`; the key is consumed.
      observe: `(model_state) -> obs [M * P, D]`, the paths of one member side by side.
      particles: P, paths that each member follows, static; more than one where steps are drawn.
      history_length: Steps before a prediction that `bind` reads, static; 0 for a model that needs
        no history.
    """

    num_members: int
    init: Callable[[jax.Array], PyTree]
    fit_normalizer: Callable[[Any], PyTree]
    loss: Callable[[ModelParams, Any, jax.Array], tuple[jax.Array, Metrics]]
    bind: Callable[[Any, jax.Array, History | None], PyTree]
    encode_actions: Callable[[PyTree, jax.Array], PyTree]
    start: Callable[[PyTree, jax.Array], PyTree]
    step: Callable[[jax.Array, PyTree, PyTree, PyTree], PyTree]
    observe: Callable[[PyTree], jax.Array]
    particles: int = 1
    history_length: int = 0

    @property
    def num_paths(self) -> int:
        """M * P, the leading axis of what `observe` shows."""
        return self.num_members * self.particles
