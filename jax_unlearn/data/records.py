"""Samples of a random-access source: read when they are indexed, never all at once.

Shapes: N records.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.sources import Examples
from jax_unlearn.data.splits import check_labels
from jax_unlearn.errors import InputError
from jax_unlearn.types import PyTree


class Source(Protocol):
    """Records by their position: `tfds.data_source`, a list, or your own class.

    Read by several threads at once. Where there is a method `__getitems__(list)`, it
    is called for all the records of a batch together.
    """

    def __len__(self) -> int:
        """Return N."""
        ...

    def __getitem__(self, position: int, /) -> Any:
        """Return a record."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class LazyInputs:
    """The inputs of a source: an array of which only the rows asked for are read.

    Attributes:
      source: the records.
      decode: the inputs of one record: an array, or a pytree of them.
    """

    source: Source
    decode: Callable[[Any], PyTree]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, ...)`, of the first leaf; reads the first record."""
        return (len(self), *jax.tree.leaves(self[0])[0].shape)

    def __getitem__(self, rows: ArrayLike | slice) -> PyTree:
        """Read the records of some rows; arrays `[*rows.shape, ...]`."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        array = np.asarray(rows)
        if array.dtype.kind not in "iu" or array.size == 0:
            raise IndexError(f"rows={rows} must be at least one whole number")
        if array.min() < 0 or array.max() >= len(self):
            raise IndexError(f"rows={rows} must be 0 to {len(self) - 1}")
        wanted = array.ravel().tolist()
        many = getattr(self.source, "__getitems__", None)
        records = many(wanted) if many else [self.source[row] for row in wanted]
        inputs = [
            _numbers(row, self.decode(record))
            for row, record in zip(wanted, records, strict=True)
        ]
        _check_alike(wanted, inputs)
        return jax.tree.map(
            lambda *leaves: np.stack(leaves).reshape(array.shape + leaves[0].shape),
            *inputs,
        )

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        raise InputError(
            f"the {len(self)} streamed records are not to be held in memory at once; "
            "index the rows that are needed: inputs[ids]"
        )


def from_source(
    source: Source,
    labels: ArrayLike,
    *,
    decode: Callable[[Any], PyTree] | None = None,
) -> Examples:
    """Return the records of a source as samples whose inputs stay where they are.

    For the schedules, for `take` and for `ju.run.predict`: they read what they index.
    The id of a sample is its position in the source.

    Args:
      source: random access to N records; `tfds.data_source(name, split="train")`.
      labels: classes `[N]`, of `read_labels`.
      decode: the inputs of one record, `record["image"]` by default. All records must
        give one shape: resize in it, if need be. Called in the reading threads.

    Returns:
      Examples; the labels are in memory, the inputs are not.

    Raises:
      InputError: a source without length or positions, or labels that are not one a
        record; when a batch is read, records without `image`, of unequal shapes, or
        of no numbers.

    Source: our choice.

    >>> records = [{"image": np.full((2, 2, 1), n, np.uint8)} for n in range(9)]
    >>> examples = from_source(records, labels=np.arange(9) % 3)
    >>> examples.inputs[[7, 2]].max(axis=(1, 2, 3))
    array([7, 2], dtype=uint8)
    """
    count = check_source(source)
    classes, _ = check_labels(labels, None)
    if len(classes) != count:
        raise InputError(
            f"{len(classes)} labels for a source of {count} records; take those of "
            "read_labels(source)"
        )
    inputs: Any = LazyInputs(source, _image if decode is None else decode)
    return Examples(inputs, classes.astype(np.int32))


def check_source(source: Any) -> int:
    """Return the number of records."""
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise InputError(
            f"source of type {type(source).__name__} has no length or no positions; "
            "give one with __len__ and __getitem__, such as tfds.data_source(…)"
        )
    if len(source) == 0:
        raise InputError("source holds no records; check its split")
    return len(source)


def field(record: Any, key: str) -> Any:
    """Return a value of a record that is a dict."""
    if not isinstance(record, Mapping) or key not in record:
        held = ", ".join(map(str, record)) if isinstance(record, Mapping) else record
        raise InputError(
            f"a record holds no {key!r} but {str(held)[:60]}; give decode=…, or the "
            "key of the labels"
        )
    return record[key]


def _image(record: Any) -> Any:
    return field(record, "image")


def _numbers(row: int, decoded: PyTree) -> PyTree:
    """Return decoded inputs as arrays of the types that JAX has."""

    def narrow(leaf: Any) -> NDArray[Any]:
        array = np.asarray(leaf)
        if array.dtype != bool and not jnp.issubdtype(array.dtype, np.number):
            raise InputError(
                f"record {row} decodes to {str(leaf)[:40]!r} of type {array.dtype}; "
                "decode must return arrays of numbers"
            )
        return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)

    arrays = jax.tree.map(narrow, decoded)
    if not jax.tree.leaves(arrays):
        raise InputError(f"record {row} decodes to {decoded!r}; return an array")
    return arrays


def _check_alike(rows: Sequence[int], inputs: Sequence[PyTree]) -> None:
    """Refuse inputs that make no batch, naming two records."""
    forms = [
        (
            jax.tree.structure(one),
            [(a.shape, str(a.dtype)) for a in jax.tree.leaves(one)],
        )
        for one in inputs
    ]
    for row, form in zip(rows, forms, strict=True):
        if form != forms[0]:
            raise InputError(
                f"record {row} decodes to {form[1]}, record {rows[0]} to "
                f"{forms[0][1]}; decode must give all one shape and type"
            )
