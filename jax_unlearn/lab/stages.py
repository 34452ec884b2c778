"""The stages of the job: train, run an unlearner, predict, measure."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import methods
from jax_unlearn.audit import Metrics, Predictions, unlearning_metrics
from jax_unlearn.data import Dataset, Examples, Schedule, retain_only
from jax_unlearn.drivers import signals
from jax_unlearn.drivers.guards import Guard, first_of
from jax_unlearn.drivers.loop import Callback, predict, run
from jax_unlearn.drivers.series import Series
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.lab.settings import Training, Unlearning
from jax_unlearn.lab.unfinished import Candidates
from jax_unlearn.types import (
    Array,
    Model,
    ModelState,
    Params,
    UnlearnBatch,
    Unlearner,
    UnlearnState,
)


class Request(NamedTuple):
    """Who is to be forgotten, of whom: ids into a data set's training arrays.

    Attributes:
      forget, retain, unseen: disjoint sorted ids; training used forget and retain.
    """

    forget: np.ndarray
    retain: np.ndarray
    unseen: np.ndarray


class Trained(NamedTuple):
    """A model and what it took.

    Attributes:
      params, model_state: the model.
      seconds: of its stages: "compile", "prepare", "run" (device-synchronised).
      stopped: by a guard: "step" and "reason"; None where the run came to its end.
    """

    params: Params
    model_state: ModelState
    seconds: dict[str, float]
    stopped: dict[str, Any] | None = None


Transform = Callable[[Params, ModelState], tuple[Params, ModelState]]
"""A one-shot method: from the original's parameters and state to the unlearned's."""


class Rewind(NamedTuple):
    """Which of several states of a run is kept.

    Attributes:
      ends: the steps after which the state is a candidate, ascending.
      choose: `(candidates) -> which`, each the parameters and state after one of them.
    """

    ends: tuple[int, ...]
    choose: Callable[[Sequence[tuple[Params, ModelState]]], int]


class Job(NamedTuple):
    """A method ready to run: an unlearner with its batches, or a transformation.

    Attributes:
      unlearner: the method.
      schedule: its batches.
      prepare_seconds: time spent on masks, tables, moments and attacks.
      details: JSON-able, what was found on the way (AUC of the attacks, ...).
      rewind: whether an earlier state than the last is kept.
      start: parameters and state to start from instead of the original's.
      transform: instead of all that, a function of the parameters.
      guards: made from the state before the first step.
    """

    unlearner: Unlearner | None
    schedule: Schedule[UnlearnBatch] | None
    prepare_seconds: float = 0.0
    details: Mapping[str, Any] = MappingProxyType({})
    rewind: Rewind | None = None
    start: tuple[Params, ModelState] | None = None
    transform: Transform | None = None
    guards: Callable[[UnlearnState], Sequence[Guard]] | None = None

    @property
    def steps(self) -> int:
        """Number of steps; a transformation counts as one."""
        return 1 if self.schedule is None else len(self.schedule)


def optimizer_of(
    setting: Training | Unlearning, steps: int
) -> optax.GradientTransformation:
    """Return the optimizer of a setting: SGD with momentum, or Adam; decay, clipping.

    The learning rate of unlearning travels in the state, so that one compiled program
    serves all rates; that of training is a schedule, part of the program.

    >>> optimizer = optimizer_of(Training(learning_rate=1.0, weight_decay=0.0), 10)
    >>> optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))[0].tolist()
    [-1.0]
    """
    parts = []
    adaptive = False
    if isinstance(setting, Training):
        # strict dtype promotion forbids a schedule of an integer
        rates = cosine(setting, steps)
        rate = optax.scale_by_learning_rate(lambda step: rates(jnp.float32(step)))
    else:
        rate = optax.inject_hyperparams(optax.scale_by_learning_rate)(
            setting.learning_rate
        )
        adaptive = setting.optimizer == "adam"
        if setting.clip > 0:
            parts.append(optax.clip_by_global_norm(setting.clip))
    if setting.weight_decay > 0:
        parts.append(optax.add_decayed_weights(setting.weight_decay))
    if adaptive:
        parts.append(adam())
    elif setting.momentum > 0:
        parts.append(optax.trace(setting.momentum))
    return optax.chain(*parts, rate)


def cosine(setting: Training, steps: int) -> optax.Schedule:
    """Return the learning rate of a training by its step, falling to 0.

    >>> rates = cosine(Training(learning_rate=1.0), 10)
    >>> [round(float(rates(step)), 3) for step in (0.0, 5.0, 10.0)]
    [1.0, 0.5, 0.0]
    """
    return optax.cosine_decay_schedule(setting.learning_rate, max(steps, 1))


def adam() -> optax.GradientTransformation:
    """Return Adam's scaling, which raises a float to an integer count."""
    inner = optax.scale_by_adam()

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


