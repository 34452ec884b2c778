"""UNSIR: impair a class by noise that the model finds hardest for it, then repair."""

import dataclasses
from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from jax_unlearn import _validate, losses, objectives, programs
from jax_unlearn.cards import Card, Count, Job, Lab, Options
from jax_unlearn.data import Examples, merged, phases, retain_only, zipped
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import minimise
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.types import Array, Model, ModelState, Params, Unlearner

__all__ = ["UNSIR", "Unsir", "unsir", "unsir_noise"]


def unsir_noise(
    model: Model,
    params: Params,
    model_state: ModelState,
    labels: Array,
    key: Array,
    *,
    shape: tuple[int, ...],
    steps: int = 40,
    learning_rate: float | Array = 0.1,
    penalty: float | Array = 0.1,
    low: float | None = 0.0,
    high: float | None = 1.0,
) -> Array:
    """Return inputs whose loss on the given class is as large as can be.

    Minimises −CE(f(z_i), y_i) + λ·mean(z_i²) over each z_i apart by Adam, in eval mode
    under the parameters given (those of the original model), and clips z into
    [low, high] after every step. The start is uniform on [low, high], standard normal
    where a bound is missing. One compiled scan.

    The labels, `i32[M]`, are the class to forget, once for each noise input, and
    `shape` that of one input, bounded where `low` or `high` is not None. z_i depends on
    (key, i) and its label only; λ ≥ 0 is the penalty. Returns inputs `f32[M, *shape]`:
    the forget batches of `unsir`, with the same labels.

    Raises:
      InputError: a number out of range, or low not below high.

    Reference: Tarun et al., arXiv 2111.08947: 40 steps of Adam at rate 0.1. To clip, so
    that noise remains an image, and the mean in the penalty are our choice: public code
    has no bounds and 0.1·‖z_i‖², which is `penalty=0.1·z_i.size`.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: None, lambda w, x: w * x)
    >>> labels = jnp.array([0, 1])
    >>> key = jax.random.key(0)
    >>> unsir_noise(model, jnp.float32(1), (), labels, key, shape=(2,)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    _validate.positive("learning_rate", learning_rate, "try 0.1")
    _validate.not_negative("penalty", penalty, "try 0.1")
    _validate.at_least("steps", steps, 1, "try 40")
    if low is not None and high is not None and not low < high:
        raise InputError(f"low={low}, high={high}: low must be less than high")
    bounds = tuple(None if b is None else jnp.float32(b) for b in (low, high))
    rates = jnp.float32(learning_rate), jnp.float32(penalty)
    labels = jnp.asarray(labels, jnp.int32)
    static = {"apply": model.apply, "shape": tuple(shape), "steps": steps}
    variables = params, model_state
    told = {"rates": rates, "bounds": bounds, **static}
    noise = _noise(variables, labels, key, **told)
    if not isinstance(noise, Tracer) and not bool(jnp.isfinite(noise).all()):
        raise InputError(
            f"the noise for labels {labels.min()} to {labels.max()} is not finite: "
            "give classes of the model, 0 to K - 1, and a model that has not diverged"
        )
    return noise


@programs.jit(static_argnames=("apply", "shape", "steps"))
def _noise(variables, labels, key, *, apply, shape, steps, rates, bounds):
    """Return the noise `f32[M, *shape]`, see `unsir_noise`."""
    (learning_rate, penalty), (low, high) = rates, bounds
    params, model_state = variables

    def drawn(i: Array) -> Array:
        own = jax.random.fold_in(key, i)
        if low is None or high is None:
            return jax.random.normal(own, shape, jnp.float32)
        return jax.random.uniform(own, shape, jnp.float32, minval=low, maxval=high)

    bounded = partial(jnp.clip, min=low, max=high)

    def total(noise: Array) -> Array:
        logits, _ = apply(params, model_state, noise, train=False)
        sizes = jnp.mean(jnp.square(noise), axis=tuple(range(1, noise.ndim)))
        return jnp.sum(penalty * sizes - losses.cross_entropy(logits, labels))

    start = bounded(jax.vmap(drawn)(jnp.arange(labels.shape[0])))
    optimizer = optax.adam(learning_rate)
    return minimise(total, start, optimizer, steps=steps, project=bounded)


def unsir(
    model: Model, optimizer: optax.GradientTransformation, **options: Unpack[Assembly]
) -> Unlearner:
    """Forget a class by noise (UNSIR): learn the noise as that class, then repair.

    A step with `UnlearnBatch.forget` impairs: it descends on CE(z, y) + CE(D_r), z the
    noise of `unsir_noise` and y the class to forget. A step with `.retain` alone
    repairs: it descends on CE(D_r). Samples of the class themselves are not used.

    Arguments and errors are those of `assemble`. Published: Adam, 1 epoch of impairing
    at lr 0.02, 1 of repairing at 0.01, on a part of the retain set; noise and retain
    samples shuffled together, which is nearest to `forward="merged"`.

    Reference: Tarun et al., arXiv 2111.08947.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = unsir(model, optax.sgd(1.0))
    >>> noise = ju.Batch(jnp.array([[0.0, 1.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(noise), jax.random.key(0))
    >>> print(state.params)  # 2 − p_1, p_1 = 1/(1 + e^-2)
    1.1192
    """
    return assemble(
        model,
        optimizer,
        forget=objectives.descent(model),
        retain=objectives.descent(model),
        **options,
    )


@dataclasses.dataclass(frozen=True)
class Unsir(Options):
    """Options of UNSIR.

    Attributes:
      impair_epochs: epochs with noise, before the --epochs of repair.
      noise_steps: number of steps in which the noise is learned.
      union: read noise and retain samples in one pass and under one mean, as published;
        else in two passes whose means count alike (our choice).
    """

    impair_epochs: Count = 1
    noise_steps: Count = 40
    union: bool = False


def _unsir(lab: Lab, options: Unsir) -> Job:
    examples, labels = lab.examples, lab.labels("forget")
    noise = unsir_noise(  # of pixels in 0..1
        lab.range.model(lab.model),
        *lab.original,
        jnp.asarray(labels),
        jax.random.key(lab.seed),
        shape=examples.inputs.shape[1:],
        steps=options.noise_steps,
    )
    images = lab.range.own(np.asarray(noise), examples.inputs.dtype)
    widened = Examples(
        np.concatenate([examples.inputs, images]),
        np.concatenate([examples.labels, labels]),
    )
    ids = np.arange(len(examples.labels), len(widened.labels))
    retain = lab.ids("retain")
    impair = merged if options.union else zipped
    schedule = phases(
        impair(widened, ids, retain, **lab.passes(epochs=options.impair_epochs)),
        retain_only(examples, retain, **lab.passes(seed=lab.seed + 1)),
    )
    told = {"harmonizer": lab.harmonizer(), "model_state": lab.model_state}
    forward = "merged" if options.union else "separate"
    unlearner = unsir(lab.model, lab.optimizer(), forward=forward, **told)
    return Job(unlearner, schedule)


UNSIR = (
    Card.of(_unsir, "UNSIR", "UNSIR (for whole classes)", "arXiv 2111.08947")
    .but(cost="(E + impair_epochs)·R + noise_steps·F", roles=("remember", "logits"))
    .but(by_epochs=True, weighs=False, phased=True, step_reads=())
    .but(
        suits="Good for whole classes only: an epoch on learned noise impairs the "
        "class, another repairs the rest. It is of no use for random samples."
    )
    .tries(learning_rate=(0.003, 0.01, 0.03), epochs=(1, 2))
)
