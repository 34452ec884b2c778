"""Pytrees of one form joined along a new first axis, and parted again; copies; keys.

Shapes: N pytrees, each leaf of what joins them `[N, ...]`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.types import PyTree
from jax_unlearn.types import copied as copied

__all__ = ["copied", "form", "is_key", "models_in", "on_words", "stack", "unstack"]


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Join pytrees of one form, leaf by leaf along a new first axis.

    Arrays (random keys too) have equal shapes and types; the leaves of the result are
    `[N, ...]`, on the host where all were.

    Raises:
      InputError: none given, or one of another form.

    >>> stack([{"w": jnp.zeros(3)}, {"w": jnp.ones(3)}])["w"].shape
    (2, 3)
    """
    if not trees:
        raise InputError("trees=[]: give one or more to join")
    first = form(trees[0])
    for i, tree in enumerate(trees):
        if form(tree) != first:
            raise InputError(
                f"tree {i} differs from tree 0 in structure, shapes or types; models "
                "and batches of an ensemble must be alike"
            )

    def join(*leaves):
        host = all(isinstance(leaf, np.ndarray) for leaf in leaves)
        return np.stack(leaves) if host else jnp.stack(leaves)

    return jax.tree.map(join, *trees)


def unstack(tree: PyTree) -> list[PyTree]:
    """Part what `stack` joined into N pytrees.

    Raises:
      InputError: as `models_in`.

    >>> [part["w"].tolist() for part in unstack({"w": jnp.eye(2)})]
    [[1.0, 0.0], [0.0, 1.0]]
    """
    return [
        jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(models_in(tree))
    ]


def models_in(tree: PyTree) -> int:
    """Return N, how many `stack` joined.

    Raises:
      InputError: leaves that disagree on N, or no leaves.
    """
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
    if len(sizes) != 1 or sizes == {()}:
        raise InputError(
            f"leading axes {sorted(sizes)} must be one, the number of models; join "
            "the models by stack"
        )
    return sizes.pop()[0]


def is_key(leaf: Any) -> bool:
    """Return whether a leaf is an array of random keys."""
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def on_words(function: Callable[[Any], Any], leaf: Any) -> Any:
    """Apply a function to an array, or to the integers of random keys."""
    if not is_key(leaf):
        return function(leaf)
    words = function(jax.random.key_data(leaf))
    return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))


def form(tree: PyTree) -> tuple[Any, list[tuple[tuple[int, ...], Any]]]:
    """Return structure, shapes and types of a tree, to be compared."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
