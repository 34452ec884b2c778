"""What a whole experiment is told."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from jax_unlearn._validate import one_of
from jax_unlearn.data.splits import WORST
from jax_unlearn.errors import InputError, check_seed
from jax_unlearn.lab import modalities, schema
from jax_unlearn.lab.catalog import check_named
from jax_unlearn.lab.modalities import CLASSIFICATION
from jax_unlearn.lab.settings import Unlearning

__all__ = ["NEIGHBOURS", "Plan", "plan_of", "slug", "slugs"]

NEIGHBOURS = 10  # of the distance by which the kinds "near" and "far" choose


def slug(label: str) -> str:
    """Return a label as the name of a folder and the key of a row."""
    kept = "".join(c.lower() if c.isalnum() or c == "." else "-" for c in label)
    return "-".join(part for part in kept.split("-") if part.strip("."))


def slugs(labels: Iterable[str]) -> dict[str, str]:
    """Return the folders of methods by label; refuse what is none or another's."""
    folders = {"": "", "original": "", "retrain": "", "null": ""}
    for label in labels:
        if (name := slug(label)) in folders:
            raise InputError(
                f"method {label!r} needs a folder of its own, and {name!r} is empty or "
                "taken; give it another label"
            )
        folders[name] = label
    return {label: name for name, label in folders.items() if label}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A whole experiment.

    Attributes:
      title: what it is called.
      kind: of the forget request: "random", "class" or "long_tailed"; "near" or "far":
        of each class those that the original model's features show nearest to, or
        farthest from, their nearest training samples; "worst", "hard": those of which
        sign-SGD on the others leaves the most, see `lab.worst`; "given": those of
        `given`.
      fraction: share of the training samples to forget.
      gamma: imbalance of a long-tailed request.
      unseen: number of samples held out of all training, or their share, if below 1.
      training: how original and Retrain are trained.
      methods: settings by the label shown in the table.
      seeds: of split, initialisation, order and labels.
      note: where the settings come from, for the report.
      classes: to forget, one at a time and all of it, from the same original; none: one
        request a seed, as `kind` says.
      null: whether a second Retrain is trained.
      judging: how images of diffusion models are drawn and judged.
      given: ids of the samples to forget, of the kind "given".
      held: ids of the samples held out of all training, of that kind; none: `unseen`
        of the others at random.
      probes: that every model is put to, see `lab.probes`.
    """

    title: str
    kind: str
    fraction: float
    gamma: float
    unseen: int | float
    training: Any
    methods: dict[str, Unlearning]
    seeds: tuple[int, ...]
    note: str = ""
    classes: tuple[int, ...] = ()
    null: bool = True
    judging: Any = None
    given: tuple[int, ...] = ()
    held: tuple[int, ...] = ()
    probes: tuple[str, ...] = ()

    def __post_init__(self):
        slugs(self.methods)
        if bool(self.given) != (self.kind == "given"):
            raise InputError(
                f"kind={self.kind!r} with {len(self.given)} given samples; the kind "
                "'given' takes them, no other"
            )
        for seed in self.seeds:
            check_seed(seed)
        # of a model trained elsewhere nobody may know the training: no null is trained
        known = self.training is not None
        kind = modalities.modality_of(self.training) if known else CLASSIFICATION
        if self.probes and not kind.probes:
            raise InputError(
                f"probes={list(self.probes)}: {kind.name} models have none; leave them "
                "out"
            )
        for name in self.probes:
            one_of("probe", name, kind.probes)
        whole = self.kind == "class" and not self.classes
        if self.judging is not None and (whole or not self.seeds):
            raise InputError(
                f"classes={self.classes}, seeds={self.seeds}: give 1 or more of each"
            )
        few = len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds)
        if self.judging is None and few and known and not kind.texts:
            raise InputError(
                f"seeds={list(self.seeds)}: give at least two different ones, for the "
                "spread over seeds is what the null is read from"
            )

    @property
    def by_distance(self) -> bool:
        """Whether the request depends on the features of the original model."""
        return self.kind in ("near", "far")

    @property
    def by_model(self) -> bool:
        """Whether the request depends on the original model in any way."""
        return self.by_distance or self.kind in WORST

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it; `plan_of` takes it again."""
        values = {**vars(self), "training": vars(self.training)}
        values["methods"] = {k: s.record() for k, s in self.methods.items()}
        for name in (
            "classes",
            "null",
            "judging",
            "given",
            "held",
            "probes",
        ):  # only where they say something
            if values[name] == getattr(Plan, name):
                del values[name]
        modality = modalities.modality_of(self.training)
        if modality not in modalities.MODALITIES:
            values["modality"] = modality.name
        if self.judging is not None:
            values["judging"] = dataclasses.asdict(self.judging)
        return values


def plan_of(record: Any, *, name: str) -> Plan:
    """Return the plan of a run from its `config.json`, which messages name."""
    try:
        told = dict(record["plan"])
        kind = told.pop("modality", None)
        check_named(kind)
        kind = None if kind is None else modalities.modality_named(kind)
        told["training"] = modalities.read_training(told["training"], kind)
        kind = modalities.modality_of(told["training"]).judging
        if told.get("judging") is not None and kind is not None:
            told["judging"] = schema.read(kind, told["judging"], name="judging")
        told["methods"] = {k: Unlearning.read(v) for k, v in told["methods"].items()}
        for field in ("seeds", "classes", "given", "held", "probes"):
            told[field] = tuple(told.get(field, ()))
        return Plan(**told)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{name} holds no plan of this version ({error!r}); give the folder of a "
            "run of `jax-unlearn demo` or `recipe`"
        ) from error
