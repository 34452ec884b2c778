"""Checks of what a user hands to a one-shot method."""

import jax
import jax.numpy as jnp

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Batch, LossFn, PyTree


def eval_mode(loss_fn: LossFn) -> None:
    """Refuse an objective in train mode: its samples are not one by one.

    Dropout and BatchNorm make a sample's gradient depend on the rest of its batch. Of
    a loss function that does not say its mode nothing is known.
    """
    if getattr(loss_fn, "train", False):
        raise InputError(
            "loss_fn.train=True: gradients of single samples need eval mode; give "
            "loss_fn._replace(train=False)"
        )


def same_shapes(name: str, tree: PyTree, params: PyTree) -> None:
    """Refuse a pytree that is not shaped like the parameters."""
    if jax.tree.map(jnp.shape, tree) != jax.tree.map(jnp.shape, params):
        raise InputError(
            f"{name} and the parameters differ in structure or shapes; compute it for "
            "the same model"
        )


def at_least(name: str, value: float | Array, least: float) -> None:
    """Refuse a number under a bound, or NaN; a tracer passes."""
    if isinstance(value, int | float) and not value >= least:
        raise InputError(f"{name}={value} must be at least {least}")


def positive(name: str, value: float | Array) -> None:
    """Refuse a number that is not positive; a tracer passes."""
    if isinstance(value, int | float) and not value > 0:
        raise InputError(f"{name}={value} must be positive")


def kept(batch: Batch) -> Array:
    """Return which samples count, `bool[B]`."""
    return jnp.ones(batch.labels.shape, bool) if batch.mask is None else batch.mask
