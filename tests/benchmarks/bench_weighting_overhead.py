"""Time of a weighted unlearning step relative to the unweighted one.

Random labels of a convolutional classifier, a relabelled condition of a UNet that
denoises, and GradDiff of a Llama on texts (`--tasks language`). Run with `python
tests/benchmarks/bench_weighting_overhead.py`; prints json and exits with status 1 if a
ratio is over 1.05. Not a test: times need a quiet machine, and pytest does not collect
this file. The counted twin is tests/methods/test_flops.py.
"""

import argparse
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import optax
from measuring import environment

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


def counted():
    """Return class counts and moments for FaLW."""
    spread = [jnp.full(CLASSES, value) for value in (0.5, 0.1, 10.0)]
    return jnp.full(CLASSES, 10), ju.weights.ClassStats(*spread)


def classifier(*, width, batch_size, forward):
    """Return one compiled step by weighting, of random labels; None is the base."""
    counts, stats = counted()
    model = convnet(width)
    inputs = jax.random.normal(jax.random.key(1), (2, batch_size, 32, 32, 3))

    def alg(weighting):
        return ju.methods.random_label(
            model,
            optax.sgd(1e-3, momentum=0.9),
            num_classes=CLASSES,
            weighting=weighting,
            forward=forward,
        )

    return {
        name: stepper(alg(weighting), model, inputs)
        for name, weighting in {
            "none": None,
            "loreun": ju.weights.loreun(temperature=1.0),
            "falw anchored": ju.weights.falw(
                counts, estimator=ju.weights.anchored(stats)
            ),
        }.items()
    }


def diffusion(*, width, batch_size, forward):
    """Return one compiled step by weighting, of a relabelled condition.

    The weighted steps divide each error by the mean of its bin of timesteps too.
    """
    del forward
    counts, stats = counted()
    model = ju.from_nnx(
        lambda rngs: ju.zoo.UNet(
            CLASSES, in_channels=3, block_out_channels=(width, 2 * width), rngs=rngs
        )
    )
    process = ju.diffusion.cosine(1000)
    inputs = jax.random.normal(jax.random.key(1), (2, batch_size, 16, 16, 3))
    bins = jnp.linspace(1.0, 0.01, 10)
    relative = {"temperature": 1.0, "relative": True}

    def alg(weighting):
        return ju.methods.assemble(
            model,
            optax.adam(1e-4),
            forget=ju.objectives.relabel_condition(
                model,
                process,
                replace=ju.diffusion.random_other(CLASSES),
                scale=None if weighting is None else bins,
            ),
            retain=ju.objectives.denoise(model, process),
            weighting=weighting,
        )

    return {
        name: stepper(alg(weighting), model, inputs)
        for name, weighting in {
            "none": None,
            "loreun": ju.weights.loreun(**relative),
            "loreun static": ju.weights.loreun_static(
                jnp.linspace(0.5, 2.0, batch_size), **relative
            ),
            "falw anchored": ju.weights.falw(
                counts, estimator=ju.weights.anchored(stats)
            ),
        }.items()
    }


def language(*, width, batch_size, forward):
    """Return one compiled step by weighting, of GradDiff on texts of 80 tokens."""
    del forward
    config = ju.zoo.DecoderConfig(2048, width=width, layers=4, heads=4)
    model = ju.language.decoder(config, outputs="scored")
    tokens = jax.random.randint(jax.random.key(1), (2, batch_size, 80), 0, 2048)
    answers = jnp.broadcast_to(jnp.arange(80) >= 20, tokens.shape)
    relative = {"temperature": 1.0, "relative": True}
    table = jnp.linspace(0.01, 0.15, batch_size)
    ways = {
        "none": {},
        "loreun": {"weighting": ju.weights.loreun(**relative)},
        "loreun static": {"weighting": ju.weights.loreun_static(table, **relative)},
        "loreun by token": {"of": ju.weights.loreun_tokens(temperature=1.0)},
    }

    def alg(weighting=None, of=None):
        return ju.methods.assemble(
            model,
            optax.adam(1e-4),
            forget=ju.objectives.next_token_ascent(model, token_weight=of),
            retain=ju.objectives.next_token(model),
            weighting=weighting,
        )

    texts = ju.language.Text(tokens, answers)
    return {name: stepper(alg(**how), model, texts) for name, how in ways.items()}


def stepper(alg, model, inputs):
    """Return a function that takes one compiled step and waits for it."""
    batch_size = jax.tree.leaves(inputs)[0].shape[1]
    pairs = [tuple(leaf) for leaf in jax.tree.leaves(inputs)]
    parts = [
        jax.tree.unflatten(jax.tree.structure(inputs), x)
        for x in zip(*pairs, strict=True)
    ]
    ids = jnp.arange(batch_size)
    batch = ju.UnlearnBatch(*(ju.Batch(x, ids % CLASSES, ids) for x in parts))
    key = jax.random.key(0)
    step = jax.jit(alg.step, donate_argnums=0)
    carried = {"state": alg.init(*model.init(key, None))}

    def once():
        state, _ = step(carried["state"], batch, key)
        carried["state"] = jax.block_until_ready(state)

    return once


def measure(task, *, width=32, batch_size=128, forward="separate", rounds=40):
    """Return median seconds and ratios; the steps take turns within each round.

    A turn is the fastest of three steps, so that one interruption is not counted.
    """
    steps = task(width=width, batch_size=batch_size, forward=forward)
    warm_up = 2
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
        "task": task.__name__,
        "device": jax.devices()[0].device_kind,
        "forward": forward,
        "batch_size": batch_size,
        "rounds": rounds,
        "median_seconds": {n: statistics.median(t) for n, t in seconds.items()},
        "median_ratio": ratios,
        "limit": LIMIT,
        "ok": all(ratio <= LIMIT for ratio in ratios.values()),
    }


TASKS = {
    "classifier": [(classifier, {"forward": f}) for f in ("separate", "merged")],
    "diffusion": [(diffusion, {"width": 16, "batch_size": 32})],
    "language": [(language, {"width": 128, "batch_size": 16})],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    usual = ["classifier", "diffusion"]
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=usual)
    asked = parser.parse_args()
    tasks = [
        measure(task, **how, rounds=asked.rounds)
        for name in asked.tasks
        for task, how in TASKS[name]
    ]
    json.dump(environment() | {"tasks": tasks}, sys.stdout, indent=1)
    print()
    return 0 if all(task["ok"] for task in tasks) else 1


if __name__ == "__main__":
    sys.exit(main())
