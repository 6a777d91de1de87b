"""Official weights → our parameters as nested dicts of host arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import ml_dtypes
import numpy as np
from etils import epath
from flax.traverse_util import unflatten_dict
from jaxtyping import Shaped

from moonseg_jax.config import ModelConfig, moondream3
from moonseg_jax.convert.layouts import Layout, Shape, to_ours
from moonseg_jax.convert.names import Path, Place, policy_places
from moonseg_jax.convert.official import OfficialTensors
from moonseg_jax.convert.problems import compare, refuse, refuse_not_finite
from moonseg_jax.convert.reading import REFINER_HUB_FILES, TensorSource, local_path, open_source
from moonseg_jax.convert.refiner_names import refiner_places
from moonseg_jax.convert.shapes import expected_shapes, policy_shapes, refiner_shapes

Keep = Literal["keep", "bfloat16", "float32"]
"""Storage type of the parameters: that of each official tensor, or one for all."""
_PIECE = 1 << 24
"""Values checked at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """One leaf, or one layer of a stacked leaf, as it was read."""

    path: Path
    layer: int | None
    values: Shaped[np.ndarray, "..."]


def import_policy(
    source: epath.PathLike, config: ModelConfig | None = None, dtype: Keep = "keep"
) -> tuple[ModelConfig, dict[str, Any]]:
    """The policy of an official checkpoint, whole in memory.

    Args:
      source: file, folder or `hf:OWNER/NAME`.
      config: the sizes; None means the published model.
      dtype: `keep` keeps each tensor's type (FP8 becomes float32; a stack takes a type that holds all its layers).

    Returns:
      The config with `region.layer_norm` as the checkpoint has it, and nested dicts of host arrays.

    Raises:
      UserError: the checkpoint cannot be read or is no Moondream 3.
      TensorsDoNotFit: tensors are missing, unexpected, of other shapes or types, or not finite; names them all.
    """
    path = local_path(source)
    tensors = OfficialTensors(open_source(path), str(path))
    config = with_detected_norm(config or moondream3(), tensors)
    places = fitting_places(tensors, config)
    return config, _assemble(slices(places, tensors, dtype), policy_shapes(config), str(path))


def import_vision(source: epath.PathLike, config: ModelConfig, dtype: Keep = "keep") -> dict[str, Any]:
    """The vision encoder alone, from a file that holds nothing else: what a refiner may bring along.

    Returns:
      Nested dicts with the one key `vision`.

    Raises:
      UserError, TensorsDoNotFit: as `import_policy`.
    """
    path = local_path(source)
    tensors = OfficialTensors(open_source(path), str(path))
    places = fitting_places(tensors, config, part="vision")
    shapes = {leaf: shape for leaf, shape in policy_shapes(config).items() if leaf[0] == "vision"}
    return _assemble(slices(places, tensors, dtype), shapes, str(path))


def import_refiner(source: epath.PathLike, config: ModelConfig, dtype: Keep = "keep") -> dict[str, Any]:
    """The refinement head of an official SegHeadRefiner state dict, whole in memory.

    Args:
      source: a `.safetensors` file, or a `.pt` file with the state dict, alone or under the key `head`.
      config: the model whose features the head reads.
      dtype: as for `import_policy`.

    Raises:
      UserError, TensorsDoNotFit: as `import_policy`.
    """
    path = local_path(source, REFINER_HUB_FILES)
    tensors = open_source(path)
    places = list(refiner_places(config.refiner))
    found = {name: (entry.dtype, tuple(entry.shape)) for name, entry in tensors.entries.items()}
    shapes = refiner_shapes(config)
    refuse(compare(expected_shapes(places, shapes), found), str(path))
    return _assemble(slices(places, tensors, dtype), shapes, str(path))


def with_detected_norm(config: ModelConfig, tensors: OfficialTensors) -> ModelConfig:
    """The config with the region LayerNorm exactly if the checkpoint has one (specification §13.2)."""
    present = any(name.startswith(("region_model.ln.", "model.region.ln.")) for name in tensors.entries)
    return dataclasses.replace(config, region=dataclasses.replace(config.region, layer_norm=present))


