"""OrthoGrad: ascend on forget along no direction that a retain sample would feel."""

import dataclasses
from functools import partial
from typing import Annotated, cast

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate, harmonize, objectives
from jax_unlearn.cards import Card, Count, Job, Lab, Options
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import counted, mean_loss
from jax_unlearn.leaves import divided
from jax_unlearn.methods.step import Pass, Weigher, forget_gradient, stepping
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import Array, Batch, Model, Params, PyTree, Unlearner, Weighting
from jax_unlearn.weights.combine import uniform

__all__ = ["ORTHOGRAD", "Orthograd", "off_span", "orthograd"]


def off_span(g: PyTree, rows: PyTree, *, per_leaf: bool = True) -> PyTree:
    """Remove from a gradient what lies in the span of others: g − Q Qᵀ g.

    The columns of Q are an orthonormal basis of the span of the D gradients `rows`,
    whose leaves are those of g with a leading axis D, each scaled to norm 1 first: by a
    QR decomposition of every leaf and an SVD of the small factors, so that gradients
    that are zero or depend on each other add no direction. `per_leaf` takes the span
    leaf by leaf, as published: more is removed (all of a leaf of D entries or fewer),
    and what is left is orthogonal over the whole pytree, too.

    Raises:
      InputError: rows that are not like g.

    Reference: Shamsian et al. (OrthoGrad), arXiv 2503.02312.

    >>> off_span(jnp.array([3.0, 4.0, 5.0]), jnp.array([[2.0, 0.0, 0.0]])).tolist()
    [0.0, 4.0, 5.0]
    """
    leaves, structure = jax.tree.flatten(g)
    _validate.same_shapes(
        "a row", jax.tree.map(lambda r: r[0], rows), g, "take gradients of one model"
    )
    flat = [
        jnp.reshape(r, (r.shape[0], -1)).astype(jnp.float32)
        for r in jax.tree.leaves(rows)
    ]
    groups = [[i] for i in range(len(flat))] if per_leaf else [[*range(len(flat))]]
    found: list[Array] = list(leaves)
    for group in groups:
        own = [jnp.ravel(leaves[i]).astype(jnp.float32) for i in group]
        moved = _off(own, [flat[i] for i in group])
        for i, vector in zip(group, moved, strict=True):
            found[i] = jnp.reshape(vector, leaves[i].shape).astype(leaves[i].dtype)
    return structure.unflatten(found)


def _off(vectors: list[Array], rows: list[Array]) -> list[Array]:
    """Project vectors, parts of one, off the span of rows with the same parts."""
    norms = jnp.sqrt(sum(jnp.sum(jnp.square(r), axis=1) for r in rows))
    scale = jnp.where(norms > 0, 1.0 / jnp.where(norms > 0, norms, 1.0), 0.0)
    pairs = [jnp.linalg.qr((r * scale[:, None]).T) for r in rows]
    u, s, _ = jnp.linalg.svd(jnp.concatenate([r for _, r in pairs]), False)
    size = max(sum(v.size for v in vectors), len(norms))
    counts = s > size * jnp.finfo(jnp.float32).eps * jnp.max(s, initial=0.0)
    ends = [sum(r.shape[0] for _, r in pairs[: i + 1]) for i in range(len(pairs) - 1)]
    bases = [q @ part for (q, _), part in zip(pairs, jnp.split(u, ends), strict=True)]
    for _ in range(2):  # once more for what rounding left
        shares = sum(b.T @ v for b, v in zip(bases, vectors, strict=True))
        shares = jnp.where(counts, shares, 0.0)
        vectors = [v - b @ shares for v, b in zip(vectors, bases, strict=True)]
    return vectors


