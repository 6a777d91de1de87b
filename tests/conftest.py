"""What all tests share: exact products, and compiled programs kept between runs."""

import os

import jax
import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Products in full float32; the compilation cache under pytest's own, for child processes too."""
    jax.config.update("jax_default_matmul_precision", "highest")
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("jax")))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
