"""Compiled programs: kept in JAX's persistent cache, and counted."""

from __future__ import annotations

import os
from pathlib import Path

import jax

_BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"
_count = 0


def keep_compiled_programs() -> None:
    """Keeps compiled programs on disk, so that a second run starts at once; starts counting them.

    The folder is `JAX_COMPILATION_CACHE_DIR`, or `moonseg` in the user's cache folder.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moonseg" / "compiled"
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.monitoring.register_event_duration_secs_listener(_count_compilation)


def one_cpu_device_per_core() -> None:
    """Makes every core a device of its own, where the CPU is the platform and `JAX_NUM_CPU_DEVICES` says nothing.

    Small decoding steps gain little from two threads and much from two engines. Only before the first use of JAX.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def compiled_programs() -> int:
    """Programs compiled (or taken from the cache) since `keep_compiled_programs`."""
    return _count


def _count_compilation(event: str, duration_secs: float, **kwargs: str | int) -> None:
    global _count
    _count += event == _BACKEND_COMPILE
