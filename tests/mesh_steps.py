"""One training step of every stage on a given mesh: a program for the tests that compare meshes."""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from tiny_models import compile_quickly, micro_params, micro_policy, scenes

from moonseg_jax import partition
from moonseg_jax.batch import prompt_batch, target_batch, true_mask
from moonseg_jax.learner.policy import make_policy_step
from moonseg_jax.learner.policy_presets import PolicyLossConfig
from moonseg_jax.learner.refiner import make_crop_encoder, make_refiner_step
from moonseg_jax.learner.sft import make_sft_step
from moonseg_jax.learner.state import init_state
from moonseg_jax.learner.trainable import LoraConfig, Trainable
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.model.decoding import layers_of
from moonseg_jax.model.refiner import init_head, make_head
from moonseg_jax.model.text import Block
from moonseg_jax.partition import partition_spec, path_of
from moonseg_jax.rewards import RewardSpec, WeightedTerm
from moonseg_jax.rollout.groups import make_rollout
from moonseg_jax.rollout.settings import Sampling
from moonseg_jax.sharding import make_mesh, put_batch, put_parameters, put_replicated, to_host
from moonseg_jax.types import PromptBatch, TargetBatch

IMAGES = 8
ROUTED = 8
"""Experts where rows are sorted by them; with four all are computed."""
OPTIMIZER = optax.sgd(1.0)
"""The change of the parameters is the gradient itself: nothing normalises a difference away."""

REWARD = RewardSpec(
    terms=(
        WeightedTerm(term="iou"), WeightedTerm(term="excess_tokens", weight=((0, 0.1), (10, 0.3))),
        WeightedTerm(term="boundary_closeness", weight=0.5),
    )
)  # fmt: skip
"""With a term that reads the targets, one that reads the mask, and a schedule."""

Results = dict[str, np.ndarray]
"""Figures, parameters and what else must agree, by name."""


def sft_step(mesh: Mesh) -> Results:
    """One step of supervised learning."""
    policy = micro_policy()
    state = put_parameters(mesh, init_state({"policy": micro_params()}, OPTIMIZER))
    step = make_sft_step(
        policy.model, policy.tables, OPTIMIZER, tokens=policy.config.paths.max_new_tokens, box_weight=2.0,
        box_distance_weight=3.0, path_distance_weight=2.0, heat_weight=0.5, words_weight=0.7, average_decay=0.9,
    )  # fmt: skip
    with jax.set_mesh(mesh):
        inputs = (state, *global_batch(mesh))
        state, sums = compile_quickly(step, *inputs)(*inputs)
    return collect(sums=sums, params=state.params, averaged=state.averaged)