class Trainer:
    """Train models of one setting, the compiled step shared between the runs.

    Args:
      model: the network.
      setting: how to train.
    """

    def __init__(self, model: Model, setting: Training):
        self.model = model
        self.setting = setting
        self._unlearners: dict[int, Unlearner] = {}

    def steps(self, samples: int) -> int:
        """Return how many steps training on so many samples takes."""
        return self.setting.epochs * -(
            -samples // min(self.setting.batch_size, samples)
        )

    def __call__(
        self,
        examples: Examples,
        ids: np.ndarray,
        *,
        seed: int,
        callback: Callback | None = None,
        series: Series | None = None,
    ) -> Trained:
        """Train from scratch on the samples of the given ids.

        Args:
          examples: training arrays.
          ids: what to train on.
          seed: of initialisation, order and augmentation.
          callback: as in `run`.
          series: as in `execute`.

        Raises:
          NonFiniteError: the loss diverged.
        """
        job, key = self.job(examples, ids, seed=seed)
        params, state = cast(tuple[Params, ModelState], job.start)
        return execute(job, params, state, key, callback=callback, series=series)

    def job(
        self, examples: Examples, ids: np.ndarray, *, seed: int
    ) -> tuple[Job, Array]:
        """Return a training, its start included, and the key of its run.

        Args:
          examples: training arrays.
          ids: what to train on.
          seed: of initialisation, order and augmentation.
        """
        schedule = retain_only(
            examples,
            ids,
            batch_size=self.setting.batch_size,
            epochs=self.setting.epochs,
            seed=seed,
        )
        steps = len(schedule)
        if steps not in self._unlearners:
            self._unlearners[steps] = methods.finetune(
                self.model, optimizer_of(self.setting, steps)
            )
        init_key, run_key = jax.random.split(jax.random.key(seed))
        start = jax.jit(self.model.init)(init_key, examples.inputs[:2])
        return Job(self._unlearners[steps], schedule, start=start), run_key


def execute(
    job: Job,
    params: Params,
    model_state: ModelState,
    key: Array,
    *,
    callback: Callback | None = None,
    series: Series | None = None,
) -> Trained:
    """Run a job, its compilation timed apart.

    Args:
      job: from `prepare`.
      params: where it starts.
      model_state: its state.
      key: of the run.
      callback: as in `run`; a transformation does not call it.
      series: where the run is saved as it goes on, and gone on from; a transformation
        is made anew.

    Raises:
      NonFiniteError: a loss turned NaN or infinite; names the step.
    """
    if job.transform is not None:
        return _transformed(job, params, model_state)
    unlearner, schedule = checked(job)
    state = unlearner.init(*(job.start or (params, model_state)))
    start = time.perf_counter()
    for first in _forms(schedule):
        jax.block_until_ready(run(unlearner, state, [first], key, check_every=2))
    compiled = time.perf_counter()
    with signals.held() if series is not None else contextlib.nullcontext():
        guards = [] if job.guards is None else list(job.guards(state))
        found = _run_to_end(job, state, key, callback, series, guards)
        jax.block_until_ready(found)
    done = time.perf_counter()
    before = 0.0 if series is None else series.spent
    seconds = {
        "prepare": job.prepare_seconds,
        "compile": compiled - start,
        "run": before + done - compiled,
    }
    acted = [guard for guard in guards if guard.reason is not None]
    told = [{"step": guard.step, "reason": guard.reason} for guard in acted]
    return Trained(*found, seconds, told[0] if told else None)


def checked(job: Job) -> tuple[Unlearner, Schedule[UnlearnBatch]]:
    """Return unlearner and schedule of a job that is no transformation."""
    if job.unlearner is None or job.schedule is None:
        raise ValueError("a job without a transform needs unlearner and schedule")
    return job.unlearner, job.schedule


