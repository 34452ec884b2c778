"""Objectives of classification: what is minimised on forget and retain samples."""

from functools import partial

import jax
import jax.numpy as jnp

from jax_unlearn import _validate, losses
from jax_unlearn.contracts import counted, forward_pass, usable
from jax_unlearn.membership.attacks import Attack, AttackParams, nonmember_loss
from jax_unlearn.objectives.base import Objective, on_logits, task_loss
from jax_unlearn.tables import NO_CLASS, check_table, look_up, row_ids
from jax_unlearn.types import Array, Batch, Model, ModelState, Params

__all__ = ["ascent", "contrast", "descent", "distill", "draw_labels", "imitate"]
__all__ += ["nonmember", "random_label", "repel", "transport", "uniform"]


def descent(model: Model, *, smoothing: float = 0.0) -> Objective:
    """Return the cross-entropy on the true label: ℓ = −log p_y.

    With `smoothing` ε, on the label spread over all K classes: ℓ = −(1 − ε) log p_y −
    ε/K Σ_k log p_k. Weights look at −log p_y all the same.

    Raises:
      InputError: ε outside [0, 1).

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> losses, aux = descent(model)(2.0, (), batch, jax.random.key(0))
    >>> losses.tolist()  # log(1 + e^-2)
    [0.1269]
    """
    _validate.share("smoothing", smoothing)

    def output_loss(outputs, batch, key, data):
        del key, data
        loss = task_loss(outputs, batch)
        if isinstance(smoothing, int | float) and not smoothing:
            return loss, loss
        spread = losses.soft_cross_entropy(
            outputs, jnp.full_like(outputs, 1 / outputs.shape[-1])
        )
        return (1 - smoothing) * loss + smoothing * spread, loss

    return Objective(model, output_loss)


def ascent(model: Model) -> Objective:
    """Return the negated cross-entropy on the true label: minimising it ascends.

    Reference: gradient ascent as in Thudi et al., arXiv 2109.13398.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> losses, aux = ascent(model)(2.0, (), batch, jax.random.key(0))
    >>> print(losses, aux.task_losses)
    [-0.1269] [0.1269]
    """
    return descent(model).negated()


def draw_labels(
    key: Array, label: Array, *, num_classes: int, exclude_true: bool = True
) -> Array:
    """Draw one random class for one sample, uniform over the admitted classes.

    With `exclude_true` the draw r is uniform on the K − 1 others: y' = r + 1[r ≥ y].
    The true class is `i32[]`, as is what is drawn: use `jax.vmap` for a batch.

    >>> print(draw_labels(jax.random.key(0), jnp.int32(0), num_classes=2))
    1
    """
    drawn = jax.random.randint(
        key, jnp.shape(label), 0, num_classes - int(exclude_true), jnp.int32
    )
    return drawn + (drawn >= label).astype(jnp.int32) if exclude_true else drawn


def random_label(
    model: Model,
    *,
    num_classes: int,
    redraw: bool = False,
    exclude_true: bool = True,
    seed: int | Array = 0,
) -> Objective:
    """Return the cross-entropy on a random label: ℓ = −log p_{y'}.

    Args:
      model: the network; outputs are logits `[B, K]`.
      num_classes: K ≥ 2.
      redraw: draw at every step; otherwise once, from (seed, the sample's index).
      exclude_true: y' ≠ y; False draws over all K classes.
      seed: of the fixed labels.

    Raises:
      InputError: fewer than two classes; fixed labels for a batch without `index`.

    Reference: Golatkar et al., arXiv 1911.04933. One draw of another class a sample is
    FaLW's form; SalUn's public code (arXiv 2310.12508) draws over all classes, again
    and again: `redraw=True, exclude_true=False`.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([7]))
    >>> objective = random_label(model, num_classes=2)  # the only other class: 1
    >>> losses, aux = objective(2.0, (), batch, jax.random.key(0))
    >>> print(losses, aux.task_losses)
    [2.1269] [0.1269]
    """
    _validate.at_least("num_classes", num_classes, 2, "random labels need another")

    options = {"num_classes": num_classes, "exclude_true": exclude_true}
    draw = jax.vmap(partial(draw_labels, **options))

    def loss(logits, batch, key, data):
        if redraw:
            keys = jax.random.split(jax.random.fold_in(key, 1), batch.labels.shape[0])
        else:
            needed = "fixed random labels need", " or use redraw=True"
            index = row_ids(batch.index, *needed)
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(data, index)
        # a sample whose own label is no class has no other one either
        known = batch.labels != NO_CLASS
        drawn = jnp.where(known, draw(keys, batch.labels), NO_CLASS)
        return losses.cross_entropy(logits, drawn)

    return on_logits(model, loss, () if redraw else jax.random.key(seed))


