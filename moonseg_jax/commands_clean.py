"""The commands `moonseg data clean` and `moonseg data measure-cleaning`: masks drawn again by an ensemble."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from moonseg_jax.errors import UserError

if TYPE_CHECKING:
    from moonseg_jax.clean.ensemble import EnsembleSettings
    from moonseg_jax.clean.rule import Rule

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cleaning:
    """Options of the ensemble and of the rule."""

    checkpoint: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="CKPT [CKPT …]")] = ()
    """Folders of refiner weights, each with its policy or without; the shipped refiner by default, which knows the
    embedded coloured shapes only."""
    policy: OptionalPath = None
    """Policy whose vision encoder feeds the checkpoints that hold none; the shipped one by default."""
    starts: int = 5
    """Starts of every checkpoint: the annotated outline, and outlines with moved vertices in moved crops."""
    jitter: float = 0.05
    """Standard deviation of a moved vertex, as a share of the object's size."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Times that a refiner improves its own mask; the model's number by default."""
    refine_batch: int = 16
    """Crops that are refined side by side."""
    seed: int = 0
    """Seed of the starts."""
    ask_policy: bool = False
    """Also ask the first checkpoint's policy for every phrase and drop masks that it does not draw: this notices the
    outline of a wrong object. Not for a set on which this policy will be judged: it would lose what it gets wrong."""
    min_agreement: float = 0.75
    """Least mean IoU over pairs of members."""
    min_stay: float = 0.7
    """Least IoU of the members' mask with the annotation, the holes of both filled."""
    min_phrase_iou: float = 0.5
    """Least mean IoU with what the policy draws for the phrases; counts only with --ask-policy."""

    def ensemble_settings(self) -> EnsembleSettings:
        """Starts and iterations.

        Raises:
          UserError: One of them is out of range.
        """
        from moonseg_jax.clean.ensemble import EnsembleSettings

        if self.refine_batch < 1:
            raise UserError(f"--refine-batch must be at least 1, got {self.refine_batch}")
        return EnsembleSettings(starts=self.starts, jitter=self.jitter, iterations=self.iterations, seed=self.seed)

    def rule(self) -> Rule:
        """The thresholds.

        Raises:
          UserError: One of them is out of range.
        """
        from moonseg_jax.clean.rule import Rule

        return Rule(min_agreement=self.min_agreement, min_stay=self.min_stay, min_phrase_iou=self.min_phrase_iou)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clean(_Cleaning):
    """Draw every mask of a referring data set again with an ensemble; keep those on which it agrees, say why not.

    Writes RefCOCO-M's format (parquet), kept.jsonl, dropped.jsonl with reasons and numbers, contact_sheet.png and
    clean.json. Given again it goes on where it stopped; other thresholds or words cost no second measuring.
    """

    data: Path
    """Data set built by `moonseg data build`."""
    out: Path
    """Folder for what is kept and what is not."""
    split: str = "val"
    """Split of that data set."""
    words: OptionalPath = None
    """Text file, a word or phrase a line, # for comments: phrases that say one of them are dropped."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Most images, the first ones; all by default."""

    def run(self) -> None:
        """Cleans and says what became of everything.

        Raises:
          UserError: The data, the weights, the word list or the folder cannot be used, or an option is out of range.
        """
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit must be at least 1 image, got {self.limit}")
        from moonseg_jax.clean.ensemble import SHIPPED_KNOWS
        from moonseg_jax.clean.run import CleanSettings, clean
        from moonseg_jax.compilation import keep_compiled_programs

        settings = CleanSettings(
            data=self.data, split=self.split, out=self.out, checkpoints=self.checkpoint, policy=self.policy,
            ensemble=self.ensemble_settings(), ask_policy=self.ask_policy, rule=self.rule(), words=self.words,
            limit=self.limit, batch=self.refine_batch,
        )  # fmt: skip
        if not self.checkpoint:
            print(f"note: {SHIPPED_KNOWS}", file=sys.stderr)
        if self.words is None:
            print("note: phrases are not screened; --words FILE names a list", file=sys.stderr)
        keep_compiled_programs()
        counts = clean(settings)
        print(
            f"{self.out}: kept {counts.kept_instances} of {counts.instances} instances, {counts.kept_phrases} of "
            f"{counts.phrases} phrases, {counts.kept_images} of {counts.images} images"
        )
        for what, reasons in (("instances", counts.dropped_instances), ("phrases", counts.dropped_phrases)):
            for reason, count in reasons.most_common():
                print(f"  dropped {count} {what}: {reason}")
        if counts.unanswered:
            print(f"  kept {counts.unanswered} instances unasked: the policy can say none of their phrases")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureCleaning(_Cleaning):
    """Measure what `moonseg data clean` does where the truth is known: embedded scenes with polygon annotations,
    some of them wrong. Prints Markdown tables.
    """

    scenes: int = 200
    """How many scenes, none of them ever used in training."""
    wrong: float = 0.25
    """Share of objects whose annotation is wrong: of another object, shifted, merged with a neighbour, cut."""
    scene_seed: int = 0
    """Other scenes and other annotations for every seed; the default thresholds were chosen on seed 100."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="PATH")] = None
    """JSON file for the figures; the tables are printed in any case."""

    def run(self) -> None:
        """Measures and prints.

        Raises:
          UserError: The weights cannot be used, or an option is out of range.
        """
        if self.out is not None and not self.out.parent.is_dir():
            raise UserError(f"-o {self.out}: there is no folder {self.out.parent}; make it first")
        settings, rule = self.ensemble_settings(), self.rule()
        from moonseg_jax.clean.ensemble import find_members, load_ensemble
        from moonseg_jax.clean.faults import annotated_objects
        from moonseg_jax.clean.measure import figures_of, judge_objects
        from moonseg_jax.clean.run import policy_answers
        from moonseg_jax.clean.threshold_tables import closeness_table, rules_around, threshold_table
        from moonseg_jax.compilation import keep_compiled_programs
        from moonseg_jax.refiner_evidence.tables import markdown
        from moonseg_jax.run_directory import write_json

        keep_compiled_programs()
        objects = annotated_objects(self.scenes, self.scene_seed, self.wrong)
        members = find_members(self.checkpoint, self.policy)
        ensemble = load_ensemble(members, settings, self.refine_batch)
        answers = policy_answers(members[0], ensemble) if self.ask_policy else None
        judged = judge_objects(ensemble, answers, objects)
        rules = rules_around(rule, asked=self.ask_policy)
        if self.out is not None:
            found = [{"rule": dataclasses.asdict(one), **dataclasses.asdict(figures_of(judged, one))} for one in rules]
            write_json(self.out, {"rules": found, "starts": settings.starts, "scenes": self.scenes})
        print(markdown(closeness_table(figures_of(judged, rule))))
        print(markdown(threshold_table(judged, rules, asked=self.ask_policy)))
