"""The three training loops: what runs, in what order, and why."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from data_pipelines.loader import scene_batches
from data_pipelines.source import open_split
from moonseg_jax.batch import BatchLayout, prompt_batch, target_batch
from moonseg_jax.evaluate import coarse_evaluation, held_out_scenes
from moonseg_jax.learner.optimizers import make_optimizer
from moonseg_jax.learner.sft import init_heat_map, make_sft_step
from moonseg_jax.learner.state import init_state
from moonseg_jax.loop import Loop
from moonseg_jax.policy import Policy, load_policy
from moonseg_jax.run_directory import RunDirectory
from moonseg_jax.sharding import make_mesh, put_batch, put_replicated
from moonseg_jax.train_config import LoopConfig, SftConfig
from moonseg_jax.types import PromptBatch, Scene, TargetBatch
from moonseg_jax.weights import POLICY, save_weights

BOX_TOKENS = 4
"""Two coordinates, a size, and the `M` every path starts with."""


def run_sft(config: SftConfig, run: RunDirectory, resume: bool) -> None:
    """Supervised learning: boxes first where the config says so, then whole paths."""
    mesh = make_mesh(fsdp=config.fsdp)
    if config.start_from is None:
        policy = Policy.from_config(config.model)
        params = policy.init(jax.random.key(config.seed))
    else:
        policy, params = load_policy(Path(config.start_from), config.model)
    heat_map = init_heat_map(jax.random.key(config.seed + 1), config.model.text.width)
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = put_replicated(mesh, init_state({"policy": params, "heat_map": heat_map}, optimizer))

    layout = policy.layout(config.phrases_per_image, config.crops)

    def step_over(tokens: int) -> Any:
        return make_sft_step(
            policy.model, policy.grammar, optimizer, tokens=tokens, box_weight=config.box_weight,
            heat_weight=config.heat_weight, average_decay=config.average_decay,
        )  # fmt: skip

    box_step, path_step = step_over(BOX_TOKENS), step_over(config.model.paths.max_new_tokens)
    loader = _loader(config, functools.partial(_prompts_and_targets, layout))
    loop = Loop(config, run, judged_by="miou", evaluate=_held_out(config, policy), export=_export_policy(config))
    if resume:
        state = loop.restore(state, loader)
    with jax.set_mesh(mesh), loop:
        for step in loop.steps():
            batch, targets = put_batch(mesh, next(loader))
            update = box_step if step < config.box_steps else path_step
            state, sums = update(state, batch, targets)
            loop.after_step(step, state, loader, sums)


def _prompts_and_targets(
    layout: BatchLayout, scenes: Sequence[Scene], seed: int
) -> tuple[PromptBatch, TargetBatch]:
    rows = [scene.examples for scene in scenes]
    return prompt_batch(rows, layout), target_batch(rows, layout)


def _loader(config: LoopConfig, collate: Any) -> Any:
    """This process's share of an endless, shuffled stream of batches."""
    processes = jax.process_count()
    source = open_split(config.data, config.train_split, at_least=config.images_per_batch)
    return scene_batches(
        source, collate, images_per_batch=config.images_per_batch // processes,
        phrases_per_image=config.phrases_per_image, seed=config.seed, shard_index=jax.process_index(),
        shard_count=processes, threads=config.loader_threads,
    )  # fmt: skip


def _held_out(config: LoopConfig, policy: Policy, *, sampled: bool = False) -> Any:
    scenes = held_out_scenes(open_split(config.data, config.eval_split), config.eval_scenes)
    evaluate = coarse_evaluation(
        policy, scenes, phrases=config.phrases_per_image, crops=config.crops, sampled=sampled, seed=config.seed
    )
    return lambda averaged: evaluate(averaged["policy"])


def _export_policy(config: LoopConfig) -> Any:
    return lambda folder, averaged: save_weights(folder, POLICY, averaged["policy"], config.model)
