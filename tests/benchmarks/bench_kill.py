"""Kill runs at random moments, resume them, and compare every bit: how many come back.

    python tests/benchmarks/bench_kill.py --kills 50

Prints json: kills by phase ("train", "statistics", "unlearn", "ensemble"), how many of
the resumed results are identical to the uninterrupted ones, how many went on from a
saved state, and the seconds lost. Each kill is a SIGKILL of a process of its own, at a
random moment of the phase; one that came after the end is not counted but made again.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PHASES = ("train", "statistics", "unlearn", "ensemble")
SETTING = {"network": "mlp", "width": 8, "batch_size": 32}
SAVE_EVERY = 0.1  # seconds: far more often than by default


def work(phase: str, folder: Path) -> None:
    """Make the models of a phase in a folder, or go on; say when the phase begins."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from jax_unlearn.data import Dataset, Examples, digits
    from jax_unlearn.pipeline import Plan, Training, Unlearning
    from jax_unlearn.pipeline.bench import Bench
    from jax_unlearn.pipeline.ensembles import run_ensembles

    full = digits()
    keep, test = full.train.labels < 4, full.test.labels < 4
    dataset = Dataset(
        "four digits",
        Examples(full.train.inputs[keep][:400], full.train.labels[keep][:400]),
        Examples(full.test.inputs[test], full.test.labels[test]),
        4,
        ("0", "1", "2", "3"),
    )
    epochs = 8 if phase == "train" else 2
    methods = {
        # its statistics: a Fisher ratio of both sets, a sample at a time
        "statistics": Unlearning(method="sfron", epochs=1, batch_size=8),
        "unlearn": Unlearning(weighting="falw", epochs=8, batch_size=32),
    }
    plan = Plan(
        title="kill",
        kind="random",
        fraction=0.2,
        gamma=1.0,
        unseen=80,
        training=Training(epochs=epochs, **SETTING),
        methods={},
        seeds=(0, 1),
    )

    met = set()

    def progress(label: str, done: int, total: int) -> None:
        if done == 0:
            print(f"begin {label}", flush=True)
        elif label not in met:
            met.add(label)
            print(f"at {done} {total} {label}", flush=True)
        if done == total:
            print(f"end {label}", flush=True)

    if phase == "ensemble":
        told = {"RL": methods["unlearn"]}
        options = {"count": 4, "chunk": 4, "how": "vmap", "save_every": SAVE_EVERY}
        run_ensembles(plan, dataset, folder, methods=told, progress=progress, **options)
        return
    bench = Bench(plan, dataset, progress, folder=folder, save_every=SAVE_EVERY)
    request, _ = bench.request(0)
    original = bench.original(0)
    if phase != "train":
        print("begin preparing", flush=True)
        bench.unlearn(phase, methods[phase], request, original, seed=0)


WINDOWS = {
    "train": ("begin Original", "end Original"),
    "statistics": ("begin preparing", "begin statistics"),
    "unlearn": ("begin unlearn", "end unlearn"),
    "ensemble": ("begin original", "end RL"),
}


def start(phase: str, folder: Path) -> subprocess.Popen:
    """Start a process of the phase."""
    command = [sys.executable, __file__, "--work", phase, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(phase: str, folder: Path) -> tuple[float, float, bool]:
    """Run to the end; return seconds of all and of the window to kill in, and whether
    something went on from a saved state.
    """
    begun, marks, resumed = time.monotonic(), {}, False
    process = start(phase, folder)
    assert process.stdout is not None
    for line in process.stdout:
        marks.setdefault(line.strip(), time.monotonic())
        if line.startswith("at "):
            done, total = (int(number) for number in line.split()[1:3])
            resumed |= 1 < done < total  # a model that is loaded is at its end at once
    if process.wait():
        raise RuntimeError(f"{phase} in {folder} ended with {process.returncode}")
    first, last = WINDOWS[phase]
    window = marks.get(last, begun) - marks.get(first, begun)
    return time.monotonic() - begun, window, resumed


def kill(phase: str, folder: Path, wait: float) -> bool:
    """Kill a process some seconds into its phase; return whether it was still alive."""
    process = start(phase, folder)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == WINDOWS[phase][0]:
            break
    time.sleep(wait)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return alive


def results(folder: Path) -> dict[str, bytes]:
    """Return all arrays of the models in a folder as bytes, by file and leaf."""
    from jax_unlearn.pipeline.models import load_model

    found = {}
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "record"}
        for name, array in arrays.items():
            found[f"{path.relative_to(folder)}/{name}"] = array.tobytes()
    for path in sorted(file.parent for file in folder.rglob("record.json")):
        import jax

        stored = load_model(path)
        for number, leaf in enumerate(jax.tree.leaves(stored.trained[:2])):
            name = f"{path.relative_to(folder)}/{number}"
            found[name] = np.asarray(leaf).tobytes()
        notes = json.dumps(stored.record["notes"], sort_keys=True)
        found[f"{path.relative_to(folder)}/notes"] = notes.encode()
    if not found:
        raise RuntimeError(f"{folder} holds no results to compare")
    return found


def benchmark(kills: int, seed: int) -> dict:
    """Kill and resume so many times, the phases in turn."""
    draw = random.Random(seed)
    zero = {"kills": 0, "late": 0, "identical": 0, "resumed": 0, "lost": 0.0}
    rows = {phase: dict(zero) for phase in PHASES}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        whole, seconds, windows = {}, {}, {}
        for phase in PHASES[: min(kills, len(PHASES))]:
            seconds[phase], windows[phase], _ = finish(phase, root / phase)
            whole[phase] = results(root / phase)
        for number in range(kills):
            phase = PHASES[number % len(PHASES)]
            row, folder = rows[phase], root / f"{phase}-{number}"
            begun = time.monotonic()
            while not kill(phase, folder, draw.uniform(0, windows[phase])):
                row["late"] += 1
                if row["late"] > 3 * kills:
                    raise RuntimeError(f"{phase} ends before any kill; free the CPUs")
                shutil.rmtree(folder)
                begun = time.monotonic()
            _, _, resumed = finish(phase, folder)
            same = results(folder) == whole[phase]
            row["kills"] += 1
            row["identical"] += same
            row["resumed"] += resumed
            row["lost"] += time.monotonic() - begun - seconds[phase]
            told = f"{number + 1}/{kills} {phase}: identical {same}, resumed {resumed}"
            print(told, file=sys.stderr)
            shutil.rmtree(folder)
    for row in rows.values():
        row["lost"] = round(row["lost"], 1)
    return {
        "seed": seed,
        "kills": sum(row["kills"] for row in rows.values()),
        "identical": sum(row["identical"] for row in rows.values()),
        "resumed": sum(row["resumed"] for row in rows.values()),
        "phases": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work[0], Path(given.work[1]))
    else:
        print(json.dumps(benchmark(given.kills, given.seed), indent=1))
