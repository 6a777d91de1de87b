"""The commands `moonseg bench …`: measurements on this machine, printed as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from moonseg_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchImport:
    """Measure the peak memory of an import on a generated checkpoint with the published widths."""

    gib: float = 6.0
    """Size of the checkpoint; the disk needs twice as much."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Where to work; a temporary folder by default."""

    def run(self) -> None:
        """Measures and prints the figures as JSON.

        Raises:
          UserError: The size is out of range, or the import failed.
        """
        from moonseg_jax.bench.importing import bench_import

        print(json.dumps(bench_import(self.gib, self.folder), indent=2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchCompile:
    """Measure how long the forward pass of a preset takes to lower and compile, from shapes alone."""

    preset: Literal["tiny", "small", "moondream3"] = "moondream3"
    """Sizes of the model."""

    def run(self) -> None:
        """Measures and prints the figures as JSON."""
        from moonseg_jax.bench.compiling import bench_compile

        print(json.dumps(bench_compile(self.preset), indent=2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchExperts:
    """Measure the routed experts of the full model against dense products of the same useful work."""

    tokens: tuple[int, ...] = (1, 16, 128, 730, 2048)
    """Token counts; 730 is an image."""
    repeats: int = 5
    """The fastest of so many calls counts."""
    tpu: Annotated[str | None, tyro.conf.arg(metavar="TOPOLOGY")] = None
    """Instead of measuring here, let the TPU compiler count FLOPs for a topology such as v5e:2x2; needs jax[tpu]."""

    def run(self) -> None:
        """Measures and prints the figures as JSON, a line for every token count.

        Raises:
          UserError: A token count below 1, or no TPU compiler.
        """
        if min(self.tokens, default=0) < 1:
            raise UserError("--tokens: counts of tokens are 1 or more")
        if self.tpu is None:
            from moonseg_jax.bench.experts import bench_experts

            lines: Iterable[object] = bench_experts(self.tokens, repeats=self.repeats)
        else:
            from moonseg_jax.bench.experts_on_tpu import count_on_tpu

            lines = count_on_tpu(self.tokens, self.tpu)
        for figures in lines:
            print(json.dumps(figures), flush=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchRaster:
    """Measure masks per second of the raster beside OpenCV, pycocotools and the published engine's way."""

    size: int = 378
    """Pixels along each side of a mask."""
    edges: int = 128
    """Edges of every path."""
    batch: int = 256
    """Masks."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the figures, besides printing them."""

    def run(self) -> None:
        """Measures and prints the figures as JSON.

        Raises:
          UserError: A count out of range, or the file cannot be written.
        """
        for name, count, least in (("size", self.size, 1), ("edges", self.edges, 3), ("batch", self.batch, 1)):
            if count < least:
                raise UserError(f"--{name} must be {least} or more, got {count}")
        if self.json is not None and not self.json.parent.is_dir():
            raise UserError(
                f"--json {self.json}: there is no folder {self.json.parent}; create it or name another file"
            )
        from moonseg_jax.bench.raster import bench_raster

        text = json.dumps(bench_raster(self.size, self.edges, self.batch), indent=2)
        print(text)
        if self.json is not None:
            try:
                self.json.write_text(text + "\n", encoding="utf-8")
            except OSError as error:
                raise UserError(f"--json {self.json}: {error.strerror}; name another file") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchTrace:
    """Measure how close traced paths come to the masks of a COCO or LVIS annotation file."""

    annotations: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """The instances file."""
    tolerance: float = 0.5
    """Of the simplification, in pixels."""
    crowds: bool = False
    """Measure masks of groups too."""

    def run(self) -> None:
        """Measures and prints the figures as JSON.

        Raises:
          UserError: The file or a segmentation in it is not what COCO says, or there is no mask.
        """
        from moonseg_jax.bench.tracing import bench_tracing

        print(json.dumps(bench_tracing(self.annotations, tolerance=self.tolerance, crowds=self.crowds), indent=2))


BenchAction = (
    Annotated[BenchImport, tyro.conf.subcommand("import")]
    | Annotated[BenchCompile, tyro.conf.subcommand("compile")]
    | Annotated[BenchExperts, tyro.conf.subcommand("experts")]
    | Annotated[BenchTrace, tyro.conf.subcommand("trace")]
    | Annotated[BenchRaster, tyro.conf.subcommand("raster")]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure speed and memory on this machine."""

    action: BenchAction

    def run(self) -> None:
        """Measures what was chosen."""
        self.action.run()
