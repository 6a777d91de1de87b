"""Checks hosts before a long job is paid for: devices, collectives, files, clocks, versions.

python tpu_setup/preflight.py --run DIR                one host
python tpu_setup/preflight.py --distributed --run DIR  on every host of a TPU slice or SLURM job, at the same time
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.metadata
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType

from moonseg_jax.storage import place, require_writable

MIB = 2**20
GIB = 2**30
PACKAGES = ("moonseg-jax", "jax", "jaxlib", "libtpu", "flax", "orbax-checkpoint", "grain")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the check on this host."""

    name: str
    ok: bool
    text: str


def same_everywhere(text: str) -> bool:
    """Whether all hosts say the same; every host must ask."""
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(digest)).reshape(-1, digest.size)
    return bool((rows == rows[0]).all())


def check_devices(expected: int | None) -> Finding:
    """All devices are there, of one kind, the same number on every host."""
    kinds = sorted({device.device_kind for device in jax.devices()})
    per_host = [
        sum(device.process_index == host for device in jax.devices()) for host in range(jax.process_count())
    ]  # fmt: skip
    text = f"{jax.device_count()} of {', '.join(kinds)} on {jax.process_count()} hosts, {per_host} each"
    even = len(set(per_host)) == 1 and len(kinds) == 1
    if expected is not None and jax.device_count() != expected:
        return Finding(name="devices", ok=False, text=f"{text}; --devices says {expected}")
    return Finding(name="devices", ok=even, text=text if even else f"{text}; hosts differ")


def check_versions() -> Finding:
    """The same packages on every host."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "none"

    text = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    text = f"Python {'.'.join(map(str, sys.version_info[:3]))}, {text}"
    same = same_everywhere(text)
    return Finding(name="versions", ok=same, text=text if same else f"hosts differ; this one has {text}")


def check_collectives(mib: int, least: float, repeats: int = 5) -> Finding:
    """A sum over all devices is right, and fast enough.

    Args:
      mib: MiB that every device brings.
      least: GB/s a device must move; bytes × 2 (n - 1) / n over the median time, as for a ring.
    """
    devices = jax.device_count()
    mesh = jax.make_mesh((devices,), ("all",), axis_types=(AxisType.Auto,))
    spec = jax.P("all")
    local = np.ones((jax.local_device_count(), mib * MIB // 4), np.float32)
    array = jax.make_array_from_process_local_data(jax.sharding.NamedSharding(mesh, spec), local)
    total = jax.jit(
        jax.shard_map(lambda x: jax.lax.psum(x, "all"), mesh=mesh, in_specs=spec, out_specs=jax.P())
    )  # fmt: skip
    result = jax.block_until_ready(total(array))
    seconds = []
    for _ in range(repeats):
        since = time.perf_counter()
        result = jax.block_until_ready(total(array))
        seconds.append(time.perf_counter() - since)
    shard = result.addressable_data(0)
    if not bool(jnp.all(shard == devices)):
        return Finding(name="collectives", ok=False, text=f"a sum of ones over {devices} devices is wrong")
    speed = mib * MIB * 2 * (devices - 1) / devices / float(np.median(seconds)) / 1e9
    text = f"{speed:.2f} GB/s a device, psum of {mib} MiB over {devices}"
    return Finding(name="collectives", ok=speed >= least, text=text + ("" if speed >= least else f"; least {least}"))


def check_files(run: str, mib: int = 16) -> Finding:
    """The run's folder takes, gives back and deletes a file of this host; where it is local, what is free."""
    folder = place(run)
    file = folder / f"preflight-{jax.process_index()}-{os.getpid()}"
    content = np.random.default_rng(0).bytes(mib * MIB)
    try:
        require_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        since = time.perf_counter()
        file.write_bytes(content)
        written = time.perf_counter()
        back = file.read_bytes()
        read = time.perf_counter()
        file.unlink()
    except Exception as error:  # Buckets and disks have errors of their own; they become this check's line.
        return Finding(name="files", ok=False, text=f"{run}: {type(error).__name__}: {error}")
    if back != content:
        return Finding(name="files", ok=False, text=f"{run}: what was read is not what was written")
    megabytes = mib * MIB / 1e6
    text = f"{run}: {megabytes / (written - since):.0f} MB/s written, {megabytes / (read - written):.0f} MB/s read"
    if "://" not in run:
        text += f", {shutil.disk_usage(run).free / GIB:.1f} GiB free"
    return Finding(name="files", ok=True, text=text)


