"""Outputs of many models on the parts of one request, and the figures that read them.

Shapes: N models, n samples of a part, K classes.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from jax_unlearn._validate import choice, one_of
from jax_unlearn.audit import _checks
from jax_unlearn.audit.features import margins, margins_from_probs
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.types import Model, PyTree

__all__ = [
    "FEWEST",
    "Evidence",
    "FigureCard",
    "ModelOutputs",
    "PartInputs",
    "PartLabels",
]
__all__ += ["groups_of", "model_outputs"]

FEWEST = 3  # Retrains without which no verdict is made: two show one difference
READ_KINDS = ("level", "distance", "closeness")
TELLS = ("traces", "attack", "pair", "exposed", "answers", "others", "gaps", "")
PLAIN = ("label", "digits", "kind", "meaning", "group", "models", "source", "headline")
"""What a record keeps of a card, so that a page can be made without its functions."""


class Parts(NamedTuple):
    """Something of the forget, retain, test and unseen samples of a request."""

    forget: Any
    retain: Any
    test: Any
    unseen: Any = None  # held out of all training and like the forget samples


PARTS = Parts._fields


class ModelOutputs(Parts):
    """Outputs of N models of one kind, `[N, n, K]`; `[n, K]` for a single model."""


class PartInputs(Parts):
    """Inputs of the parts of a request, pytrees of arrays `[n, ...]`."""


class PartLabels(Parts):
    """True classes of the parts, `[n]` each, the same for all models."""


class Evidence(NamedTuple):
    """Checked outputs of N models, by part of the request.

    Attributes:
      probs: `f64[N, n, K]`.
      confidence: probability of the true class, `f64[N, n]`.
      odds: log-odds of the true class, `f64[N, n]`.
      labels: `i64[n]`.
      levels: what each model has, by key of the figure, `f64[N]`.
      before: evidence of the original that each model comes from, or, of a Retrain, of
        one that it stands in for; None where no originals were given.
    """

    probs: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    odds: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    levels: dict[str, np.ndarray]
    before: "Evidence | None" = None

    @property
    def margins(self) -> np.ndarray:
        """Log-odds of the true class of the forget samples, `f64[N, F]`."""
        return self.odds["forget"]

    @property
    def models(self) -> int:
        """Number of models N."""
        return len(self.margins)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples by part, and of the originals where there are any."""
        sizes = {part: len(labels) for part, labels in self.labels.items()}
        return sizes | ({} if self.before is None else {"original": self.models})

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Numbers of samples and classes by part."""
        return {part: probs.shape[1:] for part, probs in self.probs.items()}

    @property
    def tested(self) -> np.ndarray:
        """Test samples of classes that are not forgotten as a whole, `bool[n]`."""
        gone = np.setdiff1d(self.labels["forget"], self.labels["retain"])
        return ~np.isin(self.labels["test"], gone)


def evidence(
    name: str,
    outputs: "ModelOutputs | Evidence",
    labels: PartLabels,
    *,
    kind: str = "logits",
) -> Evidence:
    """Check the outputs of models, called `name`, and derive what the metrics read."""
    if isinstance(outputs, Evidence):
        return outputs
    choice("kind", kind, "logits", "probabilities")
    from scipy import special

    logits = kind == "logits"
    probs, confidence, odds, truth, sizes = {}, {}, {}, {}, set()
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
        exact = logits and part == "forget"  # the others may leave a class out
        odds[part] = margins(array, y) if exact else margins_from_probs(probs[part], y)
    if len(sizes) > 1:
        raise InputError(
            f"{name} has parts of {sorted(sizes)} models and classes; give the same "
            "models on all parts"
        )
    return Evidence(probs, confidence, odds, truth, {})


def select(given: Evidence, models: np.ndarray) -> Evidence:
    """Return the evidence of some of the models."""
    stacks = (given.probs, given.confidence, given.odds, given.levels)
    probs, confidence, odds, levels = (
        {name: values[models] for name, values in stack.items()} for stack in stacks
    )
    before = None if given.before is None else select(given.before, models)
    return Evidence(probs, confidence, odds, given.labels, levels, before)


def within(given: Evidence, rows: np.ndarray) -> Evidence:
    """Return the evidence of some of the forget samples."""

    def cut(parts: Mapping[str, np.ndarray], axis: int) -> dict[str, np.ndarray]:
        return {**parts, "forget": np.take(parts["forget"], rows, axis)}

    return given._replace(
        probs=cut(given.probs, 1),
        confidence=cut(given.confidence, 1),
        odds=cut(given.odds, 1),
        labels=cut(given.labels, 0),
        before=None if given.before is None else within(given.before, rows),
    )


def judged(given: Evidence, held: int, rows: np.ndarray) -> Evidence:
    """Return the models after those that divided, on some of the forget samples."""
    return within(select(given, np.arange(held, given.models)), rows)


@dataclasses.dataclass(frozen=True)
class FigureCard:
    """A figure of an audit, beside the function that computes it.

    A figure that each model has gives `alone`, one of two sets of models `against`.
    Cards with the same `against` share what it returns: it is called once for all.

    Attributes:
      key: its name in records.
      label: its name for readers, with the unit.
      meaning: how it is to be read, in a line.
      alone: `(models, seed) -> f64[N]`, of N models; such a figure is a level.
      against: `(models, others, seed) -> result`, of two sets of as many models.
      read: `result -> float`.
      digits: after the point.
      bounds: what it cannot leave, and so no interval of it either.
      counts: part whose samples a level counts, in percent; "" of any other figure.
      kind: "level", whose target is Retrain's value; "distance", of which more is
        farther from Retrain; "closeness", of which less is. The target of the last two
        is what two sets of Retrains have, which is neither 0 nor 1.
      group: what it is asked for by, together with others.
      tells: what a value outside the null's interval says in plain words: that an
        attack on many models finds "traces", or an "attack" on one model something, or
        one on a "pair", before and after; that retain samples are more or less
        "exposed"; that models give other "answers" on the forgotten samples, or on
        "others"; that the "gaps" of the accuracies are wide; "": no more than its
        label.
      models: Retrains it needs, half of them for the null, and half as many unlearned
        models; 1 where one model beside one Retrain will do.
      reads: what it must have beside forget, retain and test samples: "unseen" ones,
        the "original" that each model comes from; and parts that it needs `least` of.
      least: samples that each part in `reads` must have.
      headline: whether it is one of the few shown first.
      within: group of forget samples that it is of, "vulnerable" or "protected".
      levels: cards of the levels that it is made of; `against` finds them in
        `Evidence.levels`, whether they are asked for or not.
      detail: `(models, others, level) -> fields of Detail`, what a report draws.
      source: where it is published.

    >>> def sure(models, seed):
    ...     return 100 * (models.confidence["forget"] > 0.9).mean(axis=1)
    >>> words = "sure", "sure %", "forget samples with a confidence over 0.9"
    >>> FigureCard(*words, alone=sure, kind="level", group="own").each
    True
    """

    key: str
    label: str
    meaning: str
    _: dataclasses.KW_ONLY
    alone: Callable[[Evidence, int], Any] | None = None
    against: Callable[[Evidence, Evidence, int], Any] | None = None
    read: Callable[[Any], float] = float
    digits: int = 3
    bounds: tuple[float, float] = (-math.inf, math.inf)
    counts: str = ""
    kind: str = "distance"
    group: str
    tells: str = ""
    models: int = 1
    reads: tuple[str, ...] = ()
    least: int = 1
    headline: bool = False
    within: str = ""
    levels: tuple["FigureCard", ...] = ()
    detail: Callable[[Evidence, Evidence, float], Mapping[str, Any]] | None = None
    source: str = ""

    def __post_init__(self):
        one_of("kind", self.kind, READ_KINDS)
        one_of("tells", self.tells, TELLS)
        if (self.against if self.each else self.alone) is not None:
            raise InputError(
                f"figure {self.key!r} of kind={self.kind!r}, models={self.models}: a "
                "level with models=1 gives `alone`, any other figure `against`"
            )

    @property
    def each(self) -> bool:
        """Whether each model has a value of its own."""
        return self.kind == "level" and self.models == 1

    def like(self, key: str, label: str, meaning: str, **changes: Any) -> Self:
        """Return another card of the same family, no headline unless it says so."""
        words = {"key": key, "label": label, "meaning": meaning, "headline": False}
        return dataclasses.replace(self, **{**words, **changes})

    def plain(self) -> dict[str, Any]:
        """Return all but the functions, as a record keeps it."""
        return {name: getattr(self, name) for name in PLAIN}


def groups_of(cards: Iterable[FigureCard]) -> dict[str, tuple[str, ...]]:
    """Return the keys of each group, in their order."""
    groups: dict[str, tuple[str, ...]] = {}
    for card in cards:
        groups[card.group] = (*groups.get(card.group, ()), card.key)
    return groups


def model_outputs(
    model: Model,
    states: Sequence[Any],
    inputs: PartInputs,
    *,
    batch_size: int = 512,
) -> ModelOutputs:
    """Return outputs `[N, n, K]` of N models on the parts of a request, in eval mode.

    The models are one network with N states, or whatever has `params` and
    `model_state`: `ju.unstack(states)` of an ensemble.

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

    def outputs(state: Any, part: PyTree) -> np.ndarray:
        variables = state.params, state.model_state
        return predict(model, *variables, part, batch_size=batch_size)

    stacks = (
        None if part is None else np.stack([outputs(s, part) for s in states])
        for part in inputs
    )
    return ModelOutputs(*stacks)
