"""Supervised losses: what counts, what costs, and that learning lowers them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import QUICK, compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax.batch import prompt_batch, target_batch
from moonseg_jax.learner.sft import heat_map_loss, init_heat_map, make_sft_step, sft_sums
from moonseg_jax.learner.state import init_state

POLICY = micro_policy()
BUDGET = POLICY.config.paths.max_new_tokens
BOX_AND_MOVE = 4


def batch_of(rows):
    layout = POLICY.layout(2)
    return prompt_batch(rows, layout), target_batch(rows, layout)


ROWS = [scene.examples[:2] for scene in scenes(4)]
HEAT_MAP = init_heat_map(jax.random.key(0), POLICY.config.text.width)


OPTIMIZER = optax.adam(3e-3)


@functools.cache
def compiled_step():
    step = make_sft_step(
        POLICY.model, POLICY.grammar, OPTIMIZER, tokens=BUDGET, box_weight=1.0, heat_weight=1.0, average_decay=0.9
    )
    return compile_quickly(step, fresh_state(), *batch_of(ROWS))


def fresh_state():
    return init_state(jax.tree.map(jnp.array, {"policy": micro_params(), "heat_map": HEAT_MAP}), OPTIMIZER)


def sums(batch, targets):
    """What a first step says of its losses."""
    return jax.device_get(compiled_step()(fresh_state(), batch, targets)[1])


def test_a_batch_is_the_sum_of_its_halves_and_padding_counts_nowhere():
    whole = sums(*batch_of(ROWS))
    halves = [sums(*with_padding(*batch_of(rows))) for rows in (ROWS[:2], ROWS[2:])]
    lengths = batch_of(ROWS)[1].lengths
    assert whole["box"][1] == 3 * 8 and whole["heat"][1] == 8
    assert whole["path"][1] == lengths.sum() - 3 * 8
    for name in ("box", "path", "heat"):
        np.testing.assert_allclose(whole[name], np.add(halves[0][name], halves[1][name]), rtol=1e-5, err_msg=name)


def with_padding(batch, targets):
    """Two more images that are padding, their pixels and ids arbitrary."""
    noise = batch_of(ROWS[:2])
    none = np.zeros_like(batch.valid)
    batch = jax.tree.map(lambda *parts: np.concatenate(parts), batch, noise[0].replace(valid=none))
    return batch, jax.tree.map(
        lambda *parts: np.concatenate(parts), targets, noise[1].replace(lengths=0 * noise[1].lengths)
    )


def test_forced_tokens_cost_nothing():
    batch, targets = batch_of(ROWS)
    first = jax.jit(
        functools.partial(sft_sums, POLICY.model, POLICY.grammar, heat_map=None, tokens=BOX_AND_MOVE),
        compiler_options=QUICK,
    )
    start = first(params=micro_params(), batch=batch, targets=targets)
    np.testing.assert_array_equal(start["path"], (0.0, 8.0))
    np.testing.assert_allclose(start["box"], sums(batch, targets)["box"], rtol=1e-5)
    assert start["box"][0] / start["box"][1] > 2.0


@pytest.mark.parametrize(
    ("columns", "shares"), [(4, [1 / 4] * 4), (2, [3 / 7, 1 / 14, 3 / 7, 1 / 14])], ids=["whole", "left half"]
)
def test_heat_map_loss_of_a_two_by_two_grid(columns, shares):
    # Rows of width 1 become their signs; scores ±ln 3 / 2 share the attention 3 : 1 : 3 : 3. Shrinking a mask of
    # 4 x 4 blends neighbours: weights 3/7, 3/7, 1/7, so a seventh of the left half spills to the right.
    image = jnp.array([[[2.0], [-1.0], [0.5], [7.0]]])
    params = {"query": jnp.array([[np.log(3.0)]]), "key": jnp.array([[0.5]])}
    truth = np.zeros((3, 4, 4), bool)
    truth[:2, :, :columns] = True
    prompt_end, valid = jnp.full((3, 1), 3.0), jnp.array([True, False, True])
    total, count = heat_map_loss(params, prompt_end, image, truth, valid)
    expected = -np.dot(shares, np.log([0.3, 0.1, 0.3, 0.3]))
    np.testing.assert_allclose((total, count), (expected, 1.0), rtol=1e-4)


def test_steps_on_one_batch_lower_every_loss():
    state, history = fresh_state(), []
    for _ in range(12):
        state, losses = compiled_step()(state, *batch_of(ROWS))
        history.append({name: float(total / count) for name, (total, count) in losses.items()})
    for name in ("box", "path", "heat"):
        assert history[-1][name] < 0.8 * history[0][name], (name, history[0], history[-1])
