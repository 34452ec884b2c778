"""What the builders of methods are given: one request, one model, one setting."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import masks, objectives, oneshot, weights
from jax_unlearn.data import Dataset, forget_only, retain_only
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_gradient
from jax_unlearn.lab.settings import Training, Unlearning
from jax_unlearn.lab.stages import Request, Trained, optimizer_of, probabilities
from jax_unlearn.types import Model, PyTree, Weighting


class Origin(NamedTuple):
    """How a model was trained, for methods that go through its training again.

    Attributes:
      training: the setting.
      seed: of initialisation and order.
    """

    training: Training
    seed: int


@dataclasses.dataclass(frozen=True)
class Task:
    """One method to be prepared.

    Attributes:
      model, features: the network, with logits and with features as outputs.
      dataset: its data.
      setting: the method.
      request: whom to forget; `retain` is what may be read.
      original: where it starts.
      origin: how that was trained, None where nobody knows.
      seed: of random labels and order.
    """

    model: Model
    features: Model
    dataset: Dataset
    setting: Unlearning
    request: Request
    original: Trained
    origin: Origin | None
    seed: int

    @property
    def model_state(self) -> str:
        """What the steps do to BatchNorm statistics, as methods call it."""
        return "frozen" if self.setting.freezes_statistics else "sequential"

    def known_origin(self) -> Origin:
        """Return how the original was trained.

        Raises:
          InputError: nobody knows.
        """
        if self.origin is None:
            raise InputError(
                f"method={self.setting.method!r} goes through the training of the "
                "original again, of which this checkpoint has no record; give one made "
                "by `jax-unlearn train`"
            )
        return self.origin

    def labels(self, ids: np.ndarray) -> np.ndarray:
        """Return the classes of training samples, `i32[n]`."""
        return self.dataset.train.labels[ids]

    def probabilities(self, ids: np.ndarray) -> np.ndarray:
        """Return what the original model says of training samples, `[n, K]`."""
        return probabilities(self.model, self.original, self.dataset.train.inputs[ids])

    def confidence(self, ids: np.ndarray) -> np.ndarray:
        """Return the original model's probability of the true class, `[n]`."""
        return self.probabilities(ids)[np.arange(len(ids)), self.labels(ids)]

    def forget_counts(self) -> np.ndarray:
        """Return the number of forget samples of each class, `[K]`."""
        labels = self.labels(self.request.forget)
        return np.bincount(labels, minlength=self.dataset.num_classes)

    def optimizer(self) -> optax.GradientTransformation:
        """Return the optimizer; it moves salient weights only, where that is asked."""
        plain = optimizer_of(self.setting, 0)
        if not (self.setting.salient or self.setting.method == "salun"):
            return plain
        mask = masks.gradient_saliency(self._forget_gradient(), keep=self.setting.keep)
        return masks.masked(plain, jax.block_until_ready(mask))

    def weighting(self) -> Weighting:
        """Return the weighting of the forget samples."""
        setting = self.setting
        options = {
            "temperature": setting.temperature,
            "relative": setting.relative,
            "normalize": setting.normalize,
        }
        if setting.weighting == "loreun":
            return weights.loreun(**options)
        if setting.weighting == "loreun_static":
            return weights.loreun_static(jnp.asarray(self._loss_table()), **options)
        if setting.weighting == "falw":
            counts = jnp.asarray(self.forget_counts())
            return weights.falw(counts, tau=setting.tau, estimator=self._estimator())
        if setting.weighting == "sfron":
            return weights.sfron(setting.power)
        if setting.weighting == "el2n":
            return weights.el2n(**options)
        if setting.weighting == "margin":
            return weights.margin(**options)
        return weights.uniform()

    def _estimator(self) -> weights.Estimator:
        setting = self.setting
        if setting.estimator == "every":
            return weights.every(setting.every)
        if setting.estimator == "streaming":
            return weights.streaming(decay=setting.decay)
        if setting.estimator == "anchored":
            labels = self.labels(self.request.unseen)
            true = self.probabilities(self.request.unseen)[
                np.arange(len(labels)), labels
            ]
            return weights.anchored(
                weights.class_stats(
                    jnp.asarray(true), jnp.asarray(labels), self.dataset.num_classes
                )
            )
        return weights.exact()

    def _loss_table(self) -> np.ndarray:
        """Return the original model's loss by sample id, 0 beyond the forget set."""
        forget = self.request.forget
        true = self.confidence(forget)
        losses = -np.log(np.maximum(true, 1e-38)).astype(np.float32)
        return objectives.target_table(forget, losses, len(self.dataset.train.labels))

    def _forget_gradient(self) -> PyTree:
        schedule = forget_only(
            self.dataset.train,
            self.request.forget,
            batch_size=self.setting.batch_size,
            epochs=1,
        )
        batches = (batch.forget for batch in schedule if batch.forget is not None)
        at = self.original.params, self.original.model_state
        return _mean_gradient(self.model)(*at, batches, jax.random.key(0))


def fisher_of(task: Task, ids: np.ndarray, *, per: str = "sample") -> PyTree:
    """Return the diagonal of the Fisher information of the original model on samples.

    Args:
      task: what is prepared.
      ids: of the samples.
      per: "sample" or "batch", see `oneshot.fisher_information`.
    """
    schedule = retain_only(
        task.dataset.train, ids, batch_size=task.setting.batch_size, epochs=1
    )
    batches = (batch.retain for batch in schedule if batch.retain is not None)
    at = task.original.params, task.original.model_state
    return _fisher(task.model, per)(*at, batches, jax.random.key(0))


def as_floats(inputs: np.ndarray) -> np.ndarray:
    """Return pixels as the networks see them: bytes as floats in 0..1.

    >>> as_floats(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    if inputs.dtype == np.uint8:
        return inputs.astype(np.float32) / np.float32(255)
    return inputs.astype(np.float32)


@functools.lru_cache(maxsize=8)
def _fisher(model: Model, per: str):
    """Return the Fisher information's function of a model, compiled once."""
    loss = objectives.descent(model)._replace(train=False)
    return oneshot.fisher_information(loss, per=per)


@functools.lru_cache(maxsize=8)
def _mean_gradient(model: Model):
    """Return the gradient function of a model, compiled once."""
    return mean_gradient(objectives.descent(model)._replace(train=False))