def distill(
    model: Model,
    teacher_params: Params,
    teacher_state: ModelState,
    *,
    temperature: float = 1.0,
) -> Objective:
    """Return T²·KL(teacher ‖ student) to a frozen teacher in eval mode.

    The teacher's parameters and state are carried as `Objective.data`: those of the
    original for retain samples, of a random network for forget samples. T > 0.

    Raises:
      InputError: temperature not positive.

    Reference: Chundawat et al., arXiv 2205.08096; Kurmanji et al., arXiv 2302.09880.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> distill(model, 2.0, ())(2.0, (), batch, jax.random.key(0))[0].tolist()
    [0.0]
    """
    _validate.positive("temperature", temperature, "try 1.0")

    def loss(logits, batch, key, data):
        del key
        params, model_state = data
        inputs = usable(batch).inputs
        at = params, model_state
        teacher, _ = forward_pass(model.apply, *at, inputs, train=False)
        return losses.distillation(logits, teacher, temperature=temperature)

    return on_logits(model, loss, (teacher_params, teacher_state))


def repel(
    model: Model,
    teacher_params: Params,
    teacher_state: ModelState,
    *,
    temperature: float = 4.0,
) -> Objective:
    """Return −T²·KL(teacher ‖ student): minimising it leaves the teacher.

    The arguments are those of `distill`. The loss has no lower bound, and no gradient
    where student and teacher agree: from the teacher itself only BatchNorm's batch
    statistics, dropout, augmentation, weight decay or another step lead away.

    Raises:
      InputError: temperature not positive.

    Reference: Kurmanji et al., arXiv 2302.09880, the max-steps of SCRUB.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> objective = repel(model, 0.0, (), temperature=1.0)  # a teacher of (1/2, 1/2)
    >>> objective(2.0, (), batch, jax.random.key(0))[0].tolist()  # log 2 − 1.1269
    [-0.4338]
    """
    pull = distill(model, teacher_params, teacher_state, temperature=temperature)
    return pull.negated()


def imitate(
    model: Model,
    teacher_params: Params,
    teacher_state: ModelState,
    *,
    alpha: float = 0.001,
    gamma: float = 0.99,
    temperature: float = 4.0,
) -> Objective:
    """Return γ·CE(y) + α·T²·KL(teacher ‖ student): the label and the teacher both.

    The arguments are those of `distill`, and α, γ ≥ 0. Published: α = 0.001, γ = 0.99,
    T = 4.

    Raises:
      InputError: alpha or gamma negative, or temperature not positive.

    Reference: Kurmanji et al., arXiv 2302.09880, the min-steps of SCRUB; Hinton et al.,
    arXiv 1503.02531.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> objective = imitate(model, 2.0, (), gamma=1.0)  # the teacher agrees
    >>> objective(2.0, (), batch, jax.random.key(0))[0].tolist()  # log(1 + e^-2)
    [0.1269]
    """
    _validate.not_negative("alpha", alpha, "try 0.001")
    _validate.not_negative("gamma", gamma, "try 0.99")
    pull = distill(model, teacher_params, teacher_state, temperature=temperature)

    def output_loss(outputs, batch, key, data):
        divergence, task_losses = pull.output_loss(outputs, batch, key, data)
        return gamma * task_losses + alpha * divergence, task_losses

    return pull._replace(output_loss=output_loss)


