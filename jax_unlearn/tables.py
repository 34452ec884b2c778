"""Tables of one row a sample: looked up by id, and an id they lack is not hidden."""

import jax.numpy as jnp

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array

__all__ = ["NO_CLASS", "check_table", "look_up", "row_ids"]

NO_CLASS = 2**31 - 1  # no network has it: its cross-entropy is NaN


def look_up(table: Array, index: Array) -> Array:
    """Return the rows of samples; an id outside the table gives NaN.

    Plain indexing would silently take the last row instead. A NaN reaches the loss, and
    the driver names the step. Of a table of integer classes an id outside gives a class
    that has no logit, whose cross-entropy is NaN.

    Args:
      table: `[N, ...]`, floating, or integer classes.
      index: ids `i32[B]`.

    Source: our choice.

    >>> look_up(jnp.array([5.0, 7.0]), jnp.array([1, 2, -1])).tolist()
    [7.0, nan, nan]
    """
    floating = jnp.issubdtype(table.dtype, jnp.floating)
    fill = jnp.nan if floating else NO_CLASS
    return table.at[index].get(
        mode="fill", fill_value=fill, wrap_negative_indices=False
    )


def row_ids(index: Array | None, user: str, instead: str = "") -> Array:
    """Return the ids of samples; refuse a batch without, for what `user` says.

    >>> row_ids(None, "fixed labels need")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: batch.index=None: fixed labels need the id of each \
sample; fill Batch.index
    """
    if index is None:
        raise InputError(
            f"batch.index=None: {user} the id of each sample; fill Batch.index{instead}"
        )
    return index


def check_table(name: str, table: Array, shape: str) -> None:
    """Refuse a table that has not one number ("[N]") or row ("[N, K]") a sample.

    >>> check_table("scores", jnp.zeros((2, 2)), "[N]")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: scores of shape (2, 2) must be [N], one for each \
sample id
    """
    if table.ndim != 1 + shape.count(",") or not table.size:
        raise InputError(
            f"{name} of shape {table.shape} must be {shape}, one for each sample id"
        )
