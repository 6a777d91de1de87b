"""Memory of rollouts: the numbers of the specification, and what is refused before it runs."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from tiny_models import compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.config import moondream3, tiny
from moonseg_jax.errors import UserError
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.memory import (
    GIB,
    bytes_of,
    kv_bytes_per_token,
    most_slots,
    require_memory,
    rollout_memory,
)
from moonseg_jax.rollout.noise import sample_keys
from moonseg_jax.rollout.settings import Sampling


def test_keys_and_values_of_a_token_are_as_specified():
    assert kv_bytes_per_token(moondream3(), itemsize=2) == 196_608


def test_an_image_and_its_prompt_are_held_once_per_group():
    config = moondream3()
    few, many = (rollout_memory(config, Sampling(group=group, slots=8), 4, 1, itemsize=2) for group in (8, 16))
    assert few.per_place == many.per_place == 196_608 * (730 + 64)
    # A further sample costs its own tokens, not the prefix: half of what prefilling it by itself would cost.
    assert few.per_slot - 4 * 4 * (51_200 + 1_024 + 2_048) == 196_608 * 768


def test_the_compiled_program_needs_what_was_worked_out():
    """Temporaries grow by the keys and values of the places and slots, within what XLA adds for its own use."""
    policy, params = micro_policy(), micro_params()
    temporaries = []
    for slots in (4, 24):
        batch = prompt_batch([scene.examples[:2] for scene in scenes(6)], policy.layout(2))
        sampling = Sampling(group=4, slots=slots)

        def run(params, batch, sampling=sampling):
            keys = sample_keys(jax.random.key(0), 0, batch.example_ids, sampling.group)
            return sample(policy.model, policy.grammar, params, batch, keys, sampling)

        compiled = compile_quickly(jax.jit(run), params, batch)
        memory = rollout_memory(policy.config, sampling, 6, 2)
        temporaries.append((compiled.memory_analysis().temp_size_in_bytes, memory.total))
    (small, small_sum), (large, large_sum) = temporaries
    assert 0.5 < (large - small) / (large_sum - small_sum) < 3.0


def test_too_many_slots_are_refused_with_the_number_that_fits():
    config, sampling = tiny(), Sampling(group=8, slots=4096)
    need = rollout_memory(config, sampling, 512, 2)
    require_memory(config, sampling, 512, 2, parameters=GIB, available=need.total + GIB)
    with pytest.raises(UserError, match=r"8192 samples in 4096 slots need .* GiB beside 1.00 GiB") as refused:
        require_memory(config, sampling, 512, 2, parameters=GIB, available=need.total // 2 + GIB)
    fitting = int(re.search(r"set --slots (\d+)", str(refused.value)).group(1))
    for slots, fits in ((fitting, True), (fitting + 1, False)):
        total = rollout_memory(config, dataclasses.replace(sampling, slots=slots), 512, 2).total
        assert (total <= need.total // 2) == fits
    assert most_slots(config, sampling, 512, 2, free=0) == 0
    with pytest.raises(UserError, match="not even one slot fits"):
        require_memory(config, sampling, 512, 2, parameters=GIB, available=GIB)


def test_bytes_are_counted_over_all_leaves():
    assert bytes_of({"a": np.zeros((3, 2), np.float32), "b": [np.zeros(5, np.int16)]}) == 34
