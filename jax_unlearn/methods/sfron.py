"""SFRon: now and then a masked ascent on forget, at every step a descent on retain."""

import dataclasses
from typing import Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate, harmonize, masks, objectives, weights
from jax_unlearn.cards import Card, Count, Job, Lab, NotNegative, Options, Positive
from jax_unlearn.contracts import usable
from jax_unlearn.data import Schedule
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_loss
from jax_unlearn.leaves import apart, divided, put_back
from jax_unlearn.masks import apply_mask, check_mask
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.methods.step import (
    FEWEST,
    Weigher,
    annealed,
    copied,
    forget_gradient,
    kept,
    next_state,
    real_index,
    steady,
)
from jax_unlearn.objectives.base import Objective
from jax_unlearn.optimizers import applied, movable, skipped
from jax_unlearn.types import Array, Model, PyTree, UnlearnBatch, Unlearner, Weighting

__all__ = ["SFRON", "Sfron", "SfronData", "sfron", "sfron_strength"]


def sfron_strength(
    step: int | Array, *, steps: int | Array, peak: float | Array
) -> Array:
    """Return the strength of the ascent: s_t = peak·(1 + cos(π t/T))/2.

    With t = `step` ≥ 0, beyond T = `steps` the strength stays 0. It is `f32[]`, or of
    the shape of `step`.

    Reference: Huang et al., arXiv 2409.19732; peak 25 in the authors' code.

    >>> [float(sfron_strength(t, steps=10, peak=25.0)) for t in (0, 5, 10)]
    [25.0, 12.5, 0.0]
    """
    total = jnp.asarray(steps, jnp.float32)
    done = jnp.minimum(jnp.asarray(step, jnp.float32) / total, 1.0)
    return jnp.asarray(peak, jnp.float32) * (1.0 + jnp.cos(jnp.pi * done)) / 2.0


class SfronData(NamedTuple):
    """The ascent's mask and rate, and the arrays of both objectives, in the state."""

    mask: PyTree
    forget_rate: Array | None  # None: the optimizer's
    inner: PyTree
    climb: PyTree


