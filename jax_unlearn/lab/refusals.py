"""What does not go together, in a setting or with a request: each with a way out."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_unlearn.cards import Card, WeightingCard
from jax_unlearn.data import Dataset
from jax_unlearn.errors import InputError
from jax_unlearn.lab import catalog
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modality import Modality
from jax_unlearn.methods.step import statistics

__all__ = ["LENGTHS", "check", "check_unseen", "counts_steps", "few_samples"]
__all__ += ["kept_statistics", "two_gradients", "two_lengths"]

FEWEST = 16  # forget samples; fewer cost over two points of accuracy by their
# statistics alone, in the worst of six draws: tests/benchmarks/bench_statistics.py
# Of a request, not of a pass as `methods.step.FEWEST`: schedules cut passes of 4 to 15
# from large requests, too, whose running statistics are over many different samples.


def check(setting: Any, card: Card, weighting: WeightingCard, kind: Modality) -> None:
    """Refuse what the method, or this kind of model, does not read."""
    _check_length(setting, kind)
    method, guards = setting.method, "guard_utility, guard_endpoint"
    own = (c.name for c in catalog.METHODS.values() if c.joins)
    joining = " or ".join(f"method={name!r}" for name in own)
    joins = card.joins or (setting.schedule == "zipped" and card.schedule)
    whole = card.kind == "one-shot" and "training" in card.reads
    rewinds = getattr(setting.options, "rewind", False)
    own = vars(setting.modality_options).items()
    parts = ", ".join(f"{k}={v!r}" for k, v in own if k in ("lora", "dtype") and v)
    for flaw, text in (
        (
            setting.weighting != "uniform" and not card.weighs,
            f"weighting={setting.weighting!r}: {method} has no loss of forget samples "
            "to weight; leave it uniform or choose another method",
        ),
        (
            weighting.tokens is not None and not TOKENWISE & {*card.roles},
            f"weighting={setting.weighting!r} weights tokens, of which the forget loss "
            f"of {method} is no sum; use grad_diff, npo or simnpo, or a weighting of "
            "texts such as loreun",
        ),
        (
            setting.harmonizer not in ("auto", "none") and not joins,
            f"harmonizer={setting.harmonizer!r} needs {joining}, or schedule='zipped' "
            "and a method of two gradients",
        ),
        (
            setting.dual and not two_gradients(card),
            f"dual=True: {method} has no two gradients to give an optimizer each; "
            "leave it out or choose another method",
        ),
        (
            setting.dual and setting.joining != "none",
            f"dual=True: harmonizer={setting.harmonizer!r} makes one gradient of two; "
            "leave one of them out",
        ),
        (
            setting.dual and getattr(setting.options, "forget_rate", None),
            f"dual=True: forget_rate={getattr(setting.options, 'forget_rate', 0)} is "
            "of ascents without an optimizer; leave one of them out",
        ),
        (
            setting.salient and card.kind != "steps",
            f"salient=True: {method} takes no steps to mask; leave it out",
        ),
        (
            setting.rho != 1 and whole,
            f"rho={setting.rho}: {method} goes through the whole training again; "
            "leave it at 1",
        ),
        (
            setting.trainable and whole,
            f"trainable={setting.trainable!r}: {method} goes through the whole "
            "training again; leave it out",
        ),
        (
            parts and "training" in card.reads,
            f"{parts}: {method} trains as the original was trained; leave it out",
        ),
        (
            setting.steps and not counts_steps(card),
            f"steps={setting.steps}: {method} does not count steps; leave it out",
        ),
        (
            setting.guarded and card.kind != "steps",
            f"{guards}: {method} takes no steps to end between; leave them out",
        ),
        (
            setting.guarded and "logits" not in kind.roles,
            f"{guards}: {kind.name} models have no accuracy to look at; leave them out",
        ),
        (
            setting.guarded and rewinds,
            "rewind=True chooses among all epochs, guards end before the last; "
            "leave one of them out",
        ),
    ):
        if flaw:
            raise InputError(text)
    kind.serves(card, weighting)


# roles whose losses take weights of tokens
TOKENWISE = frozenset({"ascend", "next_token_ascent", "npo", "simnpo"})
LENGTHS = ("epochs", "steps", "share", "rewind_to")  # what a budget chooses


def two_lengths(budget: Any, name: str, value: Any) -> InputError:
    """Return the error of a setting that is told its length twice."""
    return InputError(
        f"budget={budget}, {name}={value}: both say how long it takes; leave one of "
        "them out"
    )


def _check_length(setting: Any, kind: Modality) -> None:
    """Refuse two lengths: a budget, and one of one's own."""
    if setting.budget is None:
        return
    options = {f.name: f.default for f in dataclasses.fields(setting.options)}
    usual = {f.name: f.default for f in dataclasses.fields(setting)} | options
    values = {**vars(setting), **vars(setting.options)}
    for name in LENGTHS:
        own = usual.get(name), kind.defaults.get(name)
        if name in values and values[name] not in own:
            raise two_lengths(setting.budget, name, values[name])


def counts_steps(card: Card) -> bool:
    """Whether `steps` may stand for epochs."""
    return card.kind == "steps" and not card.by_epochs


def two_gradients(card: Card) -> bool:
    """Whether a method's forget and retain gradients may go to optimizers apart."""
    return card.schedule or card.joins or card.phased


def check_unseen(dataset: Dataset, request: Any, setting: Any) -> None:
    """Refuse a request without the unseen samples that the method compares with."""
    compares = setting.compares
    if compares and len(request.unseen) < 2:
        raise InputError(
            f"method={setting.method!r} compares with unseen samples, of which there "
            f"are {len(request.unseen)}; hold some out in training (train "
            "--unseen-fraction, import --trained-on) or use another method"
        )
    labels = dataset.train.labels
    missing = np.setdiff1d(labels[request.forget], labels[request.unseen])
    if compares == "unseen classes" and missing.size:
        pools = hasattr(setting.weighting_options, "groups")
        raise InputError(
            f"class {dataset.class_names[missing[0]]} has forget samples but no unseen "
            "ones to compare with; hold out some of it (--unseen-fraction), "
            f"{'give --groups pooled, ' if pools else ''}or use another method"
        )


def few_samples(card: Card, request: Any, original: Trained) -> bool:
    """Return whether a method would take batch statistics of too small a request."""
    takes = card.kind == "steps" and "forget" in card.reads
    return takes and len(request.forget) < FEWEST and statistics(original.model_state)


def kept_statistics(details: Mapping[str, Any]) -> list[str]:
    """Return what to say of statistics that a small request leaves alone."""
    if "statistics" not in details:
        return []
    samples = details["statistics"]["samples"]
    return [
        f"too few samples for BatchNorm statistics of their own ({samples}, fewer than "
        f"{FEWEST}): those of the model stay as they are"
    ]
