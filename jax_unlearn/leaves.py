"""Which leaves of the parameters methods move, and what is carried but never touched.

Floating leaves are moved. Integers, booleans and random keys among the parameters stay
as they are, and complex leaves are refused: this module is where both are decided.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn.errors import InputError

__all__ = ["Frozen", "alike", "apart", "divided", "joined", "name_of", "put_back"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frozen:
    """Arrays of a model state that nothing changes: drivers neither copy nor donate."""

    tree: Any


def divided(params: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the leaves that methods move, None for others, and the way back.

    The second result puts a part of this structure together with the other leaves.

    Raises:
      InputError: a complex leaf.

    >>> part, whole = divided({"w": jnp.float32(2), "steps": jnp.int32(7)})
    >>> part["steps"], whole(jax.tree.map(jnp.zeros_like, part))["steps"].item()
    (None, 7)
    """

    def moves(path, leaf) -> bool:
        dtype = jnp.result_type(leaf) if not hasattr(leaf, "dtype") else leaf.dtype
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise InputError(
                f"parameter {name_of(path)!r} is of type {dtype}: methods move real "
                "numbers; keep its real and imaginary part as two leaves, or leave it "
                "out by trainable="
            )
        return bool(jnp.issubdtype(dtype, jnp.floating))

    mask = jax.tree_util.tree_map_with_path(moves, params)
    part = jax.tree.map(lambda leaf, moves: leaf if moves else None, params, mask)
    rest = jax.tree.map(lambda leaf, moves: None if moves else leaf, params, mask)
    return part, lambda moved: joined(moved, rest)


def joined(tree: Any, other: Any) -> Any:
    """Fill the leaves that are None with those of another tree of this structure."""
    return jax.tree.map(lambda a, b: b if a is None else a, tree, other, is_leaf=_none)


def alike(tree: Any, part: Any) -> Any:
    """Drop the leaves of a tree like the parameters that the moved part lacks."""
    leaves, structure = jax.tree.flatten(part, is_leaf=_none)
    try:
        own = structure.flatten_up_to(tree)
    except (TypeError, ValueError):  # of another structure, as the checks will say
        return tree
    pairs = zip(own, leaves, strict=True)
    return structure.unflatten(None if leaf is None else mine for mine, leaf in pairs)


def apart(tree: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a state without the contents of its `Frozen` nodes, and these contents."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=_frozen)
    contents = tuple(leaf.tree for leaf in leaves if _frozen(leaf))
    if not contents:
        return tree, ()
    rest = [Frozen(None) if _frozen(leaf) else leaf for leaf in leaves]
    return structure.unflatten(rest), contents


def put_back(rest: Any, contents: tuple[Any, ...]) -> Any:
    """Undo `apart`."""
    if not contents:
        return rest
    leaves, structure = jax.tree.flatten(rest, is_leaf=_frozen)
    left = iter(contents)
    return structure.unflatten(
        Frozen(next(left)) if _frozen(leaf) else leaf for leaf in leaves
    )


def name_of(path: tuple[Any, ...]) -> str:
    """Return the path of a leaf as text: keys and attributes joined by slashes.

    >>> [(path, _)] = jax.tree_util.tree_leaves_with_path({"head": {"bias": 0}})
    >>> name_of(path)
    'head/bias'
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _none(leaf: Any) -> bool:
    return leaf is None


def _frozen(leaf: Any) -> bool:
    return isinstance(leaf, Frozen)
