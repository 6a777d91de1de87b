"""Settings of the three stages: frozen dataclasses that config files in `experiments/` fill in."""

from __future__ import annotations

import dataclasses
from typing import Literal

from moonseg_jax.augmentation_config import Augmentation
from moonseg_jax.config import ConfigError, ModelConfig
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.learner.policy_objective import overlong_buffer
from moonseg_jax.learner.policy_presets import PRESETS, PolicyLossConfig
from moonseg_jax.learner.trainable import LoraConfig, Trainable
from moonseg_jax.loggers import LIBRARIES, LoggerName
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.model.stacks import Remat
from moonseg_jax.placement_config import PlacementConfig
from moonseg_jax.rewards import RewardSpec
from moonseg_jax.rewards.shapes import shape

AS_THEY_ARE = Augmentation()
"""No augmentation."""
NO_FACTORS = LoraConfig()
"""Matrices are trained themselves."""
EVERYONE_ITS_EXAMPLES = MeshConfig()
"""The mesh of a run that names none: parameters whole on every device."""

TAKING_TURNS = PlacementConfig()
"""All devices sample, then all learn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the loops of all stages share."""

    model: ModelConfig
    data: str
    """Folder of a built data set."""
    train_split: str = "train"
    eval_split: str = "val"
    seed: int = 0
    steps: int
    """Gradient steps in all."""
    images_per_batch: int
    """Over all devices and processes."""
    phrases_per_image: int = 3
    crops: int = 1
    """Crops per image: 1 where every image fits one crop, else 1 + model.vision.max_tiles."""
    optimizer: OptimizerConfig
    average_decay: float = 0.998
    """Decay of the moving average of the weights that is evaluated and exported."""
    eval_every: int
    """Steps between held-out evaluations; the best weights so far are kept."""
    eval_scenes: int = 128
    """Held-out scenes of an evaluation; all of them where the split has fewer."""
    checkpoint_every: int
    log_every: int = 20
    loggers: tuple[LoggerName, ...] = ()
    """Where metrics go besides `metrics.jsonl`; each is an extra of the package: pip install 'moonseg-jax[wandb]'."""
    max_skipped_steps: int = 10
    """A step whose loss or gradient is not finite is skipped; so many in a row stop the run."""
    loader_threads: int = 1
    mesh: MeshConfig = EVERYONE_ITS_EXAMPLES
    """How the devices share the work; by default every one takes its part of the examples."""

    def __post_init__(self) -> None:
        """Refuses numbers that leave nothing to do.

        Raises:
          ConfigError: names the setting.
        """
        counts = {
            "steps": self.steps, "images_per_batch": self.images_per_batch, "crops": self.crops,
            "phrases_per_image": self.phrases_per_image, "eval_every": self.eval_every,
            "eval_scenes": self.eval_scenes, "checkpoint_every": self.checkpoint_every, "log_every": self.log_every,
            "max_skipped_steps": self.max_skipped_steps,
        }  # fmt: skip
        _require_counts(counts)
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: it must not be negative")
        for name in self.loggers:
            if name not in LIBRARIES:
                raise ConfigError(f"loggers names {name!r}: there are {', '.join(LIBRARIES)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig(LoopConfig):
    """What both stages have that train the policy: how much memory that takes."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations, in sampling and learning alike; parameters and their updates are float32."""
    microbatches: int = 1
    """Parts of a batch whose gradients are computed one after the other: less memory, the same step."""
    remat: Remat = "none"
    """What the backward pass computes again instead of keeping it: `blocks` all of every block, `dots` all but its
    products of activations with weights."""
    freeze: tuple[Literal["vision"], ...] = ()
    """Parts that stay as they are, out of gradients, optimizer and averages."""
    lora: LoraConfig = NO_FACTORS
    """With a rank, only low-rank changes of the text decoder's matrices are trained; exports have them added."""

    def __post_init__(self) -> None:
        """Refuses micro-batches that do not divide a batch, and freezing beside factors.

        Raises:
          ConfigError: names the setting and the remedy; and see `LoopConfig`.
        """
        super().__post_init__()
        _require_counts({"microbatches": self.microbatches})
        if self.images_per_batch % self.microbatches:
            raise ConfigError(
                f"microbatches is {self.microbatches}: it must divide images_per_batch, {self.images_per_batch}"
            )
        for part in self.freeze:
            if part != "vision":
                raise ConfigError(f"freeze names {part!r}: there is vision")
        if self.freeze and self.lora.rank:
            raise ConfigError("freeze and lora.rank are both set: with factors everything else is frozen anyway")

    @property
    def trainable(self) -> Trainable:
        """How parameters divide into trained and frozen ones."""
        return Trainable(freeze=self.freeze, lora=self.lora)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(PolicyConfig):
    """Supervised learning on traced targets."""

    start_from: str | None = None
    """Folder with policy weights to start from; None starts from scratch."""
    box_steps: int = 0
    """First so many steps learn boxes and the heat map only: short sequences, fast steps."""
    box_weight: float = 1.0
    """Weight of a box token against a path token."""
    box_distance_weight: float = 8.0
    """Weight of the ranked probability score of boxes: near misses count less than far ones."""
    path_distance_weight: float = 8.0
    """The same for the numbers of paths."""
    heat_weight: float = 1.0
    """Weight of the grounding heat map."""
    words_weight: float = 1.0
    """Weight of the words that patches say."""
    augmentation: Augmentation = AS_THEY_ARE
    """Changes of training images. Of this stage only: the pairs that the stage `rl` leaves for the refiner are cut out
    of images as they are stored."""
    random_outline_start: bool = False
    """Targets start every outline at a random vertex, all of them in a random direction; the masks stay the same.
    False: topmost vertex first, outlines clockwise."""

    def __post_init__(self) -> None:
        """Refuses to freeze what nobody has trained.

        Raises:
          ConfigError: names the setting and the remedy; and see `PolicyConfig`.
        """
        super().__post_init__()
        if self.start_from is None and (self.freeze or self.lora.rank):
            raise ConfigError("start_from is None, but freeze or lora.rank keeps parameters as they are: at random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlConfig(PolicyConfig):
    """Reinforcement learning on mask IoU."""

    start_from: str
    """Folder with policy weights: RL starts from a supervised policy."""
    group: int = 8
    """Samples per prompt."""
    temperature: float = 1.0
    top_k: int | None = None
    """Must stay None (or 0): training samples from the whole distribution; the error says why."""
    top_p: float | None = None
    """Must stay None (or 1), for the same reason."""
    slots: int | None = None
    """Sequences each device decodes side by side; a slot whose path has ended takes the next one. None decodes all
    of a batch at once."""
    replay_experts: bool = True
    """Learn with the experts that sampling chose, so that routing noise does not enter the probability ratio."""
    loss: PolicyLossConfig = PRESETS["rloo"]
    """What is minimised; `preset("dapo")` gives a recipe by name. The KL divergence is to the starting policy."""
    updates_per_rollout: int = 1
    """Gradient steps taken on each batch of rollouts."""
    reward: str | RewardSpec = "iou"
    """What samples are paid for: the name of a shape in `rewards.shapes`, or, in a config file, a spec of one's own."""
    credit: Literal["path", "token"] = "path"
    """What a token is credited with: the reward of its whole path; or the rewards from it on, where each subpath is
    paid at its `Z` what it added to the shaped reward, compared with samples that closed as many subpaths before."""
    supervised_weight: float = 0.0
    """Weight of the supervised loss on the same prompts."""
    inject_below: float = 0.0
    """Where the best raw IoU of a group is below this, the traced path of the ground truth is learned from as an extra,
    off-policy sample, weighted by the policy's own probabilities; 0 never does."""
    pair_buffer: int = 4096
    """Coarse-to-ground-truth pairs kept for the refiner."""
    keep_rollouts: int = 0
    """So many of the last batches of rollouts are left in the run's folder, for `moonseg rewards compare`."""
    log_reference_kl: bool = True
    """Whether every log measures, on its last batch, the KL divergence to the starting policy, for which that policy
    is held in memory; where the loss has a KL term it is logged in any case, over all steps."""
    split_rollout_time: bool = True
    """Time encoding, prefill and scoring once, on the first batch, as programs of their own, so that logs can split
    the time of rollouts; only where the same devices sample and learn."""
    placement: PlacementConfig = TAKING_TURNS
    """Which devices sample while others learn; `mesh` is that of the devices that learn."""

    def __post_init__(self) -> None:
        """Refuses groups that leave nothing to compare, and settings that cannot work together.

        Raises:
          ConfigError: names the setting and the remedy; and see `LoopConfig`.
        """
        super().__post_init__()
        _refuse_truncation(self.top_k, self.top_p)
        _require_counts({"updates_per_rollout": self.updates_per_rollout})
        if self.group < 2:
            raise ConfigError(f"group is {self.group}: an advantage needs at least 2 samples per prompt")
        if self.keep_rollouts < 0:
            raise ConfigError(f"keep_rollouts is {self.keep_rollouts}: it must not be negative")
        _ = self.reward_spec
        self._check_staleness()
        self._check_injection()
        self._check_credit()
        if self.loss.overlong_weight:
            overlong_buffer(self.loss, self.model.paths.max_new_tokens)

    def _check_staleness(self) -> None:
        if self.loss.ratio != "none" or self.loss.correction_cap is not None:
            return
        for stale, setting in (
            (self.updates_per_rollout > 1, f"updates_per_rollout is {self.updates_per_rollout}: set it to 1"),
            (self.placement.overlaps, f"placement.kind is {self.placement.kind}: set it to colocated"),
        ):
            if stale:
                raise ConfigError(
                    f"loss.ratio is none, which is right for samples of the current policy only, but {setting}, set "
                    "loss.correction_cap (2 is usual), or take ratios"
                )

    def _check_injection(self) -> None:
        if not 0 <= self.inject_below <= 1:
            raise ConfigError(f"inject_below is {self.inject_below}: an IoU lies in 0 to 1, and 0 injects nothing")
        if self.inject_below and self.loss.ratio == "none" and self.loss.correction_cap is None:
            raise ConfigError(
                f"inject_below is {self.inject_below}, but loss.ratio is none without a correction, which would take "
                "the injected path for a sample of the policy: set loss.correction_cap (2 is usual), or take ratios"
            )

    def _check_credit(self) -> None:
        if self.credit not in ("path", "token"):
            raise ConfigError(f"credit is {self.credit!r}: it must be path or token")
        if self.credit == "path":
            return
        if self.loss.scale != "none":
            raise ConfigError(
                f"credit is token, but loss.scale is {self.loss.scale}: a path's later subpaths have few samples to "
                "take a deviation of, and other ones than its first; set loss.scale to none, or credit to path"
            )
        if self.loss.baseline == "group-mean":
            raise ConfigError(
                "credit is token, but loss.baseline is group-mean, which holds the sample's own return: the fewer "
                "samples reach a subpath, the more it would take from it; set loss.baseline to leave-one-out, or "
                "credit to path"
            )

    @property
    def reward_spec(self) -> RewardSpec:
        """The reward's shape, looked up where it is given by name.

        Raises:
          ConfigError: there is none of that name; says the nearest.
        """
        return self.reward if isinstance(self.reward, RewardSpec) else shape(self.reward)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinerConfig(LoopConfig):
    """Training of the refinement head on pairs of coarse outline and ground truth."""

    policy: str
    """Folder with policy weights: its vision encoder, frozen, feeds the head."""
    start_from: str | None = None
    """Folder with refiner weights to start from; None starts from scratch."""
    pairs: str | None = None
    """File of pairs written by an RL run; where several processes wrote theirs beside it, all of them are read. None:
    there is none, and all pairs are synthetic."""
    pairs_from: Literal["rollouts", "synthetic", "both"] = "rollouts"
    """Where coarse masks come from: the policy's rollouts; the ground truth of the same examples, corrupted, in crops
    of jittered boxes; or half of the pairs each."""
    pair_count: int | None = None
    """Pairs learned from, whatever their source; None takes as many as the file holds."""
    box_jitter: float = 0.1
    """Boxes of synthetic pairs are moved and stretched by up to this share of their width and height."""
    identity_share: float = 0.0
    """Share of each batch whose coarse mask is the ground truth itself, so that right masks are left alone."""
    cache_features: bool = True
    """Encode every image crop once and keep its features in host memory; False encodes crops at every step."""
    feature_cache_gib: float = 4.0
    """Most memory of these features, in GiB per process; more is refused before anything runs."""
    mask_loss: Literal["bce", "focal"] = "bce"
    best_of_masks: bool = True
    """Only the best of the mask candidates is supervised; False supervises all."""
    boundary_weight: float = 2.0
    """Extra weight of pixels near the true boundary."""
    dice_weight: float = 1.0
    iou_weight: float = 0.2

    def __post_init__(self) -> None:
        """Refuses sources without what they need, and shares that are none.

        Raises:
          ConfigError: names the setting and the remedy; and see `LoopConfig`.
        """
        super().__post_init__()
        if self.pairs_from not in ("rollouts", "synthetic", "both"):
            raise ConfigError(f"pairs_from is {self.pairs_from!r}: it must be rollouts, synthetic or both")
        if self.pair_count is not None:
            _require_counts({"pair_count": self.pair_count})
        if self.pairs is None and self.pairs_from != "synthetic":
            raise ConfigError(
                f"pairs_from is {self.pairs_from}, but pairs is None: name the pairs.npz of an RL run, or set "
                "pairs_from to synthetic"
            )
        if self.pairs is None and self.pair_count is None:
            raise ConfigError("pair_count is None, and so is pairs: say how many synthetic pairs there shall be")
        if not 0 <= self.identity_share <= 1:
            raise ConfigError(f"identity_share is {self.identity_share}: a share lies in 0 to 1")
        if not 0 <= self.box_jitter < 1:
            raise ConfigError(f"box_jitter is {self.box_jitter}: it must be at least 0 and below 1")
        if not self.feature_cache_gib > 0:
            raise ConfigError(
                f"feature_cache_gib is {self.feature_cache_gib}: it must be above 0; cache_features False keeps nothing"
            )


STAGES = {"sft": SftConfig, "rl": RlConfig, "refiner": RefinerConfig}


def _refuse_truncation(top_k: int | None, top_p: float | None) -> None:
    """Training needs log-probabilities of what was sampled from, which truncated sampling takes away (contract 1)."""
    set_ones = [("top_k", top_k)] * (top_k not in (None, 0)) + [("top_p", top_p)] * (top_p not in (None, 1))
    if set_ones:
        given = " and ".join(f"{name} is {value}" for name, value in set_ones)
        raise ConfigError(
            f"{given}: rollouts for training are drawn from the whole distribution. Truncated sampling draws from "
            "another one than the stored log-probabilities are of, and gives every token it cuts off probability 0, "
            "so that no likelihood ratio corrects for it. Leave it out; a lower temperature sharpens sampling, and "
            "the learner knows of it"
        )


def _require_counts(counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} is {count}: it must be at least 1")
