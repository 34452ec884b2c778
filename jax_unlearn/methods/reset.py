"""What retraining buys within a budget: short Retrain, and partial reset before it.

Both train on the retain set alone, as the original was trained, the schedule annealed
within a share of Retrain's steps. Every method is to be read beside them. Reset
transport asks such a model what to say of the forget set, and teaches it the original.
"""

import dataclasses
from functools import partial
from typing import Annotated, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import _validate, objectives
from jax_unlearn.cards import Card, Fraction, Job, Lab, NotNegative, Options, Positive
from jax_unlearn.leaves import alike, divided
from jax_unlearn.methods.assemble import Assembly
from jax_unlearn.methods.relabel import endpoint_transport
from jax_unlearn.types import Array, Model, Params, Unlearner

__all__ = ["FRESH", "PARTIAL_RESET", "RESET_TRANSPORT", "SHORT_RETRAIN"]
__all__ += ["PartialReset", "ResetTransport", "ShortRetrain", "partial_reset"]
__all__ += ["reset_transport"]

FRESH = 3000  # offset of seeds: no start, order or draw of the original comes again


def partial_reset(
    params: Params,
    fresh: Params,
    *,
    shrink: float = 0.3,
    perturb: float | None = 1.0,
) -> Params:
    """Return parameters that keep a part of what they hold, before training goes on.

    θ ← λ θ + κ θ_fresh, with λ = `shrink`, κ = `perturb` and θ_fresh a new
    initialisation of the same structure, shapes and dtypes. λ = 1, κ = 0 is a warm
    restart, which forgets nothing; λ = 0, κ = 1 a start from scratch. A κ of None is
    1 − λ, at least 0: a point between both.

    Raises:
      InputError: λ or κ is negative or not finite.

    Source: shrink and perturb (arXiv 1910.08475, section 4), λ and κ apart; to unlearn
    by it, with batch statistics made anew, is our choice.

    >>> import jax.numpy as jnp
    >>> partial_reset({"w": jnp.array([2.0])}, {"w": jnp.array([1.0])}, shrink=0.25)
    {'w': Array([1.5], dtype=float32)}
    >>> told = {"shrink": 0.25, "perturb": None}
    >>> partial_reset({"w": jnp.array([2.0])}, {"w": jnp.array([1.0])}, **told)
    {'w': Array([1.25], dtype=float32)}
    """
    _validate.not_negative("shrink", shrink, "1 keeps all, 0 nothing; try 0.3")
    perturb = max(1 - shrink, 0.0) if perturb is None else perturb
    _validate.not_negative("perturb", perturb, "1 adds a whole new start; try 1")
    part, whole = divided(params)
    fresh = alike(fresh, part)
    mixed = jax.tree.map(lambda old, new: shrink * old + perturb * new, part, fresh)
    return whole(mixed)


