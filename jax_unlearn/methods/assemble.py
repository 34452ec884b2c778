"""Put a forget loss, a retain loss, a weighting and an optimizer together."""

from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import harmonize
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import weighted_grad
from jax_unlearn.losses import cross_entropy
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import (
    Array,
    Aux,
    Batch,
    Harmonizer,
    LossFn,
    Model,
    ModelState,
    Params,
    PyTree,
    Sample,
    UnlearnBatch,
    Unlearner,
    UnlearnInfo,
    UnlearnState,
    Weighting,
)
from jax_unlearn.weights.combine import uniform


class _Pass(NamedTuple):
    """The joint gradient of a step and its by-products."""

    grads: PyTree
    model_state: ModelState
    weight_state: PyTree
    weights: Array | None = None
    task_losses: Array | None = None
    forget_loss: Array | float = 0.0
    retain_loss: Array | float = 0.0
    conflict: Array | float = 0.0


def assemble(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    forget: LossFn | None = None,
    retain: LossFn | None = None,
    weighting: Weighting | None = None,
    harmonizer: Harmonizer | None = None,
    model_state: str = "sequential",
    forward: str = "separate",
) -> Unlearner:
    """Make an `Unlearner` of parts; every method of the library is one such call.

    A step descends along H(g_f, g_r), with g_f = (1/n_f) Σ w_i ∇ℓ_f,i over the forget
    batch and g_r = (1/n_r) Σ ∇ℓ_r,i over the retain batch. A batch that is None, or a
    loss that is None, leaves its gradient out.

    Args:
      model: the network; used for reference batches and merged passes.
      optimizer: any optax transformation.
      forget: loss on forget samples.
      retain: loss on retain samples.
      weighting: weights of the forget samples; default uniform.
      harmonizer: joins the two gradients; default their plain sum.
      model_state: what the step does to BatchNorm statistics. "sequential": the forget
        pass updates them, then the retain pass; "retain": only the retain pass;
        "frozen": nobody, and the objectives run in eval mode.
      forward: "separate": one pass a batch; "merged": both batches in one pass with
        joint BatchNorm statistics and one mean over all samples, (Σ w_i ∇ℓ_f,i +
        Σ ∇ℓ_r,i)/(n_f + n_r), as in FaLW's Algorithm 1.

    Returns:
      An `Unlearner`; its `init` copies the parameters and the objectives' arrays.

    Raises:
      InputError: no loss at all, unknown option, or a merged pass of losses that are
        not `Objective`s, with a harmonizer or with `model_state="retain"`.

    >>> from jax_unlearn import objectives
    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = assemble(model, optax.sgd(1.0), forget=objectives.ascent(model))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> forget = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state, info = alg.step(state, UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − p_1, p_1 = 1/(1 + e²)
    1.8808
    """
    if forget is None and retain is None:
        raise InputError("forget=None, retain=None: give at least one loss")
    if model_state not in ("sequential", "retain", "frozen"):
        raise InputError(
            f"model_state={model_state!r}: choose 'sequential', 'retain' or 'frozen'"
        )
    if forward not in ("separate", "merged"):
        raise InputError(f"forward={forward!r}: choose 'separate' or 'merged'")
    if forward == "merged":
        if not (isinstance(forget, Objective) and isinstance(retain, Objective)):
            raise InputError(
                "forward='merged' needs forget and retain made by ju.objectives; use "
                "forward='separate' for other losses"
            )
        if harmonizer is not None:
            raise InputError(
                "forward='merged' makes one gradient, so harmonizer has no two to "
                "join; use forward='separate'"
            )
        if model_state == "retain":
            raise InputError(
                "forward='merged' has joint BatchNorm statistics, which "
                "model_state='retain' forbids; use forward='separate'"
            )
    if model_state == "frozen":
        forget, retain = _eval_mode(forget), _eval_mode(retain)
    weigh = uniform() if weighting is None else weighting
    join = harmonize.add() if harmonizer is None else harmonizer

    def init(params: Params, model_state: ModelState) -> UnlearnState:
        params, model_state = _copy((params, model_state))
        data = tuple(getattr(loss, "data", ()) for loss in (forget, retain))
        return UnlearnState(
            params,
            model_state,
            _copy(optimizer.init(params)),
            _copy(weigh.init()),
            _copy(data),
            jnp.int32(0),
        )

    def weights_of(state: UnlearnState, batch: UnlearnBatch):
        """Return the weights function of the step's forget batch."""
        forget_batch, unseen = cast(Batch, batch.forget), batch.reference

        def reference() -> Sample:
            return _reference_sample(model, state, cast(Batch, unseen))

        def weights_fn(losses: Array, aux: Aux) -> tuple[Array, PyTree]:
            del losses
            sample = Sample(
                aux.task_losses,
                aux.outputs,
                forget_batch.labels,
                forget_batch.index,
                forget_batch.mask,
            )
            return weigh.update(
                sample,
                state.weight_state,
                reference=None if unseen is None else reference,
            )

        return weights_fn

    def separate(state: UnlearnState, batch: UnlearnBatch, key: Array) -> _Pass:
        forget_key, retain_key = jax.random.split(key)
        forget_loss, retain_loss = _with_data((forget, retain), state.objective_state)
        passed = _Pass(None, state.model_state, state.weight_state)
        g_forget = g_retain = None
        if forget_loss is not None and batch.forget is not None:
            losses_fn = _losses_fn(
                forget_loss, passed.model_state, batch.forget, forget_key
            )
            g_forget, info = weighted_grad(
                losses_fn,
                state.params,
                weights_of(state, batch),
                where=batch.forget.mask,
            )
            passed = passed._replace(
                weight_state=info.carry,
                weights=info.weights,
                task_losses=info.aux.task_losses,
                forget_loss=_mean(info.losses, batch.forget.mask),
            )
            if model_state == "sequential":
                passed = passed._replace(model_state=info.aux.model_state)
        if retain_loss is not None and batch.retain is not None:
            losses_fn = _losses_fn(
                retain_loss, passed.model_state, batch.retain, retain_key
            )
            g_retain, info = weighted_grad(
                losses_fn, state.params, _ones, where=batch.retain.mask
            )
            passed = passed._replace(
                model_state=info.aux.model_state,
                retain_loss=_mean(info.losses, batch.retain.mask),
            )
        if g_forget is None or g_retain is None:
            grads = g_forget if g_retain is None else g_retain
            if grads is None:
                raise InputError(
                    "the step has no batch for any of its losses; fill "
                    "UnlearnBatch.forget or UnlearnBatch.retain"
                )
            zero = optax.tree.zeros_like(grads)
            pair = (grads, zero) if g_retain is None else (zero, grads)
            return passed._replace(grads=join(*pair))
        return passed._replace(
            grads=join(g_forget, g_retain),
            conflict=harmonize.cosine(g_forget, g_retain),
        )

    def merged(state: UnlearnState, batch: UnlearnBatch, key: Array) -> _Pass:
        losses = _with_data((forget, retain), state.objective_state)
        pair = cast(tuple[Batch, Batch], (batch.forget, batch.retain))
        size = pair[0].labels.shape[0]
        where = jnp.concatenate([_counted(part) for part in pair])
        weights_fn = weights_of(state, batch)

        def losses_fn(params: Params):
            return _joint_losses(losses, params, state.model_state, pair, key)

        def joint_weights(losses: Array, aux: tuple[Aux, ModelState]):
            weights, carry = weights_fn(losses[:size], aux[0])
            return jnp.concatenate([weights, jnp.ones_like(losses[size:])]), carry

        grads, info = weighted_grad(losses_fn, state.params, joint_weights, where=where)
        return _Pass(
            grads,
            info.aux[1],
            info.carry,
            info.weights[:size],
            info.aux[0].task_losses,
            _mean(info.losses[:size], where[:size]),
            _mean(info.losses[size:], where[size:]),
        )

    def step(
        state: UnlearnState, batch: UnlearnBatch, key: Array
    ) -> tuple[UnlearnState, UnlearnInfo]:
        both = batch.forget is not None and batch.retain is not None
        passed = (merged if forward == "merged" and both else separate)(
            state, batch, key
        )
        updates, opt_state = optimizer.update(
            passed.grads, state.opt_state, state.params
        )
        frozen = model_state == "frozen"
        info = UnlearnInfo(
            jnp.asarray(passed.forget_loss, jnp.float32),
            jnp.asarray(passed.retain_loss, jnp.float32),
            passed.weights,
            passed.task_losses,
            None if passed.weights is None else _real_index(batch.forget),
            jnp.asarray(passed.conflict, jnp.float32),
            optax.tree.norm(optax.tree.cast(updates, jnp.float32)),
        )
        new = UnlearnState(
            cast(PyTree, optax.apply_updates(state.params, updates)),
            state.model_state if frozen else passed.model_state,
            opt_state,
            passed.weight_state,
            state.objective_state,
            state.step + 1,
        )
        return new, info

    return Unlearner(init, step)


