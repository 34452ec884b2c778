"""AMUN: fine-tune on neighbours of D_f that the original takes for other classes."""

import dataclasses
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import objectives, programs
from jax_unlearn.cards import Card, Count, Fraction, Job, Lab, Options, Positive
from jax_unlearn.data import Examples, Schedule, as_floats, forget_only
from jax_unlearn.data.batches import FORGET, RETAIN, stream
from jax_unlearn.data.schedules import combined, shares, together
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.methods.step import annealed
from jax_unlearn.objectives.boundary import DOUBLINGS, Neighbours, neighbours_step
from jax_unlearn.types import Array, Batch, Model, UnlearnBatch, Unlearner

__all__ = ["AMUN", "Amun", "amun"]


def amun(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    labels: Array,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Fine-tune on D_A ∪ D_f ∪ D_r, D_A neighbours with wrong classes (AMUN).

    Minimises (Σ w_i CE(f(x'_i), y'_i) + Σ CE(f(x_j), y_j))/(n_A + n): x' are the inputs
    that `ju.objectives.boundary_neighbours` finds for the forget samples and y' the
    classes the original gives them, both in `UnlearnBatch.forget`, whose labels stay
    the true ones; y' come from `labels`, a table `i32[N]` by sample id. In `.retain`
    are the samples that keep their labels: D_r ∪ D_f as published, D_f alone where D_r
    cannot be read, D_r alone or None for the authors' variants without D_f. The
    confidence in D_f falls near each sample only; how far says nothing of unseen data.

    The other arguments are those of `assemble`, `forward` being "merged" unless told:
    one pass over the union, with joint BatchNorm statistics. Published (CIFAR-10): SGD
    of momentum 0.9 and decay 5e-4, 10 epochs, batch 128, lr of 1e-1 to 1e-5 by a
    search, a tenth of it from the 6th epoch on.

    Raises:
      InputError: labels that are not one integer a sample; a batch without `index`.

    Reference: Ebrahimpour-Boroojeny et al., arXiv 2503.00917.

    >>> import jax, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = amun(model, optax.sgd(1.0), labels=jnp.array([1]))
    >>> x = ju.Batch(jnp.array([[0.5, 0.49]]), jnp.array([0]), jnp.array([0]))
    >>> near = x._replace(inputs=jnp.array([[0.49, 0.5]]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(near, x), jax.random.key(0))
    >>> print(state.params)  # 2 + 0.01·p(wrong), for sample and neighbour agree
    2.005
    """
    given: Assembly = {"forward": "merged", **options}
    return assemble(
        model,
        optimizer,
        forget=objectives.fixed_label(model, labels),
        retain=objectives.descent(model),
        **given,
    )


@dataclasses.dataclass(frozen=True)
class Amun(Options):
    """Options of AMUN.

    Attributes:
      with_retain: train on the retain samples too; without, on the forget samples and
        their neighbours alone.
      with_forget: keep the forget samples, with their true labels, beside their
        neighbours; without is the authors' variant on neighbours alone.
      radius: the first distance at which neighbours are sought, as a part of the range
        of a pixel; it doubles until the class changes.
      search_steps: steps of the search at each distance.
      drop_every: part of the run after which the learning rate falls to a tenth, again
        and again; 1 keeps it.
    """

    with_retain: bool = True
    with_forget: bool = True
    radius: Positive = 0.04
    search_steps: Count = 50
    drop_every: Fraction = 0.5


def _amun(lab: Lab, options: Amun) -> Job:
    forget, (found, taken) = lab.ids("forget"), _neighbours(lab, options)
    table = np.zeros(len(lab.examples.labels), np.int32)
    table[forget] = found.labels
    schedule = _schedule(lab, options, found)
    part = options.drop_every * len(schedule)
    ends = (max(round(part * n), 1) for n in range(1, round(len(schedule) / part) + 1))
    drops = optax.piecewise_constant_schedule(1.0, dict.fromkeys(ends, 0.1))
    unlearner = amun(
        lab.model,
        annealed(lab.optimizer(), drops),
        labels=jnp.asarray(table),
        weighting=lab.weighting(),
        model_state=lab.model_state,
    )
    moves = found.inputs - lab.range.unit(lab.examples.inputs[forget])
    distances = np.linalg.norm(np.reshape(moves, (len(forget), -1)), axis=1)
    details = {
        "samples": len(forget),
        "crossed": int(found.crossed.sum()),
        "distance": round(float(np.median(distances)), 5),
        "steps": round(taken / len(forget), 1),  # of a sample: what the search cost
    }
    return Job(unlearner, schedule, details={"neighbours": details})


def _neighbours(lab: Lab, options: Amun) -> tuple[Neighbours, int]:
    """Return neighbours of the forget samples, pixels in 0..1, and gradients taken.

    They are those of `boundary_neighbours`. At each radius the batches hold the samples
    that have not crossed yet, and no others; the last of them fills up the last batch.
    """
    forget, labels = lab.ids("forget"), lab.labels("forget")
    size, model = min(lab.setting.batch_size, len(forget)), lab.range.model(lab.model)
    first = lab.range.unit(lab.examples.inputs[forget]).astype(np.float32)
    every: Any = first.copy(), np.zeros_like(labels), np.zeros(len(forget), np.bool_)
    taken = 0
    for doubling in range(DOUBLINGS + 1):
        left = np.flatnonzero(~every[-1])
        radius = jnp.float32(options.radius * 2.0**doubling)
        for rows in map(left.take, programs.pieces(len(left), size)):
            given = first[rows], labels[rows], radius
            told = every[0][rows], options.search_steps
            own, steps = _within(model, lab.original, given, *told)
            taken += steps * size
            for whole, part in zip(every, own, strict=True):
                whole[rows] = part
    return Neighbours(*every), taken


def _within(
    model: Model, at: Any, given: Any, x: Any, most: int
) -> tuple[Neighbours, int]:
    """Return a batch's neighbours within a radius, sought from x on, and the steps.

    A program a step: inside one that loops, XLA's gradients of convolutions are slow on
    CPUs.
    """
    found, gradient = Neighbours(x, given[1], jnp.ones(len(x), bool)), jnp.zeros_like(x)
    for step in range(most + 1):  # the first stays and looks
        if step and found.crossed.all():
            return found, step
        found, gradient = _step(model, at, given, found, gradient)
    return found, most + 1


_step = programs.jit(neighbours_step, static_argnums=0)


def _schedule(lab: Lab, options: Amun, found: Neighbours) -> Schedule[UnlearnBatch]:
    """Return batches of neighbours, beside those of samples with their own labels."""
    forget, told = lab.ids("forget"), lab.passes()
    parts = {"retain": options.with_retain, "forget": options.with_forget}
    kept = [lab.ids(part) for part, wanted in parts.items() if wanted]
    rest = np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64)
    size, seed = told["batch_size"], told["seed"]
    sizes = {"forget_batch_size": size}
    if len(rest):
        sizes = shares(size, len(forget), len(rest))
    # bytes would round the neighbours away, and one pass has inputs of one type
    pixels = lab.range.own(
        np.asarray(found.inputs), as_floats(lab.examples.inputs[:1]).dtype
    )
    pool = Examples(pixels, lab.examples.labels[forget])
    part, every = sizes["forget_batch_size"], np.arange(len(forget))
    near = stream(pool, every, part, seed, use=FORGET)

    def neighbours(number: int) -> Batch:
        batch = near.batch(number)
        index = forget[np.asarray(batch.index)].astype(np.int32)
        return batch._replace(index=index)

    passes = near._replace(batch=neighbours)
    if not len(rest):
        return forget_only(lab.examples, passes, **told)
    own = stream(lab.examples, rest, sizes["batch_size"], seed, use=RETAIN)

    def others(number: int) -> Batch:
        batch = own.batch(number)
        floats = None if batch.inputs is None else as_floats(np.asarray(batch.inputs))
        return batch._replace(inputs=floats)

    pair = passes, own._replace(batch=others)
    return combined(lab.examples, *pair, together(), **told).schedule


AMUN = (
    Card.of(_amun, "AMUN", source="arXiv 2503.00917")
    .but(reads=("forget", "retain", "original"), roles=("remember", "logits"))
    .but(cost="E·(with_retain·R + with_forget·F + F) + search_steps·F; more far off")
    .but(step_reads=("length",))
    .but(
        suits="Good for single images, with or without the retain set: it moves the "
        "decision boundary near each of them only. On inputs of few features (small "
        "images, tables) it forgets little while it also trains on the forget samples; "
        "try with_forget=False."
    )
    .tries(learning_rate=(0.01, 0.03, 0.1), with_forget=(True, False), epochs=(8,))
)
