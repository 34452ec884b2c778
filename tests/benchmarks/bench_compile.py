"""Seconds a training step with each compile option, by width and size of the images.

A ResNet-8 is trained by SGD with momentum; the programs of XLA's own options, of
`ju.programs.REDUCTIONS` and of the rule, which has wide convolutions in parts too, take
turns. `LEAST`, from which the rule does both, lies where they part from the first. Run
with `python tests/benchmarks/bench_compile.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measuring import finish, parser, relative, resnet8, spread, turns, wait

import jax_unlearn as ju

GRID = ((8, 14), (16, 14), (32, 14), (8, 32), (16, 32), (32, 32))  # width, side


def step_of(width, side, batch, option):
    """Return a call of one training step, compiled with an option."""
    model = resnet8(width)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(batch, side, side, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, batch), jnp.int32)
    alg = ju.methods.finetune(model, optax.sgd(0.1, momentum=0.9))
    state = alg.init(*jax.jit(model.init)(jax.random.key(0), images[:2]))
    given = state, ju.UnlearnBatch(None, ju.Batch(images, labels)), jax.random.key(0)
    step = ju.programs.jit(alg.step)

    def call():
        with ju.programs.using(option):
            wait(step(*given))

    jaxpr = jax.make_jaxpr(alg.step)(*given).jaxpr
    return call, ju.programs.largest_convolution(jaxpr)


def measure(*, batch=64, grid=GRID, repeats=9):
    """Return seconds a step of both options, and their ratio, over the grid."""
    rows = []
    for width, side in grid:
        calls, largest = {}, 0
        for option in ("xla", "reductions", "rule"):
            calls[option], largest = step_of(width, side, batch, option)
            calls[option]()
        times = turns(calls, repeats=repeats)
        rows.append(
            {
                "width": width,
                "side": side,
                "largest_convolution": largest,
                "wide": largest >= ju.programs.LEAST,
                "seconds": {name: spread(values) for name, values in times.items()},
                "of_xla": relative(times, "xla"),
            }
        )
    return {"benchmark": "compile", "batch": batch, "rows": rows}


if __name__ == "__main__":
    asked = parser(__doc__).parse_args()
    quick = {"batch": 4, "grid": GRID[:1], "repeats": 2} if asked.quick else {}
    finish(measure(**quick), asked.out)
