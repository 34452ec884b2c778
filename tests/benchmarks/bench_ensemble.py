"""Time of an ensemble of models against as many runs one after the other.

Trains `--models` networks on 600 of scikit-learn's digits and unlearns each by random
labels, with the settings of the default job: one after the other by `run`, together by
`run_ensemble`. Run with `python tests/benchmarks/bench_ensemble.py`; prints json, and a
line to stderr. Not a test: times need a quiet machine, and pytest does not collect this
file. Compilation is left out of the seconds and told apart.
"""

import argparse
import dataclasses
import json
import sys
import time

import jax
import numpy as np

from jax_unlearn.data import digits
from jax_unlearn.drivers.ensemble import run_ensemble, stack
from jax_unlearn.drivers.loop import run
from jax_unlearn.lab import draw_request
from jax_unlearn.lab.job import Trained, checked
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.recipes.digits import digits_plan

METHOD, ALONE = "RL", "one by one"


def clock(make, first):
    """Return what `make` returns, its seconds, and those of compiling beforehand."""
    start = time.perf_counter()
    jax.block_until_ready(first())
    compiled = time.perf_counter()
    found = jax.block_until_ready(make())
    return found, time.perf_counter() - compiled, compiled - start


def alone(jobs, keys):
    """Return states of the jobs run one after the other, and what they took."""
    starts = [checked(job)[0].init(*job.start) for job in jobs]

    def make():
        return [
            run(checked(job)[0], state, checked(job)[1], key)
            for job, state, key in zip(jobs, starts, keys, strict=True)
        ]

    def first():
        return run(checked(jobs[0])[0], starts[0], [checked(jobs[0])[1][0]], keys[0])

    return clock(make, first)


def together(jobs, keys, how, chunk):
    """Return stacked states of the jobs run in chunks as one program, and the rest."""
    unlearner = checked(jobs[0])[0]
    starts = [unlearner.init(*job.start) for job in jobs]
    schedules = [checked(job)[1] for job in jobs]

    def go(part, steps=None):
        cut = schedules[part]
        if steps is not None:
            cut = [dataclasses.replace(each, steps=steps) for each in cut]
        states, joined = stack(starts[part]), stack(keys[part])
        return run_ensemble(unlearner, states, cut, joined, how=how)

    parts = [slice(begin, begin + chunk) for begin in range(0, len(jobs), chunk)]

    def first():
        return [go(part, steps=1) for part in (parts[0], parts[-1])]

    return clock(lambda: [go(part) for part in parts], first)


def measure(*, models=64, epochs=None, chunk=None, network="small_cnn", width=8):
    """Return seconds and ratios of training and unlearning, by way."""
    plan, dataset = digits_plan(), digits()
    setting = dataclasses.replace(plan.training, network=network, width=width)
    method = plan.methods[METHOD]
    if epochs is not None:
        setting = dataclasses.replace(setting, epochs=epochs)
        method = method.but(epochs=epochs)
    chunk = models if chunk is None else chunk
    subject = subject_of(setting, dataset)
    request, _ = draw_request(plan, dataset, plan.seeds[0])
    trainer, preparer = Trainer(subject, setting), Preparer(subject)
    ids = np.union1d(request.forget, request.retain)
    pairs = [trainer.job(ids, seed=i) for i in range(models)]
    jobs, keys = (list(items) for items in zip(*pairs, strict=True))
    seconds = {"train": {}, "unlearn": {}}
    compiling = {"train": {}, "unlearn": {}}

    def note(stage, name, result):
        states, seconds[stage][name], compiling[stage][name] = result
        return states

    originals = note("train", ALONE, alone(jobs, keys))
    for how in ("vmap", "map"):
        note("train", how, together(jobs, keys, how, chunk))
    lessons = []
    for number, state in enumerate(originals):
        start = state.params, state.model_state
        job = preparer(method, request, Trained(*start, {}), seed=number)
        lessons.append(job._replace(start=start))
    keys = [jax.random.key(number) for number in range(models)]
    note("unlearn", ALONE, alone(lessons, keys))
    for how in ("vmap", "map"):
        note("unlearn", how, together(lessons, keys, how, chunk))
    total = {
        name: seconds["train"][name] + seconds["unlearn"][name]
        for name in (ALONE, "vmap", "map")
    }
    return {
        "device": jax.devices()[0].device_kind,
        "network": network,
        "width": width,
        "models": models,
        "chunk": chunk,
        "steps": {"train": jobs[0].steps, "unlearn": lessons[0].steps},
        "seconds": {**seconds, "total": total},
        "compile_seconds": compiling,
        "ratio": {how: total[ALONE] / total[how] for how in ("vmap", "map")},
    }


def line(found):
    """Return the result in one line."""
    total, ratio = found["seconds"]["total"], found["ratio"]
    ways = ", ".join(
        f"{how} {total[how]:.1f} s ({ratio[how]:.2f} times as fast)" for how in ratio
    )
    return (
        f"{found['models']} models of {found['network']} on {found['device']}: "
        f"one by one {total[ALONE]:.1f} s, {ways}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--epochs", type=int, help="of both stages; default the job's")
    parser.add_argument("--chunk", type=int, help="models in one program; default all")
    parser.add_argument("--network", default="small_cnn")
    parser.add_argument("--width", type=int, default=8)
    found = measure(**vars(parser.parse_args()))
    json.dump(found, sys.stdout, indent=1)
    print()
    print(line(found), file=sys.stderr)


if __name__ == "__main__":
    main()
