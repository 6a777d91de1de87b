"""Checkpoints that are damaged, half written, another run's, or that no disk has room for."""

import errno
import gc
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import assert_same_bits, learner_state
from test_loop import FakeTraining

from moonseg_jax.checkpoint import Checkpoints, is_full_disk
from moonseg_jax.checkpoint_files import require_whole, write_list
from moonseg_jax.errors import UserError
from moonseg_jax.loop import Sitting
from moonseg_jax.run_directory import RunDirectory

# Orbax leaves unawaited coroutines behind when a restore fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def saved(tmp_path):
    """Checkpoints 2 and 4, of different states."""
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4):
        checkpoints.save(step, learner_state(seed=step), {"loader": {"next": step}})
    checkpoints.close()
    yield tmp_path
    gc.collect()


def files_of(folder):
    return [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "files.json"]


def test_every_file_that_was_cut_short_or_is_gone_is_found_and_named(saved):
    files = files_of(saved / "4")
    assert len(files) > 10
    for file in files:
        content = file.read_bytes()
        cut = content[: len(content) // 2]
        for damage, said in ((cut, f"has {len(cut)} bytes of {len(content)}"), (None, "is missing")):
            file.unlink()
            if damage is not None:
                file.write_bytes(damage)
            told = rf"{saved}/4 is damaged: {file.relative_to(saved / '4')} {said}; --allow-older .* checkpoint 2"
            with pytest.raises(UserError, match=told):
                Checkpoints(saved).restore(learner_state())
            file.write_bytes(content)
    assert Checkpoints(saved).restore(learner_state())[0] == 4


def test_the_one_before_a_damaged_one_is_used_only_when_allowed_and_saved_over_without_harm(saved):
    (saved / "4" / "state" / "manifest.ocdbt").write_bytes(b"")
    checkpoints = Checkpoints(saved)
    with pytest.raises(UserError, match="is damaged"):
        checkpoints.restore(learner_state())
    step, state, rest = checkpoints.restore(learner_state(), allow_older=True)
    assert (step, rest) == (2, {"loader": {"next": 2}})
    assert_same_bits(state, learner_state(seed=2))
    checkpoints.save(3, learner_state(seed=3), {"loader": {"next": 3}})
    checkpoints.save(4, learner_state(seed=5), {"loader": {"next": 9}})
    checkpoints.close()
    assert sorted(folder.name for folder in saved.iterdir()) == ["3", "4", "4.damaged"]
    step, state, _ = Checkpoints(saved).restore(learner_state())
    assert step == 4
    assert_same_bits(state, learner_state(seed=5))


def test_without_one_before_it_nothing_is_promised(saved):
    for step in ("2", "4"):
        files_of(saved / step)[-1].unlink()
    with pytest.raises(UserError, match=rf"{saved}/2 is damaged: .*; there is none before it: start over"):
        Checkpoints(saved).restore(learner_state(), allow_older=True)


def flip_a_bit(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 0x01
    file.write_bytes(bytes(content))


@pytest.fixture
def saved_wide(tmp_path):
    """A checkpoint whose arrays are too large to lie in the database's own nodes."""
    state = learner_state(width=3000)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(4, state, {"loader": {"next": 4}})
    checkpoints.close()
    yield tmp_path, state
    gc.collect()


def test_a_flipped_bit_in_any_file_is_found_and_named(saved_wide):
    folder, state = saved_wide
    files = files_of(folder / "4")
    assert max(file.stat().st_size for file in files) > 100_000  # arrays
    for file in files:
        for at in {0, file.stat().st_size // 2, file.stat().st_size - 1}:
            flip_a_bit(file, at)
            told = rf"{folder}/4 is damaged: {file.relative_to(folder / '4')} is not what was written \(its CRC-32"
            with pytest.raises(UserError, match=told):
                Checkpoints(folder).restore(state)
            flip_a_bit(file, at)
    assert_same_bits(Checkpoints(folder).restore(state)[1], state)


def test_a_flipped_bit_or_a_cut_in_the_list_of_files_is_named_too(saved):
    listed = saved / "4" / "files.json"
    content = listed.read_bytes()
    for at in range(0, len(content), 7):
        flip_a_bit(listed, at)
        with pytest.raises(UserError, match=r"4 is damaged: files\.json is not the list that was written"):
            require_whole(saved / "4")
        listed.write_bytes(content)
    listed.write_bytes(content[:100])
    with pytest.raises(UserError, match=r"4 is damaged: files\.json is not the list .*--allow-older .* checkpoint 2"):
        Checkpoints(saved).restore(learner_state())


def test_lists_hold_the_checksums_that_the_polynomial_gives(tmp_path):
    (tmp_path / "a").write_bytes(b"123456789")
    write_list(tmp_path)
    # The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    assert json.loads((tmp_path / "files.json").read_text())["files"] == {"a": {"bytes": 9, "crc32": 0xCBF43926}}
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["a", "files.json"]


def test_checkpoints_of_before_lists_held_checksums_are_read(saved):
    for step in ("2", "4"):
        listed = saved / step / "files.json"
        files = json.loads(listed.read_text())["files"]
        listed.write_text(json.dumps({name: entry["bytes"] for name, entry in files.items()}))
    assert Checkpoints(saved).restore(learner_state())[0] == 4
    (saved / "4" / "files.json").unlink()
    assert Checkpoints(saved).restore(learner_state())[0] == 4


@pytest.mark.parametrize("name", ["rest/manifest.ocdbt", "state/manifest.ocdbt", "state/_METADATA"])
def test_without_a_list_a_changed_byte_of_what_orbax_reads_first_is_damage_too(saved, name):
    (saved / "4" / "files.json").unlink()
    file = saved / "4" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"4 is damaged .*--allow-older"):
        Checkpoints(saved).restore(learner_state())


def test_what_a_save_that_was_cut_off_left_is_not_a_checkpoint(saved):
    (saved / "4").rename(saved / "6.orbax-checkpoint-tmp")
    checkpoints = Checkpoints(saved)
    assert checkpoints.latest_step == 2
    assert checkpoints.restore(learner_state())[0] == 2
    checkpoints.close()
    assert [folder.name for folder in saved.iterdir()] == ["2"]


def test_a_loop_says_how_to_go_on_and_goes_on_from_the_one_before(tmp_path):
    whole = FakeTraining(tmp_path / "whole").run()
    FakeTraining(tmp_path / "parts", steps=6).run()
    (tmp_path / "parts" / "checkpoints" / "6" / "rest" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(UserError, match=r"6 is damaged: rest/manifest\.ocdbt has 0 bytes .*checkpoint 3"):
        FakeTraining(tmp_path / "parts", resume=True)
    training = FakeTraining(tmp_path / "other")
    training.loop = type(training.loop)(
        training.loop.config, RunDirectory.resume(tmp_path / "parts", "sft", "{}"), judged_by="miou",
        evaluate=training.evaluate, export=training.export, extra=training.seen, sitting=Sitting(allow_older=True),
    )  # fmt: skip
    training.state = training.loop.restore(training.state, training.loader)
    assert next(training.loop.steps()) == 3
    training.run()
    np.testing.assert_array_equal(training.state.params["w"], whole.state.params["w"])


def test_checkpoints_of_another_run_are_refused_and_both_are_named(tmp_path):
    runs = {}
    for name, seed in (("mine", 0), ("theirs", 1)):
        runs[name] = RunDirectory.create(tmp_path / name, "sft", json.dumps({"seed": seed, "steps": 5 + seed}))
    told = (
        rf"^{re.escape(str(tmp_path))}/mine/checkpoints/5 belongs to another run \(fingerprint [0-9a-f]{{8}}\) than "
        rf"{re.escape(str(tmp_path))}/mine/config\.json \(fingerprint [0-9a-f]{{8}}\): seed \(was 1, now 0\), steps"
    )
    with pytest.raises(UserError, match=told):
        runs["mine"].require_own(runs["mine"].checkpoints / "5", runs["theirs"].identity)
    longer = RunDirectory(tmp_path / "mine", "sft", config_text='{"seed": 0, "steps": 9}', may_differ=["steps"])
    longer.require_own(longer.checkpoints / "5", runs["mine"].identity)
    with pytest.raises(UserError, match=r"kind \(was 'sft', now 'rl'\)"):
        RunDirectory(tmp_path, "rl").require_own(tmp_path / "5", runs["mine"].identity)


def test_a_loop_refuses_the_checkpoints_of_another_run_before_it_reads_their_state(tmp_path):
    FakeTraining(tmp_path / "theirs", steps=4).run()
    other = RunDirectory.create(tmp_path / "mine", "rl", "{}")
    (tmp_path / "theirs" / "checkpoints").rename(other.checkpoints)
    training = FakeTraining(tmp_path / "unused")
    loop = type(training.loop)(
        training.loop.config, other, judged_by="miou", evaluate=training.evaluate, export=training.export
    )  # fmt: skip
    with pytest.raises(UserError, match=r"mine/checkpoints/4 belongs to another run .*kind \(was 'sft', now 'rl'\)"):
        loop.restore(training.state.replace(params={}), training.loader)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError('RESOURCE_EXHAUSTED: Error writing "d/1": [OS error 28: ENOSPC No space left on device]'),
    ],
    ids=["disk", "quota", "tensorstore"],
)
def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_whole(saved, monkeypatch, error):
    checkpoints = Checkpoints(saved)

    def save(*args, **kwargs):
        raise RuntimeError("the save failed") from error

    monkeypatch.setattr(checkpoints._checkpointer, "save_checkpointables", save)
    with pytest.raises(UserError, match=rf"^no space left for checkpoint 6 in {saved}: checkpoint 4 is whole; .*--res"):
        checkpoints.save(6, learner_state(), {})
    assert Checkpoints(saved).restore(learner_state())[0] == 4
    assert not is_full_disk(OSError(errno.EIO, "Input/output error"))


FULL = """
    import sys, time
    from pathlib import Path
    import jax, numpy as np
    from test_checkpoint import learner_state
    from moonseg_jax.checkpoint import Checkpoints
    from moonseg_jax.errors import UserError

    folder = Path(sys.argv[1])
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, learner_state(seed=1), {"loader": {"next": 1}})
    noise = np.random.default_rng(0).bytes(2**20)
    try:
        checkpoints.save(2, learner_state(seed=2), {"noise": np.frombuffer(noise, np.uint8)})
    except UserError as error:
        print(f"told: {error}")
    try:
        checkpoints.close()
    except Exception as error:
        print(f"closing: {error}")
    again = Checkpoints(folder)
    resumed = again.restore(learner_state())[0]
    until = time.monotonic() + 30  # What is left of the other one is removed in a thread.
    while len(list(folder.iterdir())) > 1 and time.monotonic() < until:
        time.sleep(0.1)
    print("resumed from", resumed, "beside", sorted(one.name for one in folder.iterdir()))
    again.save(2, learner_state(seed=2), {"loader": {"next": 2}})
    print("then saved", again.latest_step)
"""


def can_mount() -> bool:
    trial = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    try:
        return subprocess.run(trial, capture_output=True, timeout=20).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs to mount a small tmpfs in a namespace of its own")
def test_a_disk_that_is_really_full(tmp_path):
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=600k tmpfs {tmp_path} && exec "$@"', "sh",
         sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines == [
        f"told: no space left for checkpoint 2 in {tmp_path}: checkpoint 1 is whole; make room, then go on with "
        "--resume",
        "resumed from 1 beside ['1']",
        "then saved 2",
    ], done.stderr[-2000:]


def test_metrics_that_find_no_room_name_their_file(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path, "sft", "{}")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=re.escape(f"No space left on device: '{tmp_path}/metrics.jsonl'")):
        run.append_metrics(1, {"loss": 1.0})
