"""The three training loops: what runs, in what order, and why."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from data_pipelines.augmentation.augment import augment
from data_pipelines.loader import scene_batches
from data_pipelines.source import open_split
from moonseg_jax.batch import BatchLayout, prompt_batch, target_batch
from moonseg_jax.crop_features import feature_source
from moonseg_jax.errors import UserError
from moonseg_jax.evaluate import coarse_evaluation, held_out_scenes
from moonseg_jax.gallery.keep import keep_judged
from moonseg_jax.learner.optimizers import make_optimizer
from moonseg_jax.learner.reference_kl import make_reference_kl
from moonseg_jax.learner.refiner import make_crop_encoder
from moonseg_jax.learner.sft import BOX_TOKENS
from moonseg_jax.learner.state import LearnerState, init_state
from moonseg_jax.loop import USUAL, Loop, Sitting
from moonseg_jax.model.refiner import head_shapes, init_head, make_head
from moonseg_jax.pairs import PairBuffer
from moonseg_jax.placement.experience import Experience
from moonseg_jax.placement.roles import Roles, assign_roles
from moonseg_jax.placement.supply import closing
from moonseg_jax.placement.weights import as_they_arrive
from moonseg_jax.policy import Policy, load_policy
from moonseg_jax.refiner_evaluation import refined_evaluation
from moonseg_jax.rl_programs import learning_programs, rl_sampling
from moonseg_jax.rl_supply import images_per_engine, open_supply, sample_only
from moonseg_jax.rollout.group_record import GROUPS_FILE, Payment, first_groups, payment_of
from moonseg_jax.rollout.kept import KeptRollouts
from moonseg_jax.rollout.memory import bytes_of, device_memory, require_memory
from moonseg_jax.rollout.part_times import part_seconds
from moonseg_jax.rollout.stored import sampled
from moonseg_jax.run_directory import RunDirectory
from moonseg_jax.sharding import local_rows, make_mesh, put_batch, put_parameters
from moonseg_jax.shares import together
from moonseg_jax.stage_programs import merging_program, refiner_program, sft_program
from moonseg_jax.storage import place
from moonseg_jax.train_config import AS_THEY_ARE, LoopConfig, PolicyConfig, RefinerConfig, RlConfig, SftConfig
from moonseg_jax.training_pairs import require_batch, training_pairs
from moonseg_jax.types import PromptBatch, Rollouts, Scene, SumAndCount, TargetBatch
from moonseg_jax.weights import POLICY, REFINER, load_weights, save_weights

PAIRS_FILE = "pairs.npz"
"""Written by the RL stage into its run's folder, read by the refiner stage."""
BOX_AND_MOVE = BOX_TOKENS + 1
"""The box, and the `M` every path starts with."""
SFT_SHOWN = ("box", "path")
RL_SHOWN = ("sampled_iou", "reward", "tokens", "invalid", "mismatch_kl", "flat_groups")
REFINER_SHOWN = ("mask", "iou", "refined_iou")
"""Figures of the live line of each stage."""


def run_sft(config: SftConfig, run: RunDirectory, resume: bool, sitting: Sitting = USUAL) -> None:
    """Supervised learning: boxes first where the config says so, then whole paths."""
    mesh = make_mesh(shape=config.mesh)
    if config.start_from is None:
        policy = Policy.from_config(config.model)
        params = policy.init(config.seed)
    else:
        policy, params = load_policy(place(config.start_from), config.model)
    learning = policy.computing_in(config.dtype).rematerialising(config.remat)
    optimizer = make_optimizer(config.optimizer, config.steps)
    trained, frozen = config.trainable.divide(params, config.seed)
    state = put_parameters(mesh, init_state({"policy": trained}, optimizer, frozen))

    layout = policy.layout(config.phrases_per_image, config.crops)
    box_step = sft_program(config, learning, optimizer, tokens=BOX_AND_MOVE)
    path_step = sft_program(config, learning, optimizer)
    change = functools.partial(augment, config.augmentation) if config.augmentation != AS_THEY_ARE else None
    loader = _loader(config, functools.partial(_supervised, layout, config.random_outline_start), transform=change)
    loop = Loop(
        config, run, judged_by="miou", evaluate=_held_out(config, policy, run), export=_export_policy(config),
        shown=SFT_SHOWN, averaged=_averaged_policy(config), sitting=sitting,
    )  # fmt: skip
    if resume:
        state = loop.restore(state, loader)
    read = loop.clock.timed("data", lambda: next(loader))
    with jax.set_mesh(mesh), loop:
        for step in loop.steps():
            batch, targets = put_batch(mesh, read())
            update = box_step if step < config.box_steps else path_step
            state, sums = update(state, batch, targets)
            loop.after_step(step, state, loader, sums)


