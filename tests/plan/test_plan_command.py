"""`moonseg plan` from the command line: figures, verdict, levers, and what it refuses."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from rich.console import Console
from tiny_models import micro, micro_policy

from moonseg_jax.cli import main
from moonseg_jax.config_file import load_config
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.model.refiner import head_shapes, make_head
from moonseg_jax.plan import chips, command
from moonseg_jax.plan.chips import parse_topology
from moonseg_jax.plan.command import plan_and_show
from moonseg_jax.plan.levers import levers
from moonseg_jax.plan.plan import RESERVED, make_plan
from moonseg_jax.plan.programs import parameter_count
from moonseg_jax.plan.show import as_json, print_plan
from moonseg_jax.plan.stand_in import with_stand_in
from moonseg_jax.policy import Policy
from moonseg_jax.train_config import RlConfig

RECIPE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from tiny_models import micro
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.train_config import RefinerConfig

def get_config(stage):
    return RefinerConfig(
        model=micro(), data="none", policy="none", pairs="none", steps=4, images_per_batch=4, eval_every=2,
        checkpoint_every=2, optimizer=OptimizerConfig(name="adamw"), cache_features=False,
    )
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The words of a plan, what it printed and wrote, and its programs."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "recipe.py").write_text(RECIPE)
    words = ["plan", "--config", str(folder / "recipe.py"), "--stage", "refine", "--topology", "cpu:1"]
    kept = []

    def make(*arguments, **settings):
        kept.append(make_plan(*arguments, **settings))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "make_plan", make)
        assert main([*words, "--json", str(folder / "plan.json")]) == 0
    return words, json.loads((folder / "plan.json").read_text()), kept[0]


def test_a_plan_tells_its_figures(planned):
    _, figures, _ = planned
    head = parameter_count(head_shapes(make_head(micro()), micro().vision.width))
    encoder = parameter_count(micro_policy().shapes()["vision"])
    assert figures["parameters"] == head + encoder
    by_name = {program["name"]: program for program in figures["programs"]}
    assert [by_name[name]["times"] for name in ("encode", "iterate", "finish")] == [1, 5, 1]
    # Parameters, averages and two moments of the head in float32, and gradients; counters and sums are small.
    assert by_name["finish"]["arguments"] == pytest.approx(4 * 5 * head, rel=0.01)
    assert figures["bytes_per_device"]["peak"] == max(program["peak"] for program in figures["programs"])
    assert figures["flops"] == sum(program["times"] * program["flops"] for program in figures["programs"])
    assert figures["fits"] and figures["collectives"] == {} and figures["levers"] is None
    assert figures["step_seconds_bound"] == max(figures["seconds"].values()) > 0


def test_what_does_not_fit_is_tried_with_less_and_said(planned, tmp_path, monkeypatch, capsys):
    words, _, plan = planned
    smaller = dataclasses.replace(chips.CHIPS["cpu"], memory=plan.peak + RESERVED - 1)
    monkeypatch.setitem(chips.CHIPS, "cpu", smaller)

    def make(stage, config, topology, mesh, *, note):
        """As much memory as before with half of the images: no more than that is left out."""
        saved = plan.peak // 2 if config.images_per_batch == 2 else 0
        less = [dataclasses.replace(one, temporaries=one.temporaries - saved) for one in plan.programs]
        return dataclasses.replace(plan, topology=topology, programs=tuple(less))

    monkeypatch.setattr(command, "make_plan", make)
    assert main([*words, "--json", str(tmp_path / "plan.json")]) == 1
    figures = json.loads((tmp_path / "plan.json").read_text())
    assert not figures["fits"]
    assert figures["levers"] == ["--optimizer.state-dtype bfloat16", "--images-per-batch 2"]
    assert "it fits with --optimizer.state-dtype bfloat16 --images-per-batch 2" in capsys.readouterr().out
    assert main([*words, "--no-levers"]) == 1


def test_levers_are_pulled_one_by_one_cheapest_first():
    config = RlConfig(
        model=micro(), data="none", start_from="none", steps=10, images_per_batch=16, slots=4,
        optimizer=OptimizerConfig(name="adamw"), eval_every=1, checkpoint_every=1,
    )  # fmt: skip
    pulled = list(levers(config, shares=4))
    assert [named for named, _ in pulled] == [
        "--remat blocks", "--microbatches 2", "--microbatches 4", "--slots 2", "--slots 1",
        "--optimizer.state-dtype bfloat16", "--freeze vision",
        "--lora.rank 32 --lora.base-dtype bfloat16 (without --freeze)",
    ]  # fmt: skip
    last = pulled[-1][1]
    assert (last.remat, last.microbatches, last.slots, last.freeze, last.lora.rank) == ("blocks", 4, 1, (), 32)


@pytest.mark.parametrize(
    ("text", "said"),
    [("v9:2x2", "no figures of 'v9'"), ("v5p:4x4", "takes 3 sides"), ("v5e", "CHIP:SIDE"), ("cpu:0", "at least 1")],
)
def test_topologies_that_are_none_are_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse_topology(text)


@pytest.mark.parametrize(
    ("mesh", "said"), [("fsdp=two", "'fsdp=two' is not AXIS=SIZE"), ("rows=2", "axis of data"), ("fsdp=3", "divide")]
)
def test_meshes_that_do_not_fit_are_refused(planned, mesh, said, capsys):
    assert main([*planned[0], "--mesh", mesh]) == 2
    assert said in capsys.readouterr().err


def test_a_recipe_without_a_mesh_for_the_topology_says_so():
    for topology, said in (
        ("v6e:8x8", r"keeps no mesh for v6e:8x8, only for v5e:16x16, v5p:4x4x8: give --mesh"),
        ("h100:16", r"moondream3_8gpu\.py keeps no mesh for h100:16, only for h100:8, h200:8: give --mesh"),
    ):
        with pytest.raises(UserError, match=said):
            plan_and_show(
                preset="moondream3", stage="sft", topology=topology, mesh=None, batch=None, config=None,
                json_file=None, pull_levers=False, overrides=[],
            )  # fmt: skip


@pytest.mark.parametrize("stage", ["sft", "rl", "refiner"])
def test_the_recipe_of_one_host_divides_among_its_eight_gpus(stage):
    config = load_config(Path("experiments/moondream3_8gpu.py"), stage)
    images, rest = divmod(config.images_per_batch, math.prod(config.mesh.sizes(8).values()))
    assert rest == 0 and images % getattr(config, "microbatches", 1) == 0
    if stage != "refiner":
        assert (config.lora.rank, config.lora.base_dtype, config.freeze) == (32, "bfloat16", ())


def test_gpus_are_said_to_be_stood_in_for(planned, capsys):
    _, figures, plan = planned
    assert (figures["compiled_for"], figures["compiler_is_stand_in"]) == ("cpu:1", False)
    gpus = dataclasses.replace(plan, topology=parse_topology("h100:8"))
    assert (as_json(gpus)["compiled_for"], as_json(gpus)["compiler_is_stand_in"]) == ("v5p:2x2x2", True)
    print_plan(gpus, Console(width=140))
    assert "GPUs are stood in for: compiled by the TPU compiler for v5p:2x2x2" in capsys.readouterr().out


def test_the_stand_in_speaks_paths(tmp_path):
    config = dataclasses.replace(micro(), paths=dataclasses.replace(micro().paths, tokenizer="not-at-hand.json"))
    config = dataclasses.replace(config, text=dataclasses.replace(config.text, vocabulary=2048))
    policy = Policy.from_config(with_stand_in(config, tmp_path))
    assert len(policy.vocabulary.integers) == 33
