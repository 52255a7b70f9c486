"""Numbers in a config that cannot be meant are refused, by name and with their value."""

import math

import pytest

from persim_jax.learners.base import Schedule
from persim_jax.learners.bcq_continuous import ContinuousBCQConfig
from persim_jax.learners.bcq_discrete import DiscreteBCQConfig
from persim_jax.learners.cql_continuous import ContinuousCQLConfig
from persim_jax.learners.cql_discrete import DiscreteCQLConfig
from persim_jax.learners.dqn import DQNConfig
from persim_jax.learners.natural_gradient import NaturalGradientConfig
from persim_jax.learners.offline import OfflineConfig
from persim_jax.learners.online import OnlineConfig
from persim_jax.learners.policies import PolicyConfig
from persim_jax.learners.td3 import TD3Config
from persim_jax.methods.model_based import ModelSettings
from persim_jax.methods.morel import MorelConfig
from persim_jax.methods.persim import PersimConfig
from persim_jax.models.cadm import CadmConfig
from persim_jax.models.factor import FactorConfig
from persim_jax.planning.config import PlannerConfig
from persim_jax.training import TrainConfig

NAN = math.nan
TRAIN = TrainConfig(num_epochs=1, batch_size=1)
SIZES = {"obs_size": 2, "action_size": 2, "discrete": True}
REQUIRED = {
    TrainConfig: {"num_epochs": 1, "batch_size": 1},
    ModelSettings: {"network": None, "train": TRAIN},
    FactorConfig: {"num_agents": 2, "rank": 1, **SIZES},
    CadmConfig: SIZES,
}


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        # Fewer members than are to be kept, of which all are kept.
        (PersimConfig, "spare_members", (-1,)),
        (ModelSettings, "spare_members", (-1,)),
        (ModelSettings, "ensemble_size", (0, 2.5)),
        (FactorConfig, "agent_start", (NAN, math.inf)),
        (FactorConfig, "huber", (-1.0, NAN)),
        (CadmConfig, "back_weight", (-1.0, NAN)),
        (CadmConfig, "features", ((8, 0, 8, 8),)),
        (TrainConfig, "learning_rate", (0.0, NAN, math.inf)),
        (TrainConfig, "weight_decay", (-1.0, math.inf)),
        (PlannerConfig, "bonus_weight", (NAN,)),
        (MorelConfig, "pessimism_coef", (-1.0, NAN)),
        (MorelConfig, "hidden", ((0,), (8.5,))),
        (MorelConfig, "horizon", (-1, 0.5)),
        (NaturalGradientConfig, "max_kl", (0.0, NAN)),
        (NaturalGradientConfig, "value_rate", (-1e-3, NAN)),
        (NaturalGradientConfig, "clone_rate", (0.0,)),
        (PolicyConfig, "hidden", ((64, -1),)),
        # With NaN as a bound every lane would be told to have diverged at its first step.
        (OfflineConfig, "max_value", (0.0, NAN)),
        (OnlineConfig, "num_envs", (0, -8)),
        (OnlineConfig, "batch_size", (0, 1.5, True)),
        (OnlineConfig, "updates", (0,)),
        (OnlineConfig, "episodes", (0,)),
        (OnlineConfig, "max_hold", (0,)),
        (OnlineConfig, "capacity", (0, 7)),
        (OnlineConfig, "episode_steps", (-1,)),
        (OnlineConfig, "hold", (Schedule(1.5, 0.0, 10),)),
        (DQNConfig, "learning_rate", (-1e-3, NAN)),
        (DQNConfig, "discount", (-0.1, 1.1, NAN)),
        (TD3Config, "target_rate", (1.5, NAN)),
        (TD3Config, "target_noise", (-0.2,)),
        (DiscreteBCQConfig, "threshold", (-0.1, NAN)),
        (DiscreteBCQConfig, "target_every", (0,)),
        (DiscreteCQLConfig, "weight", (-1.0, NAN)),
        (DiscreteCQLConfig, "learning_rate", (0.0,)),  # of the settings that both share
        (ContinuousBCQConfig, "softness", (1.5,)),
        (ContinuousBCQConfig, "num_actions", (0,)),
        (ContinuousBCQConfig, "vae_hidden", ((0,),)),
        (ContinuousCQLConfig, "num_samples", (0,)),
        (ContinuousCQLConfig, "threshold", (NAN,)),
        (ContinuousCQLConfig, "critic_rate", (-1.0,)),  # of SAC's settings
    ],
)
def test_what_cannot_be_meant_is_refused(kind, field, values):
    required = REQUIRED.get(kind, {})
    kind(**required)  # the defaults are no such numbers
    for value in values:
        with pytest.raises(ValueError, match=rf"^{field} (is|are) .*: \w+"):
            kind(**{**required, field: value})