def transport(model: Model, targets: Array) -> Objective:
    """Return the cross-entropy to a fixed target distribution a sample.

    ℓ_i = −Σ_k t_ik log p_k(x_i), minimal (not zero) where p = t: it does not overshoot.
    Row i of the targets `f32[N, K]` is for the sample of index i; see
    `transport_targets`.

    Raises:
      InputError: a table that is not `[N, K]`; a batch without `index`. An id outside
        the table gives NaN, which `run` reports.

    Source: our choice (endpoint transport).

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 0.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> objective = transport(model, jnp.array([[0.5, 0.5]]))
    >>> objective(0.0, (), batch, jax.random.key(0))[0].tolist()  # log 2
    [0.6931]
    """
    table = jnp.asarray(targets, jnp.float32)
    check_table("targets", table, "[N, K]")

    def loss(logits, batch: Batch, key, data):
        del key
        index = row_ids(batch.index, "target tables need")
        targets = look_up(data, index, counted(batch))
        return losses.soft_cross_entropy(logits, targets)

    return on_logits(model, loss, table)


def nonmember(model: Model, attack: Attack, attack_params: AttackParams) -> Objective:
    """Return the loss of being taken for a member: ℓ = log(1 + exp(score(x, y))).

    The attack looks at logits `[B, K]` of a model in use: the pass is in eval mode.

    Source: LTU, arXiv 2407.10494; the form of the loss is our choice.

    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.membership import logistic
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> attack = logistic()
    >>> objective = nonmember(model, attack, attack.init(jax.random.key(0), 3))
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> objective(2.0, (), batch, jax.random.key(0))[0].tolist()  # undecided: log 2
    [0.6931]
    """

    def loss(logits, batch, key, data):
        del key
        return nonmember_loss(attack, data, logits, batch.labels)

    return on_logits(model, loss, attack_params, train=False)


def uniform(model: Model) -> Objective:
    """Return KL(u ‖ p), u = 1/K the uniform distribution: ℓ = −log K − Σ_k log p_k/K.

    No label is used.

    Reference: the first stage of the winner of the NeurIPS 2023 unlearning challenge.

    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.types import Batch
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> batch = Batch(jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.array([0, 0]))
    >>> uniform(model)(2.0, (), batch, jax.random.key(0))[0].tolist()
    [0.0, 0.4338]
    """

    def loss(logits, batch, key, data):
        del batch, key, data
        classes = logits.shape[-1]
        flat = jnp.full(logits.shape, 1 / classes, jnp.float32)
        return losses.soft_cross_entropy(logits, flat) - jnp.log(jnp.float32(classes))

    return on_logits(model, loss)


def contrast(
    forget: Array, retain: Array, where: Array | None = None, *, temperature: float
) -> Array:
    """Return how unequally near forget outputs are to retain outputs, `f32[B]` (FCS).

    ℓ_i = −(1/R) Σ_j log softmax_j(z_i·z_j/t), least, log R, where the dot product of a
    forget sample's outputs z_i with those of all R retain samples is the same.

    Outputs are `[B, K]` and `[R, K]`; t > 0 is the temperature, published 1.15; retain
    rows that `where`, `bool[R]`, does not mark do not count.

    Raises:
      InputError: t that is not positive.

    Reference: the second stage of the winner of the NeurIPS 2023 unlearning challenge.

    >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> contrast(jnp.array([[3.0, 3.0], [1.0, 0.0]]), z, temperature=1.0).tolist()
    [0.6931, 0.8133]
    """
    _validate.positive("temperature", temperature, "published: 1.15")
    forget, retain = (jnp.asarray(z, jnp.float32) for z in (forget, retain))
    real = jnp.ones(retain.shape[0], jnp.bool_) if where is None else where
    near = jnp.where(real[None], forget @ retain.T / temperature, -jnp.inf)
    spread = jnp.where(real[None], jax.nn.log_softmax(near, axis=-1), 0.0)
    count = jnp.maximum(jnp.sum(real.astype(jnp.float32)), 1.0)
    return -jnp.sum(spread, axis=-1) / count