def _run_to_end(
    job: Job,
    state: UnlearnState,
    key: Array,
    callback: Callback | None,
    series: Series | None,
    guards: Sequence[Guard],
) -> tuple[Params, ModelState]:
    """Run to the end, or to where a guard ends it.

    Return the last state, or the one chosen of those kept.
    """
    unlearner, schedule = checked(job)
    candidates = Candidates(jax.tree.structure((state.params, state.model_state)))
    begin = 0
    if guards:
        callback = first_of(*guards, *(() if callback is None else (callback,)))
    if series is not None:
        series.carry("candidates", candidates)
        for number, guard in enumerate(guards):
            series.carry(f"guard-{number}", guard)
        saved = series.latest(state)
        if saved is not None:
            state, begin = saved, int(saved.step)
        callback = saving(callback, series)
    ends = (schedule.steps,) if job.rewind is None else job.rewind.ends
    for end in ends[len(candidates.found) :]:
        part = dataclasses.replace(schedule, start=begin, steps=end)
        state = run(unlearner, state, part, key, callback=callback)
        candidates.found.append((state.params, state.model_state))
        begin = end
    if job.rewind is None:
        return candidates.found[-1]
    return candidates.found[job.rewind.choose(candidates.found)]


def saving(callback: Callback | None, series: Series) -> Callback:
    """Return the callback that saves where nothing ended the run.

    Args:
      callback: called first; may end the run.
      series: where the states are saved.
    """

    def both(done, state, info):
        ended = None if callback is None else callback(done, state, info)
        return series.callback(done, state) if ended is None else ended

    return both


def _transformed(job: Job, params: Params, model_state: ModelState) -> Trained:
    """Transform twice: what the first time takes longer is compilation."""
    transform = cast(Transform, job.transform)
    times = [time.perf_counter()]
    for _ in range(2):
        found = jax.block_until_ready(transform(params, model_state))
        times.append(time.perf_counter())
    first, second = np.diff(times)
    seconds = {
        "prepare": job.prepare_seconds,
        "compile": max(float(first - second), 0.0),
        "run": float(second),
    }
    leaves = [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(found[0])]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise NonFiniteError("the parameters are not finite after the step", 1)
    return Trained(found[0], found[1], seconds)


def probabilities(model: Model, trained: Trained, inputs: np.ndarray) -> np.ndarray:
    """Return softmax outputs in float64 on the host, `[N, K]`.

    Raises:
      InputError: the model's outputs are not finite.
    """
    logits = predict(model, trained.params, trained.model_state, inputs)
    logits = logits.astype(np.float64)
    if not np.isfinite(logits).all():
        raise InputError("the model's outputs are not finite: its training diverged")
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


class Outputs(NamedTuple):
    """Softmax outputs of one model on a data set.

    Attributes:
      train: on the training arrays, `[N, K]`.
      test: on the test arrays, `[M, K]`.
    """

    train: np.ndarray
    test: np.ndarray

    def confidence(self, dataset: Dataset, ids: np.ndarray) -> np.ndarray:
        """Return the probability of the true class of training samples, `[n]`."""
        return self.train[ids, dataset.train.labels[ids]]


def outputs_of(model: Model, trained: Trained, dataset: Dataset) -> Outputs:
    """Run a model over all of a data set."""
    return Outputs(
        probabilities(model, trained, dataset.train.inputs),
        probabilities(model, trained, dataset.test.inputs),
    )


def measure(
    outputs: Outputs, dataset: Dataset, request: Request, *, seed: int = 0
) -> Metrics:
    """Return UA, FA, RA, TA and MIA; classes forgotten as a whole leave the test set.

    Args:
      outputs: of the model.
      dataset: its data.
      request: forget and retain ids.
      seed: of the attack's sample of the retain set.
    """

    def part(ids: np.ndarray) -> Predictions:
        return Predictions(outputs.train[ids], dataset.train.labels[ids], ids)

    labels = dataset.train.labels
    gone = np.setdiff1d(labels[request.forget], labels[request.retain])
    return unlearning_metrics(
        part(request.forget),
        part(request.retain),
        Predictions(outputs.test, dataset.test.labels),
        forgotten_classes=gone.tolist(),
        seed=seed,
    )


def _forms(schedule: Schedule[UnlearnBatch]) -> Iterator[UnlearnBatch]:
    """Yield a batch of every structure: the ends and the middle show all."""
    last, seen = len(schedule) - 1, set()
    for step in sorted({0, last // 2, last}):
        batch = schedule[step]
        form = jax.tree.map(np.shape, batch)
        if str(form) not in seen:
            seen.add(str(form))
            yield batch
