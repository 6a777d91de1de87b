"""Configs of reinforcement learning with little in them."""

import pytest
from tiny_models import micro

from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.train_config import RlConfig


@pytest.fixture
def rl_config():
    def make(**settings):
        optimizer = OptimizerConfig(name="adamw", learning_rate=1e-3, warmup_steps=1)
        return RlConfig(
            model=micro(), data="data", start_from="start", steps=1, images_per_batch=2, optimizer=optimizer,
            eval_every=1, checkpoint_every=1, **settings,
        )  # fmt: skip

    return make