def orthograd(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    alpha: float = 0.5,
    directions: int | None = None,
    per_leaf: bool = True,
    forget: Objective | None = None,
    retain: Objective | None = None,
    weighting: Weighting | None = None,
) -> Unlearner:
    """Ascend off the span of the retain batch's gradients (OrthoGrad).

    A step descends along α·ḡ_r + (1−α)·g_f⊥ with g_f the gradient of −CE over the
    forget batch, g_f⊥ = `off_span(g_f, rows)`, the rows ∇CE_i of each retain sample,
    and ḡ_r their mean. So to first order the ascent changes the loss of no sample of
    the retain batch: made for a small retain set, α = 0 does not even descend on it.

    All gradients are taken in eval mode, batch statistics stay as they are: a sample's
    own gradient is not defined where the others' activations normalise its own.
    The rows need the memory of D gradients, D the samples or the `directions`. The
    step is orthogonal where the optimizer is plain SGD; momentum, decay and Adam's
    scaling add what they add.

    Args:
      model: the network.
      optimizer: any optax transformation; published: SGD, or Adam's directions.
      alpha: α, share of the retain gradient, from 0 to 1.
      directions: D, means over so many equal parts of the retain batch instead of
        single samples, for less memory; 1 is the batch's mean gradient.
      per_leaf: see `off_span`; True as published.
      forget: what falls where the step climbs; default −CE on the true label.
      retain: default the cross-entropy.
      weighting: weights of the forget samples; default uniform.

    Raises:
      InputError: α outside [0, 1], `directions` below 1; in the step, a missing batch,
        or a retain batch that is not so many equal parts.

    Reference: Shamsian et al., arXiv 2503.02312; eval mode is our choice, and α, which
    is theirs to search.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: None, lambda w, x: x * w[None])
    >>> alg = orthograd(model, optax.sgd(1.0), alpha=0.0)
    >>> forget = ju.Batch(jnp.array([[1.0, 1.0]]), jnp.array([0]))
    >>> retain = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.zeros(2), ())
    >>> step = ju.UnlearnBatch(forget, retain)
    >>> state, info = jax.jit(alg.step)(state, step, jax.random.key(0))
    >>> print(state.params)  # the first weight is what the retain sample feels
    [0.  0.5]
    """
    _validate.within("alpha", alpha, "[0, 1]", "try 0.5")
    if directions is not None:
        _validate.at_least("directions", directions, 1)
    climb = objectives.ascent(model) if forget is None else forget
    climb = climb._replace(train=False)
    descend = objectives.descent(model) if retain is None else retain
    descend = descend._replace(train=False)
    weigher = Weigher(model, weighting or uniform())

    def passed(state, batch, key):
        if batch.forget is None or batch.retain is None:
            raise InputError(
                "orthograd reads a forget and a retain batch each step; use "
                "ju.data.zipped"
            )
        forget_key, retain_key = jax.random.split(key)
        data = state.objective_state
        loss = climb._replace(data=data[0])
        g_forget, info = forget_gradient(weigher, loss, state, batch, key=forget_key)
        rows, counts, losses = _rows(
            descend._replace(data=data[1]), state, batch.retain, retain_key, directions
        )
        shares = counts / jnp.maximum(jnp.sum(counts), 1.0)
        g_retain = jax.tree.map(
            lambda r: jnp.tensordot(shares.astype(r.dtype), r, 1), rows
        )
        ascent = off_span(g_forget, rows, per_leaf=per_leaf)
        return Pass(
            harmonize.add(1.0 - alpha, alpha)(ascent, g_retain),
            state.model_state,
            info.carry,
            info.weights,
            info.aux.task_losses,
            mean_loss(info.losses, batch.forget.mask),
            jnp.sum(shares * losses),
            harmonize.cosine(g_forget, g_retain),
            losses=info.losses,
            shares=(1.0 - alpha, alpha),
        )

    return stepping(
        passed,
        optimizer,
        weighting=weigher.weighting,
        data=(climb.data, descend.data),
        model_state="frozen",
        joint=True,
    )


def _rows(
    loss: Objective, state, retain: Batch, key: Array, directions: int | None
) -> tuple[Params, Array, Array]:
    """Return mean gradients and losses of equal parts of a batch, and their counts."""
    size = retain.labels.shape[0]
    count = size if directions is None else directions
    if size % count:
        raise InputError(
            f"directions={count}: {size} retain samples in the batch are not so many "
            "equal parts; give a divisor of the batch's size"
        )
    parts = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), retain)
    part, whole = divided(state.params)

    def row(own: Batch, key: Array):
        def mean(part: PyTree) -> Array:
            losses, _ = loss(whole(part), state.model_state, own, key)
            return mean_loss(losses, own.mask)

        value, grads = jax.value_and_grad(mean)(part)
        return grads, jnp.sum(counted(own).astype(jnp.float32)), value

    return jax.vmap(row)(parts, jax.random.split(key, count))


@dataclasses.dataclass(frozen=True)
class Orthograd(Options):
    """Options of OrthoGrad.

    Attributes:
      alpha: share of the retain gradient beside the forget gradient; 0 only ascends.
      directions: number of equal parts of the retain batch whose mean gradients the
        ascent is made orthogonal to; takes less memory than the default, every sample.
      whole: project over all parameters together, not in each array separately.
    """

    alpha: Annotated[float, partial(_validate.within, interval="[0, 1]")] = 0.5
    directions: Count | None = None
    whole: bool = False


def _orthograd(lab: Lab, options: Orthograd) -> Job:
    told = {"alpha": options.alpha, "directions": options.directions}
    losses = {
        "forget": cast(Objective, lab.objective("ascend")),
        "retain": cast(Objective, lab.objective("remember")),
    }
    told |= {"per_leaf": not options.whole, "weighting": lab.weighting(), **losses}
    return Job.of(lab, "zipped", orthograd, **told)


def _check(setting) -> None:
    parts = setting.options.directions
    if parts and setting.batch_size % parts:
        raise InputError(
            f"directions={parts} is no divisor of batch_size={setting.batch_size}; "
            "give one, e.g. 8 of 64"
        )


ORTHOGRAD = (
    Card.of(_orthograd, "OrthoGrad", source="arXiv 2503.02312")
    .but(cost="2·E·R", roles=("ascend", "remember"), frozen=True, step_reads=())
    .but(check=_check)
    .but(
        suits="Good for a small retain set, whose losses the ascent leaves unchanged "
        "to first order. Nothing bounds the ascent: a fully trained model hardly "
        "changes, another may be ruined. Search the rate and alpha, take few steps."
    )
    .tries(learning_rate=(0.003, 0.01, 0.03), alpha=(0.5, 0.9), epochs=(3,))
)
