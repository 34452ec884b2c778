"""Training steps on a CPU: how they are compiled, beside PyTorch, and of many models.

SGD with momentum on one batch. The choices of `ju.programs` take turns: the rule, which
compiles wide networks by `REDUCTIONS` and has their wide convolutions `in_parts`; XLA's
own compile options; `REDUCTIONS` alone; the rule with BatchNorm folded (bench_norm.py).
Right after them PyTorch in its own layout and channels-last, in turns too. Then one
step of several models by `run_ensemble`'s ways, the parts of a step of ResNet-18 and
VGG-16 (bench_parts.py), and BatchNorm by other orders of the same sums.
`python tests/benchmarks/bench_steps.py` takes at most ten minutes, writes
results/steps.json and the tables of README.md; needs torch.
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import bench_norm
import jax
import jax.numpy as jnp
import numpy as np
import optax
from bench_parts import PASSES, parts_of
from measuring import environment, parser, spread, threads, turns, wait
from render import table

import jax_unlearn as ju
from jax_unlearn.drivers import ensemble
from jax_unlearn.zoo import layers

FOLDER = Path(__file__).parent
BEGIN, END = "<!-- steps -->", "<!-- end of steps -->"
CLASSES, RATE, MOMENTUM = 10, 0.01, 0.9


class Setting(NamedTuple):
    """A network, its twin in `torch_side` with options of both, and its images."""

    network: Any
    twin: str
    options: dict[str, Any]
    side: int
    channels: int = 3


def resnet(sizes, width, side):
    """Return the setting of a residual network."""
    options = {"stage_sizes": sizes, "width": width}
    return Setting(ju.zoo.ResNet, "ResNet", options, side)


SETTINGS = {
    "ResNet-18": resnet((2, 2, 2, 2), 64, 32),
    "VGG-16": Setting(ju.zoo.VGG16, "VGG16", {"width": 64}, 32),
    "ResNet-20": resnet((3, 3, 3), 16, 32),
    "ResNet-8 of width 8": resnet((1, 1, 1), 8, 32),
    "ResNet-8 of width 8, 14 x 14": resnet((1, 1, 1), 8, 14),
    "digits CNN": Setting(ju.zoo.SmallCNN, "SmallCNN", {"width": 16}, 8, 1),
}
MANY = tuple(SETTINGS)[3:]  # of which several models are trained at once
TOGETHER = {  # how, what decides the compile options, and whether all is in parts
    "vmap, xla": ("vmap", "xla", False),
    "vmap, reductions": ("vmap", "reductions", False),
    "vmap, in parts": ("vmap", "reductions", True),
    "map": ("map", "rule", False),
    "one by one": ("loop", "rule", False),
}
OURS = "rule", "xla", "reductions", "rule, BatchNorm folded"
THEIRS = "torch", "torch channels-last"


def given(setting, batch):
    """Return images and labels, in numpy."""
    rng = np.random.default_rng(0)
    shape = batch, setting.side, setting.side, setting.channels
    images = rng.normal(size=shape).astype(np.float32)
    return images, rng.integers(0, CLASSES, batch).astype(np.int32)


def ours(setting, *, norm=layers.batch_norm, **options):
    """Return model and unlearner of the library."""
    options = {"in_channels": setting.channels, **setting.options, **options}

    def network(rngs):
        with mock.patch.object(layers, "batch_norm", norm):
            return setting.network(CLASSES, rngs=rngs, **options)

    model = ju.from_nnx(network)
    return model, ju.methods.finetune(model, optax.sgd(RATE, momentum=MOMENTUM))


def step_of(setting, option, batch):
    """Return a call of one step of the library."""
    option, _, other = option.partition(", ")
    model, alg = ours(setting, **({"norm": bench_norm.folded} if other else {}))
    state = alg.init(*jax.jit(model.init)(jax.random.key(0), None))
    x, y = map(jnp.asarray, given(setting, batch))
    one, key = ju.UnlearnBatch(None, ju.Batch(x, y)), jax.random.key(0)
    carried, step = {"state": state}, ju.programs.jit(alg.step, donate_argnums=0)

    def call():
        with ju.programs.using(option):
            carried["state"], _ = wait(step(carried["state"], one, key))

    return call


def twin_of(setting):
    """Return PyTorch's network."""
    import torch_side

    kind = getattr(torch_side, setting.twin)
    return kind(CLASSES, in_channels=setting.channels, **setting.options)


