"""How a model forgets: fields that all methods share, and options of cards.

Plain frozen dataclasses of numbers and names, so that the command line, a JSON file and
a recipe say the same thing; the library itself takes functions, not names.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from jax_unlearn import _validate, cards
from jax_unlearn.errors import unknown_name
from jax_unlearn.lab import catalog
from jax_unlearn.lab.modalities import modality_named
from jax_unlearn.lab.refusals import check, counts_steps, two_gradients

__all__ = ["Unlearning"]

Whole = Annotated[int, functools.partial(_validate.at_least, low=0)]
Budget = Annotated[
    float, lambda name, value, remedy: _validate.fraction(name, value, "try 0.2")
]
Percent = Annotated[float, functools.partial(_validate.within, interval="[0, 100]")]


@dataclasses.dataclass(frozen=True)
class Unlearning:
    """How a model forgets: a method, a weighting, an optimizer.

    Attributes:
      method: name of the method, or `FILE.py:NAME` for a card of your own.
      weighting: weights of the forget samples, by name or `FILE.py:NAME`; "auto": the
        method's own.
      harmonizer: how conflicting gradients are joined, for methods with two gradients
        or the zipped schedule; "auto": the method's own.
      per_leaf: look for conflicts in each array of parameters, not over the whole
        gradient.
      schedule: what a step reads. "merged": batches of both sets together, in one
        forward pass; "zipped": a forget and a retain batch; "sequential": all forget
        batches first, then all retain batches, in each epoch. Some methods have a
        schedule of their own.
      rho: share of the retain set that the method may read.
      epochs: passes over the retain samples that the method may read (over the forget
        set, for methods that read no other).
      steps: number of steps, instead of epochs; 0: as many as the epochs have.
      budget: share of Retrain's cost that unlearning may take; replaces the number of
        epochs or steps and the method's own length.
      batch_size: samples in a step (of each set, if zipped; of the forget set, for
        ltu).
      freeze_statistics: keep BatchNorm statistics as they are; ltu always does.
      optimizer: optimizer of the steps.
      learning_rate: learning rate, the same in all steps.
      momentum: momentum of SGD.
      weight_decay: weight decay: this times the weight is added to the gradient.
      clip: largest L2 norm of the gradient; 0 does not clip.
      salient: change only salient weights, those with large forget gradients in the
        original model, with any method.
      keep: share of the weights that are salient.
      dual: use a separate AdamW for the forget gradient (DualOptim), for methods with
        two gradients; its moments never mix with those of the retain gradient. Merged
        batches become sequential.
      dual_rate: learning rate of that AdamW; in the paper it is searched.
      dual_decay: weight decay of that AdamW.
      trainable: parameters that may change: a regular expression that is searched for
        in their paths, such as "head|layers_3"; "": all.
      microbatch: samples in one pass through the network, if memory does not hold a
        batch; weights are still normalised over the batch. 0: the whole batch.
      remat: save memory: compute intermediate values again in the backward pass (of ltu
        in the second-order step, too). Results stay the same.
      guard_utility: stop if the accuracy in percent on a tenth of the retain samples,
        which unlearning then does not read, falls below this. 0: never.
      guard_endpoint: stop once the model is no surer of the forget samples than of
        unseen ones.
      guard_every: number of steps between two checks of the guards.
      guard_roll_back: end with the last state that passed the checks, not with the one
        that failed.
      options: options of the method alone, of its card's class; None: its defaults.
      weighting_options: options of the weighting alone.
      modality: the kind of model.
      modality_options: options of that kind of model alone.

    >>> Unlearning(keep=2.0)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: keep=2.0 must lie in (0, 1]; try 0.5
    """

    method: str = "random_label"
    weighting: str = "auto"
    harmonizer: Literal["auto", "none", "one_way", "two_way", "bargain"] = "auto"
    per_leaf: bool = False
    schedule: Literal["merged", "zipped", "sequential"] = "merged"
    rho: cards.Fraction = 1.0
    epochs: cards.Count = 5
    steps: Whole = 0
    budget: Budget | None = None
    batch_size: cards.Count = 64
    freeze_statistics: bool = False
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: cards.Positive = 0.01
    momentum: cards.Share = 0.9
    weight_decay: cards.NotNegative = 5e-4
    clip: cards.NotNegative = 0.0
    salient: bool = False
    keep: cards.Fraction = 0.5
    dual: bool = False
    dual_rate: cards.Positive = 1e-4
    dual_decay: cards.NotNegative = 0.05
    trainable: str = ""
    microbatch: Whole = 0
    remat: bool = False
    guard_utility: Percent = 0.0
    guard_endpoint: bool = False
    guard_every: cards.Count = 10
    guard_roll_back: bool = False
    options: Any = None
    weighting_options: Any = None
    modality: str = "classification"
    modality_options: Any = None

    def __post_init__(self):
        card = catalog.method_card(self.method)
        weighting = catalog.weighting_of(card, self.weighting)
        kind = modality_named(self.modality)
        catalog.check_options(_COMMON, card, weighting, kind)
        values: dict[str, Any] = {"_cards": (card, weighting, kind)}
        for name, given in (("method", card), ("weighting", weighting)):
            if not isinstance(asked := getattr(self, name), str) or asked == "auto":
                values[name] = given.name
        for name, own in zip(_NESTED, (card, weighting, kind), strict=True):
            values[name] = catalog.options_of(name, getattr(self, name), own.options)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _validate.fields(self)
        check(self, *vars(self)["_cards"])
        if card.check is not None:
            card.check(self)

    @classmethod
    def of(cls, **values: Any) -> "Unlearning":
        """Return the setting of flat values, as files and recipes have them.

        Options of the method, the weighting and the modality are given by their own
        names, beside the common fields; what is left out has its default.

        Raises:
          InputError: names the value that nobody reads.

        >>> Unlearning.of(method="scrub", rewind=True).options.forget_epochs
        2
        >>> Unlearning.of(method="salun", rewind=True)
        Traceback (most recent call last):
        jax_unlearn.errors.InputError: rewind=True: salun has no such option, scrub \
