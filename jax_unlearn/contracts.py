"""What batches and forward passes must be: forms while tracing, values on the host.

A compiled step sees shapes and types, never values. So every step of a method refuses a
batch or a forward pass of the wrong form, `ju.run` names the labels of a step that is
not finite, and `check_batch` looks at values before a loop of one's own.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Batch, ModelState, Params, PyTree, UnlearnBatch

__all__ = ["check_batch", "check_classes", "check_form", "counted", "forward_pass"]
__all__ += ["check_known", "known_labels", "known_reference", "reference_classes"]
__all__ += ["usable"]

AnyBatch = TypeVar("AnyBatch", Batch, UnlearnBatch)
_known = contextvars.ContextVar[tuple[tuple[np.ndarray, np.ndarray], ...]](
    "known", default=()
)
_reference = contextvars.ContextVar[np.ndarray | None]("reference", default=None)


def check_batch(batch: AnyBatch, *, num_classes: int | None = None) -> AnyBatch:
    """Return a batch whose form and values can be used, or say what is wrong.

    On the host, before a compiled step, which cannot look at values: counted samples
    must have finite inputs, ids of 0 or more, and labels, where these are integers, of
    0 to `num_classes` - 1 (K; None leaves it open). Padding may hold anything.

    Raises:
      InputError: names the first wrong value, and what to do.

    >>> check_batch(Batch(np.zeros((2, 1)), np.array([0, 3])), num_classes=3)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: labels[1]=3 must be a class of 0 to 2; number the \
    classes from 0, or leave the sample out
    """
    check_form(batch)
    if isinstance(batch, UnlearnBatch):
        for part in filter(None, batch):
            check_batch(part, num_classes=num_classes)
        return batch
    labels, index = np.asarray(batch.labels), batch.index
    # of `counted` the ones would be traced where a program closes over its labels
    mask = batch.mask
    counts = np.ones(len(labels), np.bool_) if mask is None else np.asarray(mask)
    if labels.dtype.kind in "iu":
        wrong = (labels < 0) | (labels >= (num_classes or np.inf))
        classes = f"0 to {num_classes - 1}" if num_classes else "0 or more"
        remedy = "number the classes from 0, or leave the sample out"
        rule = f"must be a class of {classes}; {remedy}"
        _refuse("labels", labels, wrong, counts, rule)
    for leaf in jax.tree.leaves(batch.inputs):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            values = np.asarray(leaf)
            remedy = "is not finite; mend the sample, or mask it out"
            _refuse("inputs", values, ~np.isfinite(values), counts, remedy)
    if index is not None:
        ids = np.asarray(index)
        _refuse("index", ids, ids < 0, counts, "must be an id of 0 or more")
    return batch


def check_classes(labels: Any, num_classes: int) -> None:
    """Refuse labels that are no class of the model; traced ones have no values.

    >>> check_classes(jnp.array([0, -1]), 3)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: labels[1]=-1 must be a class of 0 to 2; number the \
    classes from 0, or leave the sample out
    """
    if not isinstance(labels, Tracer):
        check_batch(Batch((), labels), num_classes=num_classes)


@contextlib.contextmanager
def known_labels(batches: UnlearnBatch) -> Iterator[None]:
    """Let what is traced inside look at the labels of all steps that have values."""
    known = []
    for part in filter(None, batches):
        found = _values(part)
        if found is not None and jnp.issubdtype(found[0].dtype, jnp.integer):
            known.append(found)
    token = _known.set(tuple(known))
    try:
        yield
    finally:
        _known.reset(token)


@contextlib.contextmanager
def known_reference(batch: UnlearnBatch) -> Iterator[None]:
    """Let what is traced inside look at the classes of the unseen samples."""
    found = None if batch.reference is None else _values(batch.reference)
    token = _reference.set(None if found is None else np.unique(found[0][found[1]]))
    try:
        yield
    finally:
        _reference.reset(token)


def reference_classes() -> np.ndarray | None:
    """Return the classes of the unseen samples of what is traced, if known."""
    return _reference.get()


def _values(part: Batch) -> tuple[np.ndarray, np.ndarray] | None:
    """Return labels and mask on the host, unless they are traced or elsewhere."""
    labels = part.labels
    mask = np.ones(labels.shape, np.bool_) if part.mask is None else part.mask
    traced = any(
        isinstance(x, Tracer) or not getattr(x, "is_fully_addressable", True)
        for x in (labels, mask)
    )
    return None if traced else (np.asarray(labels), np.asarray(mask))


def check_known(num_classes: int) -> None:
    """Refuse labels that are no class of the model being traced, see `known_labels`."""
    for labels, counts in _known.get():
        wrong = (labels < 0) | (labels >= num_classes)
        remedy = "number the classes from 0, or leave the sample out"
        rule = f"must be a class of 0 to {num_classes - 1}; {remedy}"
        _refuse("labels", labels, wrong, counts, rule)


def check_form(batch: Any) -> None:
    """Refuse a batch of the wrong shapes or types, whether traced or not.

    >>> check_form(Batch(np.zeros((2, 1)), np.array(["cat", "dog"])))
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: labels of type <U3 are no numbers: number the \
    classes, np.unique(labels, return_inverse=True)[1]
    """
    if isinstance(batch, UnlearnBatch):
        for part in filter(None, batch):
            check_form(part)
        return
    if not isinstance(batch, Batch):
        kind = type(batch).__name__
        raise InputError(f"a step got a {kind}: give ju.UnlearnBatch(forget, retain)")
    size = _array("labels", batch.labels)[:1]
    if not size or not size[0]:
        raise InputError(
            f"labels of shape {size}: a batch needs 1 sample or more; leave a part out "
            "by None"
        )
    for leaf in jax.tree.leaves(batch.inputs):
        if _array("inputs", leaf)[:1] != size:
            raise InputError(
                f"inputs of shape {leaf.shape} for {size[0]} labels: give both one row "
                "a sample"
            )
    for name, kind, words in (
        ("index", jnp.integer, "one integer"),
        ("mask", jnp.bool_, "one bool"),
    ):
        value = getattr(batch, name)
        if value is None:
            continue
        if _array(name, value) != size or not jnp.issubdtype(value.dtype, kind):
            raise InputError(
                f"{name} of shape {value.shape} and type {value.dtype} for {size[0]} "
                f"samples: give {words} a sample, shape {size}, or None"
            )


def usable(batch: AnyBatch) -> AnyBatch:
    """Return a batch of the right form; what is not finite in its padding becomes 0.

    Else NaN in a row that does not count would reach the gradient as 0·NaN. Finite
    padding stays: BatchNorm sees it, wherefore schedules pad by real samples.

    >>> batch = Batch(jnp.array([1.0, jnp.nan]), jnp.zeros(2, int))
    >>> print(usable(batch._replace(mask=jnp.array([True, False]))).inputs)
    [1. 0.]
    """
    check_form(batch)
    if isinstance(batch, UnlearnBatch):
        return UnlearnBatch(*(part and usable(part) for part in batch))
    if batch.mask is None:
        return batch

    def settled(leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        mask = jnp.expand_dims(jnp.asarray(batch.mask), range(1, leaf.ndim))
        return jnp.where(mask | jnp.isfinite(leaf), leaf, jnp.zeros((), leaf.dtype))

    return batch._replace(inputs=jax.tree.map(settled, batch.inputs))


def counted(batch: Batch) -> Array:
    """Return which samples of a batch count, `bool[B]`: all without a mask.

    >>> counted(Batch(jnp.zeros(2), jnp.array([0, 1]))).tolist()
    [True, True]
    """
    return jnp.ones(len(batch.labels), bool) if batch.mask is None else batch.mask


def forward_pass(
    apply: Callable[..., Any],
    params: Params,
    model_state: ModelState,
    inputs: PyTree,
    **mode: Any,
) -> tuple[PyTree, ModelState]:
    """Return (outputs, the next model state) of a `Model.apply` that keeps its word.

    In eval mode, `train=False`, the state is the one given.

    >>> forward_pass(lambda *_, train: jnp.ones((2, 3)), {}, {}, None, train=True)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: apply returned a ArrayImpl: return (outputs, \
    model_state); for a network without state see ju.from_stateless
    """
    result = apply(params, model_state, inputs, **mode)
    if not isinstance(result, tuple | list) or len(result) != 2:
        kind = type(result).__name__
        size = f" of {len(result)}" if isinstance(result, tuple | list) else ""
        raise InputError(
            f"apply returned a {kind}{size}: return (outputs, model_state); for a "
            "network without state see ju.from_stateless"
        )
    outputs, new = result
    if not mode.get("train"):
        return outputs, model_state
    leaves, (old, structure) = jax.tree.leaves(new), jax.tree.flatten(model_state)
    if list(map(jnp.shape, leaves)) != list(map(jnp.shape, old)):
        raise InputError(
            f"apply returned a model state of {len(leaves)} arrays, or of other "
            f"shapes, for one of {len(old)}: return (outputs, model_state), the state "
            "of the form it was given"
        )
    return outputs, structure.unflatten(leaves)


def _array(name: str, value: Any) -> tuple[int, ...]:
    """Return the shape of an array of numbers."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is None or dtype is None:
        kind = type(value).__name__
        raise InputError(f"{name} of type {kind}: give an array, np.asarray({name})")
    if getattr(dtype, "kind", "") in "USOMm":
        remedy = "convert them"
        if name == "labels":
            remedy = "number the classes, np.unique(labels, return_inverse=True)[1]"
        raise InputError(f"{name} of type {dtype} are no numbers: {remedy}")
    return tuple(shape)


def _refuse(
    name: str, values: np.ndarray, wrong: np.ndarray, counts: np.ndarray, rule: str
) -> None:
    """Refuse the first wrong value of a sample that counts."""
    wrong &= counts.reshape(*counts.shape, *[1] * (values.ndim - counts.ndim))
    if wrong.any():
        place = tuple(map(int, np.argwhere(wrong)[0]))
        where = ", ".join(map(str, place))
        raise InputError(f"{name}[{where}]={values[place]} {rule}")
