"""What `ju.run` adds to a bare loop, and what compilation costs with and without cache.

The bare loop calls the same step, compiled and with its state donated, on the same
batches; both take turns. Compilation is timed in processes of their own: without a
cache, with an empty persistent cache, and with the one the second left. Run with
`python tests/benchmarks/bench_driver.py`.
"""

import json
import os
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measuring import clock, finish, parser, relative, resnet8, spread, turns, wait

import jax_unlearn as ju

NETWORKS = {
    "MLP": lambda: ju.from_nnx(
        lambda rngs: ju.zoo.MLP(10, in_features=3072, hidden=(256, 256), rngs=rngs)
    ),
    "ResNet-8": lambda: resnet8(16),
}


def problem(name, *, batch):
    """Return (unlearner, start, batch) of random labels with LoReUn weights."""
    model = NETWORKS[name]()
    rng = np.random.default_rng(0)

    def part(first):
        images = rng.normal(size=(batch // 2, 32, 32, 3)).astype(np.float32)
        labels = rng.integers(0, 10, batch // 2).astype(np.int32)
        index = np.arange(first, first + batch // 2, dtype=np.int32)
        return jax.device_put(ju.Batch(images, labels, index))

    alg = ju.methods.random_label(
        model,
        optax.sgd(0.01, momentum=0.9),
        num_classes=10,
        weighting=ju.weights.loreun(temperature=1.0),
    )
    start = jax.jit(model.init)(jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    return alg, start, ju.UnlearnBatch(part(0), part(batch))


def overhead(name, *, batch, steps, repeats):
    """Return seconds a step of both loops, and their ratio."""
    alg, start, one = problem(name, batch=batch)
    batches, key = [one] * steps, jax.random.key(0)

    @jax.jit
    def plain(state, batch, key):
        return alg.step(state, batch, jax.random.fold_in(key, state.step))

    step = jax.jit(plain, donate_argnums=0)

    def bare():
        state = jax.tree.map(jnp.copy, alg.init(*start))
        for batch in batches:
            state, _ = step(state, batch, key)
        wait(state)

    def driver():
        wait(ju.run(alg, alg.init(*start), batches, key))

    contestants = {"bare": bare, "run": driver}
    for call in contestants.values():
        call()
    times = turns(contestants, repeats=repeats)
    return {
        "network": name,
        "seconds_a_step": {
            kind: spread([t / steps for t in own]) for kind, own in times.items()
        },
        "run_to_bare": relative(times, "bare")["run"],
    }


def serve(name, *, batch):
    """Print the seconds of the first step, which compiles."""
    alg, start, one = problem(name, batch=batch)
    state = wait(alg.init(*start))
    seconds = clock(lambda: wait(ju.run(alg, state, [one], jax.random.key(0))))
    print(json.dumps(seconds))


def compiling(name, *, batch):
    """Return the seconds of a first step without cache, and before and after one."""

    def ask(cache):
        extra = {} if cache is None else {"JAX_COMPILATION_CACHE_DIR": cache}
        extra |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        done = subprocess.run(
            [sys.executable, __file__, "--serve", name, "--batch", str(batch)],
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    with tempfile.TemporaryDirectory() as cache:
        found = {"no cache": ask(None), "empty cache": ask(cache), "cached": ask(cache)}
    return {"network": name, "first_step_seconds": found}


def measure(*, batch=64, steps=40, repeats=7, networks=tuple(NETWORKS), compiles=True):
    """Return overhead and compilation of every network."""
    options = {"batch": batch, "steps": steps, "repeats": repeats}
    return {
        "benchmark": "driver",
        **options,
        "overhead": [overhead(name, **options) for name in networks],
        "compilation": [compiling(name, batch=batch) for name in networks if compiles],
    }


def main():
    made = parser(__doc__)
    made.add_argument("--batch", type=int, default=64, help="samples, both halves")
    made.add_argument("--steps", type=int, default=40, help="steps a turn")
    made.add_argument("--repeats", type=int, default=7)
    made.add_argument("--serve", help="for the script itself")
    options = vars(made.parse_args())
    out, quick = options.pop("out"), options.pop("quick")
    served = options.pop("serve")
    if served:
        return serve(served, batch=options["batch"])
    if quick:
        options |= {"batch": 4, "steps": 2, "repeats": 2}
        options |= {"networks": ["MLP"], "compiles": False}
    return finish(measure(**options), out)


if __name__ == "__main__":
    main()
