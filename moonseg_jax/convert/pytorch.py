"""Our checkpoint → official PyTorch names: sharded safetensors with an index and `config.json`, tensor by tensor."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping

import ml_dtypes
import numpy as np
from etils import epath
from jaxtyping import Shaped
from rich.console import Console
from rich.progress import track

from moonseg_jax.config import ModelConfig
from moonseg_jax.convert.config import official_fields
from moonseg_jax.convert.folders import appearing
from moonseg_jax.convert.importing import CONFIG, TOKENIZER
from moonseg_jax.convert.layouts import Shape, to_official
from moonseg_jax.convert.moondream import Keep
from moonseg_jax.convert.names import Naming, Place, policy_places
from moonseg_jax.convert.reading import INDEX
from moonseg_jax.convert.refiner_names import refiner_places
from moonseg_jax.convert.safetensors_file import SafetensorsWriter
from moonseg_jax.convert.shapes import expected_shapes, policy_shapes
from moonseg_jax.convert.stored import StackedFile, StoredLeaves, open_policy
from moonseg_jax.errors import UserError
from moonseg_jax.paths.vocabulary import embedded_tokenizer
from moonseg_jax.storage import place, require_readable
from moonseg_jax.weights import REFINER, load_model_config

METADATA = {"format": "pt"}
"""What PyTorch loaders look for in a safetensors header."""
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Announced:
    """An official tensor that will be written."""

    place: Place
    dtype: np.dtype
    shape: Shape

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported."""

    files: tuple[str, ...]
    tensors: int
    bytes: int
    refiner_tensors: int
    not_written: tuple[str, ...]
    """Files left out, and why."""


