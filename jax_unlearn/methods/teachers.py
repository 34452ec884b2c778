"""Methods that learn from frozen teachers: SCRUB and its rewinding, Bad Teacher.

Both read `UnlearnBatch.forget` and `.retain`.
"""

import dataclasses
from collections.abc import Callable
from typing import Unpack

import jax
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from jax_unlearn import objectives
from jax_unlearn.cards import (
    Card,
    Count,
    Job,
    Lab,
    NotNegative,
    Options,
    Positive,
    Rewind,
)
from jax_unlearn.data import scrub_schedule
from jax_unlearn.data.checks import integers
from jax_unlearn.errors import InputError
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.types import Model, ModelState, Params, Unlearner

__all__ = ["BAD_TEACHER", "SCRUB", "TIE", "BadTeacher", "Scrub", "bad_teacher"]
__all__ += ["class_matched_error", "rewind", "scrub"]

TIE = 1e-9
"""Percent by which two distances may differ and still be rounding of the same one."""


def scrub(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    teacher_params: Params,
    teacher_state: ModelState,
    alpha: float = 0.001,
    gamma: float = 0.99,
    temperature: float = 4.0,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Leave the original model on D_f and follow it on D_r (SCRUB).

    Max-steps on forget batches, −T²·Σ w_i KL(θ_o ‖ θ), and min-steps on retain batches,
    γ·CE + α·T²·KL(θ_o ‖ θ): passes in turn are `ju.data.scrub_schedule`, as published;
    a step with both batches sums the two.

    Max-steps need something that tells student from teacher (`objectives.repel`). A
    network without batch statistics, dropout, augmentation and weight decay stands
    still until its first min-step, after which the divergence grows by a factor a step:
    it wants a higher rate or more epochs than published.

    The teacher θ_o, a copy of which travels frozen in the state and runs in eval mode,
    α, γ ≥ 0 and T > 0 are those of `objectives.imitate`, the other arguments those of
    `assemble`. Published: SGD of lr 5e-4, momentum 0.9, weight decay 5e-4, 3 epochs of
    which the first 2 hold max-steps.

    Raises:
      InputError: as `objectives.repel` and `objectives.imitate`.

    Reference: Kurmanji et al., arXiv 2302.09880; its hyper-parameters are those of the
    authors' large-scale runs.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> original = jnp.float32(2.0)
    >>> alg = scrub(model, optax.sgd(1.0), teacher_params=original, teacher_state=())
    >>> x = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(original, ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget=x), jax.random.key(0))
    >>> print(state.params)  # the student is the teacher: nothing leads away yet
    2.0
    >>> state, info = step(state, ju.UnlearnBatch(retain=x), jax.random.key(0))
    >>> print(state.params)  # 2 + 0.99·p_1
    2.1180
    """
    teacher = (model, teacher_params, teacher_state)
    return assemble(
        model,
        optimizer,
        forget=objectives.repel(*teacher, temperature=temperature),
        retain=objectives.imitate(
            *teacher, alpha=alpha, gamma=gamma, temperature=temperature
        ),
        **options,
    )


def bad_teacher(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    teacher_params: Params,
    teacher_state: ModelState,
    incompetent_params: Params,
    incompetent_state: ModelState,
    temperature: float = 1.0,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Follow an untrained network on D_f and the original model on D_r.

    Minimises T²·Σ w_i KL(θ_random ‖ θ) on D_f and T²·KL(θ_o ‖ θ) on D_r, no labels
    used. Copies of the teachers, θ_o and θ_random, which is of `model.init` with a key
    of its own, travel frozen in the state and run in eval mode. The other arguments are
    those of `assemble`, T > 0. Published: T of 1, Adam of lr 1e-4, 1 epoch over D_f and
    30 % of D_r (`ju.data.retain_subset`), batch 256, both sets shuffled into the same
    batches: `forward="merged"` with `ju.data.merged`.

    Raises:
      InputError: as `assemble` and `objectives.distill`.

    Reference: Chundawat et al., arXiv 2205.08096. Its code also divides the divergence
    by K, which Adam does not feel; we do not.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> original, random = jnp.float32(2.0), jnp.float32(0.0)
    >>> teachers = dict(teacher_params=original, incompetent_params=random)
    >>> states = dict(teacher_state=(), incompetent_state=())
    >>> alg = bad_teacher(model, optax.sgd(1.0), **teachers, **states)
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(original, ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − ½), towards the random network's (½, ½)
    1.6192
    """

    def follow(params: Params, state: ModelState) -> objectives.Objective:
        return objectives.distill(model, params, state, temperature=temperature)

    return assemble(
        model,
        optimizer,
        forget=follow(incompetent_params, incompetent_state),
        retain=follow(teacher_params, teacher_state),
        **options,
    )


