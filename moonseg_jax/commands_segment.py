"""The command `moonseg segment`: one phrase in one image, or many of either."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from moonseg_jax.errors import SomeFailed, UserError
from moonseg_jax.spatial_refs import prompt_references, reference_from_text

if TYPE_CHECKING:
    from moonseg_jax.predict import Segmenter

OUTPUT_KINDS = (".png", ".svg", ".json")
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
SHOWN = 5
"""Names of a list that are told in full."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Segment what phrases name in an image, or in every image of a folder.

    One phrase in one image gives one file. Several phrases, or a folder, give a folder: a mask, a path and an overlay
    for each, and segmentations.jsonl with a line per answer. Exit code 1: some images could not be read.
    """

    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|DIR")]
    """PNG, JPEG or another picture; or a folder of them."""
    phrases: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar='"PHRASE" [...]')]
    """What to segment, each in quotes: "the small red star left of the blue ring"."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """.png for the mask, .svg for its path, .json for paths before and after refinement, boxes, mask and status;
    a folder for several phrases or images."""
    checkpoint: OptionalPath = None
    """Folder of policy weights, such as RUN/best; the shipped ones by default."""
    refiner: OptionalPath = None
    """Folder of refiner weights; by default the checkpoint's own, and the shipped ones with the shipped policy."""
    refine: bool = True
    """Refine the mask that the path draws; --no-refine needs no refiner weights."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Times that the refiner improves its own mask; the model's number by default, 0 for no refinement."""
    guard: bool = False
    """Keep the coarse mask where it overlaps the refined one as well as the refiner expects the truth to."""
    spatial_ref: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="X,Y|X0,Y0,X1,Y1")] = ()
    """A point or box to look at, in units of the image, 0 to 1; may be given several times, for one image. The policy
    must have been trained with them, which the shipped one was not."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 4
    """Rows decoded and masks refined side by side, for several phrases or images."""

    def run(self) -> None:
        """Segments, writes the result and says what it is.

        Raises:
          UserError: The image, a phrase, a checkpoint or the name of the output cannot be used.
          SomeFailed: Some images of the folder cannot be read; the others are answered.
        """
        is_many = self.image.is_dir() or len(self.phrases) > 1
        references = tuple(reference_from_text(text) for text in self.spatial_ref)
        self._check(is_many)
        prompt_references(references)
        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.predict import Segmenter

        keep_compiled_programs()
        segmenter = Segmenter.load(
            self.checkpoint, self.refiner, refine=self.refine, iterations=self.iterations, guard=self.guard,
            batch=self.batch, say=_say,
        )  # fmt: skip
        failed: tuple[str, ...] = ()
        if is_many:
            failed = self._many(segmenter, references)
        else:
            segmentation = segmenter.segment(self.image, self.phrases[0], references)
            segmentation.save(self.out)
            share, sure = f"{segmentation.mask.mean():.1%} of the image", f"presence {segmentation.presence:.2f}"
            print(f"{segmentation.status}: {share}, {sure}, written to {self.out}")
        if self.checkpoint is None:
            _say("answered by the shipped checkpoint, which knows coloured shapes only; --checkpoint names another")
        if failed:
            raise SomeFailed(f"{len(failed)} images cannot be read, the others are answered: {_some(failed)}")

    def _check(self, is_many: bool) -> None:
        """Refuses what cannot work before anything is loaded."""
        if not self.phrases or not all(phrase.strip() for phrase in self.phrases):
            raise UserError('the phrase is empty: say what to segment, for example "the red ring"')
        if not is_many and self.out.suffix.lower() not in OUTPUT_KINDS:
            raise UserError(f"-o {self.out}: the name must end in {', '.join(OUTPUT_KINDS)}")
        if is_many and (self.out.suffix.lower() in OUTPUT_KINDS or self.out.is_file()):
            raise UserError(f"-o {self.out}: several answers go into a folder; name one, without ending")
        if not self.image.exists():
            raise UserError(f"no image {self.image}")
        if not self.out.parent.is_dir():
            raise UserError(f"-o {self.out}: there is no folder {self.out.parent}; make it first")
        if self.image.is_dir() and self.out.resolve() == self.image.resolve():
            raise UserError(f"-o {self.out}: that is the folder of the images; name another")
        if self.image.is_dir() and self.spatial_ref:
            raise UserError("--spatial-ref goes with one image, not with a folder")
        if self.batch < 1:
            raise UserError(f"--batch must be at least 1, got {self.batch}")

    def _many(self, segmenter: Segmenter, references: tuple[tuple[float, ...], ...]) -> tuple[str, ...]:
        """Answers into a folder; the names of files that cannot be read."""
        from moonseg_jax.segment_many import LINES, images_in, segment_many

        files, left_out = images_in(self.image) if self.image.is_dir() else ([self.image], [])
        if left_out:
            _say(f"left out, no images by their names: {_some(left_out)}")
        outcome = segment_many(segmenter, files, self.phrases, self.out, spatial_refs=references)
        nothing = f", {outcome.empty} of them empty" if outcome.empty else ""
        print(f"{outcome.answers} answers{nothing} for {outcome.images} images, written to {self.out / LINES}")
        return outcome.failed


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _say(text: str) -> None:
    print(f"moonseg: {text}", file=sys.stderr)