def lora_step(mesh: Mesh) -> Results:
    """Gradients of the factors of a routed block, from where B is no longer zero."""
    trainable, config = Trainable(lora=LoraConfig(rank=8)), micro_policy(ROUTED).config.text
    trained, frozen = trainable.divide(micro_params(ROUTED), seed=3)
    rng = np.random.default_rng(4)
    trained = jax.tree.map(lambda factor: (factor + 0.1 * rng.normal(size=factor.shape)).astype(np.float32), trained)
    rows = rng.normal(size=(IMAGES, 5, config.width)).astype(np.float32)
    positions = np.tile(np.arange(5), (IMAGES, 1))
    block = Block(config, routed=True, dtype=jnp.float32)

    def loss(trained: Any, frozen: Any, rows: Any, positions: Any) -> Any:
        layer = layers_of(trainable.whole(trained, frozen), config)[-1]
        out: Any = block.apply({"params": layer}, rows, [], None, positions, None)
        return jnp.sum(jnp.sin(out[0])) / rows.size**0.5

    def step(*inputs: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(*inputs)
        return value, partition.split_parameters({"policy": gradient})

    inputs = (*put_parameters(mesh, (trained, frozen)), *put_batch(mesh, (rows, positions)))
    with jax.set_mesh(mesh):
        value, gradient = compile_quickly(jax.jit(step), *inputs)(*inputs)
    return collect(sums=value, gradient=gradient)


def rl_step(mesh: Mesh) -> Results:
    """Rollouts and one update from them."""
    policy = micro_policy()
    state = put_parameters(mesh, init_state({"policy": micro_params()}, OPTIMIZER))
    sampling = Sampling(group=2, temperature=0.9, slots=3)
    rollout = make_rollout(policy, sampling, reward=REWARD, seed=3, mesh=mesh)
    update = make_policy_step(
        policy.model, policy.grammar, policy.tables, OPTIMIZER,
        loss=PolicyLossConfig(scale="batch-std", clip_high=0.3, entropy_weight=5e-4), temperature=0.9,
        supervised_weight=0.0, average_decay=0.9,
    )  # fmt: skip
    with jax.set_mesh(mesh):
        batch, targets = global_batch(mesh)
        # The background is the target: random paths overlap with it, so that few groups are flat.
        batch = batch.replace(ground_truth=~batch.ground_truth)
        prompts = (state.params["policy"], batch, targets.lengths, 5)
        rollouts, scored, _, figures = compile_quickly(rollout, *prompts)(*prompts)
        inputs = (state, None, batch, targets, rollouts, scored)
        state, sums = compile_quickly(update, *inputs)(*inputs)
    # Every device has slots of its own.
    del figures["useful_slots"]
    assert sums["flat_groups"][0] < IMAGES, "too few groups teach anything"
    return collect(figures=figures, sums=sums, params=state.params, averaged=state.averaged)


def refiner_step(mesh: Mesh) -> Results:
    """One step of the refinement head on coarse masks that are shifted truths."""
    policy = micro_policy()
    config = policy.config
    head = make_head(config)
    state = put_parameters(mesh, init_state({"refiner": init_head(head, config.vision.width, 0)}, OPTIMIZER))
    frozen = put_replicated(mesh, micro_params())
    encode = make_crop_encoder(policy.model)
    step = make_refiner_step(
        head, OPTIMIZER, kind="focal", best_of_masks=True, boundary_weight=2.0, dice_weight=1.0,
        iou_weight=0.2, average_decay=0.9,
    )  # fmt: skip
    share = IMAGES // jax.process_count()
    mine = [scene.examples[0] for scene in scenes(IMAGES)][jax.process_index() * share :][:share]
    truth = np.stack([true_mask(example) for example in mine])
    pixels = (np.stack([example.image for example in mine]), np.roll(truth, 3, axis=2), truth)
    with jax.set_mesh(mesh):
        crops, coarse, truth = put_batch(mesh, pixels)
        state, sums = step(state, encode(frozen, crops), coarse, truth)
    return collect(sums=sums, params=state.params, averaged=state.averaged)


STEPS: dict[str, Callable[[Mesh], Results]] = {
    "sft": sft_step, "rl": rl_step, "refiner": refiner_step, "lora": lora_step,
}  # fmt: skip
"""Stage → its step, from placing the parameters to collecting the results."""


MESHES = {
    "one": MeshConfig(),
    "all": MeshConfig(),
    "fsdp": MeshConfig(fsdp=8),
    "tensor": MeshConfig(data=2, fsdp=2, tensor=2),
    "expert": MeshConfig(fsdp=2, expert=2, tensor=2),
}
"""Name → shape, of the first device or of all."""


def global_batch(mesh: Mesh) -> tuple[PromptBatch, TargetBatch]:
    """Eight images with two phrases each, one of them padding; every process brings its share."""
    rows = [list(scene.examples[:2]) for scene in scenes(IMAGES)]
    rows[-1] = rows[-1][:1]
    share = IMAGES // jax.process_count()
    rows = rows[jax.process_index() * share :][:share]
    layout = micro_policy().layout(2)
    return put_batch(mesh, (prompt_batch(rows, layout), target_batch(rows, layout)))


def collect(**trees: object) -> Results:
    """All leaves by path; each must lie where the rules put it, on no more devices and no fewer."""
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    for path, leaf in leaves:
        spec = partition_spec(path_of(path), leaf.shape, dict(leaf.sharding.mesh.shape))
        expected = NamedSharding(leaf.sharding.mesh, spec)
        assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), f"{path}: {leaf.sharding.spec}, not {spec}"
    return {jax.tree_util.keystr(path): to_host(leaf) for path, leaf in leaves}


def main() -> None:
    """Reads the command line, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="results go to OUT-MESH-STAGE.npz")
    parser.add_argument("steps", nargs="+", help="MESH-STAGE, such as fsdp-rl")
    parser.add_argument("--process", type=int, nargs=3, metavar=("PORT", "COUNT", "INDEX"))
    options = parser.parse_args()
    jax.config.update("jax_default_matmul_precision", "highest")
    partition.SMALLEST_SPLIT = 64  # So that the micro model is split as large ones are.
    if options.process is not None:
        port, count, index = options.process
        jax.distributed.initialize(f"localhost:{port}", count, index)
    for step in options.steps:
        name, stage = step.split("-")
        mesh = make_mesh(jax.devices()[:1] if name == "one" else jax.devices(), MESHES[name])
        np.savez(f"{options.out}-{step}.npz", **STEPS[stage](mesh))


if __name__ == "__main__":
    main()
