"""Time of a weighted unlearning step relative to the unweighted one.

Run with `python tests/benchmarks/bench_weighting_overhead.py`; prints json and exits
with status 1 if a ratio is over 1.05. Not a test: times need a quiet machine, and
pytest does not collect this file. The counted twin is tests/methods/test_flops.py.
"""

import argparse
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import optax

import jax_unlearn as ju

CLASSES, LIMIT = 10, 1.05


def convnet(width):
    """Return a convolutional network of three layers."""
    shapes = [(3, width), (width, 2 * width), (2 * width, 2 * width)]

    def init(key, inputs):
        del inputs
        keys = jax.random.split(key, len(shapes) + 1)
        kernels = [
            jax.random.normal(k, (3, 3, *shape)) * (2 / (9 * shape[0])) ** 0.5
            for k, shape in zip(keys[1:], shapes, strict=True)
        ]
        head = jax.random.normal(keys[0], (2 * width, CLASSES)) / (2 * width) ** 0.5
        return {"kernels": kernels, "head": head}

    def apply(params, x):
        for kernel in params["kernels"]:
            x = jax.lax.conv_general_dilated(
                x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x)
        return jnp.mean(x, axis=(1, 2)) @ params["head"]

    return ju.from_stateless(init, apply)


def weightings():
    """Return the weightings measured; None is the base line."""
    counts = jnp.full(CLASSES, 10)
    stats = ju.weights.ClassStats(
        jnp.full(CLASSES, 0.5), jnp.full(CLASSES, 0.1), jnp.full(CLASSES, 10.0)
    )
    return {
        "none": None,
        "loreun": ju.weights.loreun(temperature=1.0),
        "falw anchored": ju.weights.falw(counts, estimator=ju.weights.anchored(stats)),
    }


def prepare(weighting, *, width, batch_size, forward):
    """Return a function that takes one compiled step and waits for it."""
    model = convnet(width)
    keys = jax.random.split(jax.random.key(0), 3)
    params, model_state = model.init(keys[0], None)
    parts = [
        ju.Batch(
            jax.random.normal(key, (batch_size, 32, 32, 3)),
            jnp.arange(batch_size) % CLASSES,
            jnp.arange(batch_size),
        )
        for key in keys[1:]
    ]
    alg = ju.methods.random_label(
        model,
        optax.sgd(1e-3, momentum=0.9),
        num_classes=CLASSES,
        weighting=weighting,
        forward=forward,
    )
    step = jax.jit(alg.step, donate_argnums=0)
    carried = {"state": alg.init(params, model_state)}

    def once():
        state, _ = step(carried["state"], ju.UnlearnBatch(*parts), keys[0])
        carried["state"] = jax.block_until_ready(state)

    return once


def measure(*, width=32, batch_size=128, forward="separate", rounds=40, warm_up=2):
    """Return median seconds and ratios; the steps take turns within each round.

    A turn is the fastest of three steps, so that one interruption is not counted.
    """
    steps = {
        name: prepare(w, width=width, batch_size=batch_size, forward=forward)
        for name, w in weightings().items()
    }
    seconds = {name: [] for name in steps}
    for turn in range(warm_up + rounds):
        names = list(steps)
        names = names[turn % len(names) :] + names[: turn % len(names)]
        for name in names:
            elapsed = []
            for _ in range(3):
                start = time.perf_counter()
                steps[name]()
                elapsed.append(time.perf_counter() - start)
            if turn >= warm_up:
                seconds[name].append(min(elapsed))
    ratios = {
        name: statistics.median(
            a / b for a, b in zip(times, seconds["none"], strict=True)
        )
        for name, times in seconds.items()
        if name != "none"
    }
    return {
        "device": jax.devices()[0].device_kind,
        "forward": forward,
        "batch_size": batch_size,
        "rounds": rounds,
        "median_seconds": {n: statistics.median(t) for n, t in seconds.items()},
        "median_ratio": ratios,
        "limit": LIMIT,
        "ok": all(ratio <= LIMIT for ratio in ratios.values()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=32)
    options = vars(parser.parse_args())
    results = [measure(forward=f, **options) for f in ("separate", "merged")]
    json.dump(results, sys.stdout, indent=1)
    print()
    return 0 if all(result["ok"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