def sfron(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    mask: PyTree,
    steps: int,
    forget_rate: float | Array | None = None,
    forget_every: int = 5,
    peak: float | Array = 25.0,
    clip: float | Array = 7.0,
    forget: Objective | None = None,
    retain: Objective | None = None,
    weighting: Weighting | None = None,
    harmonizer: harmonize.Separately | None = None,
    model_state: str = "sequential",
    fewest: int = FEWEST,
) -> Unlearner:
    """Climb on forget every k-th step, descend on retain every step (SFRon).

    On the steps t = 0, k, 2k, … `optimizer` first takes a step along
    c(s_t·m⊙(−1/n) Σ w_i ∇CE_i(θ)) over the forget batch: s_t as in `sfron_strength`, m
    the mask, c(g) = g·min(1, C/‖g‖) over the whole pytree, a zero gradient left alone.
    Then, on every step, the same `optimizer`, with its momentum and decay, steps along
    the gradient of CE(D_r) at the parameters so moved; that one is neither masked nor
    clipped. So decay and the momentum of retain steps move masked weights in an ascent,
    too. A schedule inside `optimizer` counts steps t: an ascent does not advance it.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: of both kinds of step; published (CIFAR-10): SGD of momentum 0.9 and
        decay 5e-4, lr 0.01 falling to 0 by a cosine, 1500 steps of 128 samples.
      mask: m, pytree of bool like the parameters; from `ju.masks.fisher_ratio`.
      steps: T, over which the strength falls to 0.
      forget_rate: None, or the rate η of ascents apart from `optimizer`, θ ← θ − η·g:
        our choice, in which masked weights move in retain steps alone, and those that
        `optimizer` never moves (`optax.multi_transform`) stay.
      forget_every: k ≥ 1; published for diffusion models: 1. With 1 a step climbs
        wherever it has a forget batch, and has no branch, which is faster on CPUs: give
        every k-th step one.
      peak: strength at the first step.
      clip: C > 0.
      forget: what falls where the step climbs; default −CE on the true label.
        Of diffusion models `ju.objectives.denoise_ascent`.
      retain: default the cross-entropy; of diffusion models `ju.objectives.denoise`.
      weighting: weights of the forget samples; default `ju.weights.sfron(0.5)`.
      harmonizer: None, or `ju.harmonize.separate` where `optimizer` is
        `ju.optimizers.dual`: ascents and descents go through one each (DualOptim).
      model_state: what happens to BatchNorm statistics, see `assemble`.
      fewest: samples of a pass that takes them, see `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.retain` and, where it climbs, `.forget`: a
      zipped schedule, or one that forgets every k steps. A forget batch of the steps
      between costs no pass when compiled (under `jax.vmap` it does); their weights and
      losses are 0 and their index −1. `forget_loss` is −CE, as of `gradient_ascent`;
      `update_norm` is of both moves together.

    Raises:
      InputError: numbers out of range, unknown `model_state`, a harmonizer that joins,
        or a `forget_rate` beside one; in the step, if there is no retain batch; at
        `init`, if the mask does not fit the parameters.

    Reference: Huang et al., arXiv 2409.19732, the order of strength, mask and clip and
    the one optimizer as in the authors' code.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> optimizer = optax.sgd(0.1, momentum=0.9)
    >>> alg = sfron(model, optimizer, mask=jnp.array(True), steps=9)
    >>> x = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = jax.jit(alg.step)(state, ju.UnlearnBatch(x, x), jax.random.key(0))
    >>> p = 1 / (1 + jnp.exp(jnp.array([2.0, 1.702])))  # of the other class, twice
    >>> print(state.params, 1.702 - 0.1 * (0.9 * 25 * p[0] - p[1]))
    1.4492 1.4492
    """
    _validate.at_least("steps", steps, 1)
    _validate.at_least("forget_every", forget_every, 1)
    if forget_rate is not None:
        _validate.not_negative("forget_rate", forget_rate, "try 0.01")
    _validate.not_negative("peak", peak, "published: 25.0")
    _validate.positive("clip", clip, "published: 7.0")
    if harmonizer is not None and (
        forget_rate is not None or not isinstance(harmonizer, harmonize.Separately)
    ):
        raise InputError(
            "sfron has one gradient at a time: its harmonizer is None, or "
            "ju.harmonize.separate without forget_rate"
        )
    weighting = weights.sfron(0.5) if weighting is None else weighting
    climb = objectives.ascent(model) if forget is None else forget
    climb = climb._replace(train=climb.train and model_state != "frozen")
    retaining = assemble(
        model,
        optimizer,
        retain=objectives.descent(model) if retain is None else retain,
        weighting=weighting,
        harmonizer=harmonizer,
        model_state=model_state,
        fewest=fewest,
    )
    weigher = Weigher(model, weighting)
    shared = optax.with_extra_args_support(optimizer)

    def init(params, model_state):
        own = check_mask(mask, params)
        if forget_rate is not None:  # no move that the optimizer would not make
            moves = movable(optimizer, divided(params)[0])
            if any(jax.tree.leaves(moves)):  # else ascents alone are wanted
                own = jax.tree.map(lambda m, on: jnp.asarray(m) & on, own, moves)
        state = retaining.init(params, model_state)
        marked = jax.tree.map(lambda m: jnp.array(m, jnp.bool_, copy=True), own)
        rate = forget_rate
        if rate is not None:
            rate = jnp.array(rate, jnp.float32, copy=True)
        data = SfronData(marked, rate, state.objective_state, copied(climb.data))
        return state._replace(objective_state=data)

    def ascended(state, batch, key):
        """Return what an ascent changes of the state, and of the info."""
        data = state.objective_state
        loss = climb._replace(data=data.climb)
        loss = steady(loss, state.model_state, batch.forget, fewest=fewest)
        grads, info = forget_gradient(weigher, loss, state, batch, key=key)
        strength = sfron_strength(state.step, steps=steps, peak=peak)
        grads = optax.tree.scale(strength, optax.tree.cast(grads, jnp.float32))
        grads = _clipped(apply_mask(grads, data.mask), clip)
        value, opt_state = mean_loss(info.losses, batch.forget.mask), state.opt_state
        part, whole = divided(state.params)

        def value_fn(part: PyTree) -> Array:
            found = loss(whole(part), state.model_state, batch.forget, key)[0]
            return strength * mean_loss(info.weights * found, batch.forget.mask)

        if data.forget_rate is None:
            grads = optax.tree.cast_like(grads, part)
            told = {"value": value, "grad": grads, "value_fn": value_fn}
            grads = harmonizer(grads, None) if harmonizer else grads
            updates, opt_state = shared.update(grads, opt_state, part, **told)
            opt_state = _schedules_of(state.opt_state, opt_state)
        else:
            updates = optax.tree.scale(-data.forget_rate, grads)
            updates = optax.tree.cast_like(updates, part)
        after = state.model_state
        if model_state == "sequential":
            after = next_state(after, info.aux.model_state, batch.forget, fewest)
        carried = after, info.carry
        left_out = None if data.forget_rate is not None else skipped(opt_state)
        if left_out is not None:
            before = state.model_state, state.weight_state
            carried, value = kept(left_out, (before, 0.0), (carried, value))
        return {
            "params": whole(applied(part, updates)),
            "model_state": carried[0],
            "weight_state": carried[1],
            "opt_state": opt_state,
        }, {
            "weights": info.weights,
            "task_losses": info.aux.task_losses,
            "index": real_index(batch.forget),
            "forget_loss": value,
        }

    def step(state, batch, key):
        batch = usable(batch)
        if batch.retain is None:
            raise InputError(
                "sfron reads a retain batch each step; use ju.data.zipped or every_k"
            )
        forget_key, retain_key = jax.random.split(key)
        start, data, seen = state.params, state.objective_state, {}
        if batch.forget is not None and forget_every == 1:
            moved, seen = ascended(state, batch, forget_key)
            state = state._replace(**moved)
        elif batch.forget is not None:
            frozen = apart(state.model_state)[1]  # a branch would copy it
            moved, seen = jax.lax.cond(
                state.step % forget_every == 0,
                lambda: apart(ascended(state, batch, forget_key))[0],
                lambda: apart(_skipped(state, batch.forget))[0],
            )
            state = state._replace(**put_back(moved, frozen))
        state, info = retaining.step(
            state._replace(objective_state=data.inner),
            UnlearnBatch(retain=batch.retain),
            retain_key,
        )
        state = state._replace(objective_state=data)
        if seen:
            change = optax.tree.sub(divided(state.params)[0], divided(start)[0])
            norm = optax.tree.norm(optax.tree.cast(change, jnp.float32))
            info = info._replace(update_norm=norm, **seen)
        return state, info

    return Unlearner(init, step)


