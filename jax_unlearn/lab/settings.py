"""How a model forgets: fields that all methods share, and options of cards.

Plain frozen dataclasses of numbers and names, so that the command line, a JSON file and
a recipe say the same thing; the library itself takes functions, not names.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from jax_unlearn import _validate
from jax_unlearn.cards import Card, WeightingCard
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab.catalog import (
    METHODS,
    WEIGHTINGS,
    check_named,
    method_card,
    weighting_of,
)
from jax_unlearn.lab.modalities import modality_named
from jax_unlearn.lab.modality import check_sgd

Harmonizers = Literal["auto", "none", "one_way", "two_way"]
Schedules = Literal["merged", "zipped", "sequential"]
Optimizers = Literal["sgd", "adam"]


@dataclasses.dataclass(frozen=True)
class Unlearning:
    """How a model forgets: a method, a weighting, an optimizer.

    Attributes:
      method: name or card of the method, or `FILE.py:NAME` for a card of your own.
      weighting: of the forget samples, likewise; "auto": the method's own.
      harmonizer: what becomes of gradients that disagree (methods of two gradients, or
        zipped schedule); "auto": the method's own.
      per_leaf: look for conflicts leaf by leaf, not over the whole gradient.
      schedule: "merged": batches of the union in one forward pass; "zipped": a forget
        and a retain batch each step; "sequential": all forget batches, then all retain
        batches, each epoch. Some methods have a schedule of their own.
      rho: share of the retain set that the method may read.
      epochs: passes over that share (over the forget set for methods that read no
        other).
      steps: number of steps instead of epochs; 0: epochs say.
      batch_size: samples a step (of each set, if zipped; of the forget set, for ltu).
      freeze_statistics: leave BatchNorm statistics as they are; ltu always does.
      optimizer: "sgd" or "adam".
      learning_rate: constant.
      momentum: of SGD.
      weight_decay: added to the gradient, times the weight.
      clip: largest L2 norm of the gradient; 0 does not clip.
      salient: move only the salient weights, those of large forget gradients under the
        original model, whatever the method.
      keep: fraction of the weights that are salient.
      microbatch: samples a pass through the network, for batches that memory does not
        hold; weights are normalised over the batch all the same. 0: all at once.
      remat: compute intermediate values again in the backward pass (of ltu: in the
        second-order step too), to save memory; changes no result.
      guard_utility: percent; the run stops where the accuracy on a tenth of the retain
        samples, kept from it for that, is under it. 0 does not look.
      guard_endpoint: stop where the forget samples are no surer than unseen ones.
      guard_every: steps from one look of the guards to the next.
      guard_roll_back: end with the last state that passed, not with the one that did
        not.
      options: what only the method is told, of its card's class; None: its defaults.
      weighting_options: what only the weighting is told.
      modality: the kind of model.
      modality_options: what only that kind of model is told.

    >>> Unlearning(keep=2.0)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: keep=2.0 must lie in (0, 1]; try 0.5
    """

    method: str = "random_label"
    weighting: str = "auto"
    harmonizer: Harmonizers = "auto"
    per_leaf: bool = False
    schedule: Schedules = "merged"
    rho: float = 1.0
    epochs: int = 5
    steps: int = 0
    batch_size: int = 64
    freeze_statistics: bool = False
    optimizer: Optimizers = "sgd"
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 0.0
    salient: bool = False
    keep: float = 0.5
    microbatch: int = 0
    remat: bool = False
    guard_utility: float = 0.0
    guard_endpoint: bool = False
    guard_every: int = 10
    guard_roll_back: bool = False
    options: Any = None
    weighting_options: Any = None
    modality: str = "classification"
    modality_options: Any = None

    def __post_init__(self):
        card = method_card(self.method)
        weighting = weighting_of(card, self.weighting)
        kind = modality_named(self.modality)
        self._set(_card=card, _weighting_card=weighting)
        _check_names(card, weighting, kind)
        for name, given in (("method", card), ("weighting", weighting)):
            if not isinstance(asked := getattr(self, name), str) or asked == "auto":
                self._set(**{name: given.name})
        self._set(
            options=_options("options", self.options, card.options),
            weighting_options=_options(
                "weighting_options", self.weighting_options, weighting.options
            ),
            modality_options=_options(
                "modality_options", self.modality_options, kind.options
            ),
        )
        self._check_numbers()
        self._check_card()
        self._check_guards()
        if card.check is not None:
            card.check(self)

    @classmethod
    def of(cls, **values: Any) -> "Unlearning":
        """Return the setting of flat values, as files and recipes have them.

        Args:
          **values: common fields, and options of the method, the weighting and the
            modality by their own names; what is left out has its default.

        Raises:
          InputError: names the value that nobody reads.

        >>> Unlearning.of(method="scrub", rewind=True).options.forget_epochs
        2
        >>> Unlearning.of(method="salun", rewind=True)
        Traceback (most recent call last):
        jax_unlearn.errors.InputError: rewind=True: salun has no such option, scrub \