def reset_transport(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    targets: Array,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Send every forget sample to what a reset model says of it.

    Minimises (Σ w_i CE(t_i, f(x_i)) + Σ CE)/(n_f + n_r) from the original on, with
    t_i = softmax(s·z_i) and z_i the logits of a partial reset (`partial_reset`, trained
    for a while on D_r), which has not seen x_i since: a cheap guess at what Retrain
    would say. s makes these as sure as the original is of unseen samples
    (`ju.objectives.sharpness`).

    It is `endpoint_transport` to other targets, a table `f32[N, K]` by sample id
    (`ju.objectives.target_table`), with `forward="merged"` unless told; its batches
    hold as many forget as retain samples (`ju.data.zipped`).

    Source: our choice; ReGUn (arXiv 2603.11210) has one target a class, from unseen
    samples.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> x = jnp.array([[1.0, 0.0]])
    >>> reset = ju.predict(model, jnp.float32(0.5), (), x)  # a model of other weights
    >>> targets = jax.nn.softmax(jnp.asarray(reset))
    >>> alg = reset_transport(model, optax.sgd(1.0), targets=targets)
    >>> forget = ju.Batch(x, jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − t_0), p_0 = .8808 and t_0 = .6225
    1.7417
    """
    given: Assembly = {"forward": "merged", **options}
    return endpoint_transport(model, optimizer, targets=targets, **given)


@dataclasses.dataclass(frozen=True)
class ShortRetrain(Options):
    """Options of short Retrain.

    Attributes:
      share: share of Retrain's steps, in which the learning rate falls to its end.
      rate: largest learning rate, as a multiple of that of the original's training.
    """

    share: Fraction = 0.3
    rate: Positive = 1.0


@dataclasses.dataclass(frozen=True)
class PartialReset(ShortRetrain):
    """Options of partial reset.

    Attributes:
      share: share of Retrain's steps, in which the learning rate falls to its end.
      rate: largest learning rate, as a multiple of that of the original's training.
      shrink: factor λ of the original's parameters; 1 keeps all, 0 nothing.
      perturb: κ of the new ones; 1 adds a whole new start, none 1 − λ (0 beyond
        λ = 1), which the study of the frontier found nearer, by much at small budgets.
        Of texts none is the default: their new start is mostly the base that the
        original began from, near to it, so that λ θ + base would have weights 1 + λ
        times as large.
    """

    rate: Positive = 2.0
    shrink: NotNegative = 0.3
    perturb: NotNegative | None = 1.0


@dataclasses.dataclass(frozen=True)
class ResetTransport(Options):
    """Options of reset transport.

    Attributes:
      lead: part of the cost that goes into the reset model, the rest into the steps
        that follow it.
      rate: largest learning rate of the reset model, as a multiple of that of the
        original's training.
      shrink: factor λ of the original's parameters in the reset model; the new ones
        have 1 − λ.
      sharpen: factor of the reset model's logits. Default: the one that makes it as
        sure of the forget set as the original is of unseen samples; 1 without them.
    """

    lead: Annotated[float, partial(_validate.within, interval="(0, 1)")] = 0.3
    rate: Positive = 2.0
    shrink: Fraction = 0.5
    sharpen: Positive | None = None


def _short_retrain(lab: Lab, options: ShortRetrain) -> Job:
    job, _ = lab.retraining(
        "retain", seed=lab.seed + FRESH, share=options.share, rate=options.rate
    )
    return job


def _partial_reset(lab: Lab, options: PartialReset) -> Job:
    job = _short_retrain(lab, options)
    fresh, state = job.start or lab.original
    shrink, perturb = options.shrink, options.perturb
    start = partial_reset(lab.original[0], fresh, shrink=shrink, perturb=perturb), state
    return job._replace(start=start)


def _reset_transport(lab: Lab, options: ResetTransport) -> Job:
    schedule = lab.schedule("zipped")
    sizes = [min(lab.setting.batch_size, len(lab.ids(p))) for p in ("forget", "retain")]
    whole, _ = lab.retraining("retain")
    batch = min(lab.training.batch_size, len(lab.ids("retain")))
    # samples of all steps, as a share of Retrain's
    spent = len(schedule) * sum(sizes) / (len(whole.schedule or ()) * batch)
    share = min(spent * options.lead / (1 - options.lead), 1.0)
    own = {"share": share, "rate": options.rate, "shrink": options.shrink}
    leading = _partial_reset(lab, PartialReset(**own, perturb=None))
    forget = lab.ids("forget")
    number = FRESH + int(forget[0])  # its own in a run of several parts
    reset, _ = lab.done(leading, lab.original, number)
    logits = np.asarray(lab.predict(forget, reset), np.float64)
    sharpen = options.sharpen or _sharpening(lab, logits)
    targets = np.asarray(jax.nn.softmax(sharpen * logits), np.float32)
    table = objectives.target_table(forget, targets, len(lab.examples.labels))
    told = {"targets": jnp.asarray(table), **lab.joint()}
    return Job(reset_transport(lab.model, lab.optimizer(), **told), schedule)


def _sharpening(lab: Lab, logits: np.ndarray) -> float:
    """Return the factor that makes logits as sure as the original's of unseen data."""
    if not len(lab.ids("unseen")):
        return 1.0
    sure = float(lab.probabilities("unseen").max(axis=1).mean())
    return objectives.sharpness(logits, min(sure, 1.0))


SHORT_RETRAIN = (
    Card.of(_short_retrain, "Short Retrain")
    .but(reads=("retain", "training"), cost="share·T·R", kind="training", weighs=False)
    .but(step_reads=("length",))
    .but(
        suits="Good if some accuracy may be lost: a short training from scratch knows "
        "nothing of the forget set. The smaller the share of Retrain's cost, the worse "
        "the model."
    )
    .tries(share=(0.1, 0.2, 0.3), rate=(1.0, 2.0))
)

PARTIAL_RESET = (
    SHORT_RETRAIN.but(name="partial_reset", build=_partial_reset, options=PartialReset)
    .but(label="Partial reset", title="Partial reset")
    .but(
        suits="Good as the first choice if it is known how the original was trained: "
        "near to retraining for a part of its cost, with nothing to search. With a "
        "larger share of Retrain's cost less is left of what the shrunk weights "
        "remember."
    )
    .tries(share=(0.1, 0.2, 0.3), shrink=(0.3, 0.4, 0.6), rate=(1.0, 2.0))
)

RESET_TRANSPORT = (
    Card.of(_reset_transport, "Reset transport")
    .but(reads=("forget", "retain", "unseen", "training"), cost="2·E·R/(1 - lead)")
    .but(roles=("remember", "logits"), step_reads=())
    .but(beforehand=("lead", "rate", "shrink", "sharpen"))
    .but(
        suits="Good where partial reset has no time to learn the retain set again: a "
        "part of the time trains a reset model, and the original then learns to say of "
        "the forget set what that one does, which has not seen it. It keeps what the "
        "original knows of the retain set. In a few steps there is no reset model that "
        "knows what to say."
    )
    .tries(shrink=(0.25, 0.5, 0.75), sharpen=(None, 1.0))
)
