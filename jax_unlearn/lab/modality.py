"""A kind of model: all that differs between them, and what their parts share."""

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from msgspec import Meta

from jax_unlearn import masks, membership
from jax_unlearn.adapters.parts import parted, partly, whole_variables
from jax_unlearn.cards import Card, Learned, NoOptions, Ranked, Variables, WeightingCard
from jax_unlearn.data import Dataset, Examples
from jax_unlearn.drivers.memory import master
from jax_unlearn.errors import InputError
from jax_unlearn.lab.probes import Probes
from jax_unlearn.optimizers import dual
from jax_unlearn.types import Array, LossFn, Model, PyTree, Unlearner, UnlearnState

__all__ = ["MAX_WIDTH", "Dimension", "Division", "Dtype", "Modality", "adam"]
__all__ += ["by_pattern", "checked_attacks", "chosen", "descent", "falling_rate"]
__all__ += ["optimizer_of", "weak_attacks"]

Dtype = Literal["float32", "bfloat16"]
MAX_WIDTH = 65536  # XLA aborts the process on sizes that no memory holds
Dimension = Annotated[int, Meta(ge=1, le=MAX_WIDTH)]


def adam() -> optax.GradientTransformation:
    """Return Adam's scaling, which raises a float to an integer count."""
    inner = optax.scale_by_adam()

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def falling_rate(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Return the scaling by a rate that falls along a cosine to 0."""
    rates = optax.cosine_decay_schedule(learning_rate, steps)
    # strict dtype promotion forbids a schedule of an integer
    return optax.scale_by_learning_rate(lambda step: rates(jax.numpy.float32(step)))


def descent(
    setting: Any, scaling: optax.GradientTransformation | None = None
) -> list[optax.GradientTransformation]:
    """Return decay and momentum of a setting, or another scaling: all but the rate."""
    parts = []
    if setting.weight_decay > 0:
        parts.append(optax.add_decayed_weights(setting.weight_decay))
    if scaling is not None:
        parts.append(scaling)
    elif setting.momentum > 0:
        parts.append(optax.trace(setting.momentum))
    return parts


def optimizer_of(setting: Any, mask: PyTree = None) -> optax.GradientTransformation:
    """Return the optimizer of a setting: SGD with momentum, or Adam, perhaps masked.

    Beside it AdamW for the forget gradient, where each gradient has its own.
    """
    clip = [optax.clip_by_global_norm(setting.clip)] if setting.clip > 0 else []
    # the rate travels in the state, so that one compiled program serves all
    rate = optax.inject_hyperparams(optax.scale_by_learning_rate)
    parts = descent(setting, adam() if setting.optimizer == "adam" else None)
    each = [optax.chain(*clip, *parts, rate(setting.learning_rate))]
    if setting.dual:
        decay = optax.add_decayed_weights(setting.dual_decay)
        each = [optax.chain(*clip, adam(), decay, rate(setting.dual_rate)), *each]
    if getattr(setting.modality_options, "masters", False):
        each = [master(optimizer) for optimizer in each]
    if mask is not None:
        each = [masks.masked(optimizer, mask) for optimizer in each]
    return dual(*each) if setting.dual else each[0]


class Division(NamedTuple):
    """How what a method moves is told from what it leaves, and joined to it again."""

    model: Callable[[Model], Model]  # of the divided variables
    divide: Callable[..., Variables]  # `(params, model_state) -> variables`
    # `(params, model_state, those of the original undivided) -> variables`: undoes it
    whole: Callable[..., Variables]
    # `network -> network` whose models are divided, perhaps of another precision
    network: Callable[[Any], Any] = lambda network: network
    alone: bool = False  # whether a start of its own has a rest of its own, too


@functools.lru_cache(maxsize=8)
def by_pattern(pattern: str) -> Division | None:
    """Return the division of the parameters whose paths a pattern is found in."""
    if not pattern:
        return None
    return Division(
        functools.partial(partly, which=pattern),
        functools.partial(parted, which=pattern),
        lambda params, model_state, original: whole_variables(params, model_state),
    )


class Modality(NamedTuple):
    """A kind of model."""

    name: str  # as settings and the command line know it
    key: str  # of its networks in the records of checkpoints
    training: type  # class of its training settings, with `seed`-free fields
    # class of its networks' descriptions, which are read by their types, or by its
    # `from_record` if it has one
    network: Any
    describe: Callable[[Any, Dataset], Any]  # `(training, dataset) -> network`
    build: Callable[[Any], Any]  # `network -> built`, which has `model` and `network`
    optimize: Callable[[Any, Any, int], Unlearner]  # `(built, training, steps)`; trains
    steps: Callable[[Any, int], int]  # `(training, samples) -> steps of a training`
    roles: frozenset[str]  # its objectives; "logits", "features": what its outputs are
    objective: Callable[..., LossFn]  # `(context, role, **options)`
    membership: Callable[[Any, Any], Learned]  # `(context, options)`, to attack by
    loss_table: Callable[..., Array]  # `context -> losses by sample id`
    # `(subject, judging, folder, progress) -> table` of figures: it has `start`, `add`,
    # `drop` and `summary`, see `lab.modalities.classification.figures.Table`
    table: Callable[..., Any]
    # `(subject, variables, examples) -> f32[n, K]`: logits for attacks on many models;
    # where outputs are no logits, of "right" against 0
    observe: Callable[[Any, Variables, Examples], np.ndarray]
    targets: Callable[[Examples], np.ndarray]  # true classes of what is observed
    judging: Any = None  # class of what a plan says of drawing and judging, if any
    probes: Probes = {}  # noqa: RUF012 - that press its models for the forgotten
    metrics: tuple[str, ...] | None = (
        None  # figures it has, or groups of them; None: all
    )
    difficulty: Callable[[Any, str], Ranked] | None = None  # `(context, ranking)`
    # `network -> inputs` of two samples, their shapes only; None where it needs none
    example: Callable[[Any], Any] = lambda network: None
    # `data set -> data set`: as this kind of model reads it
    reads: Callable[[Dataset], Dataset] = lambda dataset: dataset
    # `(built, examples)`: the examples as its objectives read them
    samples: Callable[[Any, Examples], Examples] = lambda built, examples: examples
    # `context ->` what of a request its objectives hold as constants of the compiled
    # steps, beside arrays that travel in the state
    constants: Callable[[Any], Hashable] = lambda context: ()
    # `(subject, trained ids, text) -> (ids, word)` of a request in words of its own
    concerned: Callable[[Any, Any, str], Any] = lambda subject, ids, text: None
    finish: Callable[[UnlearnState], Variables] | None = None  # `state ->` its model
    # `(subject, training, key, inputs of two samples) -> variables` that training
    # begins from; None: those of the model's `init`
    start: Callable[..., Variables] | None = None
    # `(training, path of the checkpoint) -> training` of a model beside one of it
    beside: Callable[[Any, Any], Any] = lambda training, path: training
    # `(subject, ids) ->` what to say of a request to forget them, a sentence each
    warns: Callable[[Any, Any], Sequence[str]] = lambda subject, ids: ()
    # `(subject, training, schedule) -> schedule`: the batches of a training laid out
    layout: Callable[[Any, Any, Any], Any] = lambda subject, training, steps: steps
    # `(subject, setting, model) -> model` and `(subject, setting, schedule) ->
    # schedule`: the same steps, laid out for less work
    economical: Callable[..., Model] = lambda subject, setting, model: model
    fitting: Callable[..., Any] = lambda subject, setting, steps: steps
    # `setting ->` how its models are divided into what moves and what does not, if so
    division: Callable[[Any], Division | None] = lambda s: by_pattern(s.trainable)
    measured: int = 0  # samples of a part that masks and attacks look at; 0: all
    texts: bool = False  # whether its data are texts
    stateful: bool = True  # whether its models have a state that checkpoints hold
    options: type = NoOptions  # what an unlearning setting says of it alone
    defaults: Mapping[str, Any] = {}  # fields and options whose defaults differ, flat

    def serves(self, card: Card, weighting: WeightingCard) -> None:
        """Refuse a method or a weighting that needs what this kind of model lacks."""
        missing = [role for role in card.roles if role not in self.roles]
        if missing:
            raise InputError(
                f"method={card.name!r} needs {missing[0]!r}, which {self.name} models "
                "do not have; `jax-unlearn methods` lists those that serve"
            )
        if weighting.reads not in ("losses", *self.roles):
            raise InputError(
                f"weighting={weighting.name!r} reads {weighting.reads}, which "
                f"{self.name} models do not have; use loreun"
            )


def checked_attacks(infos: Mapping[str, Any], options: Any) -> dict[str, Any]:
    """Return what records say of attacks, refused where all are weak."""
    told = {
        name: {
            "auc": float(info.auc),
            "standard_error": float(info.standard_error),
            "better_than_chance": bool(membership.better_than_chance(info)),
        }
        for name, info in infos.items()
    }
    feedback = any(attack["better_than_chance"] for attack in told.values())
    if not (feedback or options.allow_weak):
        areas = ", ".join(f"{n} {float(info.auc):.3f}" for n, info in infos.items())
        raise InputError(
            f"attacks={options.attacks}: none is better than chance (held-out AUC: "
            f"{areas}), so ltu has no feedback; hold out more unseen samples, raise "
            "rho, or give --allow-weak to go on all the same"
        )
    return {"attacks": told}


def weak_attacks(details: Mapping[str, Any]) -> list[str]:
    """Return a warning for every attack that is no better than chance."""
    return [
        f"attack {name!r} is no better than chance (AUC {attack['auc']:.3f}): "
        "it gives no feedback"
        for name, attack in details.get("attacks", {}).items()
        if not attack["better_than_chance"]
    ]


def chosen(lab: Any, options: Any, **known: Mapping[str, Callable]) -> list[list[Any]]:
    """Return what lists of options name, of known makers; repeats are counted."""
    found: list[list[Any]] = []
    for option, makers in known.items():
        names = getattr(options, option)
        found.append([])
        for number, name in enumerate(names, 1):
            if name not in makers:
                raise InputError(
                    f"{option}={name!r} reads outputs that {lab.modality.name} models "
                    f"do not have; use {', '.join(makers)}"
                )
            count = names[:number].count(name)
            own = name if count == 1 else f"{name} {count}"
            found[-1].append(makers[name]()._replace(name=own))
    return found
