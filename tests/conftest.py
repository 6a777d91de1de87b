"""What all tests share: exact products, and compiled programs kept between runs."""

import os

import jax
import pytest

CACHE = "JAX_COMPILATION_CACHE_DIR"


def pytest_configure(config: pytest.Config) -> None:
    """Products in full float32; the compilation cache under pytest's own, for child processes too."""
    jax.config.update("jax_default_matmul_precision", "highest")
    if CACHE not in os.environ and config.pluginmanager.hasplugin("cacheprovider"):
        assert config.cache is not None
        os.environ[CACHE] = str(config.cache.mkdir("jax"))
    jax.config.update("jax_compilation_cache_dir", os.environ.get(CACHE))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is at work long after the others have ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def quick_compiling():
    """Compiles without most optimisations, for figures that are not judged."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