def run_rl(config: RlConfig, run: RunDirectory, resume: bool, sitting: Sitting = USUAL) -> None:
    """Reinforcement learning: sample groups, draw and score them, update the policy; keep the pairs they make."""
    roles = assign_roles(config.placement, config.mesh)
    policy = _sampling_policy(config)
    loader = _loader(config, _prompt_collation(config, policy), roles.share)
    if not roles.learns:
        return sample_only(config, roles, policy, loader, sitting)

    mesh, learners = roles.learner, len(roles.learners)
    params = load_policy(place(config.start_from), config.model)[1]
    optimizer = make_optimizer(config.optimizer, config.steps * config.updates_per_rollout)
    trained, frozen = config.trainable.divide(params, config.seed)
    state = put_parameters(mesh, init_state({"policy": trained}, optimizer, frozen))
    reference = put_parameters(mesh, params) if config.loss.needs_reference or config.log_reference_kl else None
    _require_memory(config, roles, policy, (state, reference))
    buffer = PairBuffer(config.pair_buffer, config.model.vision.crop)
    kept = KeptRollouts(run.path, config.keep_rollouts, resume, roles.process, learners)
    loop = Loop(
        config, run, judged_by="miou", evaluate=_held_out(config, policy, run, sampled=True),
        export=_export_policy(config), extra=buffer, shown=RL_SHOWN, averaged=_averaged_policy(config),
        sitting=sitting, team=roles.learners,
    )  # fmt: skip
    if resume:
        state = loop.restore(state, loader)
    policy_of = config.trainable.whole
    supply = open_supply(
        config, roles, policy, lambda state: policy_of(state.params["policy"], state.frozen), loop, loader,
        resume=resume,
    )  # fmt: skip
    log_probs, update, draw_pairs = learning_programs(config, policy, optimizer).timed(loop.clock)
    watch = _watch(config, policy, policy_of, reference, log_probs, loop, mesh)
    with jax.set_mesh(mesh), loop, kept, closing(supply):
        if not resume:
            loop.judge(0, state)
        for step in loop.steps():
            version, batch, targets, experience = supply.take(step, state)
            rollouts, scored, drawn = experience.rollouts, experience.scored, experience.drawn
            taught, paid = experience.taught
            old = None
            if config.loss.needs_old_log_probs:
                old = log_probs(policy_of(state.params["policy"], state.frozen), batch, taught)
            for _ in range(config.updates_per_rollout):
                state, learned = update(state, reference, batch, targets, taught, paid, old)
            prompts = jnp.repeat(batch.example_ids.reshape(-1), config.group)
            buffer.add(local_rows(draw_pairs(prompts, drawn.box, drawn.edges, scored.iou, version)))
            if config.keep_rollouts:
                kept.add(step, local_rows(sampled(batch, targets.lengths, rollouts, drawn)))
            watched = watch(step, state, batch, targets.lengths, rollouts)
            loop.record({**experience.sums, **learned, **watched})
            if loop.judges_after(step):
                _keep_groups(run, roles, policy, step, batch, targets, experience)
            supply.settle(step, state)
            loop.after_step(step, state, supply, supply.figures(), supply.in_flight)
        file = buffer.save(run.path / PAIRS_FILE, roles.process, learners)
        loop.note(f"{len(buffer)} coarse-to-ground-truth pairs in {file}")


