"""The stages of the job: train, run an unlearner, predict, measure."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import methods
from jax_unlearn.audit import Metrics, Predictions, unlearning_metrics
from jax_unlearn.data import Dataset, Examples, Schedule, retain_only
from jax_unlearn.errors import InputError
from jax_unlearn.pipeline.settings import Training, Unlearning
from jax_unlearn.run import Callback, predict, run
from jax_unlearn.types import (
    Array,
    Model,
    ModelState,
    Params,
    UnlearnBatch,
    Unlearner,
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
    """

    params: Params
    model_state: ModelState
    seconds: dict[str, float]


class Job(NamedTuple):
    """An unlearner ready to run.

    Attributes:
      unlearner: the method.
      schedule: its batches.
      prepare_seconds: time spent on masks, tables, moments and attacks.
      details: JSON-able, what was found on the way (AUC of the attacks, ...).
    """

    unlearner: Unlearner
    schedule: Schedule[UnlearnBatch]
    prepare_seconds: float
    details: dict[str, Any]


def sgd(setting: Training | Unlearning, steps: int) -> optax.GradientTransformation:
    """Return the optimizer of a setting: SGD with momentum, decay, and clipping.

    The learning rate of unlearning travels in the state, so that one compiled program
    serves all rates; that of training is a schedule, part of the program.

    >>> optimizer = sgd(Training(learning_rate=1.0, weight_decay=0.0), 10)
    >>> optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))[0].tolist()
    [-1.0]
    """
    parts = []
    if isinstance(setting, Training):
        cosine = optax.cosine_decay_schedule(setting.learning_rate, max(steps, 1))
        # strict dtype promotion forbids a schedule of an integer
        rate = optax.scale_by_learning_rate(lambda step: cosine(jnp.float32(step)))
    else:
        rate = optax.inject_hyperparams(optax.scale_by_learning_rate)(
            setting.learning_rate
        )
        if setting.clip > 0:
            parts.append(optax.clip_by_global_norm(setting.clip))
    if setting.weight_decay > 0:
        parts.append(optax.add_decayed_weights(setting.weight_decay))
    if setting.momentum > 0:
        parts.append(optax.trace(setting.momentum))
    return optax.chain(*parts, rate)


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
    ) -> Trained:
        """Train from scratch on the samples of the given ids.

        Args:
          examples: training arrays.
          ids: what to train on.
          seed: of initialisation, order and augmentation.
          callback: as in `run`.

        Raises:
          NonFiniteError: the loss diverged.
        """
        setting = self.setting
        schedule = retain_only(
            examples,
            ids,
            batch_size=setting.batch_size,
            epochs=setting.epochs,
            seed=seed,
        )
        steps = len(schedule)
        if steps not in self._unlearners:
            self._unlearners[steps] = methods.finetune(self.model, sgd(setting, steps))
        unlearner = self._unlearners[steps]
        init_key, run_key = jax.random.split(jax.random.key(seed))
        params, state = jax.jit(self.model.init)(init_key, examples.inputs[:2])
        return execute(
            Job(unlearner, schedule, 0.0, {}), params, state, run_key, callback=callback
        )


def execute(
    job: Job,
    params: Params,
    model_state: ModelState,
    key: Array,
    *,
    callback: Callback | None = None,
) -> Trained:
    """Run a job, its compilation timed apart.

    Args:
      job: from `prepare`.
      params: where it starts.
      model_state: its state.
      key: of the run.
      callback: as in `run`.

    Raises:
      NonFiniteError: a loss turned NaN or infinite; names the step.
    """
    state = job.unlearner.init(params, model_state)
    start = time.perf_counter()
    for first in _forms(job.schedule):
        jax.block_until_ready(run(job.unlearner, state, [first], key, check_every=2))
    compiled = time.perf_counter()
    state = run(job.unlearner, state, job.schedule, key, callback=callback)
    jax.block_until_ready(state)
    done = time.perf_counter()
    seconds = {
        "prepare": job.prepare_seconds,
        "compile": compiled - start,
        "run": done - compiled,
    }
    return Trained(state.params, state.model_state, seconds)


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