def rewind(forget_errors: ArrayLike, unseen_error: float) -> int:
    """Return the checkpoint that errs on D_f as on unseen data (SCRUB+R).

    The checkpoint e with the smallest |error_e(D_f) − error(D_u)|: forgetting further
    would let an attack tell D_f by its high loss. D_u must have the classes of D_f, see
    `class_matched_error`.

    `forget_errors` are those after each epoch, percent `[E]`, of which the original's
    may be the first, `unseen_error` is the last checkpoint's, percent. Returns the
    number of the checkpoint, 0..E−1, the last of equally near ones.

    Raises:
      InputError: no checkpoint, or numbers that are not percentages.

    Reference: Kurmanji et al., arXiv 2302.09880 (SCRUB+R); the last among ties, which
    has trained on D_r for longer, is our choice.

    >>> rewind([0.0, 4.0, 9.0, 30.0], 8.0)
    2
    """
    errors = _percentages("forget_errors", forget_errors)
    if errors.ndim != 1 or errors.size == 0:
        raise InputError(
            f"forget_errors.shape={errors.shape} must hold one error a checkpoint, [E]"
        )
    reference = _percentages("unseen_error", unseen_error)
    if reference.ndim != 0:
        raise InputError(f"unseen_error.shape={reference.shape} must be one number")
    distance = np.abs(errors - reference)
    return int(np.flatnonzero(distance <= distance.min() + TIE)[-1])


def class_matched_error(
    correct: ArrayLike, labels: ArrayLike, forget_counts: ArrayLike
) -> float:
    """Return the unseen error under the class mix of D_f, in percent.

    100·Σ_k n_k e_k / Σ_k n_k, with e_k the share of unseen samples of class k that the
    model gets wrong. A class without unseen samples has no e_k and leaves both sums.

    `correct` says of each unseen sample, `[U]`, whether the model is right; the labels,
    integers `[U]`, are the true classes, n_k the `forget_counts`, integers `[K]`. The
    error, 0..100, is the `unseen_error` of `rewind`.

    Raises:
      InputError: arrays that do not fit, NaN, or no unseen sample of any forgotten
        class.

    Reference: Kurmanji et al., arXiv 2302.09880, ask for unseen data distributed as
    D_f; weights by class are our choice.

    >>> class_matched_error([True, False, False, False], [0, 0, 1, 1], [3, 1])
    62.5
    """
    right = np.asarray(correct)
    if right.dtype.kind in "iuf":
        wrong = right[(right != 0) & (right != 1)]  # NaN is neither
        if wrong.size:
            raise InputError(
                f"correct holds {wrong[0]}; give booleans, True where it is right"
            )
        right = right.astype(np.bool_)
    if right.dtype.kind != "b" or right.ndim != 1 or right.size == 0:
        raise InputError(
            f"correct of shape {right.shape} and type {right.dtype} must be booleans "
            "[U], True where the model is right"
        )
    counts = _whole("forget_counts", forget_counts)
    classes = _whole("labels", labels)
    if classes.shape != right.shape:
        raise InputError(
            f"labels.shape={classes.shape} must be {right.shape}, one label a sample"
        )
    if classes.max() >= len(counts):
        raise InputError(
            f"labels holds {classes.max()}; forget_counts has {len(counts)} classes, 0 "
            f"to {len(counts) - 1}"
        )
    seen = np.bincount(classes, minlength=len(counts))
    missed = np.bincount(classes, weights=~right, minlength=len(counts))
    used = (counts > 0) & (seen > 0)
    if not used.any():
        raise InputError(
            f"forget_counts={counts.tolist()}: no unseen sample has a forgotten class; "
            "give unseen samples of those classes"
        )
    error = np.average(missed[used] / seen[used], weights=counts[used])
    return float(100.0 * error)


