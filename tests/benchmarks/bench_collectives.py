"""Collectives of an unlearning step of ResNet-18, counted in the compiled program.

Compiles the step of random labels with LoReUn weights on 32x32 images for several
devices, data parallel and with fully sharded parameters, and runs none of it. Run with
`python tests/benchmarks/bench_collectives.py`: eight fake CPU devices and a narrow
network; `--width 64` is the usual one. `--topology v5e:2x4 v5e:16x16` compiles for as
many TPU chips, which needs no TPU, but `pip install libtpu`. Prints json, and lines to
stderr. Not a test: pytest does not collect this file.

The efficiency told after the counts is a model (`collectives.py`) of the
chip given by `--flops`, `--bandwidth` and `--latency`, whose defaults are examples and
no measurement of any chip.
"""

import argparse
import itertools
import json
import math
import os
import sys

FLAGS = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax
from collectives import Chip, counted, efficiency
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jax_unlearn as ju

CHIPS = (8, 16, 32, 64, 128, 256)
RULES = {"data-parallel": (), "fully-sharded": ju.sharding.fully_sharded()}
FORWARD = ("merged", "separate")


def devices(topology):
    """Return the devices of a TPU topology, or those that are here."""
    if topology == "cpu":
        return jax.devices()
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def compiled(mesh, rules, *, width, samples, forward):
    """Return the compiled step, and the bytes of the parameters."""
    model = ju.from_nnx(lambda rngs: ju.zoo.ResNet18(10, width=width, rngs=rngs))
    alg = ju.methods.random_label(
        model,
        optax.sgd(0.1, momentum=0.9),
        num_classes=10,
        weighting=ju.weights.loreun(temperature=1.0),
        forward=forward,
    )
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    start = jax.eval_shape(model.init, jax.random.key(0), image)
    state = jax.eval_shape(alg.init, *start)
    size = samples * mesh.devices.size
    batch = ju.Batch(
        jax.ShapeDtypeStruct((size, 32, 32, 3), jnp.float32),
        *[jax.ShapeDtypeStruct((size,), jnp.int32)] * 2,
    )

    def put(leaf, place):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    state = jax.tree.map(put, state, ju.sharding.shardings(state, mesh, rules))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    both = jax.tree.map(lambda leaf: put(leaf, rows), ju.UnlearnBatch(batch, batch))
    key = put(
        jax.eval_shape(lambda: jax.random.key(0)), NamedSharding(mesh, PartitionSpec())
    )
    step = ju.sharding.in_place(alg.step, state)
    program = jax.jit(step, donate_argnums=0).lower(state, both, key).compile()
    return program, sum(4 * math.prod(x.shape) for x in jax.tree.leaves(start[0]))


def told(program, params, chip):
    """Return counts and bytes, and the efficiencies of the model."""
    found = counted(program.as_text())
    kinds = {}
    for each in found:
        kind = kinds.setdefault(each.kind, {"operations": 0, "with matrices": 0})
        kind["operations"] += 1
        kind["with matrices"] += any(len(dims) > 1 for _, dims in each.shapes)
        for shape in each.shapes:
            rank = ("scalars", "vectors", "matrices")[min(len(shape[1]), 2)]
            own = kind.setdefault(rank, {"arrays": 0, "bytes": 0})
            own["arrays"] += 1
            own["bytes"] += each._replace(shapes=(shape,)).bytes
    size = sum(each.bytes for each in found)
    flops = (program.cost_analysis() or {}).get("flops", math.nan)
    shares = {}
    for name, latency in (("without latency", 0.0), ("with latency", chip.latency)):
        own = chip._replace(latency=latency)
        shares[name] = {n: efficiency(found, flops, n, chip=own) for n in CHIPS}
    return {
        "bytes": size,
        "bytes / parameters": size / params,
        "collectives": kinds,
        "flops of one device": flops,
        "modelled efficiency by chips": shares,
    }


def measure(*, width, samples, topology, placement, forward, chip):
    """Return the counts of every program asked for."""
    programs = []
    for name in topology:
        at = np.array(devices(name))
        mesh = Mesh(at, ("data",))
        for ways in itertools.product(placement, forward):
            program, params = compiled(
                mesh,
                RULES[ways[0]],
                width=width,
                samples=samples,
                forward=ways[1],
            )
            found = {
                "compiled for": f"{at.size} x {at.flat[0].device_kind}",
                "parameters": ways[0],
                "forward": ways[1],
                **told(program, params, chip),
            }
            programs.append(found)
            print(line(found), file=sys.stderr, flush=True)
    return {
        "network": "ResNet-18, 32x32 images, 10 classes",
        "method": "random labels + LoReUn",
        "jax": jax.__version__,
        "width": width,
        "forget and retain samples of a device": [samples, samples],
        "bytes of the parameters": params,
        "chip of the model (an example)": chip._asdict(),
        "programs": programs,
    }


def line(found):
    """Return the result in one line."""
    ways = ", ".join(found[name] for name in ("compiled for", "parameters", "forward"))
    kinds = ", ".join(
        f"{kind['operations']} {name} ({kind['with matrices']} with matrices)"
        for name, kind in found["collectives"].items()
    )
    return f"{ways}: {found['bytes / parameters']:.4f} x the parameters by {kinds}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--samples", type=int, default=16, help="a device, each kind")
    parser.add_argument("--topology", nargs="+", default=["cpu"])
    parser.add_argument("--placement", nargs="+", default=[*RULES], choices=[*RULES])
    parser.add_argument("--forward", nargs="+", default=[*FORWARD], choices=FORWARD)
    parser.add_argument("--flops", type=float, default=5e13, help="a second, reached")
    parser.add_argument("--bandwidth", type=float, default=5e10, help="bytes a second")
    parser.add_argument("--latency", type=float, default=1e-6, help="seconds a message")
    options = vars(parser.parse_args())
    chip = Chip(*(options.pop(name) for name in Chip._fields))
    json.dump(measure(**options, chip=chip), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
