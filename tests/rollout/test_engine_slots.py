"""Slots and refilling: what a sample gets does not depend on where, when and beside whom it is decoded."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny_models import compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch
from moonseg_jax.config import ConfigError
from moonseg_jax.rollout.engine import sample
from moonseg_jax.rollout.noise import sample_keys
from moonseg_jax.rollout.settings import EngineSizes, Sampling
from moonseg_jax.types import FINISH_CLOSED

POLICY, GROUP = micro_policy(), 3
BUDGET = POLICY.config.paths.max_new_tokens
ROWS = [scene.examples[:2] for scene in scenes(6)]
ROWS[1] = ROWS[1][:1]
BATCH = prompt_batch(ROWS, POLICY.layout(2))
SAMPLES = 6 * 2 * GROUP
REAL = np.repeat(BATCH.valid.reshape(-1), GROUP)
SPREAD = np.random.default_rng(0).integers(12, BUDGET + 1, SAMPLES)
"""Budgets of very different size, so that slots are refilled out of order."""


@functools.cache
def decoder(slots: int | None, images_per_prefill: int = 1):
    sampling = Sampling(group=GROUP, slots=slots, images_per_prefill=images_per_prefill)

    def run(params, batch, budgets):
        keys = sample_keys(jax.random.key(3), 0, batch.example_ids, GROUP)
        return sample(POLICY.model, POLICY.grammar, params, batch, keys, sampling, budgets)

    return compile_quickly(jax.jit(run), micro_params(), BATCH, SPREAD)


@functools.cache
def lockstep():
    """Every sample in a slot of its own: (rollouts, slot-steps)."""
    return jax.device_get(decoder(None)(micro_params(), BATCH, SPREAD))


@pytest.mark.parametrize(("slots", "images_per_prefill"), [(1, 1), (5, 1), (8, 2), (20, 3)])
def test_samples_are_the_same_with_any_number_of_slots(slots, images_per_prefill):
    found, (useful, steps) = jax.device_get(decoder(slots, images_per_prefill)(micro_params(), BATCH, SPREAD))
    expected, _ = lockstep()
    np.testing.assert_array_equal(found.token_ids, expected.token_ids)
    np.testing.assert_array_equal(found.bins, expected.bins)
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-5)
    for name in ("lengths", "finish", "budgets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    # Routing of the same tokens is the same, wherever an image was prefilled.
    within = np.arange(BUDGET) < expected.lengths[:, None]
    np.testing.assert_array_equal(found.experts.completion[:, within], expected.experts.completion[:, within])
    np.testing.assert_array_equal(found.experts.image, expected.experts.image)
    np.testing.assert_array_equal(found.experts.prompt, expected.experts.prompt)
    assert useful == expected.lengths.sum()
    assert steps % slots == 0 and useful <= steps


def test_the_queue_runs_as_list_scheduling_says():
    """Five slots; samples in order, each to the slot that is free first."""
    _, (useful, steps) = jax.device_get(decoder(5)(micro_params(), BATCH, SPREAD))
    lengths = lockstep()[0].lengths[REAL]
    free_at = np.zeros(5, int)
    for length in lengths:
        free_at[free_at.argmin()] += length
    assert steps == 5 * free_at.max()
    assert useful / steps > 0.85
    _, (_, in_lockstep) = lockstep()
    assert in_lockstep == SAMPLES * lengths.max()


def test_prompts_of_padding_take_no_slot():
    rollouts, _ = lockstep()
    assert (~REAL).sum() == GROUP
    np.testing.assert_array_equal(rollouts.lengths > 0, REAL)
    assert not rollouts.token_ids[~REAL].any() and not rollouts.log_probs[~REAL].any()


def test_every_sample_keeps_to_its_own_budget():
    rollouts, _ = lockstep()
    assert (rollouts.lengths <= SPREAD).all()
    np.testing.assert_array_equal(rollouts.finish[REAL], FINISH_CLOSED)
    generous, _ = jax.device_get(decoder(None)(micro_params(), BATCH, np.full(SAMPLES, BUDGET)))
    assert (generous.lengths > SPREAD).any(), "some paths would be longer"


def test_neighbours_do_not_matter():
    """The same slots in other company: the first image's samples stay what they are."""
    others = prompt_batch([ROWS[0], *[scene.examples[:2] for scene in scenes(12)[7:]]], POLICY.layout(2))
    own = np.arange(2 * GROUP)
    budgets = np.concatenate([SPREAD[own], np.roll(SPREAD[len(own) :], 5)])
    there, _ = jax.device_get(decoder(5)(micro_params(), BATCH, SPREAD))
    here, _ = jax.device_get(decoder(5)(micro_params(), others, budgets))
    np.testing.assert_array_equal(here.token_ids[own], there.token_ids[own])
    np.testing.assert_array_equal(here.bins[own], there.bins[own])
    assert (here.token_ids[len(own) :] != there.token_ids[len(own) :]).any(axis=1).all()


def test_sizes_leave_room_for_the_slowest():
    sampling = Sampling(group=8, slots=32)
    assert sampling.sizes(images=64, phrases=1) == EngineSizes(slots=32, residents=13, images_per_prefill=1)
    assert sampling.sizes(images=2, phrases=2) == EngineSizes(slots=32, residents=2, images_per_prefill=2)
    in_pairs = dataclasses.replace(sampling, images_per_prefill=4)
    assert in_pairs.sizes(images=30, phrases=2).images_per_prefill == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slots": 0}, "slots is 0: it must be at least 1"),
        ({"group": 0}, "group is 0: it must be at least 1"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_settings_that_sample_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**settings)
