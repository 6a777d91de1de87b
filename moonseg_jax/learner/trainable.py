"""Which parameters a run trains: all, all but frozen parts, or low-rank changes of matrices that stay as they are.

What is trained goes through gradients, optimizer and averages; what is frozen lies beside it in the learner's state.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from moonseg_jax.config import ConfigError
from moonseg_jax.model.low_rank import BESIDE, INTO, OUT_OF
from moonseg_jax.partition import SMALLEST_SPLIT, split_parameters

FACTORS = "factors"
"""Where the low-rank factors lie in the trained tree."""
Target = Literal["attention", "experts"]
_PATTERNS: dict[Target, str] = {
    "attention": r"^text/(dense|routed)/attn/(qkv|proj)/kernel$",
    "experts": r"^text/routed/moe/(up|down)$",
}
RANKS = (8, 64)
"""Least and most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adaptation (Hu et al. 2021): W + alpha / rank * A B, of which A and B are trained."""

    rank: int = 0
    """Columns of A, 8 to 64; 0 trains the matrices themselves."""
    alpha: float = 32.0
    targets: tuple[Target, ...] = ("attention", "experts")
    """Matrices of the text decoder that get factors; everything else is frozen."""
    base_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen matrices in memory; bfloat16 rounds them once, at the start."""

    def __post_init__(self) -> None:
        """Refuses what trains nothing.

        Raises:
          ConfigError: names the setting.
        """
        if self.rank and not RANKS[0] <= self.rank <= RANKS[1]:
            raise ConfigError(f"lora.rank is {self.rank}: it must be 0, or {RANKS[0]} to {RANKS[1]}")
        if not self.alpha > 0:
            raise ConfigError(f"lora.alpha is {self.alpha}: it must be above 0")
        unknown = [name for name in self.targets if name not in _PATTERNS]
        if unknown or not self.targets:
            raise ConfigError(f"lora.targets is {self.targets}: name some of {', '.join(_PATTERNS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainable:
    """How a policy's parameters divide into what is trained and what is frozen."""

    freeze: tuple[str, ...] = ()
    """Top-level parts that stay as they are."""
    lora: LoraConfig = LoraConfig()

    def divide(self, params: Any, seed: int = 0) -> tuple[Any, Any]:
        """What is trained, and what is frozen (None where nothing is).

        Args:
          params: the policy's, on the host or as shapes.
          seed: of the factors A, normal with variance 1 / inputs; B is zero, so that nothing changes at first.
        """
        if self.lora.rank:
            return {FACTORS: self._factors(params, seed)}, jax.tree.map(self._base, params)
        frozen = {name: params[name] for name in self.freeze}
        return {name: part for name, part in params.items() if name not in frozen}, frozen or None

    def whole(self, trained: Any, frozen: Any) -> Any:
        """The policy's parameters again, factors beside their matrices, B times alpha / rank: what learns and samples.

        Not compiled, it copies nothing but B.
        """
        if not self.lora.rank:
            return {**trained, **(frozen or {})}
        flat, scale = flatten_dict(frozen, sep="/"), self.lora.alpha / self.lora.rank
        for name, factor in flatten_dict(trained[FACTORS], sep="/").items():
            path, _, which = name.rpartition("/")
            flat[f"{path}{BESIDE}/{which}"] = factor * scale if which == OUT_OF else factor
        return unflatten_dict(flat, sep="/")

    def merged(self, trained: Any, frozen: Any) -> Any:
        """The policy's parameters with factors added to their matrices: what is evaluated and exported.

        Runs inside jit where there are factors. They are added in float32, whatever the base is kept in: next to
        weights in bfloat16 small changes would vanish.
        """
        if not self.lora.rank:
            return self.whole(trained, frozen)
        flat, scale = flatten_dict(frozen, sep="/"), self.lora.alpha / self.lora.rank
        factors = flatten_dict(trained[FACTORS], sep="/")
        for path in {name.rpartition("/")[0] for name in factors}:
            change = scale * (factors[f"{path}/{INTO}"] @ factors[f"{path}/{OUT_OF}"])
            flat[path] = flat[path].astype(jnp.float32) + change
        return split_parameters(unflatten_dict(flat, sep="/"))

    def shapes(self, params: Any) -> Any:
        """Of what `whole` gives, from those of the policy's parameters."""
        return jax.eval_shape(self.whole, *self.divide(params))

    def _factors(self, params: Any, seed: int) -> Any:
        rng, rank = np.random.default_rng(seed), self.lora.rank
        found: dict[str, Any] = {}
        for path, leaf in flatten_dict(params, sep="/").items():
            if not any(re.search(_PATTERNS[target], path) for target in self.lora.targets):
                continue
            *stacked, inputs, outputs = leaf.shape
            shapes = (*stacked, inputs, rank), (*stacked, rank, outputs)
            pair: tuple[Any, ...] = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                drawn = rng.normal(0.0, inputs**-0.5, shapes[0]).astype(np.float32)
                pair = drawn, np.zeros(shapes[1], np.float32)
            found[f"{path}/{INTO}"], found[f"{path}/{OUT_OF}"] = pair
        return unflatten_dict(found, sep="/")

    def _base(self, leaf: Any) -> Any:
        dtype = jnp.dtype(self.lora.base_dtype)
        if math.prod(leaf.shape) < SMALLEST_SPLIT:
            return leaf  # Norms, biases and frequencies.
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, dtype)
        return np.asarray(leaf).astype(dtype)


EVERYTHING = Trainable()
