"""Objectives of diffusion models: what is minimised on forget and retain images.

Shapes: B batch, J draws of a timestep for each sample, images `[B, H, W, C]`. Every
objective noises the batch, and what weightings see (`task_losses`) is the denoising
error under the sample's own condition, from the very pass that is differentiated:

ℓ_i = 1/J Σ_j ‖ε − ε_θ(x_t, t, c)‖²/m(t),   mean over the pixels.

The error depends on t more than on the sample. With `scale` it is divided by the mean
error m(t) of the timestep's bin (`ju.diffusion.timestep_scale`); with `draws` it is
averaged over several t; without either, weights of single draws tell timesteps apart
rather than samples. What is minimised is never scaled.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from jax_unlearn import _validate
from jax_unlearn.contracts import forward_pass
from jax_unlearn.diffusion.conditions import Replace, drop_condition, like
from jax_unlearn.diffusion.denoising import Noised, noised, scaled, squared_error
from jax_unlearn.diffusion.process import Process, coefficients, to_epsilon
from jax_unlearn.errors import InputError
from jax_unlearn.membership.attacks import Attack, AttackParams, nonmember_loss
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import Array, Batch, Model, ModelState, Params

__all__ = ["Denoised", "Wanted", "denoise", "denoise_ascent", "denoise_uniform"]
__all__ += ["denoising_features", "denoising_nonmember", "negative_guidance"]
__all__ += ["relabel_condition"]


class Denoised(NamedTuple):
    """What a denoising pass gives.

    Attributes:
      errors: squared error under the condition given, `f32[B, J]`.
      timesteps: `i32[B, J]`.
      distances: squared distance to the objective's own target, `f32[B, J]`.
    """

    errors: Array
    timesteps: Array
    distances: Array


Wanted = Callable[[Objective, Callable[[Array], Array], Noised, Array], Array]
"""`(objective, predict, noised, key) -> target [J·B, ...]`;
`predict` maps a condition to the current prediction, detached."""


def denoise(
    model: Model,
    process: Process,
    *,
    draws: int = 1,
    scale: Array | None = None,
    drop: float = 0.0,
    null: ArrayLike | None = None,
) -> Objective:
    """Return the denoising error ℓ = ‖ε − ε_θ(x_t, t, c)‖²: training, and retain.

    Args:
      model: of inputs (x_t, t, condition).
      process: noise schedule; with "v_prediction" v stands for ε.
      draws: J, timesteps a sample.
      scale: m by bin of timesteps, `f32[b]`, for the task losses alone.
      drop: share of samples that see the null condition instead of their own, without
        which there is no classifier-free guidance; 0.1 to 0.2 is usual.
      null: the null condition, of one sample; needed where `drop` is over 0.

    Returns:
      An `Objective`; its losses are means over pixels and draws.

    Raises:
      InputError: `drop` outside [0, 1) or without `null`; in the call, `draws` out of
        range.

    Reference: Ho et al., arXiv 2006.11239, equation 14; dropping: Ho and Salimans,
    arXiv 2207.12598.

    >>> from jax_unlearn.diffusion.process import from_betas
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return params * inputs[0], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> objective = denoise(model, from_betas([0.36]))
    >>> batch = Batch(jnp.zeros((1, 2, 2, 1)), jnp.array([0]))
    >>> loss, _ = objective(1 / 0.6, (), batch, jax.random.key(0))  # x_t = 0.6 ε
    >>> loss.tolist()
    [0.0]
    """
    _validate.share("drop", drop, "usual is 0.1")
    if drop and null is None:
        raise InputError(
            f"drop={drop} needs the null condition; for zoo.UNet that is num_classes"
        )

    def corrupted(seen: Noised, key: Array) -> Noised:
        if not drop:
            return seen
        x, times, condition = seen.inputs
        condition = drop_condition(key, condition, null=null, rate=drop)  # type: ignore
        return seen._replace(inputs=(x, times, condition))

    return _objective(model, process, draws, scale, corrupted=corrupted)


def denoise_ascent(
    model: Model, process: Process, *, draws: int = 1, scale: Array | None = None
) -> Objective:
    """Return the negated denoising error: minimising it ascends; see `denoise`.

    Reference: gradient ascent as in Thudi et al., arXiv 2109.13398, on the loss of Ho
    et al., arXiv 2006.11239.

    >>> from jax_unlearn.diffusion.process import from_betas
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return params * inputs[0], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> objective = denoise_ascent(model, from_betas([0.36]))
    >>> batch = Batch(jnp.zeros((1, 2, 2, 1)), jnp.array([0]))
    >>> loss, aux = objective(0.0, (), batch, jax.random.key(0))
    >>> bool(loss[0] == -aux.task_losses[0])
    True
    """
    return denoise(model, process, draws=draws, scale=scale).negated()


def denoise_uniform(
    model: Model, process: Process, *, draws: int = 1, scale: Array | None = None
) -> Objective:
    """Return ‖u − ε_θ(√ᾱ_t x + √(1 − ᾱ_t) u, t, c)‖², u uniform in [0, 1): EraseDiff.

    Minimised on forget images: the network learns of them to find a noise that no image
    is drawn from. Weightings see the same error; the arguments are those of `denoise`.

    Reference: EraseDiff, arXiv 2401.05779, and its code for DDPM.

    >>> from jax_unlearn.diffusion.process import from_betas
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return params * inputs[0], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> objective = denoise_uniform(model, from_betas([0.36]))
    >>> batch = Batch(jnp.zeros((1, 2, 2, 1)), jnp.array([0]))
    >>> loss, _ = objective(1 / 0.6, (), batch, jax.random.key(0))  # x_t = 0.6 u
    >>> bool(loss[0] < 1e-12)
    True
    """

    def corrupted(seen: Noised, key: Array) -> Noised:
        x, times, condition = seen.inputs
        signal, spread = coefficients(process, times, x.ndim)
        change = jax.random.uniform(key, x.shape)
        change = change - to_epsilon(process, seen.target, x, times)
        moved = change if process.prediction_type == "epsilon" else signal * change
        inputs = (x + spread * change, times, condition)
        return seen._replace(inputs=inputs, target=seen.target + moved)

    return _objective(model, process, draws, scale, corrupted=corrupted)


def relabel_condition(
    model: Model,
    process: Process,
    *,
    replace: Replace,
    teacher: tuple[Params, ModelState] | None = None,
    draws: int = 1,
    scale: Array | None = None,
) -> Objective:
    """Return ‖ε_θ(x_t, t, c) − ε(x_t, t, c')‖²: c is to mean what c' means.

    The target is detached. It is that of the model as it is now, or of a frozen one,
    the `teacher`, given as its parameters and state. `replace` says c' of each sample:
    `ju.diffusion.random_other`, `next_class`, `anchor` or `by_label`. The other
    arguments are those of `denoise`.

    SalUn's code for DDPM adds to this mean over pixels α = 1e-3 times a retain loss
    that is a sum over them. Both losses are means here: its α is
    `harmonize.add(retain=α·n)` with n pixels an image, 3.07 at 32 x 32 x 3.

    Reference: SalUn, Fan et al., arXiv 2310.12508, equation 7, with the current model
    as in its code; concept ablation, Kumari et al., arXiv 2303.13516, with a frozen.

    >>> from jax_unlearn.diffusion.conditions import next_class
    >>> from jax_unlearn.diffusion.process import from_betas
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     x, t, condition = inputs
    ...     return 0.0 * x + params[condition][:, None, None, None], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> objective = relabel_condition(model, from_betas([0.36]), replace=next_class(2))
    >>> batch = Batch(jnp.zeros((1, 2, 2, 1)), jnp.array([0]))
    >>> table = jnp.array([3.0, 1.0])
    >>> objective(table, (), batch, jax.random.key(0))[0].tolist()  # (3 − 1)²
    [4.0]
    """

    def wanted(objective, predict, seen, key):
        condition = replace(key, seen.inputs[2], seen.labels)
        if teacher is None:
            return predict(condition)
        return _frozen(objective, seen, condition)

    return _objective(model, process, draws, scale, wanted=wanted, teacher=teacher)


def negative_guidance(
    model: Model,
    process: Process,
    *,
    teacher: tuple[Params, ModelState],
    null: ArrayLike,
    strength: float = 1.0,
    draws: int = 1,
    scale: Array | None = None,
) -> Objective:
    """Return ‖ε_θ(x_t, t, c) − [ε_o(∅) − η (ε_o(c) − ε_o(∅))]‖²: away from c (ESD).

    ε_o is the frozen original model at the same x_t and t, the `teacher`, given as its
    parameters and state; ∅ is `null`, of one sample, with which it must have been
    trained; η is the `strength`: 0 sends c to the unconditional prediction. The other
    arguments are those of `denoise`. Needs no retain data.

    Raises:
      InputError: negative strength.

    Reference: Gandikota et al., arXiv 2303.07345, equation 7 (η = 1). There x_t is
    sampled from the model being edited; here it is a forget image, noised: our choice.

    >>> from jax_unlearn.diffusion.process import from_betas
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     x, t, condition = inputs
    ...     return 0.0 * x + params[condition][:, None, None, None], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> table = jnp.array([3.0, 1.0])  # ε_o of class 0, and of the null condition 1
    >>> told = dict(teacher=(table, ()), null=1)
    >>> objective = negative_guidance(model, from_betas([0.36]), **told)
    >>> batch = Batch(jnp.zeros((1, 2, 2, 1)), jnp.array([0]))
    >>> objective(table, (), batch, jax.random.key(0))[0].tolist()  # (3 − (1 − 2))²
    [16.0]
    """
    _validate.not_negative("strength", strength, "published: 1.0")

    def wanted(objective, predict, seen, key):
        del predict, key
        condition = seen.inputs[2]
        with_it = _frozen(objective, seen, condition)
        without = _frozen(objective, seen, like(null, condition))
        return without - strength * (with_it - without)

    return _objective(model, process, draws, scale, wanted=wanted, teacher=teacher)


def denoising_features(errors: Array, labels: Array) -> Array:
    """Return what membership attacks look at in denoising errors: their logarithms.

    The errors are `[B, J]`, one for each part of the timesteps; labels are not read.

    Source: our choice; that the denoising error tells members: Duan et al., arXiv
    2302.01316.

    >>> denoising_features(jnp.array([[1.0, 0.0]]), None).tolist()  # at least 1e-8
    [[0.0, -18.42]]
    """
    del labels
    return jnp.log(jnp.maximum(errors.astype(jnp.float32), 1e-8))


def denoising_nonmember(
    model: Model,
    process: Process,
    attack: Attack,
    attack_params: AttackParams,
    *,
    draws: int,
) -> Objective:
    """Return the loss of being taken for a member: ℓ = log(1 + exp(score)).

    The attack looks at the denoising errors of J `draws`, in eval mode: its features
    are of errors `[B, J]`, such as `denoising_features`, its parameters learned of as
    many.

    Source: LTU, arXiv 2407.10494, for the idea; denoising errors are our choice.

    >>> from jax_unlearn.diffusion.process import cosine
    >>> from jax_unlearn.membership import logistic
    >>> def apply(params, state, inputs, *, train, key=None):
    ...     return params * inputs[0], state
    >>> model = Model(lambda key, inputs: ((), ()), apply)
    >>> attack = logistic()._replace(features=denoising_features)
    >>> learned = attack.init(jax.random.key(0), 2)
    >>> objective = denoising_nonmember(model, cosine(10), attack, learned, draws=2)
    >>> batch = Batch(jnp.zeros((1, 2, 2, 1)), jnp.array([0]))
    >>> objective(1.0, (), batch, jax.random.key(0))[0].tolist()  # undecided: log 2
    [0.6931]
    """

    def output_loss(outputs, batch, key, data):
        del key
        loss = nonmember_loss(attack, data, outputs.errors, batch.labels)
        return loss, jnp.mean(outputs.errors, axis=1)

    return Objective(
        model, output_loss, attack_params, train=False, forward=_forward(process, draws)
    )


def _objective(
    model: Model,
    process: Process,
    draws: int,
    scale: Array | None,
    *,
    wanted: Wanted | None = None,
    corrupted: Callable[[Noised, Array], Noised] | None = None,
    teacher: tuple[Params, ModelState] | None = None,
) -> Objective:
    """Return the objective of a target; its data are (scale, teacher)."""

    def output_loss(outputs, batch, key, data):
        del batch, key
        flat = outputs.errors.reshape(-1), outputs.timesteps.reshape(-1)
        flat = scaled(*flat, data[0], process.num_train_timesteps)
        task_losses = jnp.mean(flat.reshape(outputs.errors.shape), axis=1)
        return jnp.mean(outputs.distances, axis=1), task_losses

    table = None if scale is None else jnp.asarray(scale, jnp.float32)
    forward = _forward(process, draws, wanted, corrupted)
    return Objective(model, output_loss, (table, teacher), forward=forward)


def _forward(
    process: Process,
    draws: int,
    wanted: Wanted | None = None,
    corrupted: Callable[[Noised, Array], Noised] | None = None,
):
    """Return the pass that noises a batch and measures the prediction."""

    def forward(objective, variables, batch: Batch, key):
        params, model_state = variables
        noise_key, apply_key, drop_key, other_key = jax.random.split(key, 4)
        seen = noised(process, batch, noise_key, draws=draws)
        if corrupted is not None:
            seen = corrupted(seen, drop_key)
        apply: Any = objective.model.apply
        mode = {"train": objective.train, "key": apply_key}
        at = params, model_state
        prediction, new_state = forward_pass(apply, *at, seen.inputs, **mode)

        def predict(condition):
            inputs = (*seen.inputs[:2], condition)
            at = jax.lax.stop_gradient(params), model_state
            other, _ = forward_pass(apply, *at, inputs, **mode)
            return jax.lax.stop_gradient(other)

        errors = squared_error(prediction, seen.target)
        distances = errors
        if wanted is not None:
            aim = wanted(objective, predict, seen, other_key)
            distances = squared_error(prediction, aim)
        parts = (errors, seen.inputs[1], distances)
        return Denoised(*(part.reshape(draws, -1).T for part in parts)), new_state

    return forward


def _frozen(objective: Objective, seen: Noised, condition: Array) -> Array:
    """Return the prediction of the teacher, in eval mode, detached."""
    inputs = (*seen.inputs[:2], condition)
    params, model_state = objective.data[1]
    apply, at = objective.model.apply, (params, model_state)
    prediction, _ = forward_pass(apply, *at, inputs, train=False)
    return jax.lax.stop_gradient(prediction)