def run_refiner(config: RefinerConfig, run: RunDirectory, resume: bool, sitting: Sitting = USUAL) -> None:
    """Training of the refinement head on pairs of rollouts and ground truth; the vision encoder stays frozen."""
    mesh = make_mesh(shape=config.mesh)
    policy, policy_params = load_policy(place(config.policy), config.model)
    head, width = make_head(config.model), config.model.vision.width
    if config.start_from is None:
        params = init_head(head, width, config.seed)
    else:
        params = load_weights(place(config.start_from), REFINER, head_shapes(head, width))
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = put_parameters(mesh, init_state({"refiner": params}, optimizer))

    pairs = training_pairs(
        open_split(config.data, config.train_split), file=place(config.pairs) if config.pairs else None,
        pairs_from=config.pairs_from, count=config.pair_count, side=config.model.vision.crop,
        jitter=config.box_jitter, seed=config.seed,
    )  # fmt: skip
    require_batch(pairs, config.images_per_batch, jax.process_count())
    source = feature_source(
        pairs, make_crop_encoder(policy.model), policy_params, mesh, identity_share=config.identity_share,
        cache=config.cache_features, limit_gib=config.feature_cache_gib,
    )  # fmt: skip
    loader = scene_batches(
        source.items, source.collate, images_per_batch=config.images_per_batch // jax.process_count(),
        seed=config.seed, shard_index=jax.process_index(), shard_count=jax.process_count(),
        threads=config.loader_threads,
    )  # fmt: skip
    update = refiner_program(config, head, optimizer)
    loop = Loop(
        config, run, judged_by="miou", evaluate=_refined_held_out(config, policy, policy_params, run),
        export=lambda folder, averaged: save_weights(folder, REFINER, averaged["refiner"], config.model),
        shown=REFINER_SHOWN, sitting=sitting,
    )  # fmt: skip
    if resume:
        state = loop.restore(state, loader)
    read = loop.clock.timed("data", lambda: next(loader))
    encode, learn = loop.clock.timed("encode", source.batch), loop.clock.timed("learn", update.__call__)
    with jax.set_mesh(mesh), loop:
        loop.note(f"{len(pairs)} pairs: {pairs.description()}")
        for step in loop.steps():
            state, sums = learn(state, *encode(read()))
            loop.after_step(step, state, loader, sums)


def _prompts_and_targets(
    layout: BatchLayout, random_order: bool, scenes: Sequence[Scene], seed: int
) -> tuple[PromptBatch, TargetBatch]:
    rows = [scene.examples for scene in scenes]
    return prompt_batch(rows, layout), target_batch(rows, layout, seed if random_order else None)


def _supervised(
    layout: BatchLayout, random_order: bool, scenes: Sequence[Scene], seed: int
) -> tuple[PromptBatch, TargetBatch]:
    for example in (example for scene in scenes for example in scene.examples):
        if example.target is None and not layout.model.paths.allow_no_target:
            raise UserError(
                f"example {example.example_id} ({example.phrase!r}) has no target, which supervised learning cannot "
                "use under this grammar: set paths.allow_no_target, or build the data set without such phrases"
            )
    return _prompts_and_targets(layout, random_order, scenes, seed)


def _sampling_policy(config: RlConfig) -> Policy:
    policy = Policy.from_config(config.model)
    return policy.computing_in(config.dtype).rematerialising(config.remat)


def _prompt_collation(config: RlConfig, policy: Policy) -> Any:
    layout = policy.layout(config.phrases_per_image, config.crops)
    return functools.partial(_prompts_and_targets, layout, False)


def _require_memory(config: RlConfig, roles: Roles, policy: Policy, held: Any) -> None:
    """Refuses rollouts that do not fit beside what a sampling device holds: the learner's state, or its own weights."""
    if config.placement.overlaps:
        held = as_they_arrive(config.trainable.shapes(policy.shapes()), config.placement.dtype)
    require_memory(
        config.model, rl_sampling(config), images_per_engine(config, roles), config.phrases_per_image,
        parameters=bytes_of(held), available=device_memory(),
    )  # fmt: skip


