"""Jobs run whole on the device, their programs compiled ahead in threads.

What `Bench` takes for `execute` where the data fit the device's memory: the samples
stay there, a job is one program (`ju.resident`), and others are compiled meanwhile.
"""

import dataclasses
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.cards import Job, Variables
from jax_unlearn.data import Examples
from jax_unlearn.drivers import resident
from jax_unlearn.drivers.limits import PEAKS, cost_of
from jax_unlearn.drivers.loop import run
from jax_unlearn.drivers.stacking import stack, unstack
from jax_unlearn.errors import NonFiniteError
from jax_unlearn.lab.job import Trained, checked, execute
from jax_unlearn.types import Array

__all__ = ["Call", "Device"]


class Call(NamedTuple):
    """A job, its program, and what that is called with."""

    job: Job
    program: Any
    arguments: tuple[Any, ...]

    @property
    def form(self) -> Hashable:
        """Equal for calls that one compiled program serves."""
        leaves, structure = jax.tree.flatten(self.arguments)
        return self.program, structure, *((x.shape, x.dtype) for x in leaves)


class Device:
    """Run jobs on samples that stay on the device: no guards, rewinding or saving.

    On CPUs, unless `whole`, by `lab.job.execute`: convolutions are slow in loops there.
    """

    def __init__(self, examples: Examples, *, threads: int = 1, whole: bool = False):
        self.whole = whole or jax.default_backend() != "cpu"
        self._host, self._examples = examples, resident.place(examples)
        self._pool = ThreadPoolExecutor(threads)
        self._ready: dict[Hashable, Future[resident.Ready]] = {}
        self._lock = threading.Lock()

    def __call__(
        self, job: Job, at: Variables | None, key: Array, **unused: Any
    ) -> Trained:
        """Run a job, its compilation timed apart; `NonFiniteError` if it diverged."""
        if job.transform is not None or not self.whole:
            return execute(job, at, key)
        call, begun = self.call(job, at, key), time.perf_counter()
        ready, compiled = self.compiled(call).call, time.perf_counter()
        states, report = jax.block_until_ready(ready(*call.arguments))
        seconds = {
            "prepare": job.prepare_seconds,
            "compile": compiled - begun,
            "run": time.perf_counter() - compiled,
        }
        if not np.isfinite(np.asarray(sum(report))).all():
            raise NonFiniteError("the loss or the update is not finite", job.steps)
        (state,) = unstack(states)
        finish = job.finish or (lambda state: (state.params, state.model_state))
        return Trained(*finish(state), seconds)

    def call(
        self, job: Job, at: Variables | None, key: Array, *, steps: int | None = None
    ) -> Call:
        """Return the program of a job, or of its first steps, with its arguments."""
        unlearner, schedule = checked(job)
        key = key if job.key is None else job.key
        state = unlearner.init(*(job.start or at or ()))
        schedule = schedule.from_step(int(state.step))
        if steps is not None:
            last = min(schedule.start + steps, schedule.steps)
            schedule = dataclasses.replace(schedule, steps=last)
        feed = resident.listed(schedule, self._host)
        given = stack([state]), self._examples, stack([feed]), key[None]
        return Call(job, resident.program(unlearner, epochs=1), given)

    def compiled(self, call: Call) -> resident.Ready:
        """Return the compiled program of a call, awaited if it is being compiled."""
        with self._lock:
            if call.form not in self._ready:
                pair = {"": (call.program, call.arguments)}
                self._ready[call.form] = resident.compiling(pair, threads=1)[""]
        return self._ready[call.form].result()

    def ahead(self, make: Callable[[], Call]) -> Future[Call]:
        """Prepare and compile a call in a thread, after all that was asked before."""

        def both() -> Call:
            call = make()
            if self.whole:
                self.compiled(call)
            return call

        return self._pool.submit(both)

    def close(self) -> None:
        """Compile nothing more of what was asked ahead."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def speed(self, call: Call, *, turns: int = 3) -> dict[str, Any]:
        """Time a call of some steps; return rates, costs and the share of the peak."""
        unlearner, schedule = checked(call.job)
        (states, *rest), seconds = call.arguments, []
        steps, key = rest[1].row.size, rest[2][0]
        if not self.whole:
            (states,) = unstack(states)
            batches = [schedule[step] for step in range(steps)]
        for _ in range(turns + 1):
            begun = time.perf_counter()
            if self.whole:
                states, _ = self.compiled(call).call(states, *rest)
            else:
                states = run(unlearner, states, batches, key)
            jax.block_until_ready(states)
            seconds.append(time.perf_counter() - begun)
        step, compiling = min(seconds[1:]) / steps, seconds[0] - min(seconds[1:])
        if self.whole:
            ready = self.compiled(call)
            (states,), compiling = unstack(states), ready.traced + ready.compiled
        batch = schedule[0]
        cost = cost_of(unlearner.step, states, batch, key)
        size = sum(len(part.labels) for part in batch[:2] if part is not None)
        peak = PEAKS.get(jax.devices()[0].device_kind)
        return {
            "samples_a_step": size,
            "milliseconds_a_step": 1e3 * step,
            "samples_per_second": size / step,
            "flops_a_step": cost.flops,
            "bytes_a_step": cost.bytes,
            "share_of_peak": peak and cost.flops / peak.flops / step,
            "least_milliseconds": peak
            and {name: 1e3 * least for name, least in cost.seconds(peak).items()},
            "compile_seconds": max(compiling, 0.0),
        }
