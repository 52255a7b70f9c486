"""The rows of the paper's tables, by the names that result rows use."""

from persim_jax.methods.base import Method as Method
from persim_jax.methods.base import Monitor as Monitor
from persim_jax.methods.persim import PERSIM as PERSIM
from persim_jax.methods.true_env import TRUE_ENV as TRUE_ENV

METHODS: dict[str, Method] = {method.name: method for method in (PERSIM, TRUE_ENV)}
