"""SIGTERM in every part of a step: the run saves in time, and a resumed one ends as if it had never been stopped."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from test_loop import FakeTraining, steps_logged

from moonseg_jax.run_directory import read_metrics
from moonseg_jax.stopping import StopRequest, Terminated


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


class SamplingTraining(FakeTraining):
    """A run whose steps sample before they learn; what is sampled depends on the position of the loader."""

    def run(self, while_sampling=lambda step: None, while_learning=lambda step: None):
        with self.loop:
            for step in self.loop.steps():
                with self.loop.repeatable(step, self.state, self.loader):
                    batch = next(self.loader)
                    while_sampling(step)
                self.learn(step, batch)
                while_learning(step)
                sums = {"loss": (np.float32(sum(batch)), np.float32(2.0))}
                self.loop.after_step(step, self.state, self.loader, sums)
        return self

    def learn(self, step, batch):
        self.seen.ids = np.concatenate([self.seen.ids, np.array(batch, np.int32)])
        params = {"w": self.state.params["w"] * 1.01 + np.array([sum(batch), 0.0], np.float32)}
        params = {"w": params["w"].at[1].set(step + 1)}
        self.state = self.state.replace(step=self.state.step + 1, params=params, averaged=params)


def figures(folder):
    """Logged rows without what the clock says."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if "seconds" not in name} for row in rows]


def at(step, act):
    return lambda now: act() if now == step else None


@pytest.mark.parametrize(
    ("part", "saved"), [("while_sampling", 4), ("while_learning", 5)], ids=["sampling", "learning"]
)
def test_sigterm_within_a_step_saves_the_nearest_whole_state(tmp_path, part, saved):
    settings = {"log_every": 3, "checkpoint_every": 100}
    whole = SamplingTraining(tmp_path / "whole", **settings).run()
    with pytest.raises(Terminated):
        SamplingTraining(tmp_path / "parts", **settings).run(**{part: at(4, terminate)})
    assert [path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()] == [str(saved)]
    resumed = SamplingTraining(tmp_path / "parts", resume=True, **settings)
    assert next(resumed.loop.steps()) == saved
    resumed.run()
    np.testing.assert_array_equal(resumed.state.params["w"], whole.state.params["w"])
    np.testing.assert_array_equal(resumed.seen.ids, whole.seen.ids)
    assert figures(tmp_path / "parts") == figures(tmp_path / "whole")


def test_sigterm_while_sampling_first_of_all_saves_the_state_before_any_step(tmp_path):
    with pytest.raises(Terminated):
        SamplingTraining(tmp_path / "parts").run(while_sampling=at(0, terminate))
    whole = SamplingTraining(tmp_path / "whole").run()
    resumed = SamplingTraining(tmp_path / "parts", resume=True).run()
    np.testing.assert_array_equal(resumed.state.params["w"], whole.state.params["w"])


def test_a_step_stopped_before_it_is_judged_is_judged_by_the_next_sitting(tmp_path):
    whole = SamplingTraining(tmp_path / "whole").run()
    stopped = SamplingTraining(tmp_path / "parts")
    with pytest.raises(Terminated):
        stopped.run(while_learning=at(3, terminate))
    assert stopped.evaluated == [2]
    resumed = SamplingTraining(tmp_path / "parts", resume=True).run()
    assert resumed.evaluated == [4, 6, 8] and whole.evaluated == [2, 4, 6, 8]
    assert figures(tmp_path / "parts") == figures(tmp_path / "whole")


def test_a_stop_while_judging_keeps_the_judgement(tmp_path):
    stopped = SamplingTraining(tmp_path / "parts")
    judge = stopped.evaluate
    stopped.loop._evaluate = lambda params: (terminate(), judge(params))[1]
    with pytest.raises(Terminated):
        stopped.run()
    assert stopped.evaluated == [2] and steps_logged(tmp_path / "parts", "eval_miou") == [2]
    assert SamplingTraining(tmp_path / "parts", resume=True).run().evaluated == [4, 6, 8]


def test_sigterm_given_twice_still_saves(tmp_path):
    with pytest.raises(Terminated):
        SamplingTraining(tmp_path).run(while_learning=at(1, lambda: (terminate(), terminate())))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]


def test_handlers_and_wakeup_are_given_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)
    with StopRequest(grace=5.0):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)) == before


STUCK = """
    import ctypes, sys
    from pathlib import Path
    from test_stopping import SamplingTraining
    from moonseg_jax.stopping import StopRequest

    def stuck(step):
        if step == 3:
            print("stuck", flush=True)
            # As inside a compiled program: no signal brings the main thread back from a lock that is taken twice.
            lock = ctypes.create_string_buffer(64)
            ctypes.CDLL(None).pthread_mutex_lock(lock)
            ctypes.CDLL(None).pthread_mutex_lock(lock)

    training = SamplingTraining(Path(sys.argv[2]), log_every=3, checkpoint_every=100)
    training.loop._stop = StopRequest(grace=0.5)
    if sys.argv[1] == "judging":
        training.loop._evaluate = lambda params: stuck(3) if params["w"][1] == 4 else {"miou": 0.0}
        training.run()
    else:
        training.run(**{f"while_{sys.argv[1]}": stuck})
"""


def stuck(folder, part):
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STUCK), part, str(folder)], text=True,
        env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "stuck\n", process.stderr.read()
    process.send_signal(signal.SIGTERM)
    return process


@pytest.mark.parametrize(("part", "saved"), [("sampling", 3), ("judging", 4)])
def test_what_lasts_longer_than_grace_is_given_up_and_the_state_before_it_saved(tmp_path, part, saved):
    process = stuck(tmp_path / "parts", part)
    since = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert 0.4 < time.monotonic() - since < 10
    assert f"sft: stopped at step {saved}; go on with --resume --out {tmp_path / 'parts'}" in told
    assert [path.name for path in (tmp_path / "parts" / "checkpoints").iterdir()] == [str(saved)]
    whole = SamplingTraining(tmp_path / "whole", log_every=3, checkpoint_every=100).run()
    resumed = SamplingTraining(tmp_path / "parts", resume=True, log_every=3, checkpoint_every=100).run()
    np.testing.assert_array_equal(resumed.state.params["w"], whole.state.params["w"])
    if part == "sampling":
        assert figures(tmp_path / "parts") == figures(tmp_path / "whole")
    else:
        assert resumed.evaluated == [4, 6, 8]


def test_an_update_is_waited_for_because_it_has_taken_the_state(tmp_path):
    process = stuck(tmp_path, "learning")
    line = ""
    while "has taken the state" not in line:
        line = process.stderr.readline()
        assert line, "it ended without a word"
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert list((tmp_path / "checkpoints").iterdir()) == []
