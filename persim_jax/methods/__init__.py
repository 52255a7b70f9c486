"""The rows of the paper's tables, by the names that result rows use."""

from persim_jax.methods import ablations, cadm, morel
from persim_jax.methods.base import Method as Method
from persim_jax.methods.base import Monitor as Monitor
from persim_jax.methods.model_based import Recipe, model_method
from persim_jax.methods.offline import offline_method as offline_method
from persim_jax.methods.offline import parse_name as parse_name
from persim_jax.methods.persim import PERSIM as PERSIM
from persim_jax.methods.true_env import TRUE_ENV as TRUE_ENV

OFFLINE = ("bcq_p", "bcq_a", "cql_p", "cql_a", "persim_bcq_5", "persim_cql_5")
MODEL_BASED: dict[str, Recipe] = {**ablations.RECIPES, **cadm.RECIPES}
"""Methods that differ from each other by their model only."""
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        PERSIM,
        TRUE_ENV,
        *map(offline_method, OFFLINE),
        *map(model_method, MODEL_BASED.values()),
        *map(morel.morel_method, morel.NAMES),
    )
}


def find_method(name: str) -> Method:
    """Returns a method by its name; `persim_bcq_K` and `persim_cql_K` for any number K.

    Raises:
      ValueError: There is no such method.
    """
    if name in METHODS:
        return METHODS[name]
    if parse_name(name) is None:
        raise ValueError(
            f"method {name!r} is unknown: use some of {', '.join(METHODS)}, or another number of "
            "synthetic trajectories than 5"
        )
    return offline_method(name)
