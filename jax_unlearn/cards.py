"""Cards: what a method or a weighting says of itself, so that nothing else lists it.

A card names its own options (a frozen dataclass that checks itself), says what is read,
what it costs, where it comes from and what a search tries, and builds the thing from
the few verbs of a `Lab`. The command line, experiments, searches and reports read cards
only; a card of your own, in a file of your own, is served like those of the library.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, Self

import optax

from jax_unlearn import _validate
from jax_unlearn.findings import Learned as Learned
from jax_unlearn.findings import Ranked as Ranked
from jax_unlearn.types import (
    Array,
    Batch,
    Harmonizer,
    LossFn,
    Model,
    Params,
    PyTree,
    UnlearnBatch,
    Unlearner,
    UnlearnState,
    Weighting,
)

__all__ = ["Card", "Count", "Fraction", "Job", "Lab", "Learned", "NoOptions"]
__all__ += ["NotNegative", "Options", "Positive", "Ranked", "Rewind", "Share"]
__all__ += ["Transform", "Variables", "WeightingCard"]

if TYPE_CHECKING:  # the core imports nothing above it
    import numpy as np

    from jax_unlearn.data import Examples, PixelRange, Schedule
    from jax_unlearn.drivers.guards import Guard

Variables = tuple[PyTree, PyTree]
"""Parameters and state of a model."""

Transform = Callable[[PyTree, PyTree], Variables]
"""A one-shot method: from the original's parameters and state to the unlearned's."""

Positive = Annotated[float, _validate.positive]
NotNegative = Annotated[float, _validate.not_negative]
Share = Annotated[float, _validate.share]
Fraction = Annotated[float, _validate.fraction]
Count = Annotated[int, functools.partial(_validate.at_least, low=1)]


@dataclasses.dataclass(frozen=True)
class Options:
    """Options that check themselves by the types of their fields.

    A `Literal` admits its names, and `Positive`, `NotNegative`, `Share`, `Fraction` or
    `Count` the numbers of its rule; None stands for what the method itself takes.

    Raises:
      InputError: names the field, and its default as the remedy.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Shove(Options):
    ...     push: Positive = 0.5
    >>> Shove(push=-1.0)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: push=-1.0 must be positive and finite; try 0.5
    """

    def __post_init__(self):
        _validate.fields(self)


@dataclasses.dataclass(frozen=True)
class NoOptions(Options):
    """Options of a card that has none."""


class Rewind(NamedTuple):
    """Which of the states after some steps, `ends`, is kept: the one `choose` names."""

    ends: tuple[int, ...]
    choose: Callable[[Sequence[Variables]], int]


class Job(NamedTuple):
    """A method ready to run: an unlearner with its batches, or a transformation.

    Attributes:
      unlearner: the method.
      schedule: its batches.
      prepare_seconds: time spent on masks, tables, moments and attacks.
      details: JSON-able, what was found on the way (AUC of the attacks, ...).
      rewind: whether an earlier state than the last is kept.
      start: parameters and state to start from instead of the original's.
      transform: instead of all that, a function of the parameters.
      guards: made from the state before the first step.
      finish: what of a state is the model; default its parameters and model state.
      key, marks: of the run, not the seed's; steps that the callback is shown.
    """

    unlearner: Unlearner | None
    schedule: Schedule[UnlearnBatch] | None
    prepare_seconds: float = 0.0
    details: Mapping[str, Any] = MappingProxyType({})
    rewind: Rewind | None = None
    start: Variables | None = None
    transform: Transform | None = None
    guards: Callable[[UnlearnState], Sequence[Guard]] | None = None
    finish: Callable[[UnlearnState], Variables] | None = None
    key: Array | None = None
    marks: tuple[int, ...] = ()

    @classmethod
    def of(cls, lab: Lab, kind: str, method: Callable[..., Unlearner], **told) -> Job:
        """Return the job of a method over the lab's model, optimizer and batches."""
        return cls(method(lab.model, lab.optimizer(), **told), lab.schedule(kind))

    @classmethod
    def once(cls, move: Callable[[Params], Params]) -> Job:
        """Return the job of a function of the parameters alone."""
        return cls(None, None, transform=lambda params, state: (move(params), state))

    @property
    def steps(self) -> int:
        """Number of steps; a transformation counts as one."""
        return 1 if self.schedule is None else len(self.schedule)


