"""Outputs of many models on the parts of one request: what a whole audit reads.

Shapes: N models, n samples of a part, K classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.audit import _checks
from jax_unlearn.audit.features import margins, margins_from_probs
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.types import Model, PyTree

__all__ = ["Evidence", "ModelOutputs", "PartInputs", "PartLabels", "model_outputs"]


class Parts(NamedTuple):
    """Something of each part of a request.

    Attributes:
      forget, retain, test: of the forget, the retain and the test samples.
      unseen: of samples held out of all training, like the forget samples; or None.
    """

    forget: Any
    retain: Any
    test: Any
    unseen: Any = None


PARTS = Parts._fields


class ModelOutputs(Parts):
    """Outputs of N models of one kind, `[N, n, K]`; `[n, K]` for a single model."""


class PartInputs(Parts):
    """Inputs of the parts of a request, pytrees of arrays `[n, ...]`."""


class PartLabels(Parts):
    """True classes of the parts, `[n]` each, the same for all models."""


class Evidence(NamedTuple):
    """Checked outputs of N models.

    Attributes:
      probs: by part, `f64[N, n, K]`.
      confidence: probability of the true class by part, `f64[N, n]`.
      margins: log-odds of the true class of the forget samples, `f64[N, F]`.
      labels: by part, `i64[n]`.
      levels: what each model has, by key of the figure, `f64[N]`.
    """

    probs: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    margins: np.ndarray
    labels: dict[str, np.ndarray]
    levels: dict[str, np.ndarray]

    @property
    def models(self) -> int:
        """Number of models N."""
        return len(self.margins)

    @property
    def tested(self) -> np.ndarray:
        """Test samples of classes that are not forgotten as a whole, `bool[n]`."""
        gone = np.setdiff1d(self.labels["forget"], self.labels["retain"])
        return ~np.isin(self.labels["test"], gone)


def evidence(
    name: str, outputs: ModelOutputs, labels: PartLabels, *, kind: str = "logits"
) -> Evidence:
    """Check the outputs of models and derive what the metrics read.

    Args:
      name: what messages call the models.
      outputs: of the models.
      labels: true classes.
      kind: "logits" or "probabilities".

    Raises:
      InputError: unknown kind, outputs with NaN, other numbers of samples, models or
        classes than elsewhere; an unseen part without labels.

    >>> logits = np.zeros((2, 1, 3))
    >>> found = evidence(
    ...     "ours", ModelOutputs(logits, logits, logits), PartLabels([0], [1], [2])
    ... )
    >>> found.models, found.confidence["forget"].round(2).tolist()
    (2, [[0.33], [0.33]])
    """
    if kind not in ("logits", "probabilities"):
        raise InputError(f"kind={kind!r}: choose 'logits' or 'probabilities'")
    from scipy import special

    logits = kind == "logits"
    probs, confidence, truth, sizes = {}, {}, {}, set()
    odds = np.empty((0, 0))
    for part in PARTS:
        given, wanted = getattr(outputs, part), getattr(labels, part)
        if given is None:
            continue
        at = f"{name}.{part}"
        array = _checks.real(at, given)
        if array.ndim not in (2, 3):
            raise InputError(
                f"{at}.shape={array.shape} must be [models, samples, classes] or "
                "[samples, classes]"
            )
        array = array[None] if array.ndim == 2 else array  # a single model
        array = (_checks.scores if logits else _checks.probabilities)(at, array, 3)
        count, samples, classes = array.shape
        sizes.add((count, classes))
        if wanted is None:
            raise InputError(f"labels.{part}=None but {at} is given; give its labels")
        y = _checks.class_labels(f"labels.{part}", wanted, samples, classes)
        probs[part] = special.softmax(array, axis=2) if logits else array
        confidence[part] = probs[part][:, np.arange(samples), y]
        truth[part] = y
        if part == "forget":
            odds = (margins if logits else margins_from_probs)(array, y)
    if len(sizes) > 1:
        raise InputError(
            f"{name} has parts of {sorted(sizes)} models and classes; give the same "
            "models on all parts"
        )
    return Evidence(probs, confidence, odds, truth, {})


def select(given: Evidence, models: np.ndarray) -> Evidence:
    """Return the evidence of the models of these numbers."""
    return given._replace(
        probs={part: p[models] for part, p in given.probs.items()},
        confidence={part: c[models] for part, c in given.confidence.items()},
        margins=given.margins[models],
        levels={key: values[models] for key, values in given.levels.items()},
    )


def model_outputs(
    model: Model,
    states: Sequence[Any],
    inputs: PartInputs,
    *,
    batch_size: int = 512,
) -> ModelOutputs:
    """Return outputs `[N, n, K]` of N models on the parts of a request, in eval mode.

    Args:
      model: the network, the same for all.
      states: of the N models, or whatever has their `params` and `model_state`;
        `ju.unstack(states)` of an ensemble.
      inputs: of the parts.
      batch_size: samples a pass.

    Raises:
      InputError: no model.

    >>> import jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> x = jnp.array([[1.0, 0.0]])
    >>> state = ju.UnlearnState(jnp.float32(2), (), (), (), (), jnp.int32(0))
    >>> model_outputs(model, [state], PartInputs(x, x, x)).test.tolist()
    [[[2.0, 0.0]]]
    """
    if not states:
        raise InputError("states=[]: give one model or more")

    def on(part: PyTree) -> Any:
        if part is None:
            return None
        return np.stack(
            [
                predict(model, one.params, one.model_state, part, batch_size=batch_size)
                for one in states
            ]
        )

    return ModelOutputs(*(on(part) for part in inputs))
