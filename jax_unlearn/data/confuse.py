"""Labels exchanged between two classes: the poisoned set of interclass confusion."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.data.ids import check_ids
from jax_unlearn.data.splits import check_labels
from jax_unlearn.errors import InputError


def confuse_classes(
    labels: ArrayLike, ids: ArrayLike | Iterable[int], pair: Sequence[int]
) -> NDArray[Any]:
    """Return labels in which the samples named belong to the other class of the pair.

    Of class a become b, of class b become a; all others stay. Train on the result,
    then forget the ids: `audit.interclass_confusion` says what is left. Ids can be
    drawn with `forget_split(labels, kind="class", classes=pair, fraction=0.5).forget`.

    Args:
      labels: classes of the training samples, integers `[N]`; not changed.
      ids: positions in `labels`, `[F]`, of samples of the two classes.
      pair: the two classes (a, b).

    Returns:
      A copy of the labels, of the same type. Applied twice, it gives the labels back.

    Raises:
      InputError: a pair that is not two different classes with samples; ids that are
        no forget set (`check_ids`) or of another class.

    Source: Goel et al., arXiv 2201.06640.

    >>> confuse_classes([0, 0, 1, 1, 2], [0, 3], pair=(0, 1))
    array([1, 0, 1, 0, 2])
    """
    classes, _ = check_labels(labels, None)
    chosen = np.asarray(pair)
    if chosen.shape != (2,) or chosen.dtype.kind not in "iu":
        raise InputError(f"pair={pair} must be two class numbers; give (3, 5)")
    first, second = chosen.tolist()
    if first == second:
        raise InputError(f"pair={pair} names one class twice; give two classes")
    for value in (first, second):
        if value not in classes:
            raise InputError(
                f"pair={pair}: class {value} has no samples; choose among "
                f"{np.unique(classes).tolist()}"
            )
    forget = check_ids(ids, num_samples=len(classes))
    other = forget[~np.isin(classes[forget], chosen)]
    if other.size:
        raise InputError(
            f"ids holds {other[0]}, of class {classes[other[0]]} ({other.size} of "
            f"{forget.size} are of other classes); name samples of classes {first} and "
            f"{second} only"
        )
    result = np.array(labels)
    result[forget] = first + second - classes[forget]
    return result
