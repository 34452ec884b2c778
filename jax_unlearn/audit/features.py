"""What a membership attack looks at: one number a sample, from its probabilities.

Shapes: N samples, K classes. numpy float64 on the host; every row stands alone, so a
value never depends on the batch it is computed in. Logarithms are natural.
"""

from typing import Any

import numpy as np

from jax_unlearn.audit import _checks

FLOOR = 1e-30
"""Least argument of a logarithm (our choice): -log 0 counts as 69.08."""


def true_class_confidence(probs: Any, labels: Any) -> np.ndarray:
    """Probability of the true class, p_y.

    Args:
      probs: softmax probabilities `[N, K]`.
      labels: true classes `[N]`.

    Returns:
      `[N]` in [0, 1].

    Raises:
      InputError: rows that are no probabilities, labels that do not fit them.

    >>> true_class_confidence([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [0, 2]).tolist()
    [0.7, 0.1]
    """
    p, y = _probs_labels(probs, labels)
    return p[np.arange(len(p)), y]


def true_class_loss(probs: Any, labels: Any) -> np.ndarray:
    """Cross-entropy with the true class, -log p_y.

    Losses computed from logits are finer where p_y underflows: here p_y below 1e-30
    counts as 1e-30.

    Args:
      probs: softmax probabilities `[N, K]`.
      labels: true classes `[N]`.

    Returns:
      `[N]` in [0, 69.08].

    Raises:
      InputError: rows that are no probabilities, labels that do not fit them.

    >>> true_class_loss([[0.5, 0.5], [1.0, 0.0]], [0, 0]).round(4).tolist()
    [0.6931, 0.0]
    """
    return -_log(true_class_confidence(probs, labels)) + 0.0


def entropy(probs: Any) -> np.ndarray:
    """Entropy of the output, -sum_k p_k log p_k, with 0 log 0 = 0.

    Args:
      probs: softmax probabilities `[N, K]`.

    Returns:
      `[N]` in [0, log K].

    Raises:
      InputError: rows that are no probabilities.

    >>> entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
    [0.6931, 0.0]
    """
    p = _checks.probabilities("probs", probs)
    return -np.sum(p * _log(p), axis=1) + 0.0


def modified_entropy(probs: Any, labels: Any) -> np.ndarray:
    """Entropy that knows the true class: low if right and sure, high if wrong and sure.

    -(1 - p_y) log p_y - sum_{k != y} p_k log(1 - p_k)

    Each row uses its own label only. Source: Song and Mittal, "Systematic evaluation
    of privacy risks of machine learning models", 2021.

    Args:
      probs: softmax probabilities `[N, K]`.
      labels: true classes `[N]`.

    Returns:
      `[N]`, at least 0; logarithms of less than 1e-30 count as log 1e-30, so that a
      row sure of a wrong class gives 138.16.

    Raises:
      InputError: rows that are no probabilities, labels that do not fit them.

    >>> modified_entropy([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [0, 1]).round(3).tolist()
    [0.162, 0.066]
    """
    p, y = _probs_labels(probs, labels)
    rows = np.arange(len(p))
    terms = p * _log(1 - p)
    own = p[rows, y]
    terms[rows, y] = (1 - own) * _log(own)
    return -np.sum(terms, axis=1) + 0.0


def _probs_labels(probs: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    p = _checks.probabilities("probs", probs)
    return p, _checks.class_labels("labels", labels, *p.shape)


def _log(x: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(x, FLOOR))
