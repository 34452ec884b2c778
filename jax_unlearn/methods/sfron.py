"""SFRon: now and then a masked ascent on forget, at every step a descent on retain."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import objectives, weights
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import weighted_grad
from jax_unlearn.masks import apply_mask
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.methods.step import mean_loss, real_index, weights_of
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import (
    Array,
    Batch,
    Model,
    ModelState,
    Params,
    PyTree,
    UnlearnBatch,
    Unlearner,
    UnlearnInfo,
    UnlearnState,
    Weighting,
)


def sfron_strength(
    step: int | Array, *, steps: int | Array, peak: float | Array
) -> Array:
    """Return the strength of the ascent: s_t = peak·(1 + cos(π t/T))/2.

    Args:
      step: t ≥ 0; beyond T the strength stays 0.
      steps: T ≥ 1.
      peak: strength at t = 0.

    Returns:
      `f32[]`, or of the shape of `step`.

    Reference: Huang et al., arXiv 2409.19732; peak 25 in the authors' code.

    >>> [float(sfron_strength(t, steps=10, peak=25.0)) for t in (0, 5, 10)]
    [25.0, 12.5, 0.0]
    """
    total = jnp.asarray(steps, jnp.float32)
    done = jnp.minimum(jnp.asarray(step, jnp.float32) / total, 1.0)
    return jnp.asarray(peak, jnp.float32) * (1.0 + jnp.cos(jnp.pi * done)) / 2.0


class SfronData(NamedTuple):
    """What `sfron` carries in `UnlearnState.objective_state`.

    Attributes:
      mask: weights the ascent may move, pytree of bool.
      forget_rate: of the ascent, `f32[]`.
      inner: arrays of the retain objective.
      climb: arrays of the forget objective.
    """

    mask: PyTree
    forget_rate: Array
    inner: PyTree
    climb: PyTree


class _Ascent(NamedTuple):
    """What the forget part of a step leaves behind, whether it climbed or not."""

    params: Params
    model_state: ModelState
    weight_state: PyTree
    weights: Array
    task_losses: Array
    index: Array | None
    forget_loss: Array


def sfron(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    mask: PyTree,
    steps: int,
    forget_rate: float | Array,
    forget_every: int = 5,
    peak: float | Array = 25.0,
    clip: float | Array = 7.0,
    forget: Objective | None = None,
    retain: Objective | None = None,
    weighting: Weighting | None = None,
    model_state: str = "sequential",
) -> Unlearner:
    """Climb on forget every k-th step, descend on retain every step (SFRon).

    On the steps t = 0, k, 2k, … first θ ← θ + η·c(s_t·m⊙(1/n) Σ w_i ∇CE_i(θ)) over the
    forget batch: s_t as in `sfron_strength`, m the mask, c(g) = g·min(1, C/‖g‖) over
    the whole pytree, a zero gradient left alone. Then, on every step, `optimizer` acts
    on the gradient of CE(D_r) at the parameters so moved; it is not masked.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation, of the retain steps; published (CIFAR-10):
        SGD of momentum 0.9, lr 0.01 falling by a cosine, 1500 steps.
      mask: m, pytree of bool like the parameters; from `ju.masks.fisher_ratio`.
      steps: T, over which the strength falls to 0.
      forget_rate: η of the ascent, plain SGD; published: that of `optimizer`.
      forget_every: k ≥ 1.
      peak: strength at the first step.
      clip: C > 0.
      forget: what falls where the step climbs; default −CE on the true label.
        Of diffusion models `ju.objectives.denoise_ascent`.
      retain: default the cross-entropy; of diffusion models `ju.objectives.denoise`.
      weighting: weights of the forget samples; default `ju.weights.sfron(0.5)`.
      model_state: what happens to BatchNorm statistics, see `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.retain` and, where it climbs, `.forget`: a
      zipped schedule, or one that forgets every k steps. A forget batch of the steps
      between costs no pass when compiled (under `jax.vmap` it does); their weights and
      losses are 0 and their index −1. `forget_loss` is −CE, as of `gradient_ascent`;
      `update_norm` is of both moves together.

    Raises:
      InputError: numbers out of range, unknown `model_state`; in the step, if there is
        no retain batch.
      ValueError: at `init`, if the mask does not fit the parameters.

    Reference: Huang et al., arXiv 2409.19732; the order of strength, mask and clip as
    in the authors' code. There the ascent shares momentum and weight decay with the
    retain steps, through which masked weights move; that it does not is our choice.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = sfron(
    ...     model, optax.sgd(0.0), mask=jnp.array(True), steps=9, forget_rate=0.1
    ... )
    >>> x = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = alg.step(state, UnlearnBatch(x, x), jax.random.key(0))
    >>> print(state.params)  # 2 − 0.1·25·p_1, p_1 = 1/(1 + e²)
    1.7020
    """
    for name, value in (("steps", steps), ("forget_every", forget_every)):
        if value < 1:
            raise InputError(f"{name}={value} must be at least 1")
    for name, value in (("forget_rate", forget_rate), ("peak", peak)):
        if isinstance(value, int | float) and not value >= 0:
            raise InputError(f"{name}={value} must not be negative")
    if isinstance(clip, int | float) and not clip > 0:
        raise InputError(f"clip={clip} must be positive; published: 7.0")
    weigh = weights.sfron(0.5) if weighting is None else weighting
    climb = objectives.ascent(model) if forget is None else forget
    climb = climb._replace(train=climb.train and model_state != "frozen")
    keep = objectives.descent(model) if retain is None else retain
    retaining = assemble(
        model,
        optimizer,
        retain=keep,
        weighting=weigh,
        model_state=model_state,
    )

    def init(params: Params, model_state: ModelState) -> UnlearnState:
        if _shapes(mask) != _shapes(params):
            raise ValueError(
                "the mask and the parameters differ in structure or shapes; build the "
                "mask from gradients of the same model"
            )
        state = retaining.init(params, model_state)
        data = SfronData(
            jax.tree.map(lambda m: jnp.array(m, jnp.bool_, copy=True), mask),
            jnp.array(forget_rate, jnp.float32, copy=True),
            state.objective_state,
            jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), climb.data),
        )
        return state._replace(objective_state=data)

    def ascended(state: UnlearnState, batch: UnlearnBatch, key: Array) -> _Ascent:
        forget, data = cast(Batch, batch.forget), state.objective_state

        loss = climb._replace(data=data.climb)

        def losses_fn(params: Params):
            return loss(params, state.model_state, forget, key)

        grads, info = weighted_grad(
            losses_fn,
            state.params,
            weights_of(model, weigh, state, batch, loss),
            where=forget.mask,
        )
        strength = sfron_strength(state.step, steps=steps, peak=peak)
        updates = optax.tree.scale(-strength, optax.tree.cast(grads, jnp.float32))
        updates = _clipped(apply_mask(updates, data.mask), clip)
        updates = optax.tree.cast_like(
            optax.tree.scale(data.forget_rate, updates), state.params
        )
        sequential = model_state == "sequential"
        return _Ascent(
            cast(PyTree, optax.apply_updates(state.params, updates)),
            info.aux.model_state if sequential else state.model_state,
            info.carry,
            info.weights,
            info.aux.task_losses,
            real_index(forget),
            mean_loss(info.losses, forget.mask),
        )

    def skipped(state: UnlearnState, batch: UnlearnBatch) -> _Ascent:
        forget = cast(Batch, batch.forget)
        none = jnp.zeros(forget.labels.shape, jnp.float32)
        index = forget.index
        return _Ascent(
            state.params,
            state.model_state,
            state.weight_state,
            none,
            none,
            None if index is None else jnp.full_like(index, -1),
            jnp.float32(0),
        )

    def step(
        state: UnlearnState, batch: UnlearnBatch, key: Array
    ) -> tuple[UnlearnState, UnlearnInfo]:
        if batch.retain is None:
            raise InputError(
                "sfron reads a retain batch each step; use ju.data.zipped or every_k"
            )
        forget_key, retain_key = jax.random.split(key)
        start, data, climbed = state.params, state.objective_state, None
        if batch.forget is not None:
            climbed = jax.lax.cond(
                state.step % forget_every == 0,
                lambda: ascended(state, batch, forget_key),
                lambda: skipped(state, batch),
            )
            state = state._replace(
                params=climbed.params,
                model_state=climbed.model_state,
                weight_state=climbed.weight_state,
            )
        state, info = retaining.step(
            state._replace(objective_state=data.inner),
            UnlearnBatch(retain=batch.retain),
            retain_key,
        )
        state = state._replace(objective_state=data)
        if climbed is None:
            return state, info
        return state, info._replace(
            forget_loss=climbed.forget_loss,
            weights=climbed.weights,
            task_losses=climbed.task_losses,
            index=climbed.index,
            update_norm=optax.tree.norm(
                optax.tree.cast(optax.tree.sub(state.params, start), jnp.float32)
            ),
        )

    return Unlearner(init, step)


def _clipped(tree: PyTree, largest: float | Array) -> PyTree:
    """Scale the tree to a norm of at most `largest`; zero stays zero."""
    norm = optax.tree.norm(tree)
    largest = jnp.asarray(largest, jnp.float32)
    factor = jnp.minimum(1.0, largest / jnp.where(norm > 0, norm, largest))
    return optax.tree.scale(factor, tree)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.shape, tree)
