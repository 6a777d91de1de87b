"""FLOPs of programs, against counts worked by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from moonseg_jax.config import ModelConfig, small
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.plan.flops import count_flops
from moonseg_jax.plan.programs import stage_programs
from moonseg_jax.platforms import compiling_for
from moonseg_jax.sharding import make_mesh
from moonseg_jax.train_config import SftConfig

IMAGES, PHRASES = 2, 2


def traced(function, *shapes):
    return jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


def test_products_count_twice_their_pairs():
    assert count_flops(traced(jnp.matmul, (3, 4), (4, 5))) == 2 * 3 * 4 * 5
    batched = traced(lambda x, y: jnp.einsum("bij,bkj->bik", x, y), (7, 3, 4), (7, 5, 4))
    assert count_flops(batched) == 2 * 7 * 3 * 4 * 5


def test_loops_count_their_turns():
    def looped(x, y):
        return jax.lax.scan(lambda carry, _: (carry @ y, None), x, length=6)[0]

    def endless(x, y):
        return jax.lax.while_loop(lambda carry: carry[0, 0] < 9, lambda carry: carry @ y, x)

    assert count_flops(traced(looped, (4, 4), (4, 4))) == 6 * 2 * 4**3

    def endless_inside(x, y):
        return jax.lax.while_loop(lambda carry: carry[0, 0] < 9, lambda carry: endless(carry, y), x)

    assert count_flops(traced(endless, (4, 4), (4, 4)), endless_turns=11) == 11 * 2 * 4**3
    # The inner one turns at least once.
    assert count_flops(traced(endless_inside, (4, 4), (4, 4)), endless_turns=11) == 11 * 2 * 4**3


def test_gradients_of_what_is_computed_again_count_again():
    def loss(x, y):
        return jnp.sum(jnp.sin(x @ y))

    plain = traced(jax.grad(loss, (0, 1)), (3, 4), (4, 5))
    again = traced(jax.grad(jax.checkpoint(loss), (0, 1)), (3, 4), (4, 5))
    assert count_flops(plain) == 3 * 2 * 3 * 4 * 5
    assert count_flops(again) == 4 * 2 * 3 * 4 * 5


def test_routed_rows_meet_one_matrix_each_forward_and_back():
    def loss(rows, matrices):
        return jnp.sum(jnp.square(jax.lax.ragged_dot(rows, matrices, jnp.array([2, 4, 4], jnp.int32))))

    forward = traced(loss, (10, 4), (3, 4, 5))
    assert count_flops(forward) == 2 * 10 * 4 * 5
    assert count_flops(traced(jax.grad(loss, (0, 1)), (10, 4), (3, 4, 5))) == 3 * 2 * 10 * 4 * 5


def forward_flops(c: ModelConfig, crops: int) -> float:
    """Worked by hand from the sizes: what one image with its phrases takes forward."""
    vision, text, region, paths = c.vision, c.text, c.region, c.paths
    patches, width = vision.grid**2, vision.width
    per_patch = width * (3 * width + width + 2 * vision.mlp_width) + 2 * patches * width
    encoder = crops * patches * 2 * (3 * vision.patch**2 * width + vision.layers * per_patch)
    projection = patches * 2 * (2 * width * vision.projection_width + vision.projection_width * text.width)

    def decoder(tokens: int, seen: int) -> float:
        d = text.width
        attention = d * 4 * d + 2 * 3 * d * text.heads + 2 * seen * d
        routed = d * text.experts + text.active_experts * 3 * d * text.expert_width
        layers = text.layers * attention + text.dense_layers * 2 * d * text.mlp_width
        return tokens * 2 * (layers + (text.layers - text.dense_layers) * routed)

    def embedded(tokens: int) -> float:
        return tokens * 2 * text.width * (region.coord_features + region.size_features)

    prefix, prompt, completion = 1 + patches, paths.max_prompt_tokens, paths.max_new_tokens
    heads = completion * 2 * text.width * (text.vocabulary + region.coord_bins + 2 * region.size_bins)
    phrase = decoder(prompt, prefix + prompt) + decoder(completion - 1, prefix + prompt + completion - 1)
    phrase += heads + embedded(prompt) + embedded(completion - 1)
    words = patches * 2 * text.width * text.vocabulary
    return encoder + projection + decoder(prefix, prefix) + words + PHRASES * phrase


@pytest.mark.parametrize("crops", [1, 7])
def test_a_supervised_step_agrees_with_a_count_by_hand(crops):
    model = dataclasses.replace(small())
    config = SftConfig(
        model=model, data="none", steps=10, images_per_batch=IMAGES, phrases_per_image=PHRASES, crops=crops,
        optimizer=OptimizerConfig(name="adamw"), eval_every=1, checkpoint_every=1,
    )  # fmt: skip
    with compiling_for("tpu"):  # Where rows meet their own experts only.
        (step,) = stage_programs("sft", config, make_mesh(jax.devices()[:1]))
        found = count_flops(step.run.trace(*step.arguments).jaxpr)
    # Gradients take the forward products twice more.
    assert found == pytest.approx(3 * IMAGES * forward_flops(model, crops), rel=0.05)