def parse_size(text: str) -> int:
    """Bytes of a size such as `5GiB`, `500MB` or `1000000`.

    Raises:
      UserError: it is no positive size.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMG]I?B)?", text.strip().upper())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise UserError(f"--max-shard {text}: a size is a number with KiB, MiB, GiB, KB, MB or GB, for example 5GiB")
    return size


def export_checkpoint(
    checkpoint: epath.PathLike,
    out: epath.PathLike,
    *,
    naming: Naming,
    refiner: bool = False,
    refiner_from: epath.PathLike | None = None,
    dtype: Keep = "keep",
    max_shard: int = 5 << 30,
) -> ExportReport:
    """Writes a checkpoint under official names; needs memory for its largest leaf, about twice.

    Args:
      checkpoint: folder written by `moonseg import` or by training.
      out: folder to create; it appears when it is complete.
      naming: of the policy's tensors.
      refiner: also write the refinement head, as safetensors and, where PyTorch is installed, as `.pt`.
      refiner_from: folder that holds it; the checkpoint itself by default.
      dtype: `keep`, or one type for all tensors.
      max_shard: bytes; a shard holds more only if a single tensor does.

    Raises:
      UserError: the checkpoint is missing, broken or lacks what is asked for, or `out` exists.
    """
    require_readable(checkpoint)
    source = epath.Path(checkpoint)
    config = load_model_config(place(source))
    policy = open_policy(source)
    head_folder = epath.Path(refiner_from) if refiner_from is not None else source
    head = head_folder / f"{REFINER}.safetensors"
    if policy is None and not refiner:
        raise UserError(f"{source} holds no policy; --refiner exports a refiner alone")
    if refiner and not head.is_file():
        raise UserError(
            f"{head_folder} holds no refiner ({head.name} is missing); name its folder with --refiner-from, or leave "
            "out --refiner"
        )
    if refiner and refiner_from is not None:
        _refuse_other_sizes(head_folder, config)
    left_out: list[str] = []
    plan: list[Announced] = []
    refiner_plan: list[Announced] = []
    with appearing(epath.Path(out)) as folder:
        if policy is not None:
            shapes = policy_shapes(config)
            policy.check(shapes)
            plan = _plan(expected_shapes(policy_places(config, naming), shapes), policy, dtype)
            _write_shards(folder, plan, policy, max_shard)
            fields = official_fields(config, naming.value)
            (folder / CONFIG).write_text(json.dumps(fields, indent=1) + "\n")
        if refiner:
            refiner_plan = _write_refiner(folder, config, StackedFile(head), dtype, left_out)
        _write_tokenizer(folder, source, config.paths.tokenizer)
        files = tuple(sorted(file.name for file in folder.iterdir()))
    return ExportReport(
        files=files, tensors=len(plan), bytes=sum(tensor.size for tensor in plan), refiner_tensors=len(refiner_plan),
        not_written=tuple(left_out),
    )  # fmt: skip


def _refuse_other_sizes(head_folder: epath.Path, config: ModelConfig) -> None:
    """Refuses a refiner that was trained on the features of another model."""
    own = load_model_config(place(head_folder))
    if (own.refiner, own.vision) != (config.refiner, config.vision):
        raise UserError(
            f"--refiner-from {head_folder}: its refiner goes with other sizes ({own.name}) than this policy's "
            f"({config.name})"
        )


def official_tensors(
    plan: Iterable[Announced], leaves: StoredLeaves
) -> Iterator[tuple[Announced, Shaped[np.ndarray, "..."]]]:
    """The official tensors of a plan, in its order, not yet cast."""
    plan = list(plan)
    values = leaves.read((path, tensor.place.layer) for tensor in plan for path in tensor.place.paths)
    for tensor in plan:
        parts = [to_official(tensor.place.layout, next(values)[1]) for _ in tensor.place.paths]
        yield tensor, parts[0] if len(parts) == 1 else np.concatenate(parts)


def shards(plan: Iterable[Announced], max_shard: int) -> list[list[Announced]]:
    """Cuts a plan, in its order, into shards of at most `max_shard` bytes, or of one tensor."""
    cut: list[list[Announced]] = []
    filled = 0
    for tensor in plan:
        if not cut or filled + tensor.size > max_shard:
            cut.append([])
            filled = 0
        cut[-1].append(tensor)
        filled += tensor.size
    return cut


def _plan(places: Iterable[tuple[Place, Shape]], leaves: StoredLeaves, dtype: Keep) -> list[Announced]:
    fixed = {"bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}.get(dtype)
    return [
        Announced(
            place=place,
            dtype=fixed or np.result_type(*(leaves.dtype(path, place.layer) for path in place.paths)),
            shape=shape,
        )
        for place, shape in places
    ]


def _write_shards(folder: epath.Path, plan: list[Announced], leaves: StoredLeaves, max_shard: int) -> None:
    cut = shards(plan, max_shard)
    tensors = official_tensors(plan, leaves)
    weight_map = {}
    for number, shard in enumerate(cut, 1):
        file = f"model-{number:05d}-of-{len(cut):05d}.safetensors"
        with SafetensorsWriter(folder / file, _header(shard), METADATA) as writer:
            for tensor in track(shard, description=f"export: {file}", console=Console(stderr=True)):
                writer.write(tensor.place.name, next(tensors)[1])
                weight_map[tensor.place.name] = file
    index = {"metadata": {"total_size": sum(tensor.size for tensor in plan)}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def _header(plan: Iterable[Announced]) -> list[tuple[str, np.dtype, Shape]]:
    return [(tensor.place.name, tensor.dtype, tensor.shape) for tensor in plan]


def _write_refiner(
    folder: epath.Path, config: ModelConfig, head: StackedFile, dtype: Keep, left_out: list[str]
) -> list[Announced]:
    shapes = head.shapes
    places = list(refiner_places(config.refiner))
    head.check({path: shapes.get(path, ()) for place in places for path in place.paths})
    plan = _plan(expected_shapes(places, shapes), head, dtype)
    state = {
        tensor.place.name: np.ascontiguousarray(values, tensor.dtype) for tensor, values in official_tensors(plan, head)
    }
    with SafetensorsWriter(folder / f"{REFINER}.safetensors", _header(plan), METADATA) as writer:
        for name, values in state.items():
            writer.write(name, values)
    if not _write_torch(folder / f"{REFINER}.pt", state):
        left_out.append(f"{REFINER}.pt: PyTorch is not installed")
    return plan


def _write_tokenizer(folder: epath.Path, source: epath.Path, name: str) -> None:
    """Copies the checkpoint's own tokenizer, or writes the embedded one of its config."""
    if (source / TOKENIZER).is_file():
        (source / TOKENIZER).copy(folder / TOKENIZER)
    elif (text := embedded_tokenizer(name)) is not None:
        (folder / TOKENIZER).write_text(text)


def _write_torch(file: epath.Path, state: Mapping[str, np.ndarray]) -> bool:
    """Writes `{"head": state dict}` as the official refiner file does; False where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return False

    def tensor(values: np.ndarray) -> torch.Tensor:
        if values.dtype == ml_dtypes.bfloat16:
            return torch.from_numpy(values.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(values.copy())

    with file.open("wb") as target:
        torch.save({"head": {name: tensor(values) for name, values in state.items()}}, target)
    return True
