"""From a setting and a request to an unlearner that is ready to run."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import harmonize, masks, methods, objectives, weights
from jax_unlearn.data import (
    Dataset,
    Schedule,
    forget_only,
    merged,
    queried,
    retain_only,
    retain_subset,
    sequential,
    take,
    zipped,
)
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_gradient
from jax_unlearn.pipeline.learn import Learned, learn
from jax_unlearn.pipeline.settings import Unlearning
from jax_unlearn.pipeline.stages import Job, Request, Trained, probabilities, sgd
from jax_unlearn.types import (
    Harmonizer,
    Model,
    Params,
    UnlearnBatch,
    Unlearner,
    Weighting,
)


class Preparer:
    """Turn settings into unlearners, the compiled steps shared between requests.

    All arrays of a request travel in the state, so a second request with the same
    setting and shapes runs the program compiled for the first.

    Args:
      model: the network.
      dataset: its data.
      features: the model that returns features of the network instead of logits, with
        the same parameters; default the network itself.
    """

    def __init__(self, model: Model, dataset: Dataset, features: Model | None = None):
        self.model = model
        self.dataset = dataset
        self.features = model if features is None else features
        loss = objectives.descent(model)._replace(train=False)
        self._forget_gradient = mean_gradient(loss)
        self._steps: dict[tuple[Unlearning, int | None], Unlearner] = {}

    def __call__(
        self,
        setting: Unlearning,
        request: Request,
        original: Trained,
        *,
        seed: int,
    ) -> Job:
        """Prepare what the method needs: mask, loss table, targets, attacks, queries.

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
        check_unseen(self.dataset, request, setting)
        request = accessible(self.dataset, request, setting.rho, seed)
        learned = None
        if setting.method == "ltu":
            learned = learn(
                self.model,
                self.features,
                self.dataset,
                request,
                original,
                setting,
                seed,
            )
        schedule = self._schedule(setting, request, seed, learned)
        optimizer = sgd(setting, len(schedule))
        weighting = self._weighting(setting, request, original)
        unlearner = self._method(
            setting,
            request,
            original,
            optimizer,
            weighting,
            len(schedule),
            seed,
            learned,
        )
        jax.block_until_ready(jax.tree.leaves(weighting.init()))
        shared = self._steps.setdefault(_program(setting, len(schedule)), unlearner)
        return Job(
            unlearner._replace(step=shared.step),
            schedule,
            time.perf_counter() - start,
            {} if learned is None else learned.details,
        )

    def probabilities(self, trained: Trained, ids: np.ndarray) -> np.ndarray:
        """Return the softmax probabilities of training samples, `[n, K]`."""
        return probabilities(self.model, trained, self.dataset.train.inputs[ids])

    def _schedule(
        self, setting: Unlearning, request: Request, seed: int, learned: Learned | None
    ) -> Schedule[UnlearnBatch]:
        examples = self.dataset.train
        common: dict[str, Any] = {
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
        if learned is not None:
            return queried(
                examples,
                request.forget,
                request.retain,
                learned.strategies,
                query_size=learned.query_size,
                **common,
            )
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
                jnp.asarray(self._forget_counts(request)),
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
            probs = self.probabilities(original, request.unseen)
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
        learned: Learned | None,
    ) -> Unlearner:
        model, name = self.model, setting.method
        if setting.salient or name == "salun":
            grads = self._saliency(request, original, setting.batch_size)
            mask = masks.gradient_saliency(grads, keep=setting.keep)
            jax.block_until_ready(mask)
            optimizer = masks.masked(optimizer, mask)
        common: dict[str, Any] = {
            "model_state": "frozen" if setting.freezes_statistics else "sequential"
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
        both = {
            **common,
            "weighting": weighting,
            "harmonizer": _harmonizer(setting),
        }
        if name == "neggrad_plus":
            return methods.neggrad_plus(model, optimizer, alpha=setting.alpha, **both)
        relabel = {**both, "num_classes": self.dataset.num_classes, "seed": seed}
        if learned is not None:
            rate = setting.inner_rate
            return methods.ltu(
                model,
                optimizer,
                queries=len(learned.strategies),
                attacks=learned.attacks,
                attack_params=learned.attack_params,
                inner=optax.sgd(rate) if rate > 0 else optax.set_to_zero(),
                first_order=setting.first_order,
                remat=setting.remat,
                **relabel,
            )
        if setting.schedule == "merged":
            both["forward"] = relabel["forward"] = "merged"
        if name == "endpoint_transport":
            targets = self._targets(request, original)
            return methods.endpoint_transport(
                model, optimizer, targets=jnp.asarray(targets), **both
            )
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
        probs = self.probabilities(original, request.forget)
        losses = -np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-38))
        return objectives.target_table(
            request.forget, losses.astype(np.float32), len(self.dataset.train.labels)
        )

    def _targets(self, request: Request, original: Trained) -> np.ndarray:
        labels = self.dataset.train.labels
        forget = self.probabilities(original, request.forget)
        targets = objectives.transport_targets(
            forget[np.arange(len(forget)), labels[request.forget]],
            labels[request.forget],
            self.probabilities(original, request.unseen),
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


def accessible(dataset: Dataset, request: Request, rho: float, seed: int) -> Request:
    """Return the request with the share of the retain set that may be read.

    Args:
      dataset: its data.
      request: ids.
      rho: ρ, the share; the subset of a seed is the same for every method.
      seed: of the draw.

    Raises:
      InputError: a share too small to hold every class.
    """
    if rho == 1:
        return request
    subset = retain_subset(dataset.train.labels, request.retain, rho=rho, seed=seed)
    return request._replace(retain=subset)


def check_unseen(dataset: Dataset, request: Request, setting: Unlearning) -> None:
    """Refuse a request without the unseen samples that the method compares with.

    Raises:
      InputError: there are none, or names the forget class that has none.
    """
    if setting.needs_unseen and len(request.unseen) < 2:
        raise InputError(
            f"method={setting.method!r} compares with unseen samples, of which there "
            f"are {len(request.unseen)}; hold some out (--unseen-fraction) or use "
            "another method"
        )
    labels = dataset.train.labels
    missing = np.setdiff1d(labels[request.forget], labels[request.unseen])
    if setting.needs_unseen_classes and missing.size:
        raise InputError(
            f"class {missing[0]} has forget samples but no unseen ones to compare "
            "with; hold out some of it (--unseen-fraction) or use another method"
        )


def _harmonizer(setting: Unlearning) -> Harmonizer | None:
    """Return what joins the gradients; None is their sum."""
    name = setting.harmonizer
    if name == "auto":
        name = "one_way" if setting.method == "ltu" else "none"
    if name == "one_way":
        return harmonize.one_way(per_leaf=setting.per_leaf)
    if name == "two_way":
        return harmonize.two_way(per_leaf=setting.per_leaf)
    return harmonize.add() if setting.method == "ltu" else None


def _program(setting: Unlearning, steps: int) -> tuple[Unlearning, int | None]:
    """Return what decides the compiled step: not rate, length, data or their number."""
    same = dataclasses.replace(setting, learning_rate=1.0, epochs=1, rho=1.0)
    return same, steps if setting.method == "l1_sparse" else None
