"""The commands that carry weights in and out: `moonseg import` and `moonseg export`."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Literal

import tyro

from moonseg_jax.errors import UserError

OptionalName = Annotated[str | None, tyro.conf.arg(metavar="PATH")]
Name = Annotated[str, tyro.conf.arg(metavar="PATH")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import:
    """Turn official Moondream 3 weights into a checkpoint, tensor by tensor.

    Knows both namings (`text_model.…` and `model.text.…`), FP8 experts, one file or shards with an index.
    """

    weights: Annotated[str, tyro.conf.arg(metavar="FILE|DIR|hf:OWNER/NAME")]
    """.safetensors or .pt file, a folder of shards, or a Hugging Face repository to download."""
    out: Name
    """Folder of the checkpoint; it appears when it is complete."""
    config: OptionalName = None
    """config.json with other sizes; the one beside the weights if it has sizes, else the full model, by default."""
    refiner: OptionalName = None
    """Weights of the refinement head (SegHeadRefiner), .safetensors or .pt."""
    tokenizer: OptionalName = None
    """tokenizer.json to keep with the checkpoint; the one beside the weights by default."""
    dtype: Literal["keep", "bfloat16", "float32"] = "keep"
    """Storage type; keep leaves every tensor as it is, and FP8 becomes float32."""
    json: OptionalName = None
    """File for what was found: figures, or everything that does not fit."""

    def run(self) -> None:
        """Imports and says what it was.

        Raises:
          UserError: A file cannot be read or does not fit, or the folder exists.
        """
        _require_folder_of(self.json)
        from moonseg_jax.convert.importing import import_checkpoint
        from moonseg_jax.convert.problems import TensorsDoNotFit

        try:
            report = import_checkpoint(
                self.weights, self.out, config=self.config, refiner=self.refiner, tokenizer=self.tokenizer,
                dtype=self.dtype,
            )  # fmt: skip
        except UserError as error:
            problems = error.problems if isinstance(error, TensorsDoNotFit) else {}
            _write_json(self.json, {"ok": False, "error": str(error), "problems": problems})
            raise
        _write_json(self.json, {"ok": True, **dataclasses.asdict(report)})
        kinds = ", ".join(f"{count:,} {dtype}" for dtype, count in report.dtypes.items())
        print(f"{report.tensors} tensors ({report.naming} names), parameters: {kinds}; written to {self.out}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """Write a checkpoint as safetensors under the official PyTorch names."""

    checkpoint: Name
    """Folder of the checkpoint, imported or trained."""
    format: Literal["hf", "md3"]
    """Naming: model.text.… (hf) or text_model.… (md3)."""
    out: Name
    """Folder to create; it appears when it is complete."""
    refiner: bool = False
    """Also write the refinement head: refiner.safetensors, and refiner.pt where PyTorch is installed."""
    refiner_from: OptionalName = None
    """Folder of the refiner, such as RUN/last of its stage; the checkpoint itself by default."""
    dtype: Literal["keep", "bfloat16", "float32"] = "keep"
    """Storage type of all tensors."""
    max_shard: Annotated[str, tyro.conf.arg(metavar="SIZE")] = "5GiB"
    """Largest size of one file."""

    def run(self) -> None:
        """Exports and says what was written.

        Raises:
          UserError: The checkpoint cannot be used, or the folder exists.
        """
        from moonseg_jax.convert.names import Naming
        from moonseg_jax.convert.pytorch import export_checkpoint, parse_size

        refiner = self.refiner or self.refiner_from is not None
        report = export_checkpoint(
            self.checkpoint, self.out, naming=Naming(self.format), refiner=refiner, refiner_from=self.refiner_from,
            dtype=self.dtype, max_shard=parse_size(self.max_shard),
        )  # fmt: skip
        for why in report.not_written:
            print(f"not written: {why}")
        print(f"{report.tensors} tensors and {report.refiner_tensors} of the refiner, written to {self.out}")


def _require_folder_of(file: str | None) -> None:
    """Refuses a file in a folder that does not exist, before minutes of work go into it."""
    from etils import epath

    if file is not None and not epath.Path(file).parent.is_dir():
        raise UserError(f"--json {file}: there is no folder {epath.Path(file).parent}; make it first")


def _write_json(file: str | None, content: dict[str, object]) -> None:
    if file is not None:
        from etils import epath

        epath.Path(file).write_text(json.dumps(content, indent=2) + "\n")