has; leave it out
        """
        return cls._routed(values, strict=True)

    @classmethod
    def read(cls, record: Mapping[str, Any], cards: Iterable[Any] = ()) -> "Unlearning":
        """Return the setting of a stored record, of this version or an earlier one.

        Earlier versions wrote all options of all methods side by side.

        Args:
          record: what JSON holds.
          cards: cards of your own that it may name.

        Raises:
          InputError: it names something that this version does not know.

        >>> old = {"method": "ltu", "strategies": ["hard"], "forget_epochs": 4}
        >>> Unlearning.read(old).options.strategies
        ('hard',)
        >>> setting = Unlearning.of(weighting="falw", tau=0.3)
        >>> Unlearning.read(setting.record()) == setting
        True
        """
        for name in ("method", "weighting", "modality"):
            check_named(record.get(name))
        values = {name: value for name, value in record.items() if name != "own"}
        for card in cards:
            for name in ("method", "weighting"):
                if values.get(name) == card.name:
                    values[name] = card
        if not any(isinstance(values.get(name), Mapping) for name in _NESTED):
            return cls._routed(values, strict=False)
        known = {field.name for field in dataclasses.fields(cls)}
        if strange := sorted(set(values) - known):
            raise unknown_name("field", strange[0], known)
        return cls(**values)

    @classmethod
    def _routed(cls, values: Mapping[str, Any], *, strict: bool) -> "Unlearning":
        kind = modality_named(values.get("modality", "classification"))
        given = kind.renamed(values)
        values = {**kind.defaults, **given}
        common = {f.name for f in dataclasses.fields(cls)}
        card = method_card(values.get("method", "random_label"))
        if "steps" not in given and not _counts_steps(card):
            values["steps"] = 0
        told = {name: value for name, value in values.items() if name in common}
        weighting = weighting_of(card, told.get("weighting", "auto"))
        classes = {
            "options": card.options,
            "weighting_options": weighting.options,
            "modality_options": kind.options,
        }
        for group, options in classes.items():
            if group in told:
                continue
            names = {field.name for field in dataclasses.fields(options)}
            own = {name: value for name, value in values.items() if name in names}
            told[group] = _options(group, own, options)
            common |= names
        for name in sorted(set(given) - common):
            _check_elsewhere(name, values[name], card, strict=strict, kind=kind)
        return cls(**told)

    def but(self, **changes: Any) -> "Unlearning":
        """Return the setting with other values, given flat as to `of`.

        Another method, or another weighting, begins with its own options' defaults.

        >>> Unlearning.of(method="salun", keep=0.3).but(keep=0.5).keep
        0.5
        """
        same: dict[str, Any] = {
            name: asked if ".py:" in asked else card
            for name, asked, card in (
                ("method", self.method, self.card),
                ("weighting", self.weighting, self.weighting_card),
            )
        }
        own = {
            name: {} if name in changes else vars(getattr(self, name))
            for name in _NESTED
        }
        card = method_card(changes.get("method", self.card))
        if card is not self.card:
            own["options"] = {}
            if not _counts_steps(card):
                same["steps"] = 0
            if self.card.weighting == self.weighting != "uniform":
                same["weighting"] = "auto"
        asked = {**same, **changes}["weighting"]
        if weighting_of(card, asked) is not self.weighting_card:
            own["weighting_options"] = {}
        return self.of(
            **{
                **self._common(),
                **same,
                **{name: v for values in own.values() for name, v in values.items()},
                **changes,
            }
        )

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
        own = METHODS.get(self.method) is not self.card and ".py:" not in self.method
        return {
            name: dict(vars(value)) if name in _NESTED else value
            for name, value in values.items()
        } | ({"own": True} if own else {})

    def told(self) -> dict[str, Any]:
        """Return what is read of it, beside method, weighting, rate, batch and epochs.

        Flags are told where they are set, options that do not matter are not.

        >>> Unlearning.of(method="scrub").told()["forget_epochs"]
        2
        >>> Unlearning.of(method="ssd").told()
        {'rho': 1.0, 'selection': 10.0, 'dampening': 1.0}
        """
        card, read = self.card, {"rho": self.rho}
        if card.kind == "steps":
            guarded = self.guard_utility > 0 or self.guard_endpoint
            both = {"forget", "retain"} <= set(card.reads)
            joined = self.joining != "none"
            when = {
                "harmonizer": True,
                "per_leaf": self.per_leaf and joined,
                "schedule": card.schedule or not both,
                "rho": True,
                "steps": self.steps > 0,
                "optimizer": self.optimizer != "sgd",
                "momentum": self.optimizer == "sgd",
                "weight_decay": True,
                "clip": True,
                "freeze_statistics": True,
                "salient": self.salient,
                "keep": self.masks,
                "microbatch": self.microbatch > 0,
                "remat": self.remat,
                **dict.fromkeys(_GUARDS, guarded),
            }
            values = {
                **vars(self),
                "harmonizer": self.joining,
                "freeze_statistics": self.freezes_statistics,
            }
            read = {name: values[name] for name, wanted in when.items() if wanted}
            for name in _GUARDS[:2]:
                if not read.get(name, True):
                    del read[name]
        for options in (self.weighting_options, self.modality_options, self.options):
            read |= _told(options)
        return read

    @property
    def card(self) -> Card:
        """The method's card."""
        return vars(self)["_card"]

    @property
    def weighting_card(self) -> WeightingCard:
        """The weighting's card."""
        return vars(self)["_weighting_card"]

    @property
    def joining(self) -> str:
        """What joins the two gradients; "none" is their plain sum."""
        return self.card.harmonizer if self.harmonizer == "auto" else self.harmonizer

    @property
    def masks(self) -> bool:
        """Whether only salient weights move."""
        return self.salient or self.card.salient

    @property
    def freezes_statistics(self) -> bool:
        """Whether BatchNorm statistics stay."""
        return self.freeze_statistics or self.card.frozen

    @property
    def shares(self) -> bool:
        """Whether its compiled step may serve other requests, models and seeds."""
        return self.card.step_reads is not None and self.weighting_card.shared

    @property
    def compares(self) -> str:
        """What it compares with: "", "unseen", or "unseen classes" of every class."""
        asked = {
            getattr(self.options, "compares", self.card.compares),
            self.weighting_card.compares,
            "unseen classes" if self.guard_endpoint else "",
        }
        return max(asked, key=len)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_numbers(self) -> None:
        for name, kind in (
            ("harmonizer", Harmonizers),
            ("schedule", Schedules),
            ("optimizer", Optimizers),
        ):
            _validate.one_of(name, getattr(self, name), get_args(kind))
        check_sgd(self)
        _validate.at_least("steps", self.steps, 0)
        _validate.at_least("microbatch", self.microbatch, 0)
        _validate.not_negative("clip", self.clip, "0 does not clip")
        _validate.fraction("keep", self.keep, "try 0.5")
        _validate.fraction(
            "rho", self.rho, "the share of the retain set that may be read; try 0.3"
        )

    def _check_card(self) -> None:
        """Refuse what the method does not read."""
        card = self.card
        if self.weighting != "uniform" and not card.weighs:
            raise InputError(
                f"weighting={self.weighting!r}: {self.method} has no loss of forget "
                "samples to weight; leave it uniform or choose another method"
            )
        joins = card.joins or (self.schedule == "zipped" and card.schedule)
        if self.harmonizer not in ("auto", "none") and not joins:
            own = " or ".join(f"method={c.name!r}" for c in METHODS.values() if c.joins)
            raise InputError(
                f"harmonizer={self.harmonizer!r} needs {own}, or schedule='zipped' and "
                "a method of two gradients"
            )
        if self.salient and card.kind != "steps":
            raise InputError(
                f"salient=True: {self.method} takes no steps to mask; leave it out"
            )
        if self.rho != 1 and card.kind == "one-shot" and "training" in card.reads:
            raise InputError(
                f"rho={self.rho}: {self.method} goes through the whole training again; "
                "leave it at 1"
            )
        if self.steps and not _counts_steps(card):
            raise InputError(
                f"steps={self.steps}: {self.method} does not count steps; leave it out"
            )
        modality_named(self.modality).serves(card, self.weighting_card)

    def _check_guards(self) -> None:
        if not 0 <= self.guard_utility <= 100:
            raise InputError(
                f"guard_utility={self.guard_utility} must be a percentage, 0 to 100; "
                "try 90"
            )
        _validate.at_least("guard_every", self.guard_every, 1)
        guarded = self.guard_utility > 0 or self.guard_endpoint
        if guarded and self.card.kind != "steps":
            raise InputError(
                f"guard_utility, guard_endpoint: {self.method} takes no steps to end "
                "between; leave them out"
            )
        kind = modality_named(self.modality)
        if guarded and "logits" not in kind.roles:
            raise InputError(
                f"guard_utility, guard_endpoint: {kind.name} models have no accuracy "
                "to look at; leave them out"
            )
        if guarded and getattr(self.options, "rewind", False):
            raise InputError(
                "rewind=True chooses among all epochs, guards end before the last; "
                "leave one of them out"
            )


