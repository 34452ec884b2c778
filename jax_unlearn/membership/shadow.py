"""Shadow models: trained like the model attacked, on halves that are known.

Shapes: S models, N samples, M members of each model, K classes, B batch, T steps. An
attack that learns from one model sees members and non-members that differ in more than
membership; over S models every sample is now a member, now none.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from jax_unlearn import _validate, programs
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.membership.training import Observed
from jax_unlearn.types import Array, Batch, Model, PyTree, UnlearnBatch

__all__ = ["Shadows", "pool", "shadow_observations", "train_shadows"]


class Shadows(NamedTuple):
    """S trained models and what each was trained on.

    Attributes:
      params, model_state: every leaf with a leading axis S.
      members: whether a sample trained a model, `bool[S, N]`; M are True in each row.
    """

    params: PyTree
    model_state: PyTree
    members: Array


def train_shadows(
    model: Model,
    optimizer: optax.GradientTransformation,
    inputs: PyTree,
    labels: ArrayLike,
    key: Array,
    *,
    count: int,
    steps: int,
    batch_size: int,
    share: float = 0.5,
) -> Shadows:
    """Train shadow models, all in one vmapped and compiled program.

    Model s draws its members, its initialisation and its batches from key s of
    `split(key, S)` and minimises the cross-entropy of its members by
    `methods.finetune`. Batches are drawn without replacement, pass after pass; the
    last of a pass is filled up with other members, masked out. The program holds all
    samples, S models and S batches. Give all samples that may be looked at: retained
    and unseen ones, not those to be forgotten; train as the model attacked.

    The model's outputs are logits `[B, K]`, inputs a pytree of arrays `[N, ...]`, N ≥
    2, labels integers `[N]`. `count` is S (for many, several calls need less memory),
    `steps` T and `batch_size` B, or M where there are fewer members; M = `share`·N
    rounded, at least 1 and at most N − 1.

    Raises:
      InputError: a number out of range, labels that do not fit.
      NonFiniteError: a loss turned NaN or infinite; names the model and the step.

    Reference: Shokri et al., arXiv 1610.05820, section V; random halves of one set,
    which may overlap between models, as Carlini et al. (LiRA), arXiv 2112.03570.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: jnp.zeros((1, 2)), lambda w, x: x @ w)
    >>> samples = jnp.ones((4, 1)), jnp.zeros(4, jnp.int32)
    >>> sgd, key = optax.sgd(1.0), jax.random.key(0)
    >>> size = {"count": 3, "steps": 1, "batch_size": 2}
    >>> shadows = train_shadows(model, sgd, *samples, key, **size)
    >>> shadows.members.sum(axis=1).tolist()
    [2, 2, 2]
    >>> shadows.params[:, 0].tolist()  # w = 0 − (p − onehot), p = (½, ½)
    [[0.5, -0.5], [0.5, -0.5], [0.5, -0.5]]
    """
    total = _check_samples(inputs, labels)
    _validate.at_least("count", count, 1)
    _validate.at_least("steps", steps, 1)
    _validate.at_least("batch_size", batch_size, 1)
    _validate.within("share", share, "(0, 1)", "try 0.5")
    if total < 2:
        raise InputError(
            f"inputs hold {total} samples: give 2 or more, members and non-members"
        )
    size = _member_count(total, share)
    samples = jax.tree.map(jnp.asarray, inputs), jnp.asarray(labels, jnp.int32)
    sizes = {"size": size, "steps": steps, "batch_size": min(batch_size, size)}
    keys = jax.random.split(key, count)
    shadows, losses = _train(keys, *samples, model=model, optimizer=optimizer, **sizes)
    finite = np.isfinite(jax.device_get(losses))
    if not finite.all():
        s, step = (int(i) for i in np.argwhere(~finite)[0])
        message = f"the loss of shadow model {s} is not finite at step {step}"
        raise NonFiniteError(message, step)
    return shadows


def shadow_observations(
    model: Model,
    shadows: Shadows,
    inputs: PyTree,
    labels: ArrayLike,
    *,
    batch_size: int = 256,
) -> tuple[Observed, Observed]:
    """Return what all shadow models say of their members and of their non-members.

    Rows come model by model, each model's by position of the sample. A sample gives a
    row a model: rows are not independent, so the held-out AUC of an attack trained on
    them describes it on the shadow models, with too small a standard error. Test the
    attack on the model attacked. A pass holds at most `batch_size` of the samples that
    were given to `train_shadows`, for every model at once. Logits of eval mode and
    labels are `[S·M, K]` and `[S·M]`, then `[S·(N−M), K]` and `[S·(N−M)]`, ready for
    `train_attacks`.

    Raises:
      InputError: other samples than the models were trained on, `batch_size` below 1.

    Reference: Shokri et al., arXiv 1610.05820, section V; one pool for all classes is
    our choice.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: jnp.zeros((1, 2)), lambda w, x: x @ w)
    >>> params = jnp.array([[[1.0, 0.0]], [[10.0, 0.0]]])  # two models
    >>> shadows = Shadows(params, (), jnp.array([[True, False], [False, True]]))
    >>> members, nonmembers = shadow_observations(
    ...     model, shadows, jnp.array([[1.0], [2.0]]), jnp.array([0, 1])
    ... )
    >>> members.logits[:, 0].tolist(), members.labels.tolist()
    ([1.0, 20.0], [0, 1])
    >>> nonmembers.logits[:, 0].tolist(), nonmembers.labels.tolist()
    ([2.0, 10.0], [1, 0])
    """
    total = _check_samples(inputs, labels)
    _validate.at_least("batch_size", batch_size, 1, "try 256")
    members = np.asarray(shadows.members)
    if members.shape[1] != total:
        raise InputError(
            f"inputs hold {total} samples, members.shape={members.shape}: give the "
            "samples that were given to train_shadows"
        )
    parts = []
    for rows in programs.pieces(total, min(batch_size, total)):
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], inputs)
        parts.append(jax.device_get(_forward(model.apply, *shadows[:2], part)))
    logits = np.concatenate(parts, axis=1)[:, :total]
    classes = np.broadcast_to(np.asarray(labels, np.int32), members.shape)

    def observed(rows: NDArray[np.bool_]) -> Observed:
        return Observed(jnp.asarray(logits[rows]), jnp.asarray(classes[rows]))

    return observed(members), observed(~members)


def pool(*observed: Observed) -> Observed:
    """Put observations one after the other, in float32.

    For example those under the shadow models and those under the model attacked, θ_o:
    `train_attacks(attacks, pool(shadow_in, own_in), pool(shadow_out, own_out), key)`.

    Raises:
      InputError: none given, another number of classes.

    >>> one = Observed(jnp.zeros((2, 3)), jnp.array([0, 1]))
    >>> pool(one, Observed(jnp.ones((1, 3)), jnp.array([2]))).labels.tolist()
    [0, 1, 2]
    """
    shapes = [tuple(part.logits.shape) for part in observed]
    if not shapes or any(len(s) != 2 or s[1] != shapes[0][1] for s in shapes):
        raise InputError(
            f"logits.shape={shapes}: give one or more Observed of the same classes, "
            "[samples, classes] each"
        )
    return Observed(
        jnp.concatenate([part.logits.astype(jnp.float32) for part in observed]),
        jnp.concatenate([part.labels.astype(jnp.int32) for part in observed]),
    )


def _member_count(total: int, share: float) -> int:
    return min(max(round(share * total), 1), total - 1)


def _draw(key: Array, total: int, *, size: int, steps: int, batch_size: int):
    """Return members `i32[M]`, samples of steps `i32[T, B]`, and what is no padding."""
    member_key, batch_key = jax.random.split(key)
    members = jax.random.permutation(member_key, total)[:size]
    a_pass = -(-size // batch_size)
    keys = jax.random.split(batch_key, -(-steps // a_pass))
    orders = jax.vmap(lambda k: jax.random.permutation(k, members))(keys)
    padding = orders[:, : a_pass * batch_size - size]
    rows = jnp.concatenate([orders, padding], axis=1).reshape(-1, batch_size)
    places = jnp.arange(len(rows) * batch_size) % (a_pass * batch_size)
    mask = (places < size).reshape(rows.shape)
    return members, rows[:steps], mask[:steps]


@programs.jit(static_argnames=("model", "optimizer", "size", "steps", "batch_size"))
def _train(
    keys: Array,
    inputs: PyTree,
    labels: Array,
    *,
    model: Model,
    optimizer: optax.GradientTransformation,
    size: int,
    steps: int,
    batch_size: int,
) -> tuple[Shadows, Array]:
    """Return the models and their losses `f32[S, T]`."""
    # Here, since methods may use membership.
    from jax_unlearn.methods.finetune import finetune

    unlearner = finetune(model, optimizer, fewest=0)
    first = jax.tree.map(lambda leaf: leaf[:batch_size], inputs)

    def one(key: Array) -> tuple[Shadows, Array]:
        draw_key, init_key, train_key = jax.random.split(key, 3)
        count = len(labels)
        members, *draws = _draw(
            draw_key, count, size=size, steps=steps, batch_size=batch_size
        )

        def step(state, drawn):
            rows, mask = drawn
            samples = jax.tree.map(lambda leaf: leaf[rows], inputs)
            batch = UnlearnBatch(retain=Batch(samples, labels[rows], rows, mask))
            step_key = jax.random.fold_in(train_key, state.step)  # as the drivers do
            state, info = unlearner.step(state, batch, step_key)
            return state, info.retain_loss

        state = unlearner.init(*model.init(init_key, first))
        state, losses = jax.lax.scan(step, state, tuple(draws))
        members = jnp.zeros(count, jnp.bool_).at[members].set(True)
        return Shadows(state.params, state.model_state, members), losses

    return jax.vmap(one)(keys)


@programs.jit(static_argnums=0)
def _forward(apply, params, model_state, inputs):
    def one(params, model_state):
        return apply(params, model_state, inputs, train=False)[0]

    return jax.vmap(one)(params, model_state)


def _check_samples(inputs: PyTree, labels: ArrayLike) -> int:
    """Return N."""
    array = np.asarray(labels)
    sizes = {leaf.shape[0] for leaf in jax.tree.leaves(inputs)}
    if array.dtype.kind not in "iu" or array.ndim != 1 or sizes != {len(array)}:
        raise InputError(
            f"labels of shape {array.shape} and type {array.dtype} do not fit inputs "
            f"of {sorted(sizes)} samples; give one integer a sample"
        )
    return len(array)
