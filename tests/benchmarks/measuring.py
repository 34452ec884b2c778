"""What the benchmarks share: taking turns, medians, counted operations, versions.

Contestants take turns in one process, so that the noise of a machine hits all alike;
what is compared are the ratios within a turn.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.extend.core import jaxprs_in_params

import jax_unlearn as ju

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")


def environment():
    """Return what a number depends on: device, versions, flags, command."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "device": jax.devices()[0].device_kind,
        "processor": processor(),
        "threads": threads(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": versions,
    }


def processor():
    """Return the name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def threads():
    """Return how many cores this process may use; XLA takes all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def turns(contestants, *, repeats, warm_up=1, seconds=None):
    """Let contestants take turns, in rotating order; return the seconds of each turn.

    Args:
      contestants: functions without arguments that wait for their result, by name,
        called (and so compiled) before.
      repeats: counted turns, at least 1.
      warm_up: turns before them.
      seconds: stop early after so long, once 3 turns are counted.

    Returns:
      Seconds by name, a list, a number a turn.
    """
    names, begin = list(contestants), time.perf_counter()
    found = {name: [] for name in names}
    for turn in range(warm_up + repeats):
        late = seconds is not None and time.perf_counter() - begin > seconds
        if late and turn - warm_up >= 3:
            break
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            elapsed = clock(contestants[name])
            if turn >= warm_up:
                found[name].append(elapsed)
    return found


def clock(call):
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(values):
    """Return median, quartiles and number of values."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": middle, "low": low, "high": high, "turns": len(values)}


def relative(found, base):
    """Return the spread of seconds relative to those of `base` in the same turn."""
    return {
        name: spread([a / b for a, b in zip(times, found[base], strict=True)])
        for name, times in found.items()
        if name != base
    }


def slope(sizes, seconds):
    """Return the exponent p of seconds ~ size^p: least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def products(function, *arguments):
    """Return the operations of all convolutions and matrix products of a function.

    A multiplication and an addition count as two; what is inside a loop counts once.
    """
    return _products(jax.make_jaxpr(function)(*arguments).jaxpr)


def _products(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out = equation.params["dimension_numbers"].rhs_spec[0]
            total += 2 * equation.outvars[0].aval.size * kernel_size(kernel, out)
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = int(np.prod([shape[axis] for axis in contracted]))
            total += 2 * equation.outvars[0].aval.size * depth
        for inner in jaxprs_in_params(equation.params):
            total += _products(inner)
    return int(total)


def kernel_size(shape, out):
    """Return the numbers of a kernel that make one output channel."""
    return int(np.prod(shape)) // shape[out]


def resnet8(width):
    """Return a ResNet-8 of ten classes for colour images, as a `Model`."""

    def network(rngs):
        stages = (1, 1, 1)
        return ju.zoo.ResNet(
            10, stage_sizes=stages, width=width, in_channels=3, rngs=rngs
        )

    return ju.from_nnx(network)


def wait(tree):
    """Wait for arrays; return them."""
    return jax.block_until_ready(tree)


def parser(text):
    """Return a parser of what all benchmarks take."""
    made = argparse.ArgumentParser(description=text.splitlines()[0])
    made.add_argument("--quick", action="store_true", help="a few seconds, no meaning")
    made.add_argument("--out", type=Path, help="write the json here too")
    return made


def finish(found, out=None):
    """Print a result as json, with what it was measured on; write it if asked to."""
    text = json.dumps({**environment(), **found}, indent=1, default=float)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
    print(text)


def median(values):
    """Return the median."""
    return statistics.median(values)
