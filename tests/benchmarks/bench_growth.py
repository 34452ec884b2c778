"""How the time to unlearn grows with the forget set and with the model.

Five epochs of gradient ascent (which reads the forget set only) and of random labels
(forget and retain set in turn) on made images as the forget set doubles; steps of
random labels as a ResNet-8 widens. The slope is that of seconds over size, both in
logarithms: 1 is proportional. Compilation is left out; `--figure FILE.svg` draws it.
Run with `python tests/benchmarks/bench_growth.py`.
"""

from pathlib import Path

import jax
import numpy as np
import optax
from measuring import finish, median, parser, products, resnet8, slope, turns, wait

import jax_unlearn as ju

CLASSES, KEY = 10, jax.random.key(0)


def made_model(width):
    """Return a ResNet-8 and its start."""
    model = resnet8(width)
    return model, jax.jit(model.init)(KEY, np.zeros((2, 16, 16, 3), np.float32))


def made_data(samples):
    """Return random images of 16 x 16 pixels."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(samples, 16, 16, 3)).astype(np.float32)
    return ju.data.Examples(images, np.arange(samples, dtype=np.int32) % CLASSES)


def random_label(model):
    return ju.methods.random_label(model, optax.sgd(0.01), num_classes=CLASSES)


def timed(jobs, start, *, repeats):
    """Return the median seconds of each job, by size."""

    def call(alg, batches):
        return lambda: wait(ju.run(alg, alg.init(*start), batches, KEY))

    calls = {size: call(*job) for size, job in jobs.items()}
    for one in calls.values():
        one()
    return {size: median(own) for size, own in turns(calls, repeats=repeats).items()}


def by_forget_set(sizes, *, batch, epochs, repeats):
    """Return seconds by number of forget samples, and slopes, of two methods."""
    model, start = made_model(8)
    retained = max(sizes)
    data = made_data(2 * retained)
    passes = {"batch_size": batch, "epochs": epochs}
    ascent = ju.methods.gradient_ascent(model, optax.sgd(1e-3))
    relabel = random_label(model)
    retain = np.arange(retained, 2 * retained)
    jobs = {
        "GA": {
            size: (ascent, ju.data.forget_only(data, np.arange(size), **passes))
            for size in sizes
        },
        "RL": {
            size: (relabel, ju.data.sequential(data, np.arange(size), retain, **passes))
            for size in sizes
        },
    }
    found = {}
    for name, own in jobs.items():
        seconds = timed(own, start, repeats=repeats)
        fitted = slope(list(seconds), list(seconds.values()))
        found[name] = {"seconds": seconds, "slope": fitted}
    return found


def by_model(widths, *, batch, steps, repeats):
    """Return seconds a step by parameters and by operations, and both slopes."""
    data = made_data(2 * batch)
    halves = np.arange(batch), np.arange(batch, 2 * batch)
    rows = []
    for width in widths:
        model, start = made_model(width)
        batches = ju.data.zipped(data, *halves, batch_size=batch, steps=steps)
        job = {width: (random_label(model), batches)}
        seconds = timed(job, start, repeats=repeats)[width] / steps
        operations = products(
            lambda x, model=model, start=start: model.apply(*start, x, train=False)[0],
            data.inputs[:1],
        )
        size = sum(leaf.size for leaf in jax.tree.leaves(start[0]))
        rows.append(
            {
                "width": width,
                "parameters": size,
                "forward_operations_a_sample": operations,
                "seconds_a_step": seconds,
            }
        )
    seconds = [row["seconds_a_step"] for row in rows]
    return {
        "rows": rows,
        "slope_by_parameters": slope([row["parameters"] for row in rows], seconds),
        "slope_by_operations": slope(
            [row["forward_operations_a_sample"] for row in rows], seconds
        ),
    }


def measure(
    *, sizes=(64, 128, 256, 512, 1024), widths=(4, 8, 16, 32, 64), batch=32, repeats=3
):
    """Return how the time grows."""
    return {
        "benchmark": "growth",
        "batch": batch,
        "epochs": 5,
        "by_forget_set": by_forget_set(sizes, batch=batch, epochs=5, repeats=repeats),
        "by_model": by_model(widths, batch=batch, steps=5, repeats=repeats),
    }


def draw(found, path):
    """Draw both, in logarithms."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="tight")
    for name, one in found["by_forget_set"].items():
        label = f"{name}, slope {one['slope']:.2f}"
        left.loglog(
            [int(n) for n in one["seconds"]],
            list(one["seconds"].values()),
            "o-",
            label=label,
        )
    left.set(xlabel="forget samples", ylabel="seconds, 5 epochs")
    rows = found["by_model"]["rows"]
    for key, name in (
        ("parameters", "slope_by_parameters"),
        ("forward_operations_a_sample", "slope_by_operations"),
    ):
        label = f"{key.split('_a_')[0].replace('_', ' ')}, slope "
        right.loglog(
            [row[key] for row in rows],
            [row["seconds_a_step"] for row in rows],
            "o-",
            label=f"{label}{found['by_model'][name]:.2f}",
        )
    right.set(xlabel="size of the model", ylabel="seconds a step")
    for axes in (left, right):
        axes.legend(frameon=False, loc="lower right")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main():
    made = parser(__doc__)
    made.add_argument("--batch", type=int, default=32, help="samples of each set")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--figure", type=Path, help="draw it here")
    options = vars(made.parse_args())
    out, quick, figure = (options.pop(name) for name in ("out", "quick", "figure"))
    if quick:
        options = {"sizes": (8, 16), "widths": (2, 4), "batch": 8, "repeats": 1}
    found = measure(**options)
    if figure is not None:
        draw(found, figure)
    finish(found, out)


if __name__ == "__main__":
    main()
