"""Where the time of a step goes, here and in PyTorch: part by part.

Forward pass and both gradients of each convolution, each BatchNorm with ReLU, and the
update of the parameters, at the shapes of CIFAR-10, times how often the network has
it; their sums stand beside each other. Contestants take turns: XLA with
`ju.programs.REDUCTIONS` and the same with `ju.zoo.in_parts`, then PyTorch in its own
layout and channels-last. The whole step of ResNet-18 is run once more for each set of
XLA's flags, each in a process of its own, in turns. Run with `python
tests/benchmarks/bench_parts.py`; needs torch. `bench_steps.py` has its parts from here.
"""

import collections
import json
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from measuring import clock, finish, parser, spread, threads, turns, wait

import jax_unlearn as ju
from jax_unlearn.zoo import layers

CONTESTANTS = ("xla", "torch", "torch channels-last")
PASSES = ("forward", "gradient of images", "gradient of kernels")
VGG = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))  # convolutions, channels by width
FLAGS = {
    "default": "",
    "no thunks": "--xla_cpu_use_thunk_runtime=false",
    "fast math": "--xla_cpu_enable_fast_math=true",
    "oneDNN": "--xla_cpu_use_onednn=true",
    "no fusion emitters": "--xla_cpu_use_fusion_emitters=false",
    "512-bit vectors": "--xla_cpu_prefer_vector_width=512",
}


class Shape(NamedTuple):
    """A convolution: side of the image, channels, kernel, stride."""

    side: int
    inner: int
    outer: int
    kernel: int
    stride: int


def shapes(width, network="ResNet-18"):
    """Return how often a network has each convolution."""
    if network == "VGG-16":
        return vgg_shapes(width)
    found, inner, side = [Shape(32, 3, width, 3, 1)], width, 32
    for stage in range(4):
        outer = width * 2**stage
        stride = 2 if stage else 1
        if stage:
            found.append(Shape(side, inner, outer, 1, 2))
        found.append(Shape(side, inner, outer, 3, stride))
        side, inner = side // stride, outer
        found += [Shape(side, outer, outer, 3, 1)] * 3
    return collections.Counter(found)