def fitting_places(tensors: OfficialTensors, config: ModelConfig, part: str | None = None) -> list[Place]:
    """Where the checkpoint's tensors lie in our parameters.

    Args:
      tensors: of the checkpoint.
      config: the model.
      part: `vision`, `text` or `region` alone; None means all.

    Raises:
      TensorsDoNotFit: any tensor is missing, unexpected, or of another shape or type.
    """
    places = [place for place in policy_places(config, tensors.naming) if part in (None, place.paths[0][0])]
    found = {name: (entry.dtype, entry.shape) for name, entry in tensors.entries.items()}
    refuse(compare(expected_shapes(places, policy_shapes(config)), found), tensors.where)
    return places


def slices(places: Iterable[Place], tensors: TensorSource | OfficialTensors, dtype: Keep) -> Iterator[Slice | str]:
    """Reads tensor by tensor; yields each part of ours, or the name of a tensor that is not finite.

    Keeps nothing of what it has yielded, so that one tensor is in memory at a time.
    """
    for place in places:
        parts = _parts(place, tensors, dtype)
        if not parts:
            yield place.name
        while parts:
            path = place.paths[-len(parts)]
            yield Slice(path=path, layer=place.layer, values=parts.pop(0))


def _parts(place: Place, tensors: TensorSource | OfficialTensors, dtype: Keep) -> list[np.ndarray]:
    """The leaves an official tensor holds; none where it is not finite."""
    stored = tensors.entries[place.name]
    target = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}.get(dtype, stored.dtype)
    if place.layout is Layout.TRANSPOSED and len(stored.shape) == 3:
        experts = _experts(place, tensors, target)
        return [experts] if is_finite(experts) else []
    official = tensors.read(place.name)
    if not is_finite(official):
        return []
    halves = np.split(official, len(place.paths))
    return [np.ascontiguousarray(to_ours(place.layout, half), dtype=target) for half in halves]


def is_finite(values: Shaped[np.ndarray, "..."]) -> bool:
    """Whether no value is NaN or infinite; needs memory for a piece only."""
    flat = values.reshape(-1)
    return all(bool(np.isfinite(flat[start : start + _PIECE]).all()) for start in range(0, flat.size, _PIECE))


def _experts(place: Place, tensors: TensorSource | OfficialTensors, dtype: np.dtype) -> np.ndarray:
    """Experts one by one into their final place: memory for the leaf and for one expert."""
    experts, outer, inner = tensors.entries[place.name].shape
    leaf = np.empty((experts, inner, outer), dtype)
    for expert in range(experts):
        leaf[expert] = to_ours(place.layout, tensors.read(place.name, (expert, expert + 1))[0])
    return leaf


def _assemble(parts: Iterable[Slice | str], shapes: Mapping[Path, Shape], where: str) -> dict[str, Any]:
    # A stack without layers has no tensor, but the model looks for its leaves all the same.
    leaves = {path: np.empty(shape, np.float32) for path, shape in shapes.items() if 0 in shape}
    broken = []
    for part in parts:
        if isinstance(part, str):
            broken.append(part)
        elif part.layer is None:
            leaves[part.path] = part.values
        else:
            leaves[part.path] = _with_layer(leaves.get(part.path), part, shapes[part.path][0])
    refuse_not_finite(broken, where)
    return unflatten_dict(leaves)


def _with_layer(stack: np.ndarray | None, part: Slice, layers: int) -> np.ndarray:
    """Writes a layer into its stack, which grows to float32 where its layers are of different types."""
    if stack is None:
        stack = np.empty((layers, *part.values.shape), part.values.dtype)
    elif stack.dtype not in (part.values.dtype, np.float32):
        stack = stack.astype(np.float32)
    stack[part.layer] = part.values
    return stack
