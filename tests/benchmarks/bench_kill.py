"""Kill runs at random steps, resume them, and compare every bit: how many come back.

    python tests/benchmarks/bench_kill.py --kills 50

Prints json: kills by phase ("train", "statistics", "unlearn", "ensemble"), how many of
the resumed results are identical to the uninterrupted ones, how many went on from a
saved state or model, and the seconds lost. Each kill is a SIGKILL of a process of its
own, after a random step of the phase and a random part of the time to the next; one
that came after the end is not counted but made again.
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
from typing import NamedTuple

import numpy as np

PHASES = ("train", "statistics", "unlearn", "ensemble")
SETTING = {"network": "mlp", "width": 8, "batch_size": 32}
SAVE_EVERY = 0.0  # after every step: far more often than by default


def work(phase: str, folder: Path) -> None:
    """Make the models of a phase in a folder, or go on; say when the phase begins."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from jax_unlearn.data import Dataset, Examples, digits
    from jax_unlearn.lab import Plan, Training, Unlearning
    from jax_unlearn.lab.bench import Bench
    from jax_unlearn.lab.ensembles import run_ensembles

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
        "statistics": Unlearning.of(method="sfron", epochs=1, batch_size=8),
        "unlearn": Unlearning.of(weighting="falw", epochs=8, batch_size=32),
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

    def progress(label: str, done: int, total: int) -> None:
        print(f"at {done} {total} {label}", flush=True)

    if phase == "ensemble":
        told = {"RL": methods["unlearn"]}
        options = {"count": 4, "chunk": 4, "how": "vmap", "save_every": SAVE_EVERY}
        run_ensembles(plan, dataset, folder, methods=told, progress=progress, **options)
        return
    bench = Bench(plan, dataset, progress, folder=folder, save_every=SAVE_EVERY)
    original = bench.original(0)
    if phase != "train":
        print("preparing", flush=True)
        bench.unlearn(phase, methods[phase], bench.case(0), original)


class Told(NamedTuple):
    """What a process printed, and how many seconds after its start."""

    lines: list[str]
    seconds: list[float]
    whole: float

    def window(self, phase: str) -> range:
        """Return the numbers of the lines to kill after."""
        begin, end = 0, len(self.lines)
        if phase != "ensemble":
            begin = 0 if phase == "train" else self.lines.index("preparing")
        if phase == "statistics":
            end = begin + 1  # to the first step
        elif phase == "unlearn":
            begin += 1
        return range(begin, end)

    def resumed(self, phase: str) -> bool:
        """Return whether the phase went on from a saved state; statistics, of which
        none is saved, from a saved model.
        """
        first: dict[str, tuple[int, int]] = {}
        for line in self.lines:
            if line.startswith("at "):
                _, done, total, label = line.split(" ", 3)
                if int(done):
                    first.setdefault(label, (int(done), int(total)))
        if phase == "statistics":
            return any(total == 1 for _, total in first.values())
        return any(1 < done < total for done, total in first.values())


def start(phase: str, folder: Path) -> subprocess.Popen:
    """Start a process of the phase."""
    command = [sys.executable, __file__, "--work", phase, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(phase: str, folder: Path) -> Told:
    """Run to the end."""
    begun, lines, seconds = time.monotonic(), [], []
    process = start(phase, folder)
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.strip())
        seconds.append(time.monotonic() - begun)
    if process.wait():
        raise RuntimeError(f"{phase} in {folder} ended with {process.returncode}")
    return Told(lines, seconds, time.monotonic() - begun)


def kill(phase: str, folder: Path, number: int, wait: float) -> bool:
    """Kill a process some seconds after a line; return whether it was still alive."""
    process = start(phase, folder)
    assert process.stdout is not None
    for met, _ in enumerate(process.stdout):
        if met == number:
            break
    time.sleep(wait)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return alive


def results(folder: Path) -> dict[str, bytes]:
    """Return all arrays of the models in a folder as bytes, by file and leaf."""
    from jax_unlearn.lab.store import load_model

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
        told, whole = {}, {}
        for phase in PHASES[: min(kills, len(PHASES))]:
            told[phase] = finish(phase, root / phase)
            whole[phase] = results(root / phase)
        for number in range(kills):
            phase = PHASES[number % len(PHASES)]
            row, folder = rows[phase], root / f"{phase}-{number}"
            uncut = told[phase]
            while True:
                begun = time.monotonic()
                line = draw.choice(uncut.window(phase))
                ends = [*uncut.seconds[1:], uncut.whole]
                wait = draw.uniform(0, ends[line] - uncut.seconds[line])
                if kill(phase, folder, line, wait):
                    break
                row["late"] += 1
                if row["late"] > 3 * kills:
                    raise RuntimeError(f"{phase} ends before any kill; free the CPUs")
                shutil.rmtree(folder)
            resumed = finish(phase, folder).resumed(phase)
            same = results(folder) == whole[phase]
            row["kills"] += 1
            row["identical"] += same
            row["resumed"] += resumed
            row["lost"] += time.monotonic() - begun - uncut.whole
            said = f"{number + 1}/{kills} {phase}, after {uncut.lines[line]!r}"
            print(f"{said}: identical {same}, resumed {resumed}", file=sys.stderr)
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
        from measuring import environment

        print(json.dumps(environment() | benchmark(given.kills, given.seed), indent=1))
