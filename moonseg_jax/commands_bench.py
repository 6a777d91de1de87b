"""The commands `moonseg bench …`: measurements on this machine, printed as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

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
        check_json(self.json)
        from moonseg_jax.bench.raster import bench_raster

        write_json(bench_raster(self.size, self.edges, self.batch), self.json)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchRollout:
    """Measure the rollout engine beside PyTorch decoding the same prompts in fixed batches."""

    preset: Literal["tiny", "small", "moondream3"] = "tiny"
    """Sizes of the model; the published ones, with --slots 256, are for an accelerator."""
    images: int = 64
    """Prompts, one per image, with 8 samples each."""
    slots: int = 32
    """Sequences side by side."""
    repeats: int = 2
    """The fastest of so many calls counts."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the figures, besides printing them."""

    def run(self) -> None:
        """Measures and prints the figures as JSON.

        Raises:
          UserError: A count out of range, or the file cannot be written.
        """
        for name, count, least in (("images", self.images, 4), ("slots", self.slots, 8), ("repeats", self.repeats, 1)):
            if count < least:
                raise UserError(f"--{name} must be {least} or more, got {count}")
        if self.slots % 8 or self.slots > 8 * self.images:
            raise UserError(f"--slots must be a multiple of 8, at most 8 x --images = {8 * self.images}")
        check_json(self.json)
        from moonseg_jax.bench.rollout.report import bench_rollout
        from moonseg_jax.compilation import one_cpu_device_per_core

        one_cpu_device_per_core()
        figures = bench_rollout(self.preset, images=self.images, slots=self.slots, repeats=self.repeats, tell=_tell)
        write_json(figures, self.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchData:
    """Measure whether training waits for its data: the loader alone, the step alone, and a run of both."""

    preset: Literal["tiny", "small"] = "small"
    """Sizes of the model."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Built data set with a split `train`; embedded scenes by default."""
    images_per_batch: int = 8
    """Images of a step."""
    phrases_per_image: int = 3
    """Phrases of an image."""
    crops: int = 1
    """Crops of an image: 1 where every image fits one, else 1 + model.vision.max_tiles."""
    steps: int = 20
    """Steps that are timed."""
    threads: int = 1
    """That read, decode and trace; the default of training."""

    def run(self) -> None:
        """Measures and prints the figures as JSON.

        Raises:
          UserError: An option is out of range, or the data cannot be used.
        """
        counts = {name: getattr(self, name) for name in ("images_per_batch", "phrases_per_image", "crops", "steps")}
        for name, count in counts.items():
            if count < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {count}")
        if self.threads < 0:
            raise UserError(f"--threads must not be negative, got {self.threads}")
        from moonseg_jax.bench.data import bench_data
        from moonseg_jax.compilation import keep_compiled_programs

        keep_compiled_programs()
        print(json.dumps(bench_data(preset=self.preset, data=self.data, threads=self.threads, **counts), indent=2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchRefine:
    """Measure the refiner beside PyTorch refining the same crops with the same weights."""

    preset: Literal["tiny", "small"] = "tiny"
    """Sizes of the model."""
    batches: tuple[int, ...] = (1, 8, 32)
    """Crops side by side."""
    repeats: int = 5
    """The fastest of so many calls counts."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the figures, besides printing them."""

    def run(self) -> None:
        """Measures and prints the figures as JSON.

        Raises:
          UserError: A count out of range, or the file cannot be written.
        """
        for name, count in (("batches", min(self.batches, default=0)), ("repeats", self.repeats)):
            if count < 1:
                raise UserError(f"--{name} must be 1 or more, got {count}")
        check_json(self.json)
        from moonseg_jax.compilation import one_cpu_device_per_core

        one_cpu_device_per_core()
        from moonseg_jax.bench.refine.report import bench_refine

        write_json(bench_refine(self.preset, batches=self.batches, repeats=self.repeats, tell=_tell), self.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchScale:
    """Count what a step of tiny takes on 1, 2, 4, 8 fake devices: FLOPs, bytes per device, exchanges (weak scaling)."""

    stage: Literal["sft", "rl-learn", "rl-rollout", "refine"] = "sft"
    """Which step, as of `moonseg plan`."""
    devices: tuple[int, ...] = (1, 2, 4, 8)
    images_per_device: int = 8
    axis: Literal["data", "fsdp", "expert", "tensor"] = "fsdp"
    """Of the mesh that the devices lie along."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the figures there."""

    def run(self) -> None:
        """Counts and prints the figures as JSON.

        Raises:
          UserError: A number is out of range, or the mesh does not fit.
        """
        if not self.devices or min(self.devices) < 1 or self.images_per_device < 1:
            raise UserError("--devices and --images-per-device must be at least 1")
        check_json(self.json)
        from moonseg_jax.bench.scale import bench_scale

        rows = bench_scale(self.stage, self.devices, self.images_per_device, self.axis, _tell)
        write_json({"stage": self.stage, "axis": self.axis, "rows": rows}, self.json)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchPresence:
    """Measure whether an answer of the shipped weights tells that its object is not there."""

    scenes: int = 150
    """Held-out scenes, each with up to four phrases, half of them of absent objects."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the figures there."""

    def run(self) -> None:
        """Measures and prints the figures as JSON.

        Raises:
          UserError: The number of scenes is out of range.
        """
        if self.scenes < 1:
            raise UserError(f"--scenes must be at least 1, got {self.scenes}")
        check_json(self.json)
        from moonseg_jax.bench.presence import bench_presence

        write_json(bench_presence(self.scenes, _tell), self.json)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def check_json(file: Path | None) -> None:
    """Refuses a place that cannot be written to before the work.

    Raises:
      UserError: the folder is missing.
    """
    if file is not None and not file.parent.is_dir():
        raise UserError(f"--json {file}: there is no folder {file.parent}; create it or name another file")


def write_json(figures: dict[str, Any], file: Path | None) -> None:
    """Prints figures, and writes them where a file is named.

    Raises:
      UserError: the file cannot be written.
    """
    text = json.dumps(figures, indent=2)
    print(text)
    if file is not None:
        try:
            file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {file}: {error.strerror}; name another file") from error


BenchAction = (
    Annotated[BenchImport, tyro.conf.subcommand("import")]
    | Annotated[BenchCompile, tyro.conf.subcommand("compile")]
    | Annotated[BenchExperts, tyro.conf.subcommand("experts")]
    | Annotated[BenchTrace, tyro.conf.subcommand("trace")]
    | Annotated[BenchRaster, tyro.conf.subcommand("raster")]
    | Annotated[BenchRollout, tyro.conf.subcommand("rollout")]
    | Annotated[BenchData, tyro.conf.subcommand("data")]
    | Annotated[BenchRefine, tyro.conf.subcommand("refine")]
    | Annotated[BenchScale, tyro.conf.subcommand("scale")]
    | Annotated[BenchPresence, tyro.conf.subcommand("presence")]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure speed and memory on this machine."""

    action: BenchAction

    def run(self) -> None:
        """Measures what was chosen."""
        self.action.run()
