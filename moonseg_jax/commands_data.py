"""The commands of `moonseg data`: their options; `data_pipelines` does the work."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from moonseg_jax.commands_clean import Clean, MeasureCleaning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """Procedural scenes with phrases that need grounding; exact masks, no download."""

    out: Path
    """Folder of the data set."""
    train: int = 20_000
    """Training scenes."""
    val: int = 1_000
    """Held-out scenes; as many again combine words never seen together in training."""
    seed: int = 0
    """The same seed gives the same scenes."""
    level: int = 2
    """Difficulty, 1 to 4; every figure of the project is taken on 2."""

    def run(self) -> None:
        """Builds the data set.

        Raises:
          UserError: A number is out of range, or the folder cannot be written.
        """
        from data_pipelines.build import build_shapes

        build_shapes(self.out, train=self.train, val=self.val, seed=self.seed, level=self.level)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coco:
    """Photos with COCO annotations; a category's name is the phrase where the photo holds it once."""

    images: Path
    """Folder of the photos."""
    annotations: Path
    """COCO instances JSON."""
    out: Path
    """Folder of the data set."""
    val: int = 0
    """Held-out photos, the last ones; with 0 there is no split `val`."""
    limit: int | None = None
    """Most photos, the first ones that have a phrase; all by default."""
    min_area: float = 0.0
    """Smallest target, as a share of the photo's area."""
    positional: bool = False
    """Categories that a photo holds several times get phrases of place ("left dog") where their order is clear."""
    allow_missing: int = 0
    """Most photos that may be missing or broken; they are left out and listed in missing_images.txt."""

    def run(self) -> None:
        """Builds the data set.

        Raises:
          UserError: A file is missing or not what it should be, or the folder cannot be written.
        """
        from data_pipelines.coco.build import build_coco

        build_coco(
            self.out, images=self.images, annotations=self.annotations, val=self.val, limit=self.limit,
            min_area=self.min_area, positional=self.positional, allow_missing=self.allow_missing,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Refer:
    """Options of every referring data set."""

    name: ClassVar[str]
    source: Annotated[Path, tyro.conf.arg(name="from")]
    """Folder of the expressions and of instances.json, as the authors published them."""
    images: Path
    """Folder of the COCO photos, or of the folders that hold them."""
    out: Path
    """Folder of the data set."""
    limit: int | None = None
    """Most photos of every split, the first ones; all by default."""
    allow_missing: int = 0
    """Most photos that may be missing or broken; they are left out and listed in missing_images.txt."""
    partial: bool = False
    """The files are cut down on purpose: do not compare their counts with the known ones."""

    def build(self, split_by: str) -> None:
        """Builds the data set.

        Raises:
          UserError: A file is missing or not what it should be, or the folder cannot be written.
        """
        from data_pipelines.refer.build import build_refer

        manifest = build_refer(
            self.name, self.out, source=self.source, images=self.images, split_by=split_by, limit=self.limit,
            allow_missing=self.allow_missing, partial=self.partial,
        )  # fmt: skip
        print(f"{self.out}: " + ", ".join(f"{split} {count} photos" for split, count in manifest.splits.items()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefCoco(_Refer):
    """RefCOCO: short expressions for COCO objects, collected in a game; refs(unc).p or refs(google).p."""

    name = "refcoco"
    split_by: Literal["unc", "google"] = "unc"
    """Whose splits."""

    def run(self) -> None:
        """Builds the data set."""
        self.build(self.split_by)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefCocoPlus(_Refer):
    """RefCOCO+: expressions without words of place; refs(unc).p or refs(google).p."""

    name = "refcoco+"
    split_by: Literal["unc", "google"] = "unc"
    """Whose splits."""

    def run(self) -> None:
        """Builds the data set."""
        self.build(self.split_by)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefCocoG(_Refer):
    """RefCOCOg: longer, written expressions; refs(umd).p, or refs(google).p whose splits share photos."""

    name = "refcocog"
    split_by: Literal["umd", "google"] = "umd"
    """Whose splits."""

    def run(self) -> None:
        """Builds the data set."""
        self.build(self.split_by)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GRefCoco(_Refer):
    """gRefCOCO: expressions of none, one or several objects; grefs(unc).json."""

    name = "grefcoco"

    def run(self) -> None:
        """Builds the data set."""
        self.build("unc")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lvis:
    """LVIS v0.5 or v1: a category's name is the phrase, all its instances in the photo are the target."""

    source: Annotated[Path, tyro.conf.arg(name="from")]
    """LVIS annotations, JSON."""
    images: Path
    """Folder of the COCO photos, or of the folders that hold them."""
    out: Path
    """Folder of the data set."""
    split: Literal["train", "val"] = "val"
    """Which split the file is."""
    instances: bool = False
    """An example for every instance, with its own mask, instead of one for every category."""
    limit: int | None = None
    """Most photos, the first ones; all by default."""
    allow_missing: int = 0
    """Most photos that may be missing or broken; they are left out and listed in missing_images.txt."""

    def run(self) -> None:
        """Builds the data set.

        Raises:
          UserError: A file is missing or not what it should be, or the folder cannot be written.
        """
        from data_pipelines.lvis.build import build_lvis

        manifest = build_lvis(
            self.out, source=self.source, images=self.images, split=self.split, instances=self.instances,
            limit=self.limit, allow_missing=self.allow_missing,
        )  # fmt: skip
        print(f"{self.out}: {self.split} {manifest.splits[self.split]} photos")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefCocoM:
    """RefCOCO-M: RefCOCO's validation photos with boundary-accurate masks, from parquet."""

    source: Annotated[Path, tyro.conf.arg(name="from")]
    """Parquet file, or the folder of several."""
    out: Path
    """Folder of the data set."""
    limit: int | None = None
    """Most photos, the first ones; all by default."""
    allow_missing: int = 0
    """Most photos that may be missing or broken; they are left out and listed in missing_images.txt."""
    partial: bool = False
    """The files are cut down on purpose: do not compare their counts with the known ones."""

    def run(self) -> None:
        """Builds the data set.

        Raises:
          UserError: A file is missing or not what it should be, or the folder cannot be written.
        """
        from data_pipelines.refcoco_m.build import build_refcoco_m

        manifest = build_refcoco_m(
            self.out, source=self.source, limit=self.limit, allow_missing=self.allow_missing, partial=self.partial
        )
        print(f"{self.out}: " + ", ".join(f"{split} {count} photos" for split, count in manifest.splits.items()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Union:
    """The training splits of several data sets of COCO photos, without any photo that any of them is judged on."""

    sources: Annotated[tuple[Path, ...], tyro.conf.arg(name="from", metavar="DIR ...")]
    """Folders of built data sets; those that are judged only belong here too."""
    out: Path
    """Folder of the data set."""
    val_from: Path | None = None
    """One of them, whose split `val` becomes the union's, to be judged on while training."""

    def run(self) -> None:
        """Builds the data set.

        Raises:
          UserError: A folder holds no data set of photos, nothing is left, or the folder cannot be written.
        """
        from data_pipelines.union.build import build_union

        manifest = build_union(self.out, sources=self.sources, val_from=self.val_from)
        print(f"{self.out}: " + ", ".join(f"{split} {count} photos" for split, count in manifest.splits.items()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build:
    """Build a data set to train on."""

    dataset: (
        Annotated[Shapes, tyro.conf.subcommand("shapes")]
        | Annotated[Coco, tyro.conf.subcommand("coco")]
        | Annotated[RefCoco, tyro.conf.subcommand("refcoco")]
        | Annotated[RefCocoPlus, tyro.conf.subcommand("refcoco+")]
        | Annotated[RefCocoG, tyro.conf.subcommand("refcocog")]
        | Annotated[GRefCoco, tyro.conf.subcommand("grefcoco")]
        | Annotated[RefCocoM, tyro.conf.subcommand("refcoco-m")]
        | Annotated[Lvis, tyro.conf.subcommand("lvis")]
        | Annotated[Union, tyro.conf.subcommand("union")]
    )

    def run(self) -> None:
        """Builds the chosen data set."""
        self.dataset.run()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Describe:
    """What a data set holds: counts, phrases, areas, parts, holes, lengths of targets, and a contact sheet."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder of the data set."""
    split: str = "train"
    """Which split."""
    preset: Literal["tiny", "small", "moondream3"] = "tiny"
    """Whose tokens the lengths of targets are counted in; moondream3 needs its tokenizer in the working folder."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Most photos, spread evenly over the split; all by default."""
    sheet: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """Contact sheet, a PNG: photos with the outline of a target and its phrase."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Takes all figures."""

    def run(self) -> None:
        """Describes and prints.

        Raises:
          UserError: The folder holds no data set or no such split, or an output cannot be written.
        """
        from data_pipelines.describe.run import describe

        describe(
            self.path, split=self.split, preset=self.preset, limit=self.limit, sheet=self.sheet, json_file=self.json
        )


DataAction = (
    Annotated[Build, tyro.conf.subcommand("build")]
    | Annotated[Describe, tyro.conf.subcommand("describe")]
    | Annotated[Clean, tyro.conf.subcommand("clean")]
    | Annotated[MeasureCleaning, tyro.conf.subcommand("measure-cleaning")]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Build data sets, describe them and clean them."""

    action: DataAction

    def run(self) -> None:
        """Does the chosen action."""
        self.action.run()
