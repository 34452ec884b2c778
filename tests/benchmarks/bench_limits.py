"""The two limits of each step of `full-cifar10`, before anything has run.

Operations and least bytes of one step, traced at full size and not compiled; with the
peaks of data sheets they give the least milliseconds and the most samples a second of
each device. `--topology v5e:2x2` compiles each step for a TPU chip too, which needs no
TPU but `pip install libtpu`, and tells the bytes that XLA counts. Run with `python
tests/benchmarks/bench_limits.py`; prints the table of `ACCELERATOR.md`.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jax_unlearn as ju
from jax_unlearn.drivers.limits import PEAKS, cost_of
from jax_unlearn.lab import Training
from jax_unlearn.lab.modalities.classification.networks import describe
from jax_unlearn.recipes.recipe import packaged

DEVICES = ("NVIDIA H100 80GB HBM3", "NVIDIA H200", "TPU v5 lite")
CLASSES, SIDE = 10, 32


def sized(number):
    """Return the shapes of a batch of images."""
    whole = jax.ShapeDtypeStruct((number,), jnp.int32)
    images = jax.ShapeDtypeStruct((number, SIDE, SIDE, 3), jnp.uint8)
    return ju.Batch(images, whole, whole)


def network(training):
    """Return the model of a training setting."""
    from jax_unlearn.lab.modalities.classification.networks import build

    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    examples = ju.data.Examples(noise, np.arange(2, dtype=np.int32))
    names = tuple(map(str, range(CLASSES)))
    dataset = ju.data.Dataset("noise", examples, examples, CLASSES, names)
    return build(describe(training, dataset))


LABELS = (
    *("training, large", "RL", "RL + LoReUn", "RL + FaLW (streaming)"),
    *("RL + FaLW (exact)", "LTU, first order", "LTU"),
    *("training, deep", "training, little"),
)


def step(label, size):
    """Return the network's name, its model, the unlearner and shapes of a batch."""
    kind, _, name = label.partition("training, ")
    training = Training(**size[name or "large"])
    model, half = network(training), sized(training.batch_size)
    optimizer = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9))
    both, weights = ju.UnlearnBatch(half, half), ju.weights
    counts = jnp.full(CLASSES, 400.0)
    if not kind and name:
        both = ju.UnlearnBatch(retain=half)
        return training.network, model, ju.methods.finetune(model, optimizer), both
    if label.startswith("LTU"):
        made = ltu(model, optimizer, label == "LTU, first order")
        return training.network, model, made, both
    weighting = {
        "RL + LoReUn": lambda: weights.loreun(temperature=1.0),
        "RL + FaLW (streaming)": lambda: weights.falw(
            counts, estimator=weights.streaming()
        ),
        "RL + FaLW (exact)": lambda: weights.falw(counts),
    }.get(label, lambda: None)()
    if "streaming" in label:
        both = both._replace(reference=half)
    elif "exact" in label:
        both = both._replace(reference=sized(size["unseen"]))
    options = {"num_classes": CLASSES, "forward": "merged", "weighting": weighting}
    made = ju.methods.random_label(model, optimizer, **options)
    return training.network, model, made, both


def ltu(model, optimizer, first_order):
    """Return LTU with two attacks that learned nothing: a step costs the same."""
    attacks = ju.membership.default_attacks()[:2]
    noise = np.random.default_rng(0).normal(size=(2, 64, CLASSES)).astype(np.float32)
    labels = jnp.asarray(np.arange(64) % CLASSES, jnp.int32)
    members, others = (ju.membership.Observed(jnp.asarray(x), labels) for x in noise)
    params, _ = ju.membership.train_attacks(attacks, members, others, jax.random.key(0))
    return ju.methods.ltu(
        model,
        optimizer,
        queries=2,
        attacks=attacks,
        attack_params=params,
        inner=optax.sgd(0.01),
        num_classes=CLASSES,
        first_order=first_order,
    )


def measure(*, size, topology=None, names=LABELS):
    """Return costs and limits of each step by name."""
    rows, chip = {}, None
    if topology is not None:
        if importlib.util.find_spec("libtpu") is None:
            print(f"{topology}: libtpu is not installed, not compiled", file=sys.stderr)
        else:
            from jax.experimental import topologies

            shape = {"platform": "tpu", "topology_name": topology}
            chip = topologies.get_topology_desc(**shape).devices[0]
    for label in names:
        told, model, unlearner, batch = step(label, size)
        start = jax.eval_shape(model.init, jax.random.key(0), sized(2).inputs)
        state = jax.eval_shape(unlearner.init, *start)
        key = jax.eval_shape(lambda: jax.random.key(0))
        cost = cost_of(unlearner.step, state, batch, key)
        samples = sum(len(part.labels) for part in batch[:2] if part is not None)
        row = {"network": told, "samples": samples, **cost._asdict(), "devices": {}}
        for device in DEVICES:
            least = cost.seconds(PEAKS[device])
            most = samples / max(least.values())
            row["devices"][device] = {**least, "samples_per_second": most}
        if chip is not None:
            row["compiled for"] = chip.device_kind
            row["XLA's bytes"] = compiled(unlearner.step, state, batch, key, chip=chip)
        rows[label] = row
        print(label, file=sys.stderr, flush=True)
    return rows


def compiled(step, *arguments, chip):
    """Return the bytes that XLA counts of a step compiled for a chip."""
    from jax.sharding import SingleDeviceSharding

    place = SingleDeviceSharding(chip)
    given = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments
    )
    told = jax.jit(step, donate_argnums=0).lower(*given).compile().cost_analysis()
    return (told[0] if isinstance(told, list) else told)["bytes accessed"]


def table(rows):
    """Return the rows as a table in Markdown."""
    heads = ["step", "network", "samples", "GFLOP", "least MB"]
    heads += [f"{device}: ms by operations, bytes; samples/s" for device in DEVICES]
    chips = {row["compiled for"] for row in rows.values() if "compiled for" in row}
    heads += [f"MB by XLA, compiled for {chip}" for chip in chips]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for label, row in rows.items():
        cells = [label, row["network"], str(row["samples"])]
        cells += [f"{row['flops'] / 1e9:,.0f}", f"{row['bytes'] / 1e6:,.0f}"]
        for limits in row["devices"].values():
            times = f"{1e3 * limits['operations']:.2f}, {1e3 * limits['bytes']:.2f}"
            cells.append(f"{times}; {limits['samples_per_second']:,.0f}")
        if chips:
            cells.append(f"{row.get(XLA, 0) / 1e6:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


XLA = "XLA's bytes"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="full-cifar10", help="of the recipe")
    parser.add_argument("--topology", help="TPU chips to compile for, as v5e:2x2")
    parser.add_argument("--names", nargs="+", default=LABELS, help="steps")
    parser.add_argument("--out", type=Path, help="write the json here")
    told = parser.parse_args()
    size = packaged("grids/full.toml")["sizes"][told.size]
    rows = measure(size=size, topology=told.topology, names=told.names)
    if told.out is not None:
        found = {"benchmark": "limits", "jax": jax.__version__, "rows": rows}
        told.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
