"""The stages of the job: train, prepare and run an unlearner, predict, measure."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import harmonize, masks, methods, objectives, weights
from jax_unlearn.audit import Metrics, Predictions, unlearning_metrics
from jax_unlearn.data import (
    Dataset,
    Examples,
    Schedule,
    forget_only,
    merged,
    retain_only,
    sequential,
    take,
    zipped,
)
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_gradient
from jax_unlearn.pipeline.settings import Training, Unlearning
from jax_unlearn.run import Callback, predict, run
from jax_unlearn.types import (
    Array,
    Model,
    ModelState,
    Params,
    UnlearnBatch,
    Unlearner,
    Weighting,
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
      prepare_seconds: time spent on masks, tables and moments.
    """

    unlearner: Unlearner
    schedule: Schedule[UnlearnBatch]
    prepare_seconds: float


def sgd(setting: Training | Unlearning, steps: int) -> optax.GradientTransformation:
    """Return the optimizer of a setting: SGD with momentum, decay, and clipping.

    >>> sgd(Unlearning(), 10).init(jnp.zeros(1)) is not None
    True
    """
    rate: optax.ScalarOrSchedule = setting.learning_rate
    parts = []
    if isinstance(setting, Training):
        rate = optax.cosine_decay_schedule(setting.learning_rate, max(steps, 1))
    elif setting.clip > 0:
        parts.append(optax.clip_by_global_norm(setting.clip))
    if setting.weight_decay > 0:
        parts.append(optax.add_decayed_weights(setting.weight_decay))
    return optax.chain(*parts, optax.sgd(rate, momentum=setting.momentum or None))


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
            Job(unlearner, schedule, 0.0), params, state, run_key, callback=callback
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
      params, model_state: where it starts.
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