def vgg_shapes(width):
    """Return how often a VGG-16 has each convolution."""
    found, inner = [], 3
    for stage, (times, multiple) in enumerate(VGG):
        for _ in range(times):
            found.append(Shape(32 // 2**stage, inner, multiple * width, 3, 1))
            inner = multiple * width
    return collections.Counter(found)


def norms(width, network="ResNet-18"):
    """Return how often it has BatchNorm at each (side, channels)."""
    found = collections.Counter()
    for shape, times in shapes(width, network).items():
        found[shape.side // shape.stride, shape.outer] += times
    return found


def convolutions(shape, batch):
    """Return the contestants of a convolution's passes."""
    import torch  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, shape.side, shape.side, shape.inner))
    size = (shape.kernel, shape.kernel, shape.inner, shape.outer)
    x, kernel = x.astype(np.float32), rng.normal(size=size).astype(np.float32)
    pad = shape.kernel // 2
    window = (shape.stride,) * 2, [(pad, pad)] * 2

    def ours(way, which):
        def forward(x, kernel):
            return way(x, kernel, *window, dimension_numbers=("NHWC", "HWIO", "NHWC"))

        def images(x, kernel, cotangent):
            return jax.vjp(lambda x: forward(x, kernel), x)[1](cotangent)

        def kernels(x, kernel, cotangent):
            return jax.vjp(lambda kernel: forward(x, kernel), kernel)[1](cotangent)

        arrays = jnp.asarray(x), jnp.asarray(kernel)
        ones = jnp.ones(jax.eval_shape(forward, *arrays).shape)
        arrays = arrays if which == 0 else (*arrays, ones)
        call = reduced((forward, images, kernels)[which])
        return lambda: wait(call(*arrays))

    def theirs(form, which):
        pair = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(kernel)
        pair = pair[0], pair[1].permute(3, 2, 0, 1)
        pair = [v.contiguous(memory_format=form) for v in pair]
        ones = torch.ones_like(torch.conv2d(*pair, stride=shape.stride, padding=pad))
        one = [[n] * 2 for n in (shape.stride, pad, 1)]
        asked = [which == 1, which == 2, False]

        def call():
            if which == 0:
                return torch.conv2d(*pair, stride=shape.stride, padding=pad)
            return torch.ops.aten.convolution_backward(
                ones, *pair, None, *one, False, [0, 0], 1, asked
            )

        return call

    ways = {"xla": jax.lax.conv_general_dilated, "in parts": ju.zoo.in_parts}
    forms = {
        "torch": torch.contiguous_format,
        "torch channels-last": torch.channels_last,
    }
    return {
        name: {kind: ours(way, which) for kind, way in ways.items()}
        | {kind: theirs(form, which) for kind, form in forms.items()}
        for which, name in enumerate(PASSES)
    }


def reduced(function, **options):
    """Return the function, compiled as the rule compiles wide networks."""
    call = ju.programs.jit(function, **options)

    def compiled(*arrays):
        with ju.programs.using("reductions"):
            return call(*arrays)

    return compiled


def normalisations(side, channels, batch):
    """Return the contestants of BatchNorm and ReLU, forward and backward."""
    import torch  # pyright: ignore[reportMissingImports]

    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, side, side, channels)).astype(np.float32)
    layer = layers.batch_norm(channels, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)

    def forward(x, state):
        merged = nnx.merge(graph, state)
        y = nnx.relu(merged(x, use_running_average=False))
        return y, nnx.split(merged)[1]

    def ours(x, state, cotangent):
        y, pullback, new = jax.vjp(forward, x, state, has_aux=True)
        return y, pullback(cotangent), new

    compiled, array = reduced(ours), jnp.asarray(x)
    arrays = array, state, jnp.ones_like(array)

    def theirs(form):
        norm = torch.nn.BatchNorm2d(channels).train()
        own = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=form)
        own.requires_grad_()

        def call():
            y = torch.relu_(norm(own))
            torch.autograd.grad(y, [own, *norm.parameters()], torch.ones_like(y))

        return call

    forms = torch.contiguous_format, torch.channels_last
    calls = [lambda: wait(compiled(*arrays)), *map(theirs, forms)]
    return dict(zip(CONTESTANTS, calls, strict=True))


def updates(width, network="ResNet-18"):
    """Return the contestants of momentum SGD on the parameters of the network."""
    import torch  # pyright: ignore[reportMissingImports]

    kind = ju.zoo.VGG16 if network == "VGG-16" else ju.zoo.ResNet18
    made = kind(10, width=width, rngs=nnx.Rngs(0))
    params = jax.tree.map(jnp.asarray, ju_params(made))
    optimizer = optax.sgd(0.01, momentum=0.9)
    grads = jax.tree.map(jnp.ones_like, params)
    carried = {"state": (params, optimizer.init(params))}

    def ours(params, state, grads):
        found, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, found), state

    compiled = reduced(ours, donate_argnums=(0, 1))

    def call():
        carried["state"] = wait(compiled(*carried["state"], grads))

    def theirs(fused):
        own = [torch.zeros(leaf.shape) for leaf in jax.tree.leaves(grads)]
        for tensor in own:
            tensor.requires_grad_()
            tensor.grad = torch.ones_like(tensor)
        return torch.optim.SGD(own, lr=0.01, momentum=0.9, fused=fused).step

    return dict(zip(CONTESTANTS, [call, theirs(None), theirs(True)], strict=True))


def ju_params(module):
    """Return the parameters of a network as the library has them."""
    return ju.adapters.nnx_variables(module)[0]


def part(calls, times, *, repeats):
    """Return the seconds of a part, as often as the network has it.

    PyTorch after the others: its threads go on waiting for work for some milliseconds,
    which slows whatever is measured next.
    """
    found = {}
    for torch in (False, True):
        group = {name: own for name, own in calls.items() if ("torch" in name) == torch}
        for call in group.values():
            call()
        found |= turns(group, repeats=repeats)
    return {name: spread([times * t for t in own]) for name, own in found.items()}


