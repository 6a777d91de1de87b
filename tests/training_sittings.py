"""Runs `moonseg train` for one stage after the other in one process: a program for the tests of resuming."""

import argparse
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tiny_models import micro, micro_params

from data_pipelines.build import build_shapes
from moonseg_jax import cli, compilation, partition
from moonseg_jax.run_directory import RunDirectory
from moonseg_jax.weights import POLICY, save_weights

CONFIG = """
from tiny_models import micro
from moonseg_jax.learner.optimizers import OptimizerConfig
from moonseg_jax.train_config import RefinerConfig, RlConfig, SftConfig

COMMON = dict(
    model=micro(), data="data", steps=4, images_per_batch={images}, phrases_per_image=1, log_every=3, eval_every=4,
    eval_scenes=1, checkpoint_every=2, loader_threads=1,
)
ADAM = OptimizerConfig(name="adamw", learning_rate=1e-3, warmup_steps=2)
MUON = OptimizerConfig(name="muon", learning_rate=1e-3, adam_learning_rate=1e-3, warmup_steps=2)


def get_config(stage):
    if stage == "sft":
        return SftConfig(**COMMON, start_from="start", optimizer=MUON)
    if stage == "rl":
        return RlConfig(
            **COMMON, start_from="start", optimizer=ADAM, group=8, pair_buffer=20, keep_rollouts=2,
            supervised_weight=0.5, log_reference_kl=False, split_rollout_time=False,
        )
    return RefinerConfig(**COMMON, policy="start", optimizer=ADAM, pairs_from="synthetic", pair_count=12)
"""
"""Four steps, saved after two: the log of the first three begins before the checkpoint and ends behind it."""

READY = "ready to be killed"


def make_inputs(folder: Path, *, images: int) -> None:
    """Data, weights to start from, and `tiny.py`, a config of all three stages with so many images per batch."""
    build_shapes(folder / "data", train=3 * images, val=2, val_unseen=1, level=1, progress=False)
    save_weights(folder / "start", POLICY, micro_params(), micro())
    (folder / "tiny.py").write_text(CONFIG.format(images=images))


def environment(*, devices: int = 1, **more: str) -> dict[str, str]:
    """For processes that run this file: exact products, quick compiling, as many devices."""
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false", **more,
    }  # fmt: skip


def wait_after_metrics_of(last: int) -> None:
    """Makes runs say `READY` and wait, once they have written the metrics of a step."""
    write = RunDirectory.append_metrics

    def write_and_wait(run: RunDirectory, step: int, metrics: Any) -> None:
        write(run, step, metrics)
        if step >= last:
            print(READY, flush=True)
            time.sleep(600)

    RunDirectory.append_metrics = write_and_wait  # type: ignore[method-assign]


def terminate_after_metrics_of(last: int) -> None:
    """Makes runs send SIGTERM to their own process, once they have written the metrics of a step."""
    write = RunDirectory.append_metrics

    def write_and_terminate(run: RunDirectory, step: int, metrics: Any) -> None:
        write(run, step, metrics)
        if step == last:
            os.kill(os.getpid(), signal.SIGTERM)

    RunDirectory.append_metrics = write_and_terminate  # type: ignore[method-assign]


def main() -> int:
    """Reads the command line, trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", help="runs go to NAME-STAGE; several, divided by commas, one after the other")
    parser.add_argument("stages", nargs="+")
    parser.add_argument("--wait-after", type=int, metavar="STEP")
    parser.add_argument("--terminate-after", type=int, metavar="STEP")
    options, words = parser.parse_known_args()
    # Small programs too are taken from the cache, where the environment says so.
    compilation.keep_compiled_programs = lambda: None
    partition.SMALLEST_SPLIT = 64  # So that the micro model is split as large ones are.
    if options.wait_after is not None:
        wait_after_metrics_of(options.wait_after)
    if options.terminate_after is not None:
        terminate_after_metrics_of(options.terminate_after)
    for name, stage in itertools.product(options.names.split(","), options.stages):
        code = cli.main(["train", stage, "--config", "tiny.py", "--out", f"{name}-{stage}", *words])
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