def _skipped(state, forget):
    """Return what an ascent would have, of a step without one."""
    none, index = jnp.zeros(len(forget.labels), jnp.float32), forget.index
    names = ("params", "model_state", "weight_state", "opt_state")
    return {name: getattr(state, name) for name in names}, {
        "weights": none,
        "task_losses": none,
        "index": None if index is None else jnp.full_like(index, -1),
        "forget_loss": jnp.float32(0),
    }


def _schedules_of(before: PyTree, after: PyTree) -> PyTree:
    """Return the optimizer's state after an update, its schedules as before it."""
    kinds = optax.ScaleByScheduleState, optax.InjectStatefulHyperparamsState

    def mended(old, new):
        if isinstance(old, optax.ScaleByScheduleState):
            return old
        if not isinstance(old, optax.InjectStatefulHyperparamsState):
            return new
        inner = _schedules_of(old.inner_state, new.inner_state)
        return old._replace(inner_state=inner)

    return jax.tree.map(mended, before, after, is_leaf=lambda x: isinstance(x, kinds))


def _clipped(tree: PyTree, largest: float | Array) -> PyTree:
    """Scale the tree to a norm of at most `largest`; zero stays zero."""
    norm = optax.tree.norm(tree)
    largest = jnp.asarray(largest, jnp.float32)
    factor = jnp.minimum(1.0, largest / jnp.where(norm > 0, norm, largest))
    return optax.tree.scale(factor, tree)