_NESTED = ("options", "weighting_options", "modality_options")
_GUARDS = ("guard_utility", "guard_endpoint", "guard_every", "guard_roll_back")


def _check_names(*cards: Any) -> None:
    """Refuse cards whose options share a name: flat values could not tell them apart.

    Raises:
      InputError: names the option.
    """
    owners = {field.name: "all methods" for field in dataclasses.fields(Unlearning)}
    for card in cards:
        for field in dataclasses.fields(card.options):
            if field.name in owners:
                raise InputError(
                    f"option {field.name!r} of {card.name} is one of "
                    f"{owners[field.name]} too; give it another name"
                )
            owners[field.name] = card.name


def _counts_steps(card: Card) -> bool:
    """Whether `steps` may stand for epochs."""
    return card.kind == "steps" and not card.by_epochs


def _options(name: str, given: Any, kind: type) -> Any:
    """Return options of a card's class, made of what was given."""
    if given is None:
        return kind()
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InputError(
            f"{name} is a {type(given).__name__}, not a {kind.__name__}; give one, or "
            "leave it out"
        )
    known = {field.name for field in dataclasses.fields(kind)}
    if strange := sorted(set(given) - known):
        raise unknown_name(f"field of {name}", strange[0], known)
    lists = {k: tuple(v) for k, v in given.items() if isinstance(v, list)}  # of JSON
    return kind(**{**given, **lists})


def _told(options: Any) -> dict[str, Any]:
    """Return the options worth telling: of flags and unset ones, those that are set."""
    values = options.told() if hasattr(options, "told") else vars(options)
    return {k: v for k, v in values.items() if v is not None and v is not False}


def _check_elsewhere(
    name: str, value: Any, card: Card, *, strict: bool, kind: Any
) -> None:
    """Accept the option of another card: at its default, or in an old record."""
    cards = [*METHODS.values(), *WEIGHTINGS.values()]
    owners = {
        other.name: field.default
        for other in cards
        for field in dataclasses.fields(other.options)
        if field.name == name
    }
    if not owners:
        known = {field.name for field in dataclasses.fields(Unlearning)}
        for options in (card.options, kind.options):
            known |= {field.name for field in dataclasses.fields(options)}
        raise unknown_name("setting", name, known)
    value = tuple(value) if isinstance(value, list) else value
    if strict and value not in owners.values():
        raise InputError(
            f"{name}={value}: {card.name} has no such option, "
            f"{' and '.join(owners)} {'has' if len(owners) == 1 else 'have'}; leave it "
            "out"
        )
