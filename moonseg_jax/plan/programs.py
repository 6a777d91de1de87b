"""The programs of every stage with arguments that are shapes only, placed on a mesh that need not exist."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from pycocotools import mask as coco_mask

from moonseg_jax.axes import ENGINES
from moonseg_jax.batch import BatchLayout, prompt_batch, target_batch
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import make_optimizer
from moonseg_jax.learner.refiner import Unrolled, make_crop_encoder
from moonseg_jax.learner.state import init_state
from moonseg_jax.model.refiner import head_shapes, make_head
from moonseg_jax.partition import partition_specs
from moonseg_jax.plan.stand_in import PHRASE
from moonseg_jax.policy import Policy
from moonseg_jax.rl_programs import learning_programs, rl_sampling, sampling_programs
from moonseg_jax.sharding import batch_sharding, row_shards
from moonseg_jax.stage_programs import refiner_program, sft_program
from moonseg_jax.train_config import PolicyConfig, RefinerConfig, RlConfig, SftConfig
from moonseg_jax.types import Example, PromptBatch, TargetBatch

StageConfig = SftConfig | RlConfig | RefinerConfig
Stage = Literal["sft", "rl-learn", "rl-rollout", "refine"]
STAGES: tuple[Stage, ...] = ("sft", "rl-learn", "rl-rollout", "refine")
CONFIG_STAGE: dict[Stage, Literal["sft", "rl", "refiner"]] = {
    "sft": "sft",
    "rl-learn": "rl",
    "rl-rollout": "rl",
    "refine": "refiner",
}
"""Stage of `moonseg train` whose config holds the settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One compiled program of a step."""

    name: str
    run: Any
    """Jitted."""
    arguments: tuple[Any, ...]
    """Shapes with shardings."""
    times: int = 1
    """Per step."""
    endless_turns: int = 1
    """Turns of the loop whose number the data decide, at most."""
    resident: int = 0
    """Bytes on every device, beside the arguments, that lie there while it runs."""


def stage_programs(stage: Stage, config: StageConfig, mesh: Mesh) -> list[Program]:
    """What one step of a stage runs, in order.

    Args:
      stage: of the two halves of `rl`, one.
      config: of the stage.
      mesh: of devices that exist or of a topology.

    Raises:
      UserError: settings that do not fit the mesh.
    """
    if isinstance(config, SftConfig):
        return _sft(config, mesh)
    if isinstance(config, RlConfig):
        return _rollout(config, mesh) if stage == "rl-rollout" else _rl_learn(config, mesh)
    return _refine(config, mesh)


def bytes_per_device(tree: Any) -> int:
    """Bytes of arrays, or of shapes with shardings, on the device that has most of them."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if hasattr(leaf, "sharding")
    )


def parameter_count(tree: Any) -> int:
    """Numbers of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _sft(config: SftConfig, mesh: Mesh) -> list[Program]:
    policy = Policy.from_config(config.model)
    optimizer = make_optimizer(config.optimizer, config.steps)
    policy = policy.computing_in(config.dtype).rematerialising(config.remat)
    state = _learner_state(config, policy, optimizer, mesh)
    batch, targets = _batch(policy.layout(config.phrases_per_image, config.crops), config.images_per_batch, mesh)
    return [Program(name="step", run=sft_program(config, policy, optimizer), arguments=(state, batch, targets))]


def _rl_parts(config: RlConfig, mesh: Mesh) -> tuple[Any, Any, Any, Any, PromptBatch, TargetBatch]:
    policy = Policy.from_config(config.model).computing_in(config.dtype).rematerialising(config.remat)
    optimizer = make_optimizer(config.optimizer, config.steps * config.updates_per_rollout)
    state = _learner_state(config, policy, optimizer, mesh)
    reference = _placed(policy.shapes(), mesh) if config.loss.needs_reference or config.log_reference_kl else None
    batch, targets = _batch(policy.layout(config.phrases_per_image, config.crops), config.images_per_batch, mesh)
    return (
        sampling_programs(config, policy, mesh),
        learning_programs(config, policy, optimizer),
        state,
        reference,
        batch,
        targets,
    )


def _learner_state(config: PolicyConfig, policy: Policy, optimizer: Any, mesh: Mesh) -> Any:
    trained, frozen = config.trainable.divide(policy.shapes())
    state = jax.eval_shape(lambda params, rest: init_state({"policy": params}, optimizer, rest), trained, frozen)
    return _placed(state, mesh)


def _current(config: PolicyConfig, state: Any, mesh: Mesh) -> Any:
    """The policy's parameters as rollouts read them."""
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(config.trainable.whole, state.params["policy"], state.frozen)
    return _placed(shapes, mesh)