@dataclasses.dataclass(frozen=True)
class Sfron(Options):
    """Options of SFRon.

    Attributes:
      forget_every: number of steps between two ascents.
      peak: strength of the first ascent.
      ascent_clip: largest L2 norm of the gradient of an ascent.
      forget_rate: learning rate of the ascents, without the optimizer, its momentum and
        decay. Default: ascents use the optimizer, as published.
      constant_rate: keep the learning rate constant; in the paper it falls to 0 along a
        cosine.
      fisher: whether the mask's Fisher information squares gradients by "batch", as
        published, or by "sample".
    """

    forget_every: Count = 5
    peak: NotNegative = 25.0
    ascent_clip: Positive = 7.0
    forget_rate: Positive | None = None
    constant_rate: bool = False
    fisher: Literal["sample", "batch"] = "batch"


def _thinned(schedule: Schedule[UnlearnBatch], every: int) -> Schedule[UnlearnBatch]:
    """Return the schedule with the forget batches of the steps 0, k, 2k, … alone.

    They are those that a step takes which is told to climb at each k-th, and not those
    of `ju.data.every_k`, which leaves none out. But that step needs a branch, and in
    one XLA's gradients of convolutions are slow on CPUs.
    """

    def batch(step: int) -> UnlearnBatch:
        whole = schedule.batch(step)
        return whole._replace(forget=None) if step % every else whole

    return dataclasses.replace(schedule, batch=batch)


def _sfron(lab: Lab, options: Sfron) -> Job:
    schedule = _thinned(lab.schedule("zipped"), options.forget_every)
    fisher = [lab.fisher(part, per=options.fisher) for part in ("forget", "retain")]
    optimizer, steps = lab.optimizer(), len(schedule)
    if not options.constant_rate:
        cosine = optax.cosine_decay_schedule(1.0, steps)
        optimizer = annealed(optimizer, cosine)
    unlearner = sfron(
        lab.model,
        optimizer,
        mask=masks.fisher_ratio(*fisher),
        steps=steps,
        forget_rate=options.forget_rate,
        forget_every=1,  # of the steps with a forget batch
        peak=options.peak,
        clip=options.ascent_clip,
        forget=cast(Objective, lab.objective("ascend")),
        retain=cast(Objective, lab.objective("remember")),
        weighting=lab.weighting(),
        harmonizer=harmonize.separate if lab.setting.dual else None,
        model_state=lab.model_state,
    )
    return Job(unlearner, schedule)


SFRON = (
    Card.of(_sfron, "SFRon", source="arXiv 2409.19732")
    .but(reads=("forget", "retain", "original"), roles=("ascend", "remember"))
    .but(cost="E·R·(1 + 1/forget_every) + R + F")
    .but(weighting="sfron", phased=True, step_reads=("length",))
    .but(
        suits="Good for whole classes and diffusion models: ascent and repair in turn, "
        "with one optimizer. With its defaults it may leave a small network unchanged: "
        "search rate and peak."
    )
    .tries(learning_rate=(0.01, 0.03, 0.1), peak=(5.0, 25.0), epochs=(3,))
)
