"""What a reward is judged from: one completion beside the truth it answers."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moonseg_jax.metrics import intersection_and_union, iou
from moonseg_jax.rewards.box import box_of_mask
from moonseg_jax.types import EdgeBatch


@flax.struct.dataclass
class RewardRow:
    """One completion with its truth. A batch is the same with N in front of every shape; its properties then
    need `jax.vmap`."""

    coverage: Float[Array, "*N R R"]
    """Share of every pixel that is drawn, in [0, 1]."""
    truth: Bool[Array, "*N R R"]
    """Ground truth at the same raster; empty for a phrase without target."""
    box: Float[Array, "*N 4"]
    """Predicted box cx, cy, w, h in units of the image; zeros where there is none."""
    length: Int[Array, "*N"]
    """Tokens of the completion, box and EOS included."""
    reference_length: Int[Array, "*N"]
    """Tokens of the traced target (`TargetBatch.lengths`)."""
    finish: Int[Array, "*N"]
    """Finish reason, see `types`."""
    edges: EdgeBatch
    """What was drawn."""

    @property
    def drawn(self) -> Bool[Array, "R R"]:
        """The mask: coverage above one half."""
        return self.coverage > 0.5

    @property
    def iou(self) -> Float[Array, ""]:
        """Raw IoU of the mask, as `mask_iou`."""
        return iou(*intersection_and_union(self.drawn, self.truth))

    @property
    def true_box(self) -> Float[Array, " 4"]:
        """Tight box of the truth."""
        return box_of_mask(self.truth)

    @property
    def has_target(self) -> Bool[Array, ""]:
        """Whether there is anything to segment."""
        return jnp.any(self.truth)

    @property
    def draws_nothing(self) -> Bool[Array, ""]:
        """Whether the mask is empty."""
        return ~jnp.any(self.drawn)

    @property
    def is_finite(self) -> Bool[Array, ""]:
        """Whether coverage, box and valid edges are numbers."""
        points = jnp.isfinite(self.edges.points) | ~self.edges.valid[..., None, None]
        return jnp.all(jnp.isfinite(self.coverage)) & jnp.all(jnp.isfinite(self.box)) & jnp.all(points)
