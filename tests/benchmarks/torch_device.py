"""The steps of `jax-unlearn recipe full-cifar10` in PyTorch, on the same device.

For `--rivals tests/benchmarks/torch_device.py:rivals`. Two contestants: the loop of
public repositories (float32, PyTorch's own layout), and the best without kernels of
one's own: channels last, bfloat16 by autocast, fused update, compiled. Both cut their
batches from bytes on the device, crop, flip and normalise.
"""

import contextlib
import importlib.util
import sys
import time
import types
from pathlib import Path

import numpy as np

METHODS = {"RL": "RL", "RL + LoReUn": "RL + LoReUn", "RL + FaLW (exact)": "RL + FaLW"}
CONTESTANTS = ("torch", "torch, compiled")
CLASSES, UNSEEN = 10, 5000


def rivals(training, steps, *, turns=3, methods=METHODS, names=CONTESTANTS):
    """Return samples a second of each contestant by method, or why there are none.

    Args:
      training: network, width and batch size of the part's training settings.
      steps: of a turn.
      turns: the best of so many counts.
      methods: by the label in the recipe, the name in `torch_side`.
      names: of the contestants.
    """
    if importlib.util.find_spec("torch") is None:
        return {"reason": "torch is not installed: no PyTorch beside these steps"}
    sys.path.insert(0, str(Path(__file__).parent))
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    unseen = UNSEEN if device == "cuda" else 64
    problem = invented(batch=2 * training.batch_size, steps=steps, unseen=unseen)
    rows = {}
    for label, method in methods.items():
        rows[label] = {}
        for name in names:
            try:
                found = timed(name, method, problem, training, device, turns)
            except Exception as error:  # no compiler: the other contestant counts
                found = {"reason": f"{type(error).__name__}: {error}"[:200]}
            rows[label][name] = found
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return {"torch": torch.__version__, "device": name, "rows": rows}


def invented(*, batch, steps, unseen):
    """Return a problem of random images as `torch_side` reads it."""
    rng, total = np.random.default_rng(0), 8 * batch + unseen
    images = rng.integers(0, 256, (total, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, total).astype(np.int64)
    mean, std = np.float32([0.49, 0.48, 0.45]), np.float32([0.25, 0.24, 0.26])
    own = slice(8 * batch, None)
    whole = (images[own].astype(np.float32) / 255 - mean) / std
    return types.SimpleNamespace(
        images=images,
        labels=labels,
        batches=[rng.choice(8 * batch, batch, False) for _ in range(steps)],
        relabelled=(labels + 1) % CLASSES,
        counts=np.bincount(labels, minlength=CLASSES).astype(np.float32),
        unseen=(whole, labels[own]),
        mean=mean,
        std=std,
    )


def timed(name, method, problem, training, device, turns):
    """Return the speed of one contestant."""
    import torch
    import torch_side

    kind = torch_side.VGG16 if training.network == "vgg16" else torch_side.ResNet
    options = {"stage_sizes": (1, 1, 1)} if training.network == "resnet8" else {}
    net = kind(CLASSES, width=training.width or 64, **options)
    best = name != "torch"
    if best:
        step = torch_side.Best(net, method, problem, device=device, compiled=True)
    else:
        step = torch_side.Straightforward(net, method, problem, device=device)
    cut, autocast = torch_side.Tensors(problem, device=device), contextlib.nullcontext
    if best and device == "cuda":
        torch.backends.cudnn.benchmark = True

        def autocast():
            return torch.autocast("cuda", dtype=torch.bfloat16)

    def turn():
        begun = time.perf_counter()
        with autocast():
            for ids in problem.batches:
                x, labels, _ = cut(ids)
                step(x if best else x.contiguous(), labels, torch.as_tensor(ids))
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    first, *others = (turn() for _ in range(turns + 1))
    samples = sum(map(len, problem.batches))
    return {"samples_per_second": samples / min(others), "first_turn_seconds": first}
