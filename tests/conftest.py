"""Strict JAX for every test: no silent promotion, 8 fake CPU devices."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests spend their time compiling small programs once: skip costly code generation.
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS))

import jax
import pytest

# Two files of this name; neither holds a doctest to collect.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs --slow"))