def _copy(tree: PyTree) -> PyTree:
    """Copy every array, so that donating the state harms nobody else's."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), tree)


def _eval_mode(loss: LossFn | None) -> LossFn | None:
    return loss._replace(train=False) if isinstance(loss, Objective) else loss


def _with_data(losses, data):
    """Give objectives their arrays from the state; other losses pass through."""
    return tuple(
        loss._replace(data=own) if isinstance(loss, Objective) else loss
        for loss, own in zip(losses, data, strict=True)
    )


def _losses_fn(loss: LossFn, model_state: ModelState, batch: Batch, key: Array):
    def losses_fn(params: Params):
        return loss(params, model_state, batch, key)

    return losses_fn


def _joint_losses(losses, params, model_state, pair, key):
    """Return the losses of both batches from one forward pass."""
    forget, retain = losses
    size = pair[0].labels.shape[0]
    forget_key, retain_key, apply_key = jax.random.split(key, 3)
    inputs = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b]), pair[0].inputs, pair[1].inputs
    )
    outputs, model_state = forget.model.apply(
        params, model_state, inputs, train=forget.train, key=apply_key
    )
    first = jax.tree.map(lambda leaf: leaf[:size], outputs)
    second = jax.tree.map(lambda leaf: leaf[size:], outputs)
    forget_losses, task_losses = forget.output_loss(
        first, pair[0], forget_key, forget.data
    )
    retain_losses, _ = retain.output_loss(second, pair[1], retain_key, retain.data)
    aux = Aux(first, task_losses, model_state)
    return jnp.concatenate([forget_losses, retain_losses]), (aux, model_state)


def _reference_sample(model: Model, state: UnlearnState, batch: Batch) -> Sample:
    """Run the current model over unseen samples in eval mode."""
    outputs, _ = model.apply(state.params, state.model_state, batch.inputs, train=False)
    losses = cross_entropy(outputs, batch.labels)
    return Sample(losses, outputs, batch.labels, batch.index, batch.mask)


def _ones(losses: Array, aux: Aux) -> tuple[Array, None]:
    del aux
    return jnp.ones_like(losses), None


def _counted(batch: Batch) -> Array:
    if batch.mask is None:
        return jnp.ones(batch.labels.shape, jnp.bool_)
    return batch.mask


def _real_index(batch: Batch | None) -> Array | None:
    """Return the ids of the samples, −1 for padding."""
    if batch is None or batch.index is None or batch.mask is None:
        return None if batch is None else batch.index
    return jnp.where(batch.mask, batch.index, -1)


def _mean(losses: Array, mask: Array | None) -> Array:
    """Return the mean of the counted losses, 0 if none counts."""
    if mask is None:
        return jnp.mean(losses)
    total = jnp.sum(jnp.where(mask, losses, 0.0))
    return total / jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)
