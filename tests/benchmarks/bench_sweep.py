"""Sixteen LoReUn temperatures as one vectorised program, against sixteen runs.

Random labels on scikit-learn's digits. The temperature is an argument of the compiled
step, so the runs one after the other share one program too; compilation is told apart,
and so is what sixteen programs with constant temperatures would cost. Both must end in
the same parameters. Run with `python tests/benchmarks/bench_sweep.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measuring import clock, finish, parser, relative, spread, turns, wait

import jax_unlearn as ju

NETWORKS = {
    "MLP": lambda rngs: ju.zoo.MLP(10, in_features=64, hidden=(64, 64), rngs=rngs),
    "SmallCNN": lambda rngs: ju.zoo.SmallCNN(10, rngs=rngs),
}


def sweep(name, *, temperatures, batch, steps, repeats):
    """Return seconds of both ways, of their compilation, and how far they differ."""
    model = ju.from_nnx(NETWORKS[name])
    model = ju.data.with_preprocessing(model, mean=[0.3], std=[0.4])
    data = ju.data.digits().train
    forget = np.arange(200)
    batches = list(
        ju.data.zipped(
            data, forget, np.arange(200, 1000), batch_size=batch, steps=steps
        )
    )
    batches, key = jax.device_put(batches), jax.random.key(1)
    params, state = jax.jit(model.init)(jax.random.key(0), data.inputs[:2])
    taus = jnp.geomspace(0.05, 20.0, temperatures, dtype=jnp.float32)

    def unlearner(tau):
        return ju.methods.random_label(
            model,
            optax.sgd(0.05, momentum=0.9),
            num_classes=10,
            weighting=ju.weights.loreun(temperature=tau),
        )

    def step(tau, state, batch):
        return unlearner(tau).step(state, batch, jax.random.fold_in(key, state.step))[0]

    start = unlearner(1.0).init(params, state)
    one = jax.jit(step)
    many = jax.jit(jax.vmap(step, in_axes=(0, 0, None)))

    def apart():
        found = []
        for tau in taus:
            moved = start
            for batch in batches:
                moved = one(tau, moved, batch)
            found.append(moved.params)
        return wait(ju.stack(found))

    def together():
        moved = ju.stack([start] * temperatures)
        for batch in batches:
            moved = many(taus, moved, batch)
        return wait(moved.params)

    stacked = ju.stack([start] * temperatures)
    compiling = {
        "one by one": clock(lambda: one.lower(taus[0], start, batches[0]).compile()),
        "vectorised": clock(lambda: many.lower(taus, stacked, batches[0]).compile()),
    }
    constant = jax.jit(functools.partial(step, 0.7))
    compiling["a program a temperature"] = temperatures * clock(
        lambda: constant.lower(start, batches[0]).compile()
    )
    first, second = apart(), together()
    distance = max(
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )
    times = turns({"one by one": apart, "vectorised": together}, repeats=repeats)
    return {
        "network": name,
        "seconds": {kind: spread(own) for kind, own in times.items()},
        "one_by_one_to_vectorised": relative(times, "vectorised")["one by one"],
        "compile_seconds": compiling,
        "largest_difference": distance,
    }


def measure(
    *, temperatures=16, batch=64, steps=20, repeats=5, networks=tuple(NETWORKS)
):
    """Return the sweep of every network."""
    options = {"temperatures": temperatures, "batch": batch}
    options |= {"steps": steps, "repeats": repeats}
    sweeps = [sweep(name, **options) for name in networks]
    return {"benchmark": "sweep", **options, "sweeps": sweeps}


def main():
    made = parser(__doc__)
    made.add_argument("--temperatures", type=int, default=16)
    made.add_argument("--batch", type=int, default=64, help="samples of each set")
    made.add_argument("--steps", type=int, default=20)
    made.add_argument("--repeats", type=int, default=5)
    options = vars(made.parse_args())
    out, quick = options.pop("out"), options.pop("quick")
    if quick:
        options = {"temperatures": 3, "batch": 8, "steps": 2, "repeats": 2}
        options |= {"networks": ["MLP"]}
    finish(measure(**options), out)


if __name__ == "__main__":
    main()
