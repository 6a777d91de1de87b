"""Official weights → a checkpoint on disk, one tensor at a time."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer

from moonseg_jax.config import ModelConfig, moondream3
from moonseg_jax.convert.config import Fields, has_sizes, model_config, read_config, refiner_encoder_config
from moonseg_jax.convert.folders import appearing
from moonseg_jax.convert.layered import LayeredWriter
from moonseg_jax.convert.moondream import Keep, fitting_places, import_refiner, slices, with_detected_norm
from moonseg_jax.convert.names import Place
from moonseg_jax.convert.official import OfficialTensors
from moonseg_jax.convert.problems import refuse_not_finite
from moonseg_jax.convert.reading import local_path, open_source
from moonseg_jax.convert.safetensors_file import SafetensorsWriter
from moonseg_jax.errors import UserError
from moonseg_jax.paths.vocabulary import embedded_tokenizer
from moonseg_jax.storage import require_readable
from moonseg_jax.weights import REFINER, write_model_config

TOKENIZER = "tokenizer.json"
REPORT = "import.json"
CONFIG = "config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What was imported; `import.json` of the checkpoint and `--json` hold it."""

    source: str
    naming: str
    """md3 or hf."""
    tensors: int
    """Official tensors, the joint ones counted as two, scales not counted."""
    parameters: int
    refiner_parameters: int
    dtypes: dict[str, int]
    """Parameters by storage type in the checkpoint."""
    largest_tensor_bytes: int
    """Of the official tensors as stored."""
    fp8_tensors: int
    """Experts that were multiplied with their scales."""
    region_layer_norm: bool
    tau_gelu: str
    coord_top: str
    early_layer: int
    tokenizer: bool
    """Whether one lies in the checkpoint."""


def import_checkpoint(
    weights: epath.PathLike,
    out: epath.PathLike,
    *,
    config: epath.PathLike | None = None,
    refiner: epath.PathLike | None = None,
    tokenizer: epath.PathLike | None = None,
    dtype: Keep = "keep",
) -> ImportReport:
    """Streams an official checkpoint into a folder; peak memory is about its largest tensor, twice.

    Args:
      weights: `.safetensors` or `.pt` file, folder, or `hf:OWNER/NAME`.
      out: folder to create; it appears when it is complete.
      config: official `config.json`; without it, the one beside the weights if it has sizes, else the full model.
      refiner: file of the refinement head.
      tokenizer: `tokenizers` JSON file; without it, `tokenizer.json` beside the weights if there is one.
      dtype: `keep`, or one type for all parameters.

    Raises:
      UserError: a file cannot be read or does not fit, or the folder exists.
      TensorsDoNotFit: tensors are missing, unexpected, misshapen or not finite; names them all.
    """
    for address in (weights, config, refiner, tokenizer):
        if address is not None:
            require_readable(address)
    source = local_path(weights)
    fields = _fields(source, config)
    model = model_config(fields) if fields is not None else moondream3()
    tensors = OfficialTensors(open_source(source), str(source))
    model = with_detected_norm(model, tensors)
    places = fitting_places(tensors, model)
    beside = (source if source.is_dir() else source.parent) / TOKENIZER
    vocabulary = epath.Path(tokenizer) if tokenizer is not None else beside if beside.is_file() else None
    if vocabulary is not None:
        check_tokenizer(vocabulary, model)
    if vocabulary is not None and vocabulary.read_text() != embedded_tokenizer(model.paths.tokenizer):
        model = dataclasses.replace(model, paths=dataclasses.replace(model.paths, tokenizer=TOKENIZER))
    head = None
    if refiner is not None:
        head = import_refiner(refiner, refiner_encoder_config(fields) if fields is not None else model, dtype)
    with appearing(epath.Path(out)) as folder:
        dtypes = _stream(places, tensors, folder, dtype)
        if vocabulary is not None:
            vocabulary.copy(folder / TOKENIZER)
        if head is not None:
            write_refiner(folder, head)
        write_model_config(folder, model)
        report = ImportReport(
            source=str(weights), naming=tensors.naming.value, tensors=len(places), parameters=sum(dtypes.values()),
            refiner_parameters=0 if head is None else sum(leaf.size for leaf in flatten_dict(head).values()),
            dtypes=dtypes, largest_tensor_bytes=tensors.largest, fp8_tensors=tensors.quantised,
            region_layer_norm=model.region.layer_norm, tau_gelu=model.text.tau_gelu,
            coord_top=model.region.coord_top, early_layer=model.vision.early_layer, tokenizer=vocabulary is not None,
        )  # fmt: skip
        (folder / REPORT).write_text(json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    return report


def check_tokenizer(file: epath.Path, model: ModelConfig) -> None:
    """Refuses a tokenizer that cannot be read or has ids beyond the embedding.

    Raises:
      UserError: says which and what to do.
    """
    if not file.is_file():
        raise UserError(f"no tokenizer {file}: --tokenizer names a `tokenizers` JSON file")
    try:
        ids = Tokenizer.from_str(file.read_text()).get_vocab(with_added_tokens=True).values()
    except Exception as error:  # The Rust library raises plain Exception.
        raise UserError(f"{file} is no tokenizer that the tokenizers library can read ({error})") from error
    size = max(ids, default=-1) + 1
    if size > model.text.vocabulary:
        raise UserError(
            f"{file} has ids up to {size - 1}, the embedding has {model.text.vocabulary} rows: it belongs to another "
            "model; name the tokenizer of this one"
        )


def write_refiner(folder: epath.Path, head: dict[str, Any]) -> None:
    """Writes the parameters of a refinement head in the format of `weights`, each leaf in its own type."""
    leaves = {"/".join(path): leaf for path, leaf in flatten_dict(head).items()}
    announced = [(name, leaf.dtype, leaf.shape) for name, leaf in leaves.items()]
    with SafetensorsWriter(folder / f"{REFINER}.safetensors", announced, {}) as writer:
        for name, leaf in leaves.items():
            writer.write(name, leaf)


def _fields(source: epath.Path, config: epath.PathLike | None) -> Fields | None:
    if config is not None:
        return read_config(config)
    beside = source / CONFIG
    if not source.is_dir() or not beside.is_file():
        return None
    fields = read_config(beside)
    return fields if has_sizes(fields) else None


def _stream(places: list[Place], tensors: OfficialTensors, folder: epath.Path, dtype: Keep) -> dict[str, int]:
    """Writes the policy; returns the number of parameters by storage type."""
    writer = LayeredWriter(folder)
    counts: dict[str, int] = {}
    broken = []
    shown = track(places, description="import: tensors", console=Console(stderr=True))
    for part in slices(shown, tensors, dtype):
        if isinstance(part, str):
            broken.append(part)
        elif not broken:
            writer.add(part.path, part.layer, part.values)
            counts[part.values.dtype.name] = counts.get(part.values.dtype.name, 0) + part.values.size
        del part  # It would live on while the next one is read.
    refuse_not_finite(broken, tensors.where)
    writer.finish()
    return counts