def check_shared(run: str) -> Finding:
    """All hosts see one folder: what host 0 writes, the others read."""
    file = place(run) / "preflight-shared"
    if jax.process_index() == 0:
        try:
            file.write_text("shared")
        except Exception as error:  # As above; the other hosts wait in the collective and must not wait for ever.
            print(f"preflight: {run}: {error}", file=sys.stderr)
    multihost_utils.sync_global_devices("written")
    try:
        seen = file.read_text() == "shared"
    except Exception:
        seen = False
    multihost_utils.sync_global_devices("read")
    if jax.process_index() == 0 and seen:
        file.unlink()
    text = f"{run}: " + ("seen by this host" if seen else "host 0's file is not seen by this host")
    return Finding(name="shared", ok=seen, text=text)


def check_memory(least_gib: float) -> Finding:
    """Main memory that is available, by the kernel's count."""
    with open("/proc/meminfo", encoding="ascii") as file:
        rows = dict(line.split(":", 1) for line in file)
    free = int(rows["MemAvailable"].split()[0]) * 1024 / GIB
    return Finding(name="memory", ok=free >= least_gib, text=f"{free:.1f} GiB available, least {least_gib:g}")


def check_clock(most: float, now: Callable[[], float] = time.time) -> Finding:
    """Clocks of the hosts agree, taken right after a barrier."""
    multihost_utils.sync_global_devices("clock")
    moment = now()
    # Two integers: JAX holds floats in 32 bits, which would round the time of day to minutes.
    pair = np.array([int(moment), int(moment % 1 * 1e6)], np.uint32)
    rows = np.asarray(multihost_utils.process_allgather(pair)).reshape(-1, 2).astype(np.float64)
    skew = float(np.ptp(rows[:, 0] - rows[0, 0] + rows[:, 1] / 1e6))
    return Finding(name="clock", ok=skew <= most, text=f"hosts within {skew:.3f} s, most {most:g}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all checks; prints host 0's lines and every failure.

    Returns:
      0, or 1 where a check failed on any host.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, metavar="DIR", help="folder for runs; gs:// too")
    parser.add_argument("--distributed", action="store_true", help="join the other hosts first")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where the cluster does not say it")
    parser.add_argument("--processes", type=int, metavar="N", help="with --coordinator")
    parser.add_argument("--process", type=int, metavar="I", help="with --coordinator: this one, from 0")
    parser.add_argument("--devices", type=int, metavar="N", help="devices that there must be in all")
    parser.add_argument("--mib", type=int, default=64, help="MiB a device sums")
    parser.add_argument("--least-bandwidth", type=float, default=0.0, metavar="GB/S", help="of the sum")
    parser.add_argument("--least-memory", type=float, default=1.0, metavar="GIB", help="main memory")
    parser.add_argument("--most-skew", type=float, default=1.0, metavar="SECONDS", help="between clocks")
    options = parser.parse_args(argv)
    if options.distributed:
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
    findings = [
        check_devices(options.devices),
        check_versions(),
        check_collectives(options.mib, options.least_bandwidth),
        check_files(options.run),
        check_shared(options.run),
        check_memory(options.least_memory),
        check_clock(options.most_skew),
    ]
    for finding in findings:
        if not finding.ok or jax.process_index() == 0:
            word = "ok" if finding.ok else "FAILED"
            print(f"host {jax.process_index()}: {finding.name}: {word}: {finding.text}", flush=True)
    failed = np.array([sum(not finding.ok for finding in findings)], np.int32)
    return int(np.asarray(multihost_utils.process_allgather(failed)).sum() > 0)


if __name__ == "__main__":
    sys.exit(main())
