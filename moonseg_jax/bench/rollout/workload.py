"""What the rollout benchmark decodes: a preset's policy, prompts of the embedded scenes, and lengths of paths."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from data_pipelines.shapes.scene import generate_scene
from moonseg_jax.batch import prompt_batch
from moonseg_jax.config import PRESETS, ModelConfig
from moonseg_jax.policy import Policy, load_policy
from moonseg_jax.shipped import shipped
from moonseg_jax.types import Example, PromptBatch

LONGEST = 300
"""Tokens; what the longest paths of COCO masks take."""
QUANTILES = ((0.0, 15), (0.5, 60), (0.9, 140), (0.99, 260), (1.0, LONGEST))
"""Share of paths, and the tokens that they take at most; linear in between."""
NEVER = -1e4
"""Added to the logit of `Z`: paths end where their budget makes them."""
SCENES, LEVEL = 5_000, 2
"""Seed and level of the scenes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A policy, its prompts, and how long paths may be."""

    policy: Policy
    params: Any
    """Nested dicts of host arrays."""
    examples: tuple[Example, ...]
    """One per image."""
    batch: PromptBatch
    group: int
    budgets: Int[np.ndarray, " N"]

    def first(self, images: int) -> Workload:
        """The same with the first images only."""
        return dataclasses.replace(
            self, examples=self.examples[:images], budgets=self.budgets[: images * self.group],
            batch=jax.tree.map(lambda leaf: leaf[:images], self.batch),
        )  # fmt: skip


def path_lengths(count: int, seed: int = 0) -> Int[np.ndarray, " count"]:
    """Tokens of paths in random order, spread evenly over the quantiles: p50/p90/p99 = 60/140/260."""
    shares, tokens = zip(*QUANTILES)
    even = (np.random.default_rng(seed).permutation(count) + 0.5) / count
    return np.interp(even, shares, tokens).astype(np.int32)


def make_workload(preset: str, images: int, group: int, *, natural: bool = False) -> Workload:
    """Prompts of embedded scenes, one per image, with `group` samples each.

    Args:
      preset: `tiny` has the weights that come with the package, the others random ones, `moondream3` in bfloat16.
      images: prompts.
      group: samples per prompt.
      natural: paths end where the policy ends them, within the preset's budget; else they are as long as budgets
        drawn by `path_lengths` make them, so that speed does not depend on the weights.
    """
    config = PRESETS[preset]()
    if not natural:
        context = config.prefix_tokens + config.paths.max_prompt_tokens + LONGEST
        config = dataclasses.replace(
            config, text=dataclasses.replace(config.text, context=context),
            paths=dataclasses.replace(config.paths, max_new_tokens=LONGEST),
        )  # fmt: skip
    policy, params = _policy(preset, config)
    budgets = np.full(images * group, config.paths.max_new_tokens, np.int32)
    if not natural:
        bias = np.array(params["text"]["head"]["bias"])
        bias[policy.vocabulary.command_ids["Z"]] += NEVER
        params["text"]["head"]["bias"] = bias
        budgets = path_lengths(images * group)
    examples = tuple(generate_scene(SCENES, index, LEVEL, "val").examples[0] for index in range(images))
    batch = prompt_batch([[example] for example in examples], policy.layout(1))
    return Workload(
        policy=policy, params=params, examples=examples, batch=batch, group=group, budgets=budgets
    )  # fmt: skip


def _policy(preset: str, config: ModelConfig) -> tuple[Policy, Any]:
    """The published sizes get bfloat16 weights drawn on the device, and a vocabulary that comes with the package."""
    if preset == "tiny":
        return Policy.from_config(config), jax.tree.map(np.array, load_policy(shipped("rl"))[1])
    if preset != "moondream3":
        policy = Policy.from_config(config)
        return policy, policy.init(0)
    paths = dataclasses.replace(config.paths, tokenizer="embedded:small", prompt_prefix=(1, 21, 2))
    policy = Policy.from_config(dataclasses.replace(config, paths=paths))
    policy = dataclasses.replace(policy, model=policy.model.clone(dtype=jnp.bfloat16))
    return policy, random_bfloat16(policy.shapes())


def random_bfloat16(shapes: Any) -> Any:
    """Small random weights on the device, leaf by leaf: nothing of their size goes through the host."""
    leaves, structure = jax.tree.flatten(shapes)
    draw = jax.jit(lambda key, shape: 0.02 * jax.random.normal(key, shape, jnp.bfloat16), static_argnums=1)
    drawn = [draw(jax.random.key(number), leaf.shape) for number, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)