class Lab(Protocol):
    """What a card's `build` may ask: one model, one request, one setting.

    Attributes:
      model: the network; its outputs are what the objectives read.
      examples: the training samples, by id.
      range: the range of their pixels, for what draws or moves some.
      num_classes: K.
      seed: of labels, order and draws.
      setting: the common fields (`epochs`, `batch_size`, `learning_rate`, ...).
      original: parameters and state of the model that is to forget.
      featured: the model that returns penultimate features, with the same parameters.
      model_state: what steps do to batch statistics: "sequential" or "frozen".
      training: how the original was trained; an InputError where nobody knows.
    """

    model: Model
    examples: Examples
    range: PixelRange
    num_classes: int
    seed: int
    setting: Any
    original: Variables
    featured: Model
    model_state: str
    training: Any

    def ids(self, part: str) -> np.ndarray:
        """Return sample ids: "forget", "retain", "unseen", or "trained" (both)."""
        ...

    def labels(self, part: str) -> np.ndarray:
        """Return the classes of a part's samples, `i32[n]`."""
        ...

    def objective(self, role: str, **options: Any) -> LossFn:
        """Return the loss of a role.

        "remember": as in training; "evaluate": so in eval mode; "ascend": its negative;
        "relabel": to a wrong label or condition; "guide": away from it (diffusion).
        An InputError where this kind of model has none.
        """
        ...

    def membership(self, options: Any) -> Learned:
        """Train attacks on retain and unseen samples, and set up queries."""
        ...

    def difficulty(self, ranking: str) -> Ranked:
        """Return how easily each forget sample would be predicted unseen."""
        ...

    def schedule(self, kind: str) -> Schedule[UnlearnBatch]:
        """Return batches: "forget", "retain", "zipped", or "both" as the user asked."""
        ...

    def batches(self, part: str, *, seed: int = 0) -> list[Batch]:
        """Return one pass over a part, in batches of the setting's size."""
        ...

    def passes(self, **changes: Any) -> dict[str, Any]:
        """Return what every schedule of `jax_unlearn.data` is told, with changes."""
        ...

    def optimizer(
        self, *, plain: bool = False, **changes: Any
    ) -> optax.GradientTransformation:
        """Return the optimizer; over the salient weights if asked, and not `plain`.

        `changes` are other values of the setting's fields.
        """
        ...

    def weighting(self) -> Weighting:
        """Return the weighting of the forget samples."""
        ...

    def harmonizer(self) -> Harmonizer | None:
        """Return what joins the two gradients; None is their plain sum."""
        ...

    def joint(self) -> dict[str, Any]:
        """Return `weighting`, `harmonizer` and `model_state` for a method of two."""
        ...

    def forward(self) -> dict[str, Any]:
        """Return `forward="merged"` where the schedule merges the batches."""
        ...

    def gradient(self, part: str, ids: np.ndarray | None = None) -> PyTree:
        """Return the mean gradient of the original on a part, or these ids of it."""
        ...

    def fisher(self, part: str, *, per: str = "sample") -> PyTree:
        """Return the Fisher information's diagonal of the original on a part."""
        ...

    def predict(self, ids: np.ndarray, at: Variables | None = None) -> np.ndarray:
        """Return the outputs for training samples in eval mode, on the host."""
        ...

    def probabilities(self, part: str) -> np.ndarray:
        """Return the original's softmax outputs on a part, `[n, K]`."""
        ...

    def features(self, ids: np.ndarray) -> np.ndarray:
        """Return the original's penultimate features of training samples."""
        ...

    def confidence(self, part: str) -> np.ndarray:
        """Return the original's probability of the true class of a part's samples."""
        ...

    def loss_table(self, **told: Any) -> Array:
        """Return the original's losses by id, else 0; `total=True`: of whole texts."""
        ...

    def memorisation(self, part: str) -> np.ndarray:
        """Return a guess of how much of a part's samples is memorised, `f64[n]`."""
        ...

    def part(self, changes: dict[str, Any], forget: Any, retain: Any, at: Any) -> Job:
        """Return the job of another method, for a part of the request, from a model."""
        ...

    def choice(
        self, budget: float, *, asked: bool = True
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a method for the request, with what it is told; and why."""
        ...

    def done(self, job: Job, at: Variables, number: int) -> tuple[Variables, Any]:
        """Run a job to its end; return its model and the seconds of its stages."""
        ...

    def retraining(
        self, part: str, *, seed: int | None = None, share: float = 1, rate: float = 1
    ) -> tuple[Job, Array]:
        """Return the training from a start, annealed within a share, and its key."""
        ...

    def rewound(self, part: str, to: float, earlier: str = "") -> Job:
        """Return the original's training on a part from an epoch or a share on."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)  # one object a card
class _Facts:
    """What cards of methods and of weightings both say."""

    name: str
    label: str
    title: str
    build: Callable[[Any, Any], Any]
    _: dataclasses.KW_ONLY
    source: str = "our choice"
    options: type = NoOptions
    compares: str = ""
    search: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        build: Callable[..., Any],
        label: str,
        title: str = "",
        source: str = "our choice",
    ) -> Self:
        """Return the card of a `build`: of its name, and the options it annotates."""
        options = typing.get_type_hints(build).get("options", NoOptions)
        name, title = build.__name__.strip("_"), title or label
        return cls(name, label, title, build, source=source, options=options)

    def but(self, **changes: Any) -> Self:
        """Return the card with other values of some fields."""
        return dataclasses.replace(self, **changes)

    def tries(self, **values: Sequence[Any]) -> Self:
        """Return the card with what a search is to try, by setting."""
        return self.but(search=values)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Card(_Facts):
    """One method: all that is to be known of it.

    Attributes:
      name: as settings and the command line know it.
      label: its short name in tables.
      title: its name in papers.
      build: `(lab, options) -> Job`.
      reads: of "forget", "retain", "unseen", "original" (the original model goes on
        being asked, as a teacher or for a mask) and "training" (how, and with which
        seed, the original was trained).
      cost: in gradients of single samples: E epochs, F forget, R retain samples (of the
        share that may be read), T passes of the training, K classes, options by
        name and by their `costs(T)`. A forward pass counts a third.
      source: where it was published.
      suits: a sentence on what it is good for, and what to expect of it.
      options: frozen dataclass of what only it is told; checks itself, see `Options`.
      kind: "steps": an `Unlearner` that descends step by step; "one-shot": a function
        of the parameters; "training": from a random start.
      roles: objectives it asks the lab for, all of which a kind of model must have.
      weighs: whether it weights forget samples.
      schedule: whether forget and retain batches can be scheduled at will.
      joins: whether it always has two gradients to join.
      phased: whether it has two gradients, though mostly one a step.
      compares: "unseen", or "unseen classes" where every forgotten class needs unseen
        samples; options may have an attribute of this name that says otherwise.
      weighting, harmonizer: what "auto" stands for.
      by_epochs: whether its schedule is made of whole epochs only.
      salient: whether its mask of salient weights is part of the method.
      frozen: whether batch statistics always stay.
      step_reads: of "learning_rate" and "length" those that its compiled step depends
        on; all else that is not a setting travels in state and batches, so that one
        step serves other requests, models and seeds too. None: it promises nothing.
      beforehand: options that are read before the steps alone, as those that targets
        are made by: one compiled step serves all their values.
      search: values worth trying, by setting; the first is searched closer.
      check: `(setting)` refuses what does not go with common fields.

    >>> card = Card("shove", "Shove", "Shove them away", lambda lab, options: ...)
    >>> card.but(reads=("forget",)).tries(epochs=(1, 3)).search
    {'epochs': (1, 3)}
    """

    reads: tuple[str, ...] = ("forget", "retain")
    cost: str = "not said"
    kind: Literal["steps", "one-shot", "training"] = "steps"
    suits: str = ""
    roles: tuple[str, ...] = ("remember",)
    weighs: bool = True
    schedule: bool = False
    joins: bool = False
    phased: bool = False
    by_epochs: bool = False
    weighting: str = "uniform"
    harmonizer: str = "none"
    salient: bool = False
    frozen: bool = False
    step_reads: tuple[str, ...] | None = None
    beforehand: tuple[str, ...] = ()
    check: Callable[[Any], None] | None = None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class WeightingCard(_Facts):
    """One weighting of the forget samples.

    Attributes:
      name, label, title, source, options, search: as of `Card`.
      build: `(lab, options) -> Weighting`.
      reads: "losses", "logits" where losses alone do not do, or "tokens", the losses
        of a text's tokens.
      compares: as of `Card`.
      reference: `(options) -> "" | "batches" | "whole"`: whether unseen samples ride
        along with the steps, in batches or all at once.
      shared: whether what it takes from the lab travels in its state, so that one
        step serves other requests; no promise by default, see `Card.step_reads`.
      tokens: `(options) -> ` weights of a text's tokens; None: of whole samples.
    """

    reads: Literal["losses", "logits", "tokens"] = "losses"
    tokens: Callable[[Any], Callable[[Array, Array], Array]] | None = None
    reference: Callable[[Any], str] = lambda options: ""
    shared: bool = False
