"""Checkpoints: what is saved comes back bit for bit, and only finished saves count."""

import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.loader import scene_batches
from moonseg_jax.checkpoint import Checkpoints
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import OptimizerConfig, make_optimizer
from moonseg_jax.learner.state import LearnerState, init_state
from moonseg_jax.pairs import PairBuffer
from moonseg_jax.sharding import make_mesh, put_replicated
from moonseg_jax.types import Example, Scene


def learner_state(seed: int = 0, width: int = 6) -> LearnerState:
    """Parameters of several kinds with the state of the real optimizer."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "blocks": {"kernel": jax.random.normal(keys[0], (2, width, 4)), "bias": jax.random.normal(keys[1], (2, 4))},
        "half": jax.random.normal(keys[2], (5,), jnp.bfloat16),
    }  # fmt: skip
    state = init_state(params, make_optimizer(OptimizerConfig(), 100))
    return put_replicated(make_mesh(jax.devices()[:1]), state.replace(step=jnp.asarray(7 + seed)))


def scene(index: int) -> Scene:
    image = np.zeros((2, 2, 3), np.uint8)
    return Scene(examples=(Example(image=image, phrase="x", target=None, image_id=index, example_id=index),))


def stream():
    scenes = [scene(index) for index in range(10)]
    return scene_batches(
        scenes, lambda batch, seed: ([one.examples[0].example_id for one in batch], seed),
        images_per_batch=3, seed=1, threads=1,
    )  # fmt: skip


def assert_same_bits(found, expected):
    jax.tree.map(lambda leaf, like: np.testing.assert_array_equal(leaf, like, strict=True), found, expected)


def test_learner_loader_and_extra_state_come_back_bit_for_bit(tmp_path):
    state, loader = learner_state(), stream()
    for _ in range(4):
        next(loader)
    extra = {"masks": np.arange(12, dtype=np.uint8).reshape(3, 4), "iou": np.array([0.1, np.pi, 1e-30], np.float32)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(4, state, {"loader": loader.get_state(), "extra": extra})
    checkpoints.close()

    step, found, rest = Checkpoints(tmp_path / "checkpoints").restore(learner_state(seed=1))
    assert step == 4 and int(found.step) == 7
    assert_same_bits(found, state)
    assert jax.tree.all(jax.tree.map(lambda leaf, like: leaf.sharding == like.sharding, found, state))
    assert_same_bits(dict(rest["extra"]), extra)
    restored = stream()
    restored.set_state(rest["loader"])
    assert [next(restored) for _ in range(5)] == [next(loader) for _ in range(5)]


def test_an_empty_pair_buffer_survives_a_restart(tmp_path):
    checkpoints, empty = Checkpoints(tmp_path), PairBuffer(10, 4)
    checkpoints.save(1, learner_state(), {"loader": {"next": 0}, "extra": empty.state()})
    _, _, rest = checkpoints.restore(learner_state())
    checkpoints.close()
    buffer = PairBuffer(10, 4)
    buffer.load_state(rest["extra"])
    assert_same_bits(buffer.state(), empty.state())


def test_the_latest_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step is None
    for step in (1, 2, 5):
        checkpoints.save(step, learner_state(seed=step), {"loader": {"next": step}})
    checkpoints.close()
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["2", "5"]
    step, state, rest = Checkpoints(tmp_path).restore(learner_state())
    assert (step, int(state.step), rest) == (5, 12, {"loader": {"next": 5}})


def test_nothing_to_restore_is_said(tmp_path):
    with pytest.raises(UserError, match="no finished checkpoint"):
        Checkpoints(tmp_path).restore(learner_state())


# Orbax leaves unawaited coroutines behind when a restore fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda: learner_state(width=7), r"shape: \(2, 7, 4\) is not compatible with the stored shape: \(2, 6, 4\)"),
        (lambda: learner_state().replace(optimizer=()), "optimizer"),
    ],
    ids=["sizes", "optimizer"],
)
def test_a_checkpoint_of_another_learner_is_refused(tmp_path, other, reason):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, learner_state(), {"loader": {"next": 0}})
    with pytest.raises(UserError, match=rf"step 1: not a checkpoint of this model [\s\S]*{reason}"):
        checkpoints.restore(other())
    checkpoints.close()
    gc.collect()


KILLED_WHILE_SAVING = """
    import os, sys
    from pathlib import Path
    from test_checkpoint import Checkpoints, learner_state

    def die_before_the_second_is_put_in_place(event, arguments):
        if event == "os.rename" and Path(os.fsdecode(arguments[1])).name == "2":
            os._exit(9)

    checkpoints = Checkpoints(Path(sys.argv[1]))
    checkpoints.save(1, learner_state(seed=1), {"loader": {"next": 1}})
    sys.addaudithook(die_before_the_second_is_put_in_place)
    checkpoints.save(2, learner_state(seed=2), {"loader": {"next": 2}})
"""


def test_an_interrupted_save_is_never_the_latest(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    died = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED_WHILE_SAVING), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, timeout=120,
    )  # fmt: skip
    assert died.returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step == 1
    step, state, rest = checkpoints.restore(learner_state())
    assert (step, rest) == (1, {"loader": {"next": 1}})
    assert_same_bits(state, learner_state(seed=1))
    checkpoints.save(2, learner_state(seed=2), {"loader": {"next": 2}})
    assert checkpoints.latest_step == 2
    checkpoints.close()
