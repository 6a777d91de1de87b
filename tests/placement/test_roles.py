"""Who learns and who samples, on the devices of one process."""

import jax
import pytest

from moonseg_jax.config import ConfigError
from moonseg_jax.errors import UserError
from moonseg_jax.learner.policy_presets import PRESETS
from moonseg_jax.mesh_config import MeshConfig
from moonseg_jax.placement.roles import Roles, assign_roles
from moonseg_jax.placement_config import PlacementConfig

DEVICES = jax.device_count()
needs_devices = pytest.mark.skipif(DEVICES < 4, reason="fewer than 4 devices")


@needs_devices
def test_no_device_learns_and_samples_where_both_happen_at_once():
    roles = assign_roles(PlacementConfig(kind="interleaved", sampling=DEVICES - 2), MeshConfig(fsdp=2))
    learning, sampling = set(roles.learner.devices.flat), set(roles.sampler.devices.flat)
    assert len(learning) == 2 and not learning & sampling and learning | sampling == set(jax.devices())
    assert roles.learns and not roles.apart and roles.share == (0, 1)


def test_taking_turns_is_one_mesh():
    roles = assign_roles(PlacementConfig(), MeshConfig())
    assert roles.learner is roles.sampler and roles.learns and not roles.apart


def test_every_learner_reads_the_scenes_that_are_sampled_for_it():
    # Two learners, two groups of two samplers; a batch of 8 scenes, numbered as the stream brings them.
    teams = {"learners": (0, 1), "groups": ((2, 3), (4, 5)), "learner": None, "sampler": None}
    read = {}
    for process in range(6):
        index, shares = Roles(process=process, **teams).share
        read[process] = list(range(index, 8, shares))
    assert read[0] == [0, 2, 4, 6] and read[1] == [1, 3, 5, 7]
    for place, learner in enumerate((0, 1)):
        by_turns = [scene for pair in zip(read[2 + place], read[4 + place], strict=True) for scene in pair]
        assert by_turns == read[learner]


@needs_devices
@pytest.mark.parametrize(
    ("placement", "told"),
    [
        (
            {"kind": "interleaved", "sampling": DEVICES},
            f"placement.sampling is {DEVICES}, but process 0 has {DEVICES} devices, of which one at least must learn",
        ),
        (
            {"kind": "disaggregated", "sampling": 1},
            "placement.sampling is 1, but there are 1 processes, of which one at least must learn: start more",
        ),
        (
            {"kind": "interleaved", "sampling": 3, "mesh": MeshConfig(tensor=2)},
            "placement.mesh, of 3 devices: mesh.tensor = 2 does not divide the 3 devices",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(placement, told):
    with pytest.raises(UserError, match=told):
        assign_roles(PlacementConfig(**placement), MeshConfig())


@pytest.mark.parametrize("setting", [{"kind": "apart"}, {"sampling": 0}, {"dtype": "float16"}])
def test_settings_that_are_none_are_named(setting):
    with pytest.raises(ConfigError, match=f"placement.{next(iter(setting))} is"):
        PlacementConfig(**setting)


def test_a_loss_for_fresh_samples_refuses_to_learn_one_step_behind(rl_config):
    with pytest.raises(ConfigError, match=r"placement\.kind is interleaved: set it to colocated, set loss\.correction"):
        rl_config(loss=PRESETS["reinforce"], placement=PlacementConfig(kind="interleaved"))
