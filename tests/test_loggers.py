"""Copies of the metrics, read back from what TensorBoard and W&B would read."""

import importlib.util
import struct

import numpy as np
import pytest

from moonseg_jax.errors import UserError
from moonseg_jax.loggers import open_loggers, require_libraries
from moonseg_jax.run_directory import RunDirectory, read_json


def needs(library):
    return pytest.mark.skipif(importlib.util.find_spec(library) is None, reason=f"{library} is not installed")


def records(path):
    """Payloads of a TFRecord file: length (8 bytes), its checksum (4), payload, its checksum (4)."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += 12 + length + 4


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def fields(data):
    """Fields of a protocol buffer message: number → its last value (integer, float or bytes)."""
    found, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            found[number], at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            found[number], at = data[at : at + size], at + size
        else:
            size, form = (8, "<d") if kind == 1 else (4, "<f")
            (found[number],), at = struct.unpack_from(form, data, at), at + size
    return found


def scalars(path):
    """(step, tag, value) of an event file. Event: step 2, summary 5; Summary: value 1; Value: tag 1, simple 2."""
    events = [fields(record) for record in records(path)]
    values = [(event.get(2, 0), fields(fields(event[5])[1])) for event in events if 5 in event]
    return [(step, value[1].decode(), value.get(2, 0.0)) for step, value in values]


def purged_from(path):
    """Steps at which a session starts. Event: session log 7; SessionLog: status 1, START is 1."""
    events = [fields(record) for record in records(path)]
    return [event.get(2, 0) for event in events if 7 in event and fields(event[7])[1] == 1]


@needs("tensorboardX")
def test_tensorboard_gets_every_finite_figure_at_its_step(tmp_path):
    (logger,) = open_loggers(("tensorboard",), RunDirectory.create(tmp_path, "rl", "{}"), 0)
    logger.log(5, {"reward": 0.25, "iou_small": float("nan")})
    logger.log(10, {"reward": np.float32(0.5)})
    logger.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert scalars(file) == [(5, "reward", 0.25), (10, "reward", 0.5)]
    assert purged_from(file) == []


@needs("tensorboardX")
def test_a_resumed_run_purges_what_it_will_log_again(tmp_path):
    run = RunDirectory.create(tmp_path, "rl", "{}")
    for first, value in ((0, 0.25), (3, 0.5)):
        (logger,) = open_loggers(("tensorboard",), run, first)
        logger.log(4, {"reward": value})
        logger.close()
    files = list((tmp_path / "tensorboard").iterdir())
    assert sorted(found for file in files for found in scalars(file)) == [(4, "reward", 0.25), (4, "reward", 0.5)]
    assert [step for file in files for step in purged_from(file)] == [4]


@needs("wandb")
def test_wandb_works_offline_and_a_resumed_run_keeps_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = RunDirectory.create(tmp_path / "run", "rl", '{"seed": 3}')
    identities = []
    for first in (0, 3):
        (logger,) = open_loggers(("wandb",), run, first)
        logger.log(first + 1, {"reward": 0.25, "iou_small": float("nan")})
        logger.close()
        identities.append(read_json(run.path / "wandb.json", missing="")["id"])
    assert identities[0] == identities[1]
    files = list((run.path / "wandb").glob(f"offline-run-*/run-{identities[0]}.wandb"))
    assert files
    written = b"".join(file.read_bytes() for file in files)
    assert b"reward" in written and b"0.25" in written and b"iou_small" not in written


def test_missing_libraries_are_all_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"tensorboardX, wandb is not installed: pip .*moonseg-jax\[tensorboard,wandb\]"
    ):
        require_libraries(("tensorboard", "wandb"))
    require_libraries(())
