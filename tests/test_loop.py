"""The bookkeeping around training steps: resuming, keeping the best, logging, stopping."""

import json
import os
import signal

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import micro

from data_pipelines.loader import scene_batches
from moonseg_jax.errors import UserError
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.learner.state import apply_gradients, init_state
from moonseg_jax.learner.token_sums import WeightSums
from moonseg_jax.loop import Loop
from moonseg_jax.run_directory import RunDirectory, read_json, read_metrics
from moonseg_jax.train_config import LoopConfig
from moonseg_jax.types import Example, Scene

IMAGE = np.zeros((2, 2, 3), np.uint8)
SCENES = [Scene(examples=(Example(image=IMAGE, phrase="x", target=None, image_id=i, example_id=i),)) for i in range(7)]
SCORES = {2: 0.2, 4: 0.6, 6: 0.4, 8: 0.5}
"""Held-out figure after so many steps."""


class Seen:
    """State beside the learner's: the examples seen so far."""

    def __init__(self):
        self.ids = np.zeros((0,), np.int32)

    def state(self):
        return {"ids": self.ids}

    def load_state(self, state):
        self.ids = np.asarray(state["ids"])


class FakeTraining:
    """A run whose parameters add up the batches it sees, and whose score follows `SCORES`."""

    def __init__(self, folder, *, resume: bool = False, **changes):
        settings = {"steps": 8, "eval_every": 2, "checkpoint_every": 3, "log_every": 1} | changes
        config = LoopConfig(
            model=micro(), data="", images_per_batch=2, optimizer=OptimizerConfig(), **settings
        )  # fmt: skip
        run = (RunDirectory.resume if resume else RunDirectory.create)(folder, "sft", "{}")
        self.evaluated, self.seen = [], Seen()
        self.loader = scene_batches(
            SCENES, lambda scenes, seed: [scene.examples[0].example_id for scene in scenes],
            images_per_batch=2, seed=0, threads=0,
        )  # fmt: skip
        self.loop = Loop(
            config, run, judged_by="miou", evaluate=self.evaluate, export=self.export, extra=self.seen
        )  # fmt: skip
        self.state = init_state({"w": jnp.zeros(2)}, optax.sgd(0.1))
        if resume:
            self.state = self.loop.restore(self.state, self.loader)

    def evaluate(self, params):
        done = round(float(params["w"][1]))
        self.evaluated.append(done)
        return {"miou": SCORES.get(done, 0.0)}

    def export(self, folder, params):
        folder.mkdir(exist_ok=True)
        (folder / "weights.json").write_text(json.dumps(np.asarray(params["w"]).tolist()))

    def take(self, step):
        batch = next(self.loader)
        self.seen.ids = np.concatenate([self.seen.ids, np.array(batch, np.int32)])
        params = {"w": self.state.params["w"] * 1.01 + jnp.array([sum(batch), 0.0])}
        params = {"w": params["w"].at[1].set(step + 1)}
        self.state = self.state.replace(step=self.state.step + 1, params=params, averaged=params)

    def run(self, interrupt=lambda step: None):
        with self.loop:
            for step in self.loop.steps():
                self.take(step)
                interrupt(step)
                self.loop.after_step(step, self.state, self.loader, {"loss": (jnp.asarray(3.0), jnp.asarray(2.0))})
        return self


def stop_at(step, number=signal.SIGINT):
    return lambda now: os.kill(os.getpid(), number) if now == step else None


