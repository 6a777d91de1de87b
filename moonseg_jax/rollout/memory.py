"""What rollouts need of a device's memory, worked out before anything runs."""

from __future__ import annotations

import dataclasses
import os

import jax
import numpy as np

from moonseg_jax.config import ModelConfig
from moonseg_jax.errors import UserError
from moonseg_jax.model.pages import layout
from moonseg_jax.rollout.settings import EngineSizes, Sampling

GIB = 1 << 30
FLOAT32 = 4
TOKEN_BYTES = 4 + 8 + 4
"""Of a recorded token: id, two bins, log-probability."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutMemory:
    """Bytes on one device, the parameters aside."""

    per_slot: int
    """Keys and values of one sample's own tokens, and its row of logits."""
    per_place: int
    """Keys and values of an image and its prompts, read by all their samples."""
    per_sample: int
    """What is written down of one sample."""
    sizes: EngineSizes
    samples: int

    @property
    def total(self) -> int:
        """Of all slots, places and samples."""
        slots, places = self.sizes.slots, self.sizes.residents
        return slots * self.per_slot + places * self.per_place + self.samples * self.per_sample


def rollout_memory(
    config: ModelConfig, sampling: Sampling, images: int, phrases: int, itemsize: int = FLOAT32
) -> RolloutMemory:
    """Memory of sampling for the images of one device.

    Args:
      config: the policy's.
      sampling: group and slots.
      images: on this device.
      phrases: per image.
      itemsize: bytes of a number in the model's dtype.
    """
    text, paths = config.text, config.paths
    per_token = kv_bytes_per_token(config, itemsize)
    logits = text.vocabulary + config.region.coord_bins + 2 * config.region.size_bins
    experts = (text.layers - text.dense_layers) * text.active_experts * 2 if sampling.record_experts else 0
    sizes = sampling.sizes(images, phrases)
    pages, page = layout(text, sizes.slots, paths.max_new_tokens)
    return RolloutMemory(
        per_slot=per_token * pages * page + 4 * FLOAT32 * logits,
        per_place=per_token * (config.prefix_tokens + phrases * paths.max_prompt_tokens),
        per_sample=paths.max_new_tokens * (TOKEN_BYTES + experts),
        sizes=sizes,
        samples=images * phrases * sampling.group,
    )


def kv_bytes_per_token(config: ModelConfig, itemsize: int = FLOAT32) -> int:
    """Keys and values of one token in all layers; 196,608 for the published model in bfloat16."""
    return 2 * config.text.layers * config.text.width * itemsize


def require_memory(
    config: ModelConfig, sampling: Sampling, images: int, phrases: int, *, parameters: int, available: int
) -> None:
    """Refuses rollouts that cannot fit.

    Args:
      config: the policy's.
      sampling: group and slots.
      images: on one device.
      phrases: per image.
      parameters: bytes of everything else that lives there.
      available: bytes of the device's memory.

    Raises:
      UserError: names what is needed, what there is, and how many slots would fit.
    """
    need = rollout_memory(config, sampling, images, phrases)
    if parameters + need.total <= available:
        return
    fitting = most_slots(config, sampling, images, phrases, available - parameters)
    advice = f"at most {fitting} slots fit: set --slots {fitting}" if fitting else "not even one slot fits"
    raise UserError(
        f"rollouts of {need.samples} samples in {need.sizes.slots} slots need {need.total / GIB:.2f} GiB beside "
        f"{parameters / GIB:.2f} GiB of weights, and the device has {available / GIB:.2f} GiB; {advice}, or fewer "
        "images per batch, or a smaller paths.max_new_tokens"
    )


def most_slots(config: ModelConfig, sampling: Sampling, images: int, phrases: int, free: int) -> int:
    """Most slots whose rollouts fit into `free` bytes; 0 where one is too many."""
    low, high = 0, images * phrases * sampling.group
    while low < high:
        middle = (low + high + 1) // 2
        fewer = dataclasses.replace(sampling, slots=middle)
        fits = rollout_memory(config, fewer, images, phrases).total <= free
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def device_memory() -> int:
    """Bytes of memory of one device: the accelerator's own, or this machine's share of a CPU device."""
    device = jax.local_devices()[0]
    statistics = device.memory_stats()
    if statistics is not None and "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(jax.local_devices())


def bytes_of(tree: object) -> int:
    """Bytes of all arrays of a tree, or of their shapes."""
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
