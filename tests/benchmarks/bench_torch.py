"""Unlearning steps of this library and of PyTorch, side by side in one process.

RL, SalUn, RL + LoReUn and RL + FaLW (exact moments) on ResNet-18 and VGG-16 at the
shapes of CIFAR-10, in float32, with the same batch, of which half is to be forgotten.
The contestants take turns: `ju.run`, the straightforward PyTorch loop of public
repositories, PyTorch in channels-last layout, and that compiled. First the batch is
ready on the device, then every step cuts it from bytes, crops, flips and normalises.

All begin with the same weights and get the same batches: with the batch ready, what the
first turn made of the weights must agree. Needs torch; run with
`python tests/benchmarks/bench_torch.py`.
"""

import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measuring import (
    clock,
    finish,
    median,
    parser,
    products,
    relative,
    spread,
    threads,
    turns,
    wait,
)

import jax_unlearn as ju

CLASSES, JAX = 10, "jax_unlearn"
METHODS = ("RL", "SalUn", "RL + LoReUn", "RL + FaLW")
NETWORKS = {"ResNet-18": ju.zoo.ResNet18, "VGG-16": ju.zoo.VGG16}
AGREE = 1e-2  # relative distance of the first turn's changes; float32 leaves 1e-3
MEAN, STD = [np.asarray(v, np.float32) for v in ((0.49, 0.48, 0.45), (0.2,) * 3)]


class Problem(NamedTuple):
    """What all contestants are given.

    Attributes:
      images, labels: all samples, `u8[N, 32, 32, 3]` and `i32[N]`.
      batches: ids of each step, first the half to be forgotten, `[T, B]`.
      relabelled: random label of every sample, `i32[N]`.
      counts: forget samples by class.
      unseen: (normalised images, labels) that FaLW's moments are of.
      mean, std: of the channels.
    """

    images: np.ndarray
    labels: np.ndarray
    batches: Any
    relabelled: np.ndarray
    counts: np.ndarray
    unseen: tuple[np.ndarray, np.ndarray]
    mean: np.ndarray
    std: np.ndarray