def steps_logged(folder, name):
    return [row["step"] for row in read_metrics(folder / "metrics.jsonl") if name in row]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_and_a_resumed_one_ends_as_if_never_stopped(tmp_path, number):
    whole = FakeTraining(tmp_path / "whole").run()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stopped = FakeTraining(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        stopped.run(stop_at(3, number))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert len(stopped.seen.ids) == 2 * 4

    resumed = FakeTraining(tmp_path / "parts", resume=True)
    assert list(resumed.loop.steps()) == [4, 5, 6, 7]
    resumed.run()
    np.testing.assert_array_equal(resumed.state.params["w"], whole.state.params["w"])
    np.testing.assert_array_equal(resumed.seen.ids, whole.seen.ids)
    assert steps_logged(tmp_path / "parts", "loss") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps_logged(tmp_path / "parts", "eval_miou") == [2, 4, 6, 8]


def test_a_crash_goes_back_to_the_last_checkpoint_and_its_metrics(tmp_path):
    def crash(step):
        if step == 5:
            raise RuntimeError("the machine is gone")

    with pytest.raises(RuntimeError):
        FakeTraining(tmp_path).run(crash)
    assert steps_logged(tmp_path, "loss") == [1, 2, 3, 4, 5]
    resumed = FakeTraining(tmp_path, resume=True)
    assert steps_logged(tmp_path, "loss") == [1, 2, 3]
    resumed.run()
    assert steps_logged(tmp_path, "loss") == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_second_interrupt_stops_at_once_and_saves_nothing(tmp_path):
    def insist(step):
        if step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    training = FakeTraining(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        training.run(insist)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_best_weights_are_kept_and_the_last_ones_too(tmp_path):
    def exported(name):
        return round(json.loads((tmp_path / name / "weights.json").read_text())[1])

    with pytest.raises(KeyboardInterrupt):
        FakeTraining(tmp_path).run(stop_at(6))
    assert read_json(tmp_path / "best.json", missing="") == {"step": 4, "miou": 0.6}
    assert (exported("best"), exported("last")) == (4, 6)
    resumed = FakeTraining(tmp_path, resume=True).run()
    assert resumed.evaluated == [8]
    assert (exported("best"), exported("last")) == (4, 8)


def test_a_resumed_run_still_beats_its_own_best_only(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        FakeTraining(tmp_path).run(stop_at(2))
    FakeTraining(tmp_path, resume=True).run()
    assert read_json(tmp_path / "best.json", missing="") == {"step": 4, "miou": 0.6}


def test_logged_means_are_sums_over_counts(tmp_path):
    training = FakeTraining(tmp_path, steps=4, log_every=2)
    pairs = [(2.0, 1.0), (0.0, 3.0), (5.0, 1.0), (5.0, 0.0)]
    with training.loop as loop:
        for step in loop.steps():
            training.take(step)
            loop.after_step(step, training.state, training.loader, {"loss": tuple(map(jnp.asarray, pairs[step]))})
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "loss" in row]
    assert [(row["step"], row["loss"]) for row in rows] == [(2, 0.5), (4, 10.0)]


def test_the_last_step_is_judged_logged_and_saved_whatever_the_cadence(tmp_path):
    training = FakeTraining(tmp_path, steps=5, eval_every=100, checkpoint_every=100, log_every=100).run()
    assert training.evaluated == [5]
    assert steps_logged(tmp_path, "loss") == [5]
    assert list(FakeTraining(tmp_path, resume=True, steps=5).loop.steps()) == []


def test_resuming_a_finished_run_says_that_there_is_nothing_to_do(tmp_path, capsys):
    FakeTraining(tmp_path).run()
    capsys.readouterr()
    FakeTraining(tmp_path, resume=True).run()
    assert "8 steps are done and steps is 8: nothing to do, raise --steps" in capsys.readouterr().err


def test_the_first_interrupt_says_what_happens_now(tmp_path, capfd):
    with pytest.raises(KeyboardInterrupt):
        FakeTraining(tmp_path).run(stop_at(1))
    told = capfd.readouterr().err
    assert "stopping after this step" in told and "stopped at step 2; go on with --resume" in told


def test_an_effective_sample_size_comes_from_the_sums_of_all_steps(tmp_path):
    training = FakeTraining(tmp_path, steps=2, log_every=2)
    sums = [WeightSums(*map(jnp.float32, (4.0, 8.0, 3.0))), WeightSums(*map(jnp.float32, (2.0, 4.0, 1.0)))]
    with training.loop as loop:
        for step in loop.steps():
            training.take(step)
            loop.after_step(step, training.state, training.loader, {"effective_sample_size": sums[step]})
    (row,) = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "effective_sample_size" in row]
    np.testing.assert_allclose(row["effective_sample_size"], 36 / (4 * 12), rtol=1e-6)


def test_a_figure_of_nothing_is_null(tmp_path):
    training = FakeTraining(tmp_path, steps=1)
    zero = jnp.asarray(0.0)
    sums = {"iou_small": (zero, zero), "reward": (zero, jnp.asarray(2.0)), "size": WeightSums(zero, zero, zero)}
    with training.loop as loop:
        for step in loop.steps():
            training.take(step)
            loop.after_step(step, training.state, training.loader, sums)
    (row,) = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "reward" in row]
    assert (row["iou_small"], row["reward"], row["size"]) == (None, 0.0, None)


