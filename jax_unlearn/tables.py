"""Tables of one row a sample: looked up by id, and an id they lack is not hidden."""

import jax.numpy as jnp

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array

__all__ = ["NO_CLASS", "check_table", "look_up", "no_wrap", "row_ids"]

NO_CLASS = 2**31 - 1  # no network has it: its cross-entropy is NaN


def look_up(table: Array, index: Array, where: Array | None = None) -> Array:
    """Return the rows of samples; an id outside gives NaN, or the class `NO_CLASS`.

    Rows that `where`, `bool[B]`, does not mark are 0.
    """
    # plain indexing would silently take the last row; of a NaN the driver tells
    floating = jnp.issubdtype(table.dtype, jnp.floating)
    fill = jnp.nan if floating else NO_CLASS
    rows = table.at[index].get(
        mode="fill", fill_value=fill, wrap_negative_indices=False
    )
    if where is None:
        return rows
    return jnp.where(jnp.expand_dims(where, range(1, rows.ndim)), rows, 0)


def no_wrap(classes: Array) -> Array:
    """Return classes or tokens; `NO_CLASS` for those that would count from the end."""
    return jnp.where(classes < 0, NO_CLASS, classes)


def row_ids(index: Array | None, user: str, instead: str = "") -> Array:
    """Return the ids of samples; refuse a batch without, for what `user` says."""
    if index is None:
        raise InputError(
            f"batch.index=None: {user} the id of each sample; fill Batch.index{instead}"
        )
    return index


def check_table(name: str, table: Array, shape: str) -> None:
    """Refuse a table that has not one number ("[N]") or row ("[N, K]") a sample."""
    if table.ndim != 1 + shape.count(",") or not table.size:
        raise InputError(
            f"{name} of shape {table.shape} must be {shape}, one for each sample id"
        )