def whole(*, batch, width, steps):
    """Return the contestant of a whole step, RL on half of the batch."""
    model = ju.from_nnx(lambda rngs: ju.zoo.ResNet18(10, width=width, rngs=rngs))
    options = {"num_classes": 10, "forward": "merged"}
    alg = ju.methods.random_label(model, optax.sgd(0.01, momentum=0.9), **options)
    state = alg.init(*jax.jit(model.init)(jax.random.key(0), None))
    inputs = jax.random.normal(jax.random.key(1), (2, batch // 2, 32, 32, 3))
    ids = jnp.arange(batch // 2, dtype=jnp.int32)
    one = ju.UnlearnBatch(*(ju.Batch(x, ids % 10, ids) for x in inputs))
    carried = {"state": state}

    def call():
        found = ju.run(alg, carried["state"], [one] * steps, jax.random.key(0))
        carried["state"] = wait(found)

    return call


def serve(*, batch, width):
    """Take a step for each line on stdin and print its seconds: one set of flags."""
    call = whole(batch=batch, width=width, steps=1)
    call()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(clock(call), flush=True)


def flags(*, batch, width, repeats):
    """Return the seconds of a whole step by set of flags, in turns."""
    workers, found = {}, {}
    command = [sys.executable, __file__, "--serve", f"--batch={batch}"]
    for name, text in FLAGS.items():
        own = {**os.environ, "XLA_FLAGS": text}
        workers[name] = subprocess.Popen(
            [*command, f"--width={width}"],
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    for name in list(workers):
        if workers[name].stdout.readline().strip() != "ready":
            found[name] = None  # this XLA does not know the flag
            workers.pop(name).wait()

    def ask(worker):
        worker.stdin.write("\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    seconds = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            seconds[name].append(ask(worker))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    return found | {name: spread(own) for name, own in seconds.items()}


def parts_of(network, *, batch, width, repeats):
    """Return the seconds of all parts of a network's step, and their sums by kind."""
    parts = []

    def add(kind, calls, times, shape=()):
        seconds = part(calls, times, repeats=repeats)
        parts.append({"kind": kind, "shape": shape, "times": times, "seconds": seconds})

    for shape, times in shapes(width, network).items():
        for name, calls in convolutions(shape, batch).items():
            add(f"convolution, {name}", calls, times, shape)
        jax.clear_caches()
    for (side, channels), times in norms(width, network).items():
        calls = normalisations(side, channels, batch)
        add("BatchNorm and ReLU", calls, times, (side, channels))
    add("update", updates(width, network), 1)
    sums = {}
    for one in parts:
        own = sums.setdefault(one["kind"], dict.fromkeys(one["seconds"], 0.0))
        for name, seconds in one["seconds"].items():
            own[name] += seconds["median"]
    return {"network": network, "parts": parts, "sums": sums}


def measure(*, batch=64, width=64, repeats=7, with_flags=True):
    """Return the seconds of all parts, and of a whole step by set of flags."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(threads())
    found = parts_of("ResNet-18", batch=batch, width=width, repeats=repeats)
    call = whole(batch=batch, width=width, steps=1)
    call()
    return {
        "benchmark": "parts",
        "batch": batch,
        "width": width,
        **found,
        "whole": spread(turns({"whole": call}, repeats=repeats)["whole"]),
        "flags": flags(batch=batch, width=width, repeats=repeats) if with_flags else {},
    }


def main():
    made = parser(__doc__)
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--width", type=int, default=64)
    made.add_argument("--repeats", type=int, default=7)
    made.add_argument("--no-flags", dest="with_flags", action="store_false")
    made.add_argument("--serve", action="store_true", help="for the script itself")
    options = vars(made.parse_args())
    out, quick = options.pop("out"), options.pop("quick")
    if options.pop("serve"):
        return serve(batch=options["batch"], width=options["width"])
    if quick:
        options |= {"batch": 4, "width": 8, "repeats": 2}
    found = measure(**options)
    finish(found, out)
    print(json.dumps(found["sums"], indent=1), file=sys.stderr)
    return None


if __name__ == "__main__":
    main()