def _rollout(config: RlConfig, mesh: Mesh) -> list[Program]:
    sampling, _, state, reference, batch, targets = _rl_parts(config, mesh)
    engines = math.prod(mesh.shape[name] for name in ENGINES)
    images = max(config.images_per_batch // engines, 1)
    sizes = rl_sampling(config).sizes(images, config.phrases_per_image)
    samples = images * config.phrases_per_image * config.group
    turns = math.ceil(samples / sizes.slots) * config.model.paths.max_new_tokens
    current = _current(config, state, mesh)
    # It reads the learner's own; of factors it has a scaled copy.
    own = state.frozen if config.trainable.lora.rank else current
    held = bytes_per_device((state, reference)) - bytes_per_device(own)
    return [
        Program(
            name="rollout", run=sampling.rollout,
            arguments=(current, batch, targets.lengths, _scalar(mesh)), resident=held,
            endless_turns=max(turns * sizes.images_per_prefill // images, 1),
        )
    ]  # fmt: skip


def _rl_learn(config: RlConfig, mesh: Mesh) -> list[Program]:
    sampling, learning, state, reference, batch, targets = _rl_parts(config, mesh)
    prompts = (_current(config, state, mesh), batch, targets.lengths, _scalar(mesh))
    with jax.set_mesh(mesh):
        rollouts, scored, _, _ = jax.eval_shape(sampling.rollout, *prompts)
    rows = NamedSharding(mesh, P(ENGINES))
    layered = NamedSharding(mesh, P(None, ENGINES))
    experts = _with(layered, rollouts.experts)
    rollouts = _with(rows, dataclasses.replace(rollouts, experts=None)).replace(experts=experts)
    scored = _with(rows, scored)
    used = reference if config.loss.needs_reference else None
    held = bytes_per_device(reference) if reference is not None and used is None else 0
    return [
        Program(
            name="step", run=learning.update, arguments=(state, used, batch, targets, rollouts, scored),
            times=config.updates_per_rollout, resident=held,
        )
    ]  # fmt: skip


def _refine(config: RefinerConfig, mesh: Mesh) -> list[Program]:
    policy, head = Policy.from_config(config.model), make_head(config.model)
    optimizer = make_optimizer(config.optimizer, config.steps)
    vision, count = config.model.vision, config.images_per_batch
    params = head_shapes(head, vision.width)
    state = _placed(jax.eval_shape(lambda p: init_state({"refiner": p}, optimizer), params), mesh)
    encoder = _placed({"vision": policy.shapes()["vision"]}, mesh)
    rows = batch_sharding(mesh)
    crops = jax.ShapeDtypeStruct((count, vision.crop, vision.crop, 3), jnp.uint8, sharding=rows)
    features = jax.ShapeDtypeStruct((count, vision.grid**2, vision.width), jnp.float32, sharding=rows)
    mask = jax.ShapeDtypeStruct((count, vision.crop, vision.crop), jnp.bool_, sharding=rows)
    step = refiner_program(config, head, optimizer)
    with jax.set_mesh(mesh):
        masks, gradients, sums = jax.eval_shape(step.start, state.params, mask)
    unrolled = Unrolled(_with(rows, masks), _placed(gradients, mesh), _placed(sums, mesh))
    kept = 0 if config.cache_features else bytes_per_device(encoder)
    moments = bytes_per_device(state) - bytes_per_device(state.params)
    programs = [
        Program(
            name="iterate", run=step.iterate, arguments=(state.params, (features, features), unrolled, mask),
            times=step.iterations, resident=kept + moments,
        ),
        Program(
            name="finish", run=step.finish, arguments=(state, unrolled.gradients, unrolled.sums),
            resident=kept + bytes_per_device((features, features, mask)),
        ),
    ]  # fmt: skip
    if config.cache_features:
        return programs
    encode = Program(
        name="encode", run=make_crop_encoder(policy.model), arguments=(encoder, crops), resident=bytes_per_device(state)
    )
    return [encode, *programs]


def _batch(layout: BatchLayout, images: int, mesh: Mesh) -> tuple[PromptBatch, TargetBatch]:
    """Shapes of a batch: those of one blank image with one phrase, as many times as there are images."""
    side = layout.model.vision.crop
    blank = np.zeros((side, side), np.uint8, order="F")
    blank[: side // 2] = 1
    target = coco_mask.encode(blank)
    example = Example(
        image=np.zeros((side, side, 3), np.uint8), phrase=PHRASE, image_id=0, example_id=0,
        target={"size": list(target["size"]), "counts": target["counts"].decode("ascii")},
    )  # fmt: skip
    if images % row_shards(mesh):
        raise UserError(
            f"images_per_batch is {images}, which the mesh's {row_shards(mesh)} shares of examples do not divide: "
            "set --batch to a multiple"
        )
    rows = batch_sharding(mesh)

    def grown(array: Any) -> jax.ShapeDtypeStruct:
        array = np.asarray(array)
        return jax.ShapeDtypeStruct(
            (images, *array.shape[1:]), jax.dtypes.canonicalize_dtype(array.dtype), sharding=rows
        )

    return jax.tree.map(grown, (prompt_batch([[example]], layout), target_batch([[example]], layout)))


def _placed(tree: Any, mesh: Mesh) -> Any:
    """Shapes where the partition rules put them."""

    def place(leaf: Any, spec: P) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(place, tree, partition_specs(tree, dict(mesh.shape)))


def _with(sharding: NamedSharding, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _scalar(mesh: Mesh) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, P()))