has; leave it out
        """
        kind = modality_named(values.get("modality", cls.modality))
        given, values = values, {**kind.defaults, **values}
        card = catalog.method_card(values.get("method", cls.method))
        weighting = catalog.weighting_of(card, values.get("weighting", cls.weighting))
        if "steps" not in given and not counts_steps(card):
            values["steps"] = 0
        told = {name: value for name, value in values.items() if name in _COMMON}
        known = _COMMON
        for group, own in zip(_NESTED, (card, weighting, kind), strict=True):
            if group not in told:
                names = catalog.names_of(own.options)
                told[group] = {name: v for name, v in values.items() if name in names}
                known = known | names
        strays = {name: values[name] for name in sorted(set(given) - known)}
        catalog.check_strays(card, strays, known)
        return cls(**told)

    @classmethod
    def read(cls, record: Mapping[str, Any], cards: Iterable[Any] = ()) -> "Unlearning":
        """Return the setting of a stored record.

        `cards` are ones of your own that it may name.

        Raises:
          InputError: it names something that this version does not know.

        >>> setting = Unlearning.of(weighting="falw", tau=0.3)
        >>> Unlearning.read(setting.record()) == setting
        True
        """
        for name in ("method", "weighting", "modality"):
            catalog.check_named(record.get(name))
        values = {name: value for name, value in record.items() if name != "own"}
        for card in cards:
            for name in ("method", "weighting"):
                if values.get(name) == card.name:
                    values[name] = card
        if strange := sorted(set(values) - _COMMON):
            raise unknown_name("field", strange[0], _COMMON)
        return cls(**values)

    def but(self, **changes: Any) -> "Unlearning":
        """Return the setting with other values, given flat as to `of`.

        Another method, or another weighting, begins with its own options' defaults.

        >>> Unlearning.of(method="salun", keep=0.3).but(keep=0.5).keep
        0.5
        """
        values = self._common()
        card = catalog.method_card(changes.get("method", self.card))
        options = {name: vars(getattr(self, name)) for name in _NESTED}
        for name, own in (("method", self.card), ("weighting", self.weighting_card)):
            if ".py:" not in values[name]:
                values[name] = own
        if card is not self.card:
            options["options"] = {}
            if not counts_steps(card):
                values["steps"] = 0
            if self.card.weighting == self.weighting != "uniform":
                values["weighting"] = "auto"
        values |= changes
        if catalog.weighting_of(card, values["weighting"]) is not self.weighting_card:
            options["weighting_options"] = {}
        flat = [own for name, own in options.items() if name not in changes]
        return self.of(**{k: v for own in flat for k, v in own.items()} | values)

    def part(self, changes: Mapping[str, Any]) -> "Unlearning":
        """Return the setting of a method that does a part of this one's work.

        Of the common fields it has those that it reads.
        """
        card = catalog.method_card(changes["method"])
        changes = {"budget": None, **changes}  # that of the whole is met by then
        if not card.weighs:
            changes["weighting"] = "auto"
        if not two_gradients(card):
            changes |= {"dual": False, "harmonizer": "auto"}
        if card.kind != "steps":
            changes["salient"] = False
        return self.but(**changes)

    def flat(self) -> dict[str, Any]:
        """Return all values by name; `of` takes them again."""
        values = self._common()
        for name in _NESTED:
            values |= vars(getattr(self, name))
        return values

    def _common(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if f.name not in _NESTED}

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it; `read` takes it again."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {name: dict(vars(values[name])) for name in _NESTED}
        for name, usual in _RARE.items():
            if values[name] == usual and not (self.dual and "dual" in name):
                del values[name]
        known = ".py:" in self.method or catalog.METHODS.get(self.method) is self.card
        return values if known else {**values, "own": True}

    def told(self) -> dict[str, Any]:
        """Return what is read of it, beside method, weighting, rate, batch and epochs.

        Flags are told where they are set, options that do not matter are not.

        >>> Unlearning.of(method="scrub").told()["forget_epochs"]
        2
        >>> Unlearning.of(method="ssd").told()
        {'rho': 1.0, 'selection': 10.0, 'dampening': 1.0}
        """
        card = self.card
        read: dict[str, Any] = {"rho": self.rho}
        for name in ("trainable", "budget"):
            if value := getattr(self, name):
                read[name] = value
        if card.kind == "steps":
            both = {"forget", "retain"} <= set(card.reads)
            when = {
                "harmonizer": True,
                "per_leaf": self.per_leaf and self.joining != "none",
                "schedule": card.schedule or not both,
                "rho": True,
                "steps": self.steps,
                "budget": self.budget,
                "optimizer": self.optimizer != "sgd",
                "momentum": self.optimizer == "sgd",
                **dict.fromkeys(("weight_decay", "clip", "freeze_statistics"), True),
                "salient": self.salient,
                "keep": self.masks,
                **dict.fromkeys(("dual", "dual_rate", "dual_decay"), self.dual),
                "microbatch": self.microbatch,
                "remat": self.remat,
                "guard_utility": self.guard_utility,
                "guard_endpoint": self.guard_endpoint,
                **dict.fromkeys(("guard_every", "guard_roll_back"), self.guarded),
            }
            frozen = self.freezes_statistics
            values = self._common() | {"freeze_statistics": frozen}
            values |= {"harmonizer": self.joining, "schedule": self.scheduling}
            read = {name: values[name] for name, wanted in when.items() if wanted}
        for options in (self.weighting_options, self.modality_options, self.options):
            own = options.told() if hasattr(options, "told") else vars(options)
            read |= {k: v for k, v in own.items() if v is not None and v is not False}
        return read

    @property
    def card(self) -> cards.Card:
        """The method's card."""
        return vars(self)["_cards"][0]

    @property
    def weighting_card(self) -> cards.WeightingCard:
        """The weighting's card."""
        return vars(self)["_cards"][1]

    @property
    def joining(self) -> str:
        """What joins the two gradients; "none" is their plain sum."""
        own = "none" if self.dual else self.card.harmonizer
        return own if self.harmonizer == "auto" else self.harmonizer

    @property
    def scheduling(self) -> str:
        """How batches follow each other; merged ones have one gradient, dual two."""
        merges = self.schedule == "merged"
        return "sequential" if merges and self.dual else self.schedule

    @property
    def masks(self) -> bool:
        """Whether only salient weights move."""
        return self.salient or self.card.salient

    @property
    def freezes_statistics(self) -> bool:
        """Whether BatchNorm statistics stay."""
        return self.freeze_statistics or self.card.frozen

    @property
    def guarded(self) -> bool:
        """Whether a guard may end the run."""
        return self.guard_utility > 0 or self.guard_endpoint

    @property
    def shares(self) -> bool:
        """Whether its compiled step may serve other requests, models and seeds."""
        return self.card.step_reads is not None and self.weighting_card.shared

    @property
    def compares(self) -> str:
        """What it compares with: "", "unseen", or "unseen classes" of every class."""
        asked = {
            getattr(self.options, "compares", self.card.compares),
            getattr(self.weighting_options, "compares", self.weighting_card.compares),
            "unseen classes" if self.guard_endpoint else "",
        }
        return max(asked, key=len)


# of the method, the weighting and the modality, in this order everywhere
_NESTED = ("options", "weighting_options", "modality_options")
_COMMON = frozenset(catalog.names_of(Unlearning))
# fields that few settings change, left out of records at these values
_RARE = {
    "trainable": "",
    "budget": None,
    "dual": False,
    "dual_rate": 1e-4,
    "dual_decay": 0.05,
}
