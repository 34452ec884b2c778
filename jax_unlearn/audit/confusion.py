"""Interclass confusion: do traces of samples with exchanged labels remain?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.errors import InputError


def interclass_confusion(outputs: Any, labels: Any, pair: Sequence[int]) -> float:
    """Share of the samples of two classes that are taken for the other one of the two.

    100 · (C_ab + C_ba) / (N_a + N_b), C_kl the number of samples of class k predicted
    as l. The test: exchange the labels of some training samples of two classes
    (`data.confuse_classes`), train on them, forget these very samples. On unseen
    samples it tells whether the model still confuses the classes, on the forget set
    (with its TRUE labels) whether it still remembers the wrong ones.

    Args:
      outputs: probabilities or logits `[N, K]`; of equal largest ones the first counts.
      labels: true classes `[N]`, before any exchange; samples of other classes are
        passed over.
      pair: the two classes (a, b).

    Returns:
      A percentage, 0..100. Target: Retrain's value, not 0.

    Raises:
      InputError: outputs with NaN, labels that do not fit, a pair that is not two
        different classes, no sample of them.

    Source: Goel et al., arXiv 2201.06640, who give the number C_ab + C_ba.

    >>> outputs = [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.1, 0.2, 0.7], [0.6, 0.4, 0.0]]
    >>> interclass_confusion(outputs, [0, 0, 1, 1], (0, 1))
    50.0
    """
    array = _checks.scores("outputs", outputs)
    y = _checks.class_labels("labels", labels, *array.shape)
    classes = np.asarray(pair)
    if classes.shape != (2,) or classes.dtype.kind not in "iu":
        raise InputError(f"pair={pair} must be two class numbers; give (3, 5)")
    classes = _checks.class_labels("pair", classes, 2, array.shape[1])
    first, second = classes.tolist()
    if first == second:
        raise InputError(f"pair={pair} names one class twice; give two classes")
    ours = np.isin(y, classes)
    if not ours.any():
        raise InputError(
            f"pair={pair} has no sample among the {len(y)} labels; give samples of "
            "these classes"
        )
    predicted = array[ours].argmax(axis=1)
    return float(100 * np.mean(predicted == first + second - y[ours]))