def _percentages(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return numbers of 0 to 100."""
    array = np.asarray(values, np.float64)
    wrong = array[~((array >= 0) & (array <= 100))]  # NaN is neither
    if wrong.size:
        raise InputError(f"{name} holds {wrong[0]}; give errors in percent, 0 to 100")
    return array


def _whole(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """Return a list of integers of 0 or more."""
    array = integers(name, values)
    if array.min() < 0:
        raise InputError(f"{name} holds {array.min()}; give integers of 0 or more")
    return array.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Scrub(Options):
    """Options of SCRUB.

    Attributes:
      forget_epochs: number of epochs that begin with the forget set.
      rewind: end with the epoch whose forget error is nearest to that of unseen samples
        (SCRUB+R).
      teacher_temperature: temperature T of both distances. Default: 4, as published.
      distill_share: weight α of the distance from the teacher on the retain set.
      task_share: weight γ of the labels on the retain set.
    """

    forget_epochs: Count = 2
    rewind: bool = False
    teacher_temperature: Positive | None = None
    distill_share: NotNegative = 0.001
    task_share: NotNegative = 0.99

    @property
    def compares(self) -> str:
        """What the choice of an epoch compares with."""
        return "unseen" if self.rewind else ""


@dataclasses.dataclass(frozen=True)
class BadTeacher(Options):
    """Options of Bad Teacher.

    Attributes:
      teacher_temperature: temperature T of the distances. Default: 1, as published.
    """

    teacher_temperature: Positive | None = None


def _scrub(lab: Lab, options: Scrub) -> Job:
    params, state = lab.original
    unlearner = scrub(
        lab.model,
        lab.optimizer(),
        teacher_params=params,
        teacher_state=state,
        alpha=options.distill_share,
        gamma=options.task_share,
        temperature=options.teacher_temperature or 4.0,
        **lab.joint(),
    )
    phased = scrub_schedule(
        lab.examples,
        lab.ids("forget"),
        lab.ids("retain"),
        forget_epochs=min(options.forget_epochs, lab.setting.epochs),
        **lab.passes(),
    )
    chosen = Rewind(phased.ends, _nearest_to_unseen(lab)) if options.rewind else None
    return Job(unlearner, phased.schedule, rewind=chosen)


def _nearest_to_unseen(lab: Lab) -> Callable[..., int]:
    """Return SCRUB+R's choice: the forget error nearest to the last unseen error."""
    counts = np.bincount(lab.labels("forget"), minlength=lab.num_classes)

    def wrong(candidate, part: str) -> np.ndarray:
        logits = lab.predict(lab.ids(part), candidate)
        return logits.argmax(axis=1) != lab.labels(part)

    def choose(candidates) -> int:
        errors = [100 * wrong(c, "forget").mean() for c in candidates]
        right = ~wrong(candidates[-1], "unseen")
        goal = class_matched_error(right, lab.labels("unseen"), counts)
        return rewind(errors, goal)

    return choose


def _bad_teacher(lab: Lab, options: BadTeacher) -> Job:
    # the incompetent teacher is another random start
    key = jax.random.fold_in(jax.random.key(lab.seed), 1)
    params, state = jax.jit(lab.model.init)(key, lab.examples.inputs[:2])
    unlearner = bad_teacher(
        lab.model,
        lab.optimizer(),
        teacher_params=lab.original[0],
        teacher_state=lab.original[1],
        incompetent_params=params,
        incompetent_state=state,
        temperature=options.teacher_temperature or 1.0,
        **lab.joint(),
        **lab.forward(),
    )
    return Job(unlearner, lab.schedule("both"))


SCRUB = (
    Card.of(_scrub, "SCRUB", "SCRUB (+R with rewind)", "arXiv 2302.09880")
    .but(reads=("forget", "retain", "original"), cost="4/3·(E·R + forget_epochs·F)")
    .but(roles=("remember", "logits"), by_epochs=True, phased=True, step_reads=())
    .but(
        suits="Good if it is not known how the original was trained: it ascends, then "
        "repairs with the original as teacher. Look at the audit: one strength does "
        "not fit all kinds of request."
    )
    .tries(learning_rate=(0.003, 0.01, 0.03), forget_epochs=(1, 2), epochs=(3,))
)

BAD_TEACHER = (
    Card.of(_bad_teacher, "Bad Teacher", source="arXiv 2205.08096")
    .but(reads=("forget", "retain", "original"), cost="4/3·E·(R + F)")
    .but(roles=("remember", "logits"), schedule=True, step_reads=())
    .but(
        suits="Good for whole classes, quickly: outputs become those of an untrained "
        "network. Single samples stand out afterwards by too low a confidence."
    )
    .tries(
        learning_rate=(1e-4, 3e-4, 1e-3), epochs=(1, 3), optimizer=("adam",), rho=(0.3,)
    )
)
