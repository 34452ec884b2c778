"""Networks described by a checkpoint's record, checked before one is built."""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from jax_unlearn.errors import InputError

Description = TypeVar("Description")


def described(
    kind: type[Description],
    record: Any,
    name: str,
    good: Mapping[str, Callable[[Any], bool]],
) -> Description:
    """Return a description made of what JSON holds.

    Args:
      kind: a dataclass.
      record: its fields; lists become tuples.
      name: what messages call it.
      good: of each field, whether a value is one that a network can be built of.

    Raises:
      InputError: no object, a field that is missing, unknown, or not good.

    >>> @dataclasses.dataclass
    ... class Net:
    ...     width: int
    >>> described(Net, {"width": -1}, "network", {"width": lambda w: w > 0})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: network.width=-1 in the checkpoint's record cannot \
be used; train it anew with this version
    """
    if not isinstance(record, dict):
        raise _flaw(f"{name}={_short(record)}")
    needed = {
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.default is dataclasses.MISSING
    }
    if lost := sorted(needed - set(record)):
        raise _flaw(f"{name} without {lost[0]!r}")
    if more := sorted(set(record) - set(good)):
        raise _flaw(f"{name} with {_short(more[0])}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    for field, value in values.items():
        if not good[field](value):
            raise _flaw(f"{name}.{field}={_short(value)}")
    return kind(**values)


class Head(NamedTuple):
    """What a checkpoint's record says of the model and its data.

    Attributes:
      network: description.
      ids, unseen: numbers of samples trained on, and held out.
      train: training samples of the data set.
    """

    network: Any
    ids: int
    unseen: int
    train: int


def head_of(
    path: str | os.PathLike, record: dict[str, Any], kind: Any, name: str, command: str
) -> Head:
    """Return what has to be known before the arrays of a checkpoint are read.

    Args:
      path: of the checkpoint, for messages.
      record: of the checkpoint.
      kind: class with `from_record`.
      name: of the description in the record.
      command: which writes such checkpoints.

    Raises:
      InputError: a checkpoint of something else, or a record that cannot be used.
    """
    if name not in record:
        raise InputError(
            f"checkpoint {path} holds no model of `{command}` (no {name!r} in its "
            "record); give another checkpoint"
        )
    try:
        network = kind.from_record(record[name])
        data = record.get("dataset")
        train = data.get("train") if isinstance(data, dict) else None
        sizes = {
            "num_ids": record.get("num_ids"),
            "num_unseen": record.get("num_unseen"),
            "dataset.train": train,
        }
        for key, size in sizes.items():
            if type(size) is not int or not 0 <= size < 2**31:
                raise _flaw(f"{key}={_short(size)}")
    except InputError as error:
        raise InputError(f"checkpoint {path}: {error}") from error
    return Head(network, *sizes.values())


def are(values: Any, good: Callable[[Any], bool]) -> bool:
    """Return whether all of a non-empty tuple are good.

    >>> are((1, 2), is_finite), are((), is_finite), are("12", is_finite)
    (True, False, False)
    """
    return isinstance(values, tuple) and bool(values) and all(map(good, values))


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number, and no bool.

    >>> is_finite(0.5), is_finite(float("nan")), is_finite(True), is_finite("1")
    (True, False, False, False)
    """
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _flaw(what: str) -> InputError:
    return InputError(
        f"{what} in the checkpoint's record cannot be used; train it anew with this "
        "version"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