def step_of_torch(setting, batch, *, channels_last):
    """Return a call of one step of PyTorch."""
    import torch  # pyright: ignore[reportMissingImports]

    form = torch.channels_last if channels_last else torch.contiguous_format
    net = twin_of(setting).train().to(memory_format=form)
    images, labels = given(setting, batch)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=form)
    y = torch.from_numpy(labels).long()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=RATE, momentum=MOMENTUM, fused=True
    )

    def call():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return call


def steps(name, *, batch, repeats, seconds):
    """Return the seconds a step of a network, each way and in PyTorch."""
    setting = SETTINGS[name]
    groups = (
        {option: step_of(setting, option, batch) for option in OURS},
        {
            kind: step_of_torch(setting, batch, channels_last=kind != "torch")
            for kind in THEIRS
        },
    )
    found = {}
    for calls in groups:
        for call in calls.values():
            call()
        found |= turns(calls, repeats=repeats, seconds=seconds)
    middle = {kind: float(np.median(times)) for kind, times in found.items()}
    return {
        "network": name,
        "wide": largest(setting, batch) >= ju.programs.LEAST,
        "seconds": {kind: spread(times) for kind, times in found.items()},
        "times_the_best_torch": min(middle[kind] for kind in THEIRS) / middle["rule"],
    }


def largest(setting, batch):
    """Return what the rule of `ju.programs` looks at."""
    model, _ = ours(setting)
    x = jnp.asarray(given(setting, batch)[0])
    start = jax.eval_shape(model.init, jax.random.key(0), None)
    jaxpr = jax.make_jaxpr(lambda *a: model.apply(*a, train=True))(*start, x).jaxpr
    return ju.programs.largest_convolution(jaxpr)


def step_of_many(setting, together, *, models, batch):
    """Return a call of one step of several models."""
    how, option, parts = TOGETHER[together]
    model, alg = ours(setting, **({"convolution": ju.zoo.in_parts} if parts else {}))
    start = jax.jit(model.init)
    states = [alg.init(*start(jax.random.key(i), None)) for i in range(models)]
    x, y = map(jnp.asarray, given(setting, batch))
    batches = [ju.UnlearnBatch(None, ju.Batch(x, y))] * models
    way = ensemble._Way(alg.step, how)
    keys = jax.random.split(jax.random.key(0), models)
    carried, own = ensemble._begin(way, ensemble.stack(states), keys)
    carried = {"states": carried}

    def call():
        with ju.programs.using(option):
            found, _ = ensemble._advance(way, carried["states"], batches, own)
        carried["states"] = wait(found)

    return call


def together(name, *, models, batch, repeats, seconds):
    """Return the seconds a step and model, by way."""
    calls = {
        way: step_of_many(SETTINGS[name], way, models=models, batch=batch)
        for way in TOGETHER
    }
    for call in calls.values():
        call()
    times = turns(calls, repeats=repeats, seconds=seconds)
    seconds = {way: spread([t / models for t in own]) for way, own in times.items()}
    return {"network": name, "models": models, "seconds": seconds}