def test_a_missing_logger_stops_the_run_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'moonseg-jax\[tensorboard\]'"):
        FakeTraining(tmp_path, loggers=("tensorboard",))


class FragileTraining(FakeTraining):
    """A run of real gradient steps whose reward, and with it loss and gradient, is no number at some steps."""

    def __init__(self, folder, nan_at, **changes):
        super().__init__(folder, **{"steps": 12, "max_skipped_steps": 4} | changes)
        self.nan_at = nan_at

    def take(self, step):
        next(self.loader)
        reward = jnp.nan if step in self.nan_at else 1.0
        self.state, _ = apply_gradients(
            self.state, -reward, {"w": jnp.array([-reward, 0.0])}, optax.sgd(1.0), average_decay=0.0
        )

    def skipped(self):
        return int(self.state.skipped_steps), int(self.state.skipped_in_row)


def skips_logged(folder):
    rows = read_metrics(folder / "metrics.jsonl")
    return {row["step"]: row["skipped_steps"] for row in rows if "skipped_steps" in row}


def test_skipped_steps_are_counted_and_told(tmp_path, capsys):
    training = FragileTraining(tmp_path, nan_at={1, 2, 3, 7}, log_every=4).run()
    assert training.skipped() == (4, 0)
    np.testing.assert_array_equal(training.state.params["w"], [8.0, 0.0])
    assert skips_logged(tmp_path) == {4: 3, 8: 4, 12: 4}
    told = capsys.readouterr().err
    assert "step 4: 3 steps skipped" in told and "step 8: 1 steps skipped" in told and "step 12: 0" not in told


def test_too_many_skipped_steps_in_a_row_stop_the_run_and_name_the_last_good_checkpoint(tmp_path):
    training = FragileTraining(tmp_path, nan_at=range(4, 12), checkpoint_every=3, log_every=100)
    with pytest.raises(UserError, match=rf"4 steps in a row \(max_skipped_steps is 4\).*{tmp_path}/checkpoints/6;"):
        training.run()
    # Found one step later, so that no step has to be waited for.
    assert training.skipped() == (5, 5)
    assert skips_logged(tmp_path) == {9: 5}


def test_the_last_step_may_be_the_one_too_many(tmp_path):
    with pytest.raises(UserError, match=r"step 12: .*4 steps in a row"):
        FragileTraining(tmp_path, nan_at=range(8, 12)).run()


def test_a_run_that_never_had_a_sound_step_has_no_checkpoint_to_name(tmp_path):
    with pytest.raises(UserError, match="no checkpoint was saved before"):
        FragileTraining(tmp_path, nan_at=range(12), checkpoint_every=10).run()


def test_a_stopped_run_keeps_its_count_of_skipped_steps(tmp_path):
    settings = {"nan_at": {1, 4, 5, 6, 7, 8}, "checkpoint_every": 100}
    with pytest.raises(KeyboardInterrupt):
        FragileTraining(tmp_path, **settings).run(stop_at(5))
    resumed = FragileTraining(tmp_path, resume=True, **settings)
    assert resumed.skipped() == (3, 2)
    with pytest.raises(UserError, match=r"step 9: .*4 steps in a row.*checkpoints/6;"):
        resumed.run()
    assert skips_logged(tmp_path)[9] == 6