def _watch(
    config: RlConfig, policy: Policy, policy_of: Any, reference: Any, log_probs: Any, loop: Loop, mesh: Mesh
) -> Any:
    """What training itself does not need: once the parts of a rollout's time, at logs the KL to the reference.

    Returns:
      Function (step, state, batch, tokens of its traced targets, rollouts) → more sums for the log.
    """
    measure_kl = make_reference_kl(log_probs)
    measures_kl = config.log_reference_kl and not config.loss.needs_reference

    splits_time = config.split_rollout_time and not config.placement.overlaps

    def watch(
        step: int, state: LearnerState, batch: PromptBatch, lengths: Any, rollouts: Rollouts
    ) -> dict[str, SumAndCount]:
        if splits_time and not loop.clock.knows_inside:
            params = policy_of(state.params["policy"], state.frozen)
            parts = part_seconds(
                policy, config.reward_spec, params, batch, lengths, rollouts, mesh, config.credit == "token"
            )
            loop.clock.set_inside(parts)
        return {"reference_kl": measure_kl(reference, batch, rollouts)} if measures_kl and loop.logs_after(step) else {}

    return watch


def _keep_groups(
    run: RunDirectory, roles: Roles, policy: Policy, step: int, batch: PromptBatch, targets: TargetBatch,
    experience: Experience,
) -> None:  # fmt: skip
    """Leaves a few groups of a step in the run's folder, for its report; all that learn must come here."""
    paid = Payment(**together(payment_of(batch, experience.taught), roles.learners)["rows"])
    if roles.process == roles.learners[0]:
        drawn = experience.drawn
        record = first_groups(step, batch, targets, experience.rollouts, drawn, policy.vocabulary, paid)
        record.save(run.path / GROUPS_FILE)


def _loader(config: LoopConfig, collate: Any, share: tuple[int, int] | None = None, transform: Any = None) -> Any:
    """A share of an endless, shuffled stream of batches; by default one of as many as there are processes."""
    index, shares = share or (jax.process_index(), jax.process_count())
    source = open_split(config.data, config.train_split, at_least=config.images_per_batch)
    return scene_batches(
        source, collate, images_per_batch=config.images_per_batch // shares,
        phrases_per_image=config.phrases_per_image, seed=config.seed, shard_index=index, shard_count=shares,
        threads=config.loader_threads, transform=transform,
    )  # fmt: skip


def _held_out(config: LoopConfig, policy: Policy, run: RunDirectory, *, sampled: bool = False) -> Any:
    scenes = held_out_scenes(open_split(config.data, config.eval_split), config.eval_scenes)
    evaluate = coarse_evaluation(
        policy,
        scenes,
        phrases=config.phrases_per_image,
        crops=config.crops,
        sampled=sampled,
        seed=config.seed,
        look=_keeping_scenes(run),
    )
    return lambda averaged: evaluate(averaged["policy"])


def _refined_held_out(config: RefinerConfig, policy: Policy, policy_params: Any, run: RunDirectory) -> Any:
    scenes = held_out_scenes(open_split(config.data, config.eval_split), config.eval_scenes)
    evaluate = refined_evaluation(
        policy, policy_params, scenes, phrases=config.phrases_per_image, crops=config.crops, look=_keeping_scenes(run)
    )  # fmt: skip
    return lambda averaged: evaluate(averaged["refiner"])


def _keeping_scenes(run: RunDirectory) -> Any:
    """Leaves scenes of every evaluation for the run's report; every process judges, one writes."""
    return functools.partial(keep_judged, run.path) if jax.process_index() == 0 else None


def _averaged_policy(config: PolicyConfig) -> Any:
    merged = merging_program(config.trainable)
    return lambda state: {"policy": merged(state.averaged["policy"], state.frozen)}


def _export_policy(config: LoopConfig) -> Any:
    return lambda folder, averaged: save_weights(folder, POLICY, averaged["policy"], config.model)
