"""Strict JAX for every test: no silent promotion, 8 fake CPU devices."""

import gc
import os
import tempfile
from importlib import metadata
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests spend their time compiling small programs once: skip costly code generation.
FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
    "--xla_cpu_parallel_codegen_split_count=1",
]
# A flag that a jaxlib does not know ends the process: this one is gone since 0.11.2.
if tuple(map(int, metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS))

import hypothesis
import jax
import pytest

# Two files of this name; neither holds a doctest to collect.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


# A compiled program takes some six memory mappings of its process. Linux grants 65,530;
# beyond, XLA's compiler crashes.
MAPPINGS, MANY = Path("/proc/self/maps"), 15_000


class FewPrograms:
    """Let go of compiled programs between files, doctests too, where there are many."""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item, nextitem):
        if nextitem is None or nextitem.path == item.path or not MAPPINGS.exists():
            return
        if MAPPINGS.read_bytes().count(b"\n") > MANY:
            jax.clear_caches()
            gc.collect()


def pytest_configure(config):
    config.pluginmanager.register(FewPrograms())
    # Programs that a test compiles again, or that were let go of, are read from disk. A
    # folder a process: the cache is not made for several writers.
    folder = tempfile.TemporaryDirectory(prefix="jax-unlearn-")
    jax.config.update("jax_compilation_cache_dir", folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    config.add_cleanup(folder.cleanup)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs --slow"))
