"""What sampling gives to learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moonseg_jax.axes import ROWS
from moonseg_jax.rl_programs import SamplingPrograms
from moonseg_jax.rollout.score import Drawn
from moonseg_jax.types import PromptBatch, Rollouts, Scored, SumAndCount, TargetBatch

ROUTING = "experts"
"""Field of rollouts whose rows lie along the second dimension, behind the layers; all others' come first."""


class Experience(NamedTuple):
    """A batch's rollouts with all that is made of them where they are sampled."""

    rollouts: Rollouts
    scored: Scored
    drawn: Drawn
    given: tuple[Rollouts, Scored] | None
    """Rollouts and scores with the traced paths that were put beside hopeless groups; None where nothing is ever."""
    sums: dict[str, SumAndCount]
    """Figures of all prompts."""

    @property
    def taught(self) -> tuple[Rollouts, Scored]:
        """What is learned from."""
        return self.given or (self.rollouts, self.scored)


Sample = Callable[[Any, PromptBatch, TargetBatch, Any], Experience]
"""(parameters, batch, targets, step that will learn from it) → experience."""


def make_sample(programs: SamplingPrograms, *, injects: bool) -> Sample:
    """Sampling, drawing, scoring and the rescue of hopeless groups."""

    def sample(params: Any, batch: PromptBatch, targets: TargetBatch, step: Any) -> Experience:
        rollouts, scored, drawn, sums = programs.rollout(params, batch, targets.lengths, step)
        taught, paid, injected = programs.inject(params, batch, targets, rollouts, scored, step)
        return Experience(rollouts, scored, drawn, (taught, paid) if injects else None, {**sums, **injected})

    return sample


def row_axes(experience: Any) -> Any:
    """For every leaf the dimension that its rows lie along; -1 of figures, which are of all rows."""

    def axis(path: tuple[Any, ...], leaf: Any) -> int:
        names = {getattr(part, "name", None) for part in path}
        return -1 if not leaf.ndim else int(ROUTING in names)

    return jax.tree_util.tree_map_with_path(axis, experience)


def experience_shapes(sample: Sample, params: Any, batch: Any, images: int) -> Experience:
    """Shapes of the experience of so many images.

    Args:
      sample: compiled for one device.
      params: shapes of the parameters that sample.
      batch: (prompts, targets) of any number of images.
      images: how many.
    """
    prompts, targets = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((images, *leaf.shape[1:]), leaf.dtype), batch)
    return jax.eval_shape(sample, params, prompts, targets, jax.ShapeDtypeStruct((), "int32"))


def lying_on(mesh: Mesh, shapes: Experience) -> Experience:
    """The same shapes with the shardings that a learner's experience has."""

    def placed(leaf: Any, axis: int) -> jax.ShapeDtypeStruct:
        spec = P() if axis < 0 else P(*[None] * axis, ROWS)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(placed, shapes, row_axes(shapes))


def shared_out_again(experience: Experience, images: int, before: int, now: int) -> Experience:
    """Rows in the order in which so many learners read a batch, from that of another number of them.

    Of n learners, the i-th reads scenes i, i + n, i + 2 n … of a batch, and its rows are the i-th part of all.

    Args:
      experience: on a mesh, where it stays as it lies.
      images: of the batch.
      before: learners that saved it.
      now: learners there are.
    """
    if before == now:
        return experience
    place = np.argsort(np.arange(images).reshape(-1, before).T.reshape(-1))
    order = place[np.arange(images).reshape(-1, now).T.reshape(-1)]

    def in_order(leaf: jax.Array, axis: int) -> jax.Array:
        if axis < 0:
            return leaf
        lead, rest = leaf.shape[:axis], leaf.shape[axis + 1 :]
        by_image = leaf.reshape(*lead, images, leaf.shape[axis] // images, *rest)
        return jnp.take(by_image, order, axis).reshape(leaf.shape)

    axes = row_axes(experience)
    placed = jax.tree.map(lambda leaf: leaf.sharding, experience)
    return jax.jit(lambda tree: jax.tree.map(in_order, tree, axes), out_shardings=placed)(experience)