def invent(*, batch, steps, unseen, seed=0):
    """Return a problem of random images, and the schedule of its batches as ids."""
    rng = np.random.default_rng(seed)
    total = 16 * batch + unseen
    images = rng.integers(0, 256, (total, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, total).astype(np.int32)
    forget, rest = np.arange(4 * batch), np.arange(4 * batch, 16 * batch)
    half = batch // 2
    ids = [
        np.concatenate([rng.choice(forget, half, False), rng.choice(rest, half, False)])
        for _ in range(steps)
    ]

    def relabel(index, label):
        key = jax.random.fold_in(jax.random.key(0), index)
        return ju.objectives.draw_labels(key, label, num_classes=CLASSES)

    relabelled = jax.vmap(relabel)(jnp.arange(total), jnp.asarray(labels))
    own = slice(16 * batch, None)
    return Problem(
        images,
        labels,
        ids,
        np.array(relabelled),
        np.bincount(labels[forget], minlength=CLASSES).astype(np.float32),
        (normalised(images[own]), labels[own]),
        MEAN,
        STD,
    )


def normalised(images):
    """Return floating images."""
    return ((images.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def unlearner(model, method, problem, mask):
    """Return the method as a user of the library writes it."""
    import torch_side

    options = {"num_classes": CLASSES, "forward": "merged"}
    optimizer = optax.sgd(torch_side.RATE, momentum=torch_side.MOMENTUM)
    if method == "SalUn":
        return ju.methods.salun(model, optimizer, mask=mask, **options)
    weighting = {
        "RL + LoReUn": lambda: ju.weights.loreun(temperature=torch_side.TEMPERATURE),
        "RL + FaLW": lambda: ju.weights.falw(problem.counts, tau=torch_side.TAU),
    }.get(method, lambda: None)()
    return ju.methods.random_label(model, optimizer, weighting=weighting, **options)


def batches_of(problem, method, *, bytes_in):
    """Return the steps' batches, as bytes on the host or as floats on the device."""
    images = problem.images if bytes_in else normalised(problem.images)
    examples = ju.data.Examples(images, problem.labels)
    unseen = None
    if method == "RL + FaLW":
        total, size = len(problem.labels), len(problem.unseen[1])
        unseen = ju.data.take(examples, np.arange(total - size, total))

    def batch(step):
        ids = problem.batches[step]
        half = len(ids) // 2
        parts = (ju.data.take(examples, part) for part in (ids[:half], ids[half:]))
        return ju.UnlearnBatch(*parts, unseen)

    schedule = ju.data.Schedule(batch, len(problem.batches))
    return schedule if bytes_in else jax.device_put(list(schedule))


def library(model, method, problem, start, mask, *, pipeline):
    """Return the contestant of this library, and its last state."""
    if pipeline:
        augment = ju.data.compose(ju.data.random_flip, ju.data.random_crop(4))
        model = ju.data.with_preprocessing(model, mean=MEAN, std=STD, augment=augment)
    alg = unlearner(model, method, problem, mask)
    batches = batches_of(problem, method, bytes_in=pipeline)
    carried = {"state": alg.init(*start)}

    def call():
        state = ju.run(alg, carried["state"], batches, jax.random.key(0))
        carried["state"] = wait(state)

    return call, carried


def rivals(name, method, problem, start, mask, *, pipeline, width, compiled):
    """Return the PyTorch contestants by name, and their networks."""
    import torch
    import torch_side

    def net():
        made = torch_side.NETWORKS[name](CLASSES, width=width)
        return torch_side.load(made, jax.device_get(start[0]))

    own = mask if method == "SalUn" else None
    options = {"mask": own and jax.device_get(own)}
    steps = {
        "torch": torch_side.Straightforward(net(), method, problem, **options),
        "torch channels-last": torch_side.Best(
            net(), method, problem, compiled=False, **options
        ),
    }
    if compiled:
        steps["torch compiled"] = torch_side.Best(
            net(), method, problem, compiled=True, **options
        )

    def ready(step):
        images = normalised(problem.images)
        labels = torch.from_numpy(problem.labels).long()
        return [
            (step.tensor(images[i]), labels[i], torch.from_numpy(i))
            for i in problem.batches
        ]

    def call(kind, step):
        if not pipeline:
            batches = ready(step)
            return lambda: [step(*batch) for batch in batches]
        if kind == "torch":
            usual = torch_side.loader(problem, problem.batches)
            return lambda: [step(*batch) for batch in usual]
        cut = torch_side.Tensors(problem)
        return lambda: [step(*cut(ids)) for ids in problem.batches]

    calls = {kind: call(kind, step) for kind, step in steps.items()}
    return calls, {kind: step.net for kind, step in steps.items()}


def cell(name, method, problem, *, pipeline, width, compiled, repeats, seconds):
    """Return the speed of all contestants in one setting, and whether they agree."""
    model, start, mask = prepared(name, width)
    options = {"pipeline": pipeline}
    call, carried = library(model, method, problem, start, mask, **options)
    options |= {"width": width, "compiled": compiled}
    calls, nets = rivals(name, method, problem, start, mask, **options)
    calls = {JAX: call, **calls}
    first = {kind: clock(one) for kind, one in calls.items()}
    apart = None if pipeline else distances(carried["state"].params, nets, start[0])
    times = turns(calls, repeats=repeats, seconds=seconds)
    samples = sum(len(ids) for ids in problem.batches)
    rivals_only = {kind: median(own) for kind, own in times.items() if kind != JAX}
    return {
        "network": name,
        "method": method,
        "pipeline": pipeline,
        "samples_per_second": {
            kind: spread([samples / t for t in own]) for kind, own in times.items()
        },
        "first_call_seconds": first,
        "times_as_fast": {kind: spread_of(times, kind) for kind in rivals_only},
        "best_torch": min(rivals_only, key=lambda kind: rivals_only[kind]),
        "distance": apart,
    }


def distances(params, nets, start):
    """Return how far the changes of PyTorch's networks are from the library's.

    The distance of the changes since the common start, relative to the library's.
    """
    import torch_side

    new, old = jax.device_get((params, start))
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
    size = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))
    return {
        kind: float(np.linalg.norm(torch_side.changes(net, new)) / size)
        for kind, net in nets.items()
    }


def spread_of(times, kind):
    """Return how many times as fast the library is as a contestant, turn by turn."""
    return relative({kind: times[kind], JAX: times[JAX]}, JAX)[kind]


def prepared(name, width):
    """Return model, (parameters, state) and a random saliency mask of half of them."""
    model = ju.from_nnx(lambda rngs: NETWORKS[name](CLASSES, width=width, rngs=rngs))
    start = jax.jit(model.init)(jax.random.key(0), None)
    leaves, structure = jax.tree.flatten(start[0])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    mask = ju.masks.gradient_saliency(jax.tree.unflatten(structure, noise), keep=0.5)
    return model, start, mask


def twins(name, *, width):
    """Return parameters and operations of a network and its twin."""
    import torch_side

    model, start, _ = prepared(name, width)
    forward = products(
        lambda *given: model.apply(*given, train=False)[0],
        *start,
        jnp.zeros((1, 32, 32, 3)),
    )
    net = torch_side.NETWORKS[name](CLASSES, width=width).eval()
    size = sum(x.size for x in jax.tree.leaves(start[0]))
    return {
        "network": name,
        "parameters": {JAX: size, "torch": torch_side.parameters(net)},
        "forward_operations_a_sample": {
            JAX: forward,
            "torch": torch_side.operations(net, (1, 3, 32, 32)),
        },
    }


def agrees(found):
    """Return whether all contestants computed the same thing."""
    counts = [
        len(set(twin[what].values())) == 1
        for twin in found["networks"]
        for what in ("parameters", "forward_operations_a_sample")
    ]
    apart = [
        distance
        for one in found["cells"]
        for distance in (one["distance"] or {}).values()
    ]
    return all(counts) and max(apart) <= AGREE


def measure(
    *,
    batch=64,
    steps=2,
    unseen=256,
    width=64,
    repeats=5,
    seconds=40.0,
    networks=tuple(NETWORKS),
    methods=METHODS,
    compiled=True,
):
    """Return agreement and speed in every setting."""
    import torch

    torch.set_num_threads(threads())
    torch.manual_seed(0)
    problem = invent(batch=batch, steps=steps, unseen=unseen)
    cells = []
    for name in networks:
        limits = {"repeats": repeats, "seconds": seconds}
        for method in methods:
            for pipeline in (False, True):
                options = {"pipeline": pipeline, "width": width, "compiled": compiled}
                options |= limits
                cells.append(cell(name, method, problem, **options))
                report(cells[-1])
                jax.clear_caches()
    found = {
        "benchmark": "torch",
        "batch": batch,
        "steps_a_turn": steps,
        "unseen": unseen,
        "width": width,
        "torch_threads": torch.get_num_threads(),
        "networks": [twins(name, width=width) for name in networks],
        "cells": cells,
    }
    return {**found, "agrees": agrees(found)}


def report(found):
    """Say on stderr what a setting gave."""
    best, ratio = found["best_torch"], found["times_as_fast"]
    middle = {k: v["median"] for k, v in found["samples_per_second"].items()}
    speeds = ", ".join(f"{k} {v:.1f}" for k, v in middle.items())
    print(
        f"{found['network']}, {found['method']}, pipeline {found['pipeline']}: "
        f"{speeds} samples/s; {ratio['torch']['median']:.2f} times torch, "
        f"{ratio[best]['median']:.2f} times the best ({best})",
        file=sys.stderr,
        flush=True,
    )


def main():
    made = parser(__doc__)
    made.add_argument("--batch", type=int, default=64, help="samples, both halves")
    made.add_argument("--steps", type=int, default=2, help="steps a turn")
    made.add_argument("--unseen", type=int, default=256, help="FaLW's unseen set")
    made.add_argument("--width", type=int, default=64, help="channels at first")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--seconds", type=float, default=40.0, help="a setting, at most")
    made.add_argument("--networks", nargs="+", default=list(NETWORKS))
    made.add_argument("--methods", nargs="+", default=list(METHODS))
    made.add_argument("--no-compile", dest="compiled", action="store_false")
    options = vars(made.parse_args())
    out, quick = options.pop("out"), options.pop("quick")
    if quick:
        options |= {"batch": 8, "steps": 1, "unseen": 8, "width": 8, "repeats": 2}
        options |= {"networks": ["ResNet-18"], "methods": ["RL + FaLW"]}
    found = measure(**options)
    finish(found, out)
    return 0 if found["agrees"] else 1


if __name__ == "__main__":
    sys.exit(main())