def measure(
    *,
    batch=64,
    models=8,
    repeats=15,
    seconds=8.0,
    networks=tuple(SETTINGS),
    ensembles=MANY,
    parts=("ResNet-18", "VGG-16"),
    norms=bench_norm.SHAPES,
    width=64,
):
    """Return the seconds a step of each network, of several models, and of parts."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(threads())
    limits = {"batch": batch, "repeats": repeats, "seconds": seconds}
    rows, many = [], []
    for name in networks:
        say(f"steps of {name}")
        rows.append(steps(name, **limits))
        jax.clear_caches()
    for name in ensembles:
        say(f"{models} models of {name}")
        many.append(together(name, models=models, **limits))
        jax.clear_caches()
    sizes = {"batch": batch, "width": width, "repeats": min(repeats, 3)}
    shares = []
    for name in parts:
        say(f"parts of {name}")
        shares.append(parts_of(name, **sizes))
    say("BatchNorm")
    normalisations = bench_norm.norms(batch=batch, shapes=norms, repeats=repeats)
    return {
        "benchmark": "steps",
        "batch": batch,
        "steps": rows,
        "ensembles": many,
        "parts": shares,
        "norms": normalisations,
    }


def say(text):
    """Say on stderr what is measured, and when it began."""
    print(f"{time.strftime('%X')} {text}", file=sys.stderr, flush=True)


def tables(found):
    """Return the tables of a result."""
    kinds = [*OURS, *THEIRS]
    where = f"{found['processor']}, {found['threads']} threads, float32"
    rows = [
        [
            row["network"],
            *milliseconds(row, kinds),
            "yes" if row["wide"] else "no",
            f"{row['times_the_best_torch']:.2f}",
        ]
        for row in found["steps"]
    ]
    heads = ["a step, ms", *kinds, "wide", "rule, times the best torch"]
    text = f"`{found['command']}`; {where}, batch {found['batch']}\n\n"
    text += table(heads, rows)
    if found["ensembles"]:
        models = found["ensembles"][0]["models"]
        rows = [
            [row["network"], *milliseconds(row, TOGETHER)] for row in found["ensembles"]
        ]
        heads = [f"a step of {models} models, ms a model", *TOGETHER]
        text += "\n" + table(heads, rows)
    for share in found["parts"]:
        text += f"\n{parts_table(share)}"
    contestants = [*bench_norm.CONTESTANTS]
    rows = [
        [f"{row['side']} x {row['channels']}", *milliseconds(row, contestants)]
        for row in found["norms"]
    ]
    return text + "\n" + table(["ms of BatchNorm and ReLU", *contestants], rows)


def parts_table(share):
    """Return the best of this library and of PyTorch by part, and their sums."""
    rows, sums = {}, {}
    for one in share["parts"]:
        middle = {kind: own["median"] for kind, own in one["seconds"].items()}
        pair = np.array(
            [
                min(own for kind, own in middle.items() if ("torch" in kind) == torch)
                for torch in (False, True)
            ]
        )
        kind, _, which = one["kind"].partition(", ")
        row = rows.setdefault((kind, *one["shape"]), {"times": one["times"]})
        for cells in (row, sums.setdefault(kind, {})):
            for column in {which or "together", "together"}:
                cells[column] = cells.get(column, 0.0) + pair
    columns = (*PASSES, "together")
    lines = [[f"{kind} {named(shape)}", own] for (kind, *shape), own in rows.items()]
    lines += [[f"all: {kind}", own] for kind, own in sums.items()]
    heads = [f"ms of a step of {share['network']}, here / PyTorch", "times", *columns]
    return table(
        heads,
        [
            [name, own.get("times", ""), *(cell(own.get(column)) for column in columns)]
            for name, own in lines
        ],
    )


def cell(pair):
    """Return the milliseconds of both, if there are any."""
    return "" if pair is None else " / ".join(f"{1e3 * one:.1f}" for one in pair)


def named(shape):
    """Return a shape in words."""
    if len(shape) < 5:
        return " x ".join(map(str, shape))
    side, inner, outer, kernel, stride = shape
    return f"{kernel} x {kernel}, {inner} to {outer}, side {side}, stride {stride}"


def milliseconds(row, kinds):
    """Return medians and quartiles of a row."""
    cells = []
    for kind in kinds:
        low, middle, high = (
            1e3 * row["seconds"][kind][name] for name in ("low", "median", "high")
        )
        digits = 0 if middle >= 100 else 1
        cells.append(f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
    return cells


def write(found, page):
    """Put the tables of a result between the marks of a page."""
    between = re.compile(f"{BEGIN}.*{END}", re.DOTALL)
    text = page.read_text()
    if not between.search(text):
        raise ValueError(f"{page} has no {BEGIN} … {END}: add both lines")
    new = f"{BEGIN}\n\n{tables(found)}\n{END}"
    page.write_text(between.sub(lambda _: new, text))


def main():
    made = parser(__doc__)
    made.add_argument("--page", type=Path, default=FOLDER / "README.md")
    made.add_argument("--seconds", type=float, default=8.0, help="of turns, at most")
    asked = made.parse_args()
    quick: dict[str, Any] = {"networks": ["digits CNN"], "ensembles": ["digits CNN"]}
    quick |= {"batch": 8, "models": 2, "repeats": 2, "parts": ["ResNet-18"], "width": 4}
    quick |= {"norms": [(4, 8)]}
    found = measure(seconds=asked.seconds, **quick if asked.quick else {})
    found = json.loads(json.dumps({**environment(), **found}, default=float))
    if asked.quick:
        print(tables(found))
        return
    out = asked.out or FOLDER / "results" / "steps.json"
    out.write_text(json.dumps(found, indent=1) + "\n")
    write(found, asked.page)


if __name__ == "__main__":
    main()