class Preparer:
    """Turn settings into unlearners, the compiled steps shared between requests.

    All arrays of a request travel in the state, so a second request with the same
    setting and shapes runs the program compiled for the first.

    Args:
      model: the network.
      dataset: its data.
    """

    def __init__(self, model: Model, dataset: Dataset):
        self.model = model
        self.dataset = dataset
        loss = objectives.descent(model)._replace(train=False)
        self._forget_gradient = mean_gradient(loss)
        self._steps: dict[tuple[Unlearning, int], Unlearner] = {}

    def __call__(
        self,
        setting: Unlearning,
        request: Request,
        original: Trained,
        *,
        seed: int,
    ) -> Job:
        """Prepare what the method needs: mask, loss table, class moments, targets.

        Args:
          setting: how to unlearn.
          request: whom to forget.
          original: the trained model.
          seed: of random labels and order.

        Raises:
          InputError: a forget class without unseen samples (FaLW, endpoint transport),
            or another request that cannot be served.
        """
        start = time.perf_counter()
        if setting.needs_unseen:
            check_unseen(self.dataset, request)
        schedule = self._schedule(setting, request, seed)
        optimizer = sgd(setting, len(schedule))
        weighting = self._weighting(setting, request, original)
        unlearner = self._method(
            setting, request, original, optimizer, weighting, len(schedule), seed
        )
        jax.block_until_ready(jax.tree.leaves(weighting.init()))
        shared = self._steps.setdefault((setting, len(schedule)), unlearner)
        return Job(
            unlearner._replace(step=shared.step), schedule, time.perf_counter() - start
        )

    def confidence(self, trained: Trained, ids: np.ndarray) -> np.ndarray:
        """Return the softmax probabilities of training samples, `[n, K]`."""
        return probabilities(self.model, trained, self.dataset.train.inputs[ids])

    def _schedule(
        self, setting: Unlearning, request: Request, seed: int
    ) -> Schedule[UnlearnBatch]:
        examples = self.dataset.train
        common = {
            "batch_size": setting.batch_size,
            "epochs": setting.epochs,
            "seed": seed,
        }
        if setting.weighting == "falw" and setting.estimator != "anchored":
            streaming = setting.estimator == "streaming"
            common["reference"] = (
                request.unseen
                if streaming
                else take(
                    examples, request.unseen, np.ones(len(request.unseen), np.bool_)
                )
            )
            if streaming:
                size = min(setting.batch_size, len(request.unseen))
                common["reference_size"] = size
        if setting.method in ("finetune", "l1_sparse"):
            return retain_only(examples, request.retain, **common)
        if setting.method == "gradient_ascent":
            return forget_only(examples, request.forget, **common)
        schedule = {"merged": merged, "zipped": zipped, "sequential": sequential}
        return schedule[setting.schedule](
            examples, request.forget, request.retain, **common
        )

    def _weighting(
        self, setting: Unlearning, request: Request, original: Trained
    ) -> Weighting:
        options = {
            "temperature": setting.temperature,
            "relative": setting.relative,
            "normalize": setting.normalize,
        }
        if setting.weighting == "loreun":
            return weights.loreun(**options)
        if setting.weighting == "loreun_static":
            table = self._loss_table(request, original)
            return weights.loreun_static(jnp.asarray(table), **options)
        if setting.weighting == "falw":
            return weights.falw(
                self._forget_counts(request),
                tau=setting.tau,
                estimator=self._estimator(setting, request, original),
            )
        if setting.weighting == "sfron":
            return weights.sfron(setting.power)
        if setting.weighting == "el2n":
            return weights.el2n(**options)
        if setting.weighting == "margin":
            return weights.margin(**options)
        return weights.uniform()

    def _estimator(
        self, setting: Unlearning, request: Request, original: Trained
    ) -> weights.Estimator:
        if setting.estimator == "every":
            return weights.every(setting.every)
        if setting.estimator == "streaming":
            return weights.streaming(decay=setting.decay)
        if setting.estimator == "anchored":
            labels = self.dataset.train.labels[request.unseen]
            probs = self.confidence(original, request.unseen)
            true = probs[np.arange(len(labels)), labels]
            return weights.anchored(
                weights.class_stats(
                    jnp.asarray(true), jnp.asarray(labels), self.dataset.num_classes
                )
            )
        return weights.exact()

    def _method(
        self,
        setting: Unlearning,
        request: Request,
        original: Trained,
        optimizer: optax.GradientTransformation,
        weighting: Weighting,
        steps: int,
        seed: int,
    ) -> Unlearner:
        model, name = self.model, setting.method
        common = {
            "model_state": "frozen" if setting.freeze_statistics else "sequential"
        }
        if name == "finetune":
            return methods.finetune(model, optimizer, **common)
        if name == "l1_sparse":
            return methods.l1_sparse(
                model, optimizer, penalty=setting.penalty, steps=steps, **common
            )
        if name == "gradient_ascent":
            return methods.gradient_ascent(
                model, optimizer, weighting=weighting, **common
            )
        harmonizers = {
            "none": None,
            "one_way": harmonize.one_way(),
            "two_way": harmonize.two_way(),
        }
        both = {
            **common,
            "weighting": weighting,
            "harmonizer": harmonizers[setting.harmonizer],
        }
        if name == "neggrad_plus":
            return methods.neggrad_plus(model, optimizer, alpha=setting.alpha, **both)
        if setting.schedule == "merged":
            both["forward"] = "merged"
        if name == "endpoint_transport":
            targets = self._targets(request, original)
            return methods.endpoint_transport(
                model, optimizer, targets=jnp.asarray(targets), **both
            )
        relabel = {**both, "num_classes": self.dataset.num_classes, "seed": seed}
        if name == "salun":
            grads = self._saliency(request, original, setting.batch_size)
            mask = masks.gradient_saliency(grads, keep=setting.keep)
            jax.block_until_ready(mask)
            return methods.salun(model, optimizer, mask=mask, **relabel)
        if name == "salun_soft":
            return methods.salun_soft(
                model, optimizer, threshold=setting.threshold, **relabel
            )
        return methods.random_label(model, optimizer, **relabel)

    def _forget_counts(self, request: Request) -> np.ndarray:
        labels = self.dataset.train.labels[request.forget]
        return np.bincount(labels, minlength=self.dataset.num_classes)

    def _loss_table(self, request: Request, original: Trained) -> np.ndarray:
        """Return the original model's loss by sample id, 0 beyond the forget set."""
        labels = self.dataset.train.labels[request.forget]
        probs = self.confidence(original, request.forget)
        losses = -np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-38))
        return objectives.target_table(
            request.forget, losses.astype(np.float32), len(self.dataset.train.labels)
        )

    def _targets(self, request: Request, original: Trained) -> np.ndarray:
        labels = self.dataset.train.labels
        forget = self.confidence(original, request.forget)
        targets = objectives.transport_targets(
            forget[np.arange(len(forget)), labels[request.forget]],
            labels[request.forget],
            self.confidence(original, request.unseen),
            labels[request.unseen],
        )
        return objectives.target_table(request.forget, targets, len(labels))

    def _saliency(self, request: Request, original: Trained, batch_size: int) -> Params:
        schedule = forget_only(
            self.dataset.train, request.forget, batch_size=batch_size, epochs=1
        )
        batches = (batch.forget for batch in schedule if batch.forget is not None)
        return self._forget_gradient(
            original.params, original.model_state, batches, jax.random.key(0)
        )


def check_unseen(dataset: Dataset, request: Request) -> None:
    """Refuse a request in which a forget class has no unseen samples.

    Raises:
      InputError: names the class.
    """
    labels = dataset.train.labels
    missing = np.setdiff1d(labels[request.forget], labels[request.unseen])
    if missing.size:
        raise InputError(
            f"class {missing[0]} has forget samples but no unseen ones to compare with; "
            "hold out some of it (--unseen-fraction) or use another method"
        )


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
    """Yield a batch of every structure in the schedule: its ends and middle show all."""
    last, seen = len(schedule) - 1, set()
    for step in sorted({0, last // 2, last}):
        batch = schedule[step]
        form = jax.tree.map(np.shape, batch)
        if str(form) not in seen:
            seen.add(str(form))
            yield batch
