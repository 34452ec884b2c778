"""DeltaGrad: retrace a training path without some samples, most gradients estimated.

For strongly convex losses trained by full-batch gradient descent (logistic or softmax
regression with decay). Shapes: P parameters, T steps, n samples, r removed, m pairs.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from jax_unlearn import _validate, programs
from jax_unlearn.cards import Card, Count, Job, Lab, Options, Variables
from jax_unlearn.data import take
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.gradients import counted, mean_loss
from jax_unlearn.leaves import divided
from jax_unlearn.oneshot.amnesiac import check_same
from jax_unlearn.types import Array, Batch, LossFn, ModelState, Params

__all__ = ["DELTAGRAD", "DeltaGrad", "DeltaGradInfo", "Path", "deltagrad"]
__all__ += ["gradient_path", "lbfgs_product"]

_dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Path(NamedTuple):
    """A run of gradient descent, kept for being retraced; 8·T·P bytes.

    Attributes:
      params: θ_0, …, θ_T, raveled, `f32[T+1, P]`.
      grads: gradients at θ_0, …, θ_{T-1}, decay included, `f32[T, P]`.
      rates: learning rates `f32[T]`.
      decay: λ of the term λ‖θ‖²/2, `f32[]`.
    """

    params: Array
    grads: Array
    rates: Array
    decay: Array


class DeltaGradInfo(NamedTuple):
    """What a replay cost.

    Attributes:
      exact: steps with the gradient of all samples.
      gradients: gradients of single samples evaluated: exact·n + T·r.
      retraining: what training without the removed samples takes: T·(n − r).
      rejected: pairs without positive curvature, not used; many of them say that the
        loss is not convex.
    """

    exact: int
    gradients: int
    retraining: int
    rejected: int


def gradient_path(
    loss_fn: LossFn,
    params: Params,
    batch: Batch,
    *,
    rates: Any,
    decay: float = 0.0,
    model_state: ModelState = (),
) -> tuple[Params, Path]:
    """Train by full-batch gradient descent and keep the path.

    θ_{t+1} = θ_t − η_t·[(1/n) Σ_i ∇ℓ_i(θ_t) + λθ_t].

    Args:
      loss_fn: unreduced losses in eval mode, convex in the parameters, not random.
      params: where the path begins.
      batch: ALL training samples.
      rates: η_t, `[T]`.
      decay: λ ≥ 0; positive makes the loss strongly convex, as the theory asks.
      model_state: of the model; not changed.

    Returns:
      (the trained parameters, `Path`).

    Raises:
      InputError: no rates, rates or decay negative, objective in train mode, no
        samples.
      NonFiniteError: the path diverged: lower the rates.

    >>> from jax_unlearn.types import Aux
    >>> def loss_fn(w, state, batch, key):
    ...     losses = (w - batch.inputs) ** 2 / 2
    ...     return losses, Aux(losses, losses, state)
    >>> batch = Batch(jnp.array([1.0, 3.0]), jnp.array([0, 0]))
    >>> w, path = gradient_path(loss_fn, jnp.float32(0), batch, rates=[0.5, 0.5])
    >>> print(w, path.params[:, 0], path.grads[:, 0])
    1.5 [0. 1. 1.5] [-2. -1.]
    """
    _validate.eval_mode(loss_fn)
    _validate.at_least("decay", decay, 0)
    steps = np.asarray(rates, np.float32)
    if steps.ndim != 1 or not steps.size or not np.all(steps >= 0):
        raise InputError(
            f"rates of shape {steps.shape} must be T learning rates >= 0; give [T]"
        )
    if not np.any(np.asarray(counted(batch))):
        raise InputError("batch holds no sample; give all training samples")
    rate, strength = jnp.asarray(steps), jnp.float32(decay)

    @programs.jit
    def descend(variables, batch, rate, strength):
        flat, gradient = _raveled(loss_fn, *variables)

        def body(theta, rate):
            slope = gradient(theta, batch) + strength * theta
            return theta - rate * slope, (theta, slope)

        last, (before, slopes) = jax.lax.scan(body, flat, rate)
        return last, jnp.concatenate([before, last[None]]), slopes

    last, thetas, slopes = descend((params, model_state), batch, rate, strength)
    _check_finite("path", np.isfinite(np.asarray(thetas[1:])))
    return _like(last, params), Path(thetas, slopes, rate, strength)


def deltagrad(
    loss_fn: LossFn, *, burn_in: int = 10, period: int = 5, history: int = 2
) -> Callable[..., tuple[Params, DeltaGradInfo]]:
    """Transform a convex loss into a function which retraces a path without samples.

    ϑ_{t+1} = ϑ_t − η_t/(n − r)·[n·G_t − Σ_{i removed} ∇f_i(ϑ_t)], f_i = ℓ_i + λ‖·‖²/2,
    where G_t is the gradient on all n samples at ϑ_t: evaluated in the first `burn_in`
    steps and every `period`-th after them, else estimated by the stored one,
    G_t ≈ g_t + B_t(ϑ_t − θ_t), with B_t of `lbfgs_product` from the evaluated ones.

    For full-batch gradient descent on a (strongly) convex loss only: the estimate needs
    one Hessian that changes slowly along the path. Differences of gradients are taken
    in float32, so very few samples of very many (r/n near 1e-6) drown in rounding.

    Args:
      loss_fn: that of `gradient_path`.
      burn_in: exact steps at first, ≥ 2: the paths part after the first one.
      period: every how many steps an exact one follows; 1 is retraining.
      history: pairs m of the L-BFGS estimate, published 2.

    Returns:
      `(params, path, batch, removed, *, model_state=()) -> (params, DeltaGradInfo)`:
      `params` are the trained ones, `batch` all samples, `removed` the ids of those to
      leave out (`batch.index`; without it their positions). Compiled once per number of
      removed samples.

    Raises:
      InputError: burn_in below 2, period or history below 1, objective in train mode;
        of the function: a path of other parameters, unknown, repeated, none or all ids.
      NonFiniteError: of the function: the replay diverged.

    Reference: Wu, Dobriban and Davidson, ICML 2020, arXiv 2006.14755, algorithm 1.

    >>> import jax_unlearn as ju
    >>> def loss_fn(w, state, batch, key):
    ...     losses = (w - batch.inputs) ** 2 / 2
    ...     return losses, ju.Aux(losses, losses, state)
    >>> batch = Batch(jnp.array([1.0, 3.0]), jnp.array([0, 0]))
    >>> w, path = gradient_path(loss_fn, jnp.float32(0), batch, rates=[0.5] * 30)
    >>> replay = deltagrad(loss_fn, burn_in=2)
    >>> without, info = replay(w, path, batch, [1])
    >>> print(w, without, info.exact)  # the mean of what is left
    2.0 1.0 7
    """
    _validate.eval_mode(loss_fn)
    _validate.at_least("burn_in", burn_in, 2)
    _validate.at_least("period", period, 1)
    _validate.at_least("history", history, 1)

    @programs.jit
    def retrace(variables, path, batch, positions):
        numbers = jnp.arange(path.rates.shape[0])
        planned = (numbers < burn_in) | ((numbers - burn_in + 1) % period == 0)
        body = _replay_step(_raveled(loss_fn, *variables)[1], path, batch, positions)
        empty = tuple(jnp.zeros((2, history, path.params.shape[1]), jnp.float32))
        inputs = (path.params[:-1], path.grads, path.rates, planned)
        (theta, _), flags = jax.lax.scan(body, (path.params[0], empty), inputs)
        return theta, flags

    def replay(params, path, batch, removed, *, model_state=()):
        steps, width = path.rates.shape[0], path.params.shape[1]
        if sum(leaf.size for leaf in jax.tree.leaves(divided(params)[0])) != width:
            raise InputError(
                f"path.params.shape={path.params.shape} is of another model; make it "
                "by gradient_path of these parameters"
            )
        positions = _positions(batch, removed)
        theta, flags = retrace((params, model_state), path, batch, positions)
        exact, rejected, finite = (np.asarray(flag) for flag in flags)
        _check_finite("replay", finite)
        total = int(np.sum(np.asarray(counted(batch))))
        info = DeltaGradInfo(
            exact=int(exact.sum()),
            gradients=int(exact.sum()) * total + steps * len(positions),
            retraining=steps * (total - len(positions)),
            rejected=int(rejected.sum()),
        )
        return _like(theta, params), info

    return replay


def _replay_step(gradient, path: Path, batch: Batch, positions: Array):
    """Return the step of a replay; of pairs (s, y), see `lbfgs_product`."""
    gone = jax.tree.map(lambda leaf: leaf[positions], batch)._replace(mask=None)
    total = jnp.sum(counted(batch)).astype(jnp.float32)
    fewer = jnp.float32(positions.shape[0])

    def slope(theta, samples):
        return gradient(theta, samples) + path.decay * theta

    def evaluated(theta, old, old_slope, pairs):
        full = slope(theta, batch)
        s, y = theta - old, full - old_slope
        bent = _dot(s, y) > 0
        added = jax.tree.map(
            lambda old, new: jnp.concatenate([old[1:], new[None]]), pairs, (s, y)
        )
        pairs = jax.tree.map(lambda a, b: jnp.where(bent, a, b), added, pairs)
        return full, pairs, ~bent & jnp.any(s != 0)

    def estimated(theta, old, old_slope, pairs):
        s, y = pairs
        return old_slope + lbfgs_product(s, y, theta - old), pairs, jnp.bool_(False)

    def body(carry, inputs):
        theta, pairs = carry
        old, old_slope, rate, planned = inputs
        # without a pair there is nothing to estimate from
        exact = planned | ~jnp.any(pairs[0][-1] != 0)
        full, pairs, rejected = jax.lax.cond(
            exact, evaluated, estimated, theta, old, old_slope, pairs
        )
        rest = (total * full - fewer * slope(theta, gone)) / (total - fewer)
        theta = theta - rate * rest
        return (theta, pairs), (exact, rejected, jnp.all(jnp.isfinite(theta)))

    return body


def lbfgs_product(s: Array, y: Array, v: Array) -> Array:
    """Multiply v by the L-BFGS estimate of the Hessian, in its compact form.

    B = σI − [σSᵀ Yᵀ] M⁻¹ [σS; Y], M = [[σSSᵀ, L], [Lᵀ, −D]], where L is the part of SYᵀ
    below its diagonal D and σ = s·y/s·s of the last pair. B s_m = y_m; B does not
    depend on the lengths of the pairs.

    The rows of s, `f32[m, P]`, are differences of parameters, oldest first, those of y
    of gradients, s_i·y_i > 0; a row of zeros is no pair. B·v is `f32[P]` as v, 0 if the
    last pair is none.

    Reference: Byrd, Nocedal and Schnabel, Mathematical Programming 63, 1994, thm 2.3.

    >>> s, y = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 0.0]])
    >>> print(lbfgs_product(s, y, jnp.array([1.0, 1.0])))
    [2. 2.]
    """
    length = jnp.linalg.norm(s, axis=1)
    none = length == 0
    scale = jnp.where(none, 0.0, 1 / jnp.where(none, 1.0, length))[:, None]
    s, y = s * scale, y * scale
    inner = _dot(s, y.T)
    sigma = inner[-1, -1]
    lower = jnp.tril(inner, -1)
    ones = jnp.diag(none.astype(jnp.float32))  # a missing pair: a row of its own
    upper = [sigma * _dot(s, s.T) + ones, lower]
    middle = jnp.block([upper, [lower.T, -jnp.diag(jnp.diag(inner)) - ones]])
    sides = jnp.concatenate([sigma * s, y])
    return sigma * v - _dot(jnp.linalg.solve(middle, _dot(sides, v)), sides)


def _check_finite(what: str, finite: np.ndarray) -> None:
    """Name the first step, row of `finite`, with a False in it."""
    if not finite.all():
        step = int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
        raise NonFiniteError(f"the {what} is not finite at step {step}", step)


def _raveled(loss_fn: LossFn, params: Params, model_state: ModelState):
    """Return (the raveled parameters, their mean gradient on a batch)."""
    part, whole = divided(params)
    flat, unravel = ravel_pytree(optax.tree.cast(part, jnp.float32))

    def gradient(theta: Array, batch: Batch) -> Array:
        def mean(theta):
            tree = whole(optax.tree.cast_like(unravel(theta), part))
            losses, _ = loss_fn(tree, model_state, batch, jax.random.key(0))
            return mean_loss(losses.astype(jnp.float32), counted(batch))

        return jax.grad(mean)(theta)

    return flat, gradient


def _like(flat: Array, params: Params) -> Params:
    part, whole = divided(params)
    _, unravel = ravel_pytree(optax.tree.cast(part, jnp.float32))
    return whole(optax.tree.cast_like(unravel(flat), part))


def _positions(batch: Batch, removed: Any) -> np.ndarray:
    """Return where the removed samples are in the batch, `i64[r]`."""
    ids = np.asarray(removed)
    if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
        raise InputError(
            f"removed of type {ids.dtype}{list(ids.shape)} must be ids: integers [r], "
            "r >= 1"
        )
    present = np.flatnonzero(np.asarray(counted(batch)))
    known = present if batch.index is None else np.asarray(batch.index)[present]
    if len(np.unique(ids)) != len(ids):
        raise InputError("removed holds an id twice; give each sample once")
    if (missing := np.setdiff1d(ids, known)).size:
        raise InputError(
            f"removed={missing[0]} is not among the {len(known)} samples of the batch; "
            "give ids of samples the path was trained on"
        )
    if len(ids) >= len(known):
        raise InputError(
            f"removed holds all {len(known)} samples; leave at least 1 to train on"
        )
    return present[np.isin(known, ids)]


@dataclasses.dataclass(frozen=True)
class DeltaGrad(Options):
    """Options of DeltaGrad.

    Attributes:
      burn_in: number of exact steps at the start.
      period: number of steps between two exact steps.
      history: number of pairs in the quasi-Newton memory.
    """

    burn_in: Annotated[int, partial(_validate.at_least, low=2)] = 10
    period: Count = 5
    history: Count = 2


def _deltagrad(lab: Lab, options: DeltaGrad) -> Job:
    training, ids = lab.training, lab.ids("trained")
    plain = training.network == "linear" and training.augment == "none"
    if not plain or training.momentum or training.batch_size < len(ids):
        raise InputError(
            f"method='deltagrad' needs an original trained by full-batch gradient "
            f"descent: --network linear --momentum 0 --batch-size {len(ids)} "
            f"--augment none, not --network {training.network} --momentum "
            f"{training.momentum:g} --batch-size {training.batch_size} "
            f"--augment {training.augment}"
        )
    job, _ = lab.retraining("trained")
    start, model_state = cast(Variables, job.start)
    loss, batch = lab.objective("evaluate"), take(lab.examples, ids)
    rate = optax.cosine_decay_schedule(training.learning_rate, max(job.steps, 1))
    trained, path = gradient_path(
        loss,
        start,
        batch,
        rates=[rate(float(step)) for step in range(job.steps)],
        decay=training.weight_decay,
        model_state=model_state,
    )
    check_same(lab, trained)
    replay = deltagrad(loss, **vars(options))
    removed = lab.ids("forget")

    def move(params: Params) -> Params:
        return replay(params, path, batch, removed, model_state=model_state)[0]

    return Job.once(move)


DELTAGRAD = (
    Card.of(_deltagrad, "DeltaGrad", "DeltaGrad (linear network, full batches)")
    .but(source="arXiv 2006.14755", reads=("forget", "retain", "training"))
    .but(cost="T·F + (T/period + burn_in)·R; the path of the training is kept")
    .but(kind="one-shot", roles=("evaluate", "logits"), weighs=False)
    .but(
        suits="Good for linear networks trained on full batches, where it is close to "
        "retraining, and for no others."
    )
)
