"""Conditions: class ids or tokens, and what may take their place.

Shapes: B batch, L tokens. A condition is `i32[B]` (class ids) or `i32[B, L]` (tokens),
or whatever else the network reads, with a leading axis B.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.errors import InputError
from jax_unlearn.tables import look_up
from jax_unlearn.types import Array, Batch

__all__ = ["Replace", "anchor", "by_label", "check_classes", "conditioned"]
__all__ += ["drop_condition", "in_range", "like", "next_class", "random_other"]

Replace = Callable[[Array, Array, Array], Array]
"""`(key, condition [B, ...], labels i32[B]) -> condition [B, ...]`."""


def conditioned(batch: Batch) -> tuple[Array, Array]:
    """Return images and condition of a batch.

    The inputs are the images, and then the labels are the condition; or the pair
    (images, condition), and then the labels only say which class or concept it is.

    >>> images, condition = conditioned(Batch(jnp.ones((2, 1)), jnp.array([3, 4])))
    >>> print(condition)
    [3 4]
    """
    if isinstance(batch.inputs, tuple):
        images, condition = batch.inputs
    else:
        images, condition = batch.inputs, batch.labels
    integers = jnp.issubdtype(condition.dtype, jnp.integer)
    if batch.mask is not None and integers:  # padding may hold what no network knows
        counts = jnp.expand_dims(jnp.asarray(batch.mask), range(1, condition.ndim))
        condition = jnp.where(counts, condition, jnp.zeros((), condition.dtype))
    return images, condition


def random_other(num_classes: int) -> Replace:
    """Return the replacement of a class by another one, drawn anew each time.

    c' = (c + r) mod K, r uniform on 1 … K − 1.

    Raises:
      InputError: fewer than two classes.

    Reference: SalUn, arXiv 2310.12508, for diffusion (random relabelling).

    >>> replace, labels = random_other(2), jnp.array([0, 1])
    >>> print(replace(jax.random.key(0), labels, labels))
    [1 0]
    """

    def steps(key: Array, labels: Array) -> Array:
        return jax.random.randint(key, labels.shape, 1, num_classes, labels.dtype)

    return _shifted(num_classes, steps)


def next_class(num_classes: int) -> Replace:
    """Return the replacement of class c by (c + 1) mod K.

    Raises:
      InputError: fewer than two classes.

    Reference: SalUn's public code for class-wise forgetting on CIFAR-10.

    >>> print(next_class(3)(jax.random.key(0), None, jnp.array([0, 2])))
    [1 0]
    """
    return _shifted(num_classes, lambda key, labels: 1)


def anchor(condition: ArrayLike) -> Replace:
    """Return the replacement by one condition for all: a class id or tokens `[L]`.

    Source: concept ablation (Kumari et al., arXiv 2303.13516) for the idea.

    >>> print(anchor(7)(jax.random.key(0), jnp.array([1, 2]), None))
    [7 7]
    """
    return lambda key, given, labels: like(condition, given)


def by_label(table: ArrayLike) -> Replace:
    """Return the replacement by a row of a table: what each label is to become.

    The table holds class ids `[K]` or tokens `[K, L]`; a label that it lacks becomes a
    condition that no network has.

    >>> print(by_label([2, 0, 1])(jax.random.key(0), None, jnp.array([0, 2])))
    [2 1]
    """
    rows = np.asarray(table)
    return lambda key, condition, labels: look_up(jnp.asarray(rows, jnp.int32), labels)


def like(condition: ArrayLike, given: Array) -> Array:
    """Return one condition `[...]`, of their shape, for each of a batch `[B, ...]`."""
    value = jnp.asarray(condition, given.dtype)
    if value.shape != given.shape[1:]:
        raise InputError(
            f"condition of shape {value.shape}, but those of the batch have "
            f"{given.shape[1:]}: give one class id, or as many tokens"
        )
    return jnp.broadcast_to(value, given.shape)


def drop_condition(
    key: Array, condition: Array, *, null: ArrayLike, rate: float
) -> Array:
    """Replace each of the conditions `[B, ...]` by `null` with probability `rate`.

    Reference: Ho and Salimans, arXiv 2207.12598, algorithm 1.

    >>> print(drop_condition(jax.random.key(0), jnp.array([1, 2]), null=9, rate=1.0))
    [9 9]
    """
    dropped = jax.random.bernoulli(key, rate, condition.shape[:1])
    dropped = dropped.reshape(dropped.shape + (1,) * (condition.ndim - 1))
    return jnp.where(dropped, like(null, condition), condition)


def check_classes(conditions: ArrayLike, num_classes: int) -> np.ndarray:
    """Return class ids as `i32[N]`, refused where the model has no such class.

    Raises:
      InputError: no integers, or a class outside 0 … K − 1.

    >>> check_classes([2, 0], 3)
    array([2, 0], dtype=int32)
    """
    values = np.asarray(conditions)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"conditions={values}: give class ids, integers [N]")
    return in_range(
        values, "class {} is unknown: the model has num_classes", num_classes
    )


def in_range(values: np.ndarray, message: str, count: int) -> np.ndarray:
    """Return numbers as i32, refused outside 0 … count − 1."""
    wrong = values[(values < 0) | (values >= count)]
    if wrong.size:
        reason = message.format(wrong.flat[0])
        raise InputError(f"{reason}={count}, so 0 to {count - 1}")
    return values.astype(np.int32)


def _shifted(num_classes: int, steps: Callable[[Array, Array], Array | int]) -> Replace:
    """Return the replacement of c by (c + steps) mod K."""
    if num_classes < 2:
        raise InputError(
            f"num_classes={num_classes}: another class needs at least 2 classes"
        )
    return lambda key, condition, labels: (labels + steps(key, labels)) % num_classes
