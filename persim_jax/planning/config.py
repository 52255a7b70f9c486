"""How a decision is made, as one hashable record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from persim_jax import mesh
from persim_jax.planning.cem import cem
from persim_jax.planning.icem import icem
from persim_jax.planning.mppi import mppi
from persim_jax.planning.risk import RISKS
from persim_jax.planning.samplers import Sampler, random_shooting
from persim_jax.types import Spec

PROPAGATE = ("members", "mean")
CPU_CHUNK = 100


@dataclasses.dataclass(frozen=True)
class PlannerConfig:
    """How a decision is made; hashable. A sampler reads the fields that are its own.

    Attributes:
      sampler: One of `SAMPLERS`: "random_shooting" for discrete actions, the others for continuous.
      num_candidates: K.
      horizon: H.
      bonus_weight: Weight of the task's planning bonus in a candidate's score.
      chunk_size: Candidates rolled out together; 0 is all of them, right for an accelerator. -1
        leaves it to the device: on a CPU the largest divisor of K up to `CPU_CHUNK`, whose
        states stay in the cache.
      propagate: "members": each member rolls out its own states, as in the paper's text. "mean":
        all members step from the mean of their states, as in the authors' code for continuous
        actions.
      num_rounds: Rounds of sampling in a decision, the first one included. Random shooting has one.
      num_elites: E, the candidates that `cem` and `icem` learn from.
      smoothing: Share of the old distribution that a round of `cem` (but for its first) or `icem`
        keeps.
      init_std: Range from which each decision draws the standard deviation that it starts from, in
        halves of the range of an action; `mppi` stays there. Two equal numbers fix it.
      noise_beta: Exponent of the spectrum f^-beta of the noise of `icem` and `mppi`; 0 is white.
      keep_fraction: Share of its elites that `icem` keeps for the next round and decision.
      temperature: Of `mppi`, in spreads of the scores; see `persim_jax.planning.mppi.path_weights`.
      risk: What a candidate is worth where members disagree about its return: "mean" over members,
        as in the paper, the "worst" of them, or "cvar", the mean of the worst share of them.
      risk_level: That share, of "cvar".
    """

    sampler: str = "random_shooting"
    num_candidates: int = 1000
    horizon: int = 50
    bonus_weight: float = 0.0
    chunk_size: int = -1
    propagate: str = "members"
    num_rounds: int = 6
    num_elites: int = 50
    smoothing: float = 0.1
    init_std: tuple[float, float] = (0.3, 0.6)
    noise_beta: float = 0.25
    keep_fraction: float = 0.3
    temperature: float = 1.0
    risk: str = "mean"
    risk_level: float = 0.4

    def __post_init__(self) -> None:
        """Refuses what could only fail later, inside a trace."""
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler {self.sampler!r} is unknown: use one of {SAMPLERS}")
        if self.propagate not in PROPAGATE:
            raise ValueError(f"propagate {self.propagate!r} is unknown: use one of {PROPAGATE}")
        if self.risk not in RISKS:
            raise ValueError(f"risk {self.risk!r} is unknown: use one of {RISKS}")
        _check_sizes(self)
        _check_numbers(self)

    def resolved_chunk(self) -> int:
        """`chunk_size` on JAX's default device, 0 for all candidates together."""
        divisors = (n for n in range(1, CPU_CHUNK + 1) if self.num_candidates % n == 0)
        return mesh.resolved_chunk(self.chunk_size, on_cpu=max(divisors))


def _check_sizes(config: PlannerConfig) -> None:
    """Refuses sizes that are not positive or do not fit each other."""
    c = config
    if min(c.num_candidates, c.horizon) < 1:
        raise ValueError(
            f"num_candidates {c.num_candidates} and horizon {c.horizon} must be positive"
        )
    if c.chunk_size < -1 or (c.chunk_size > 0 and c.num_candidates % c.chunk_size):
        raise ValueError(
            f"chunk_size {c.chunk_size} must divide num_candidates {c.num_candidates}, or be 0 for "
            "all or -1 for what suits the device"
        )
    if c.num_rounds < 1:
        raise ValueError(f"num_rounds is {c.num_rounds}: a decision has at least 1")
    if c.sampler in ("cem", "icem") and not 2 <= c.num_elites <= c.num_candidates:
        raise ValueError(
            f"num_elites is {c.num_elites}: {c.sampler} needs from 2, which have a spread, to all "
            f"of the {c.num_candidates} candidates"
        )


def _check_numbers(config: PlannerConfig) -> None:
    """Refuses numbers outside their ranges; NaN is outside all of them."""
    c = config
    if not math.isfinite(c.bonus_weight):
        raise ValueError(f"bonus_weight is {c.bonus_weight}: give a finite number")
    if not 0 <= c.smoothing < 1:
        raise ValueError(f"smoothing is {c.smoothing}: the share to keep is at least 0 and below 1")
    if len(c.init_std) != 2 or not 0 < c.init_std[0] <= c.init_std[1] < math.inf:
        raise ValueError(
            f"init_std is {c.init_std}: give two positive numbers, the least and the greatest"
        )
    if not 0 <= c.noise_beta < math.inf:
        raise ValueError(f"noise_beta is {c.noise_beta}: it must not be negative; 0 is white noise")
    if not 0 <= c.keep_fraction <= 1:
        raise ValueError(f"keep_fraction is {c.keep_fraction}: a share is between 0 and 1")
    if not 0 < c.temperature < math.inf:
        raise ValueError(f"temperature is {c.temperature}: it must be positive")
    if not 0 < c.risk_level <= 1:
        raise ValueError(f"risk_level is {c.risk_level}: a share of members is above 0, at most 1")


_FACTORIES: Mapping[str, Callable[[Spec, PlannerConfig], Sampler]] = {
    "random_shooting": lambda spec, c: random_shooting(spec, c.num_candidates, c.horizon),
    "cem": lambda spec, c: cem(
        spec, c.num_candidates, c.horizon, c.num_rounds, c.num_elites, c.smoothing, c.init_std
    ),
    "icem": lambda spec, c: icem(
        spec, c.num_candidates, c.horizon, c.num_rounds, c.num_elites, c.smoothing, c.init_std,
        c.noise_beta, c.keep_fraction,
    ),
    "mppi": lambda spec, c: mppi(
        spec, c.num_candidates, c.horizon, c.num_rounds, c.init_std, c.noise_beta, c.temperature
    ),
}  # fmt: skip
SAMPLERS = tuple(_FACTORIES)


def make_sampler(spec: Spec, config: PlannerConfig) -> Sampler:
    """The sampler that the config names; the same record for the same arguments.

    Raises:
      ValueError: It does not draw the kind of actions that the task has.
    """
    return _FACTORIES[config.sampler](spec, config)
