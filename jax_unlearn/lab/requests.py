"""Requests: who is to be forgotten, drawn for a plan."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import data
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab.plan import NEIGHBOURS, Plan


class Request(NamedTuple):
    """Who is to be forgotten, of whom: disjoint sorted ids of training samples.

    Training used forget and retain.
    """

    forget: np.ndarray
    retain: np.ndarray
    unseen: np.ndarray


def held_out(
    plan: Plan, dataset: data.Dataset, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of a seed that are trained on, and those held out of all."""
    labels, unseen = dataset.train.labels, plan.unseen
    if 0 < unseen < 1:
        return data.holdout(labels, fraction=unseen, seed=seed)
    return data.holdout(labels, count=int(unseen), seed=seed)


class Case(NamedTuple):
    """One request of a plan, to the original of a seed."""

    seed: int
    part: str  # folder of its models beside the original's; "": one request a seed
    request: Request
    split: data.Split | None = None  # None for classes forgotten one at a time


def draw_cases(
    plan: Plan,
    dataset: data.Dataset,
    seed: int,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[Case]:
    """Return the requests of a seed: one as the plan's kind says, or one a class."""
    if not plan.classes:
        request, split = draw_request(plan, dataset, seed, features)
        return [Case(seed, "", request, split)]
    trained, unseen = held_out(plan, dataset, seed)
    cases, labels = [], dataset.train.labels[trained]
    for number in plan.classes:
        inside = labels == number
        if not inside.any() or inside.all():
            raise InputError(
                f"class {number} has {inside.sum()} of the {len(inside)} training "
                f"samples of {dataset.name}, which has "
                f"num_classes={dataset.num_classes}; forget another class"
            )
        request = Request(trained[inside], trained[~inside], unseen)
        cases.append(Case(seed, f"class{number}", request))
    return cases


def draw_request(
    plan: Plan,
    dataset: data.Dataset,
    seed: int,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[Request, data.Split]:
    """Return the forget request of a seed and its split, in ids of the data set.

    Base model and request come from one split: no forget sample was held out. The kinds
    "near" and "far" need features, `ids [n] -> [n, d]`.

    Raises:
      InputError: a request that the data cannot serve.
    """
    labels = dataset.train.labels
    trained, unseen = held_out(plan, dataset, seed)
    if plan.by_distance:
        if features is None:
            raise InputError(f"kind={plan.kind!r} needs the features of a model")
        options = {"near": plan.kind == "near", "neighbours": NEIGHBOURS}
        count = round(plan.fraction * len(trained))
        given = features(trained), labels[trained]
        chosen = data.by_distance(*given, count=count, **options)
        classes = dataset.num_classes
        split = data.given_split(given[1], chosen, kind=plan.kind, num_classes=classes)
        split = data.to_ids(split, trained)
    else:
        how = {name: getattr(plan, name) for name in ("kind", "fraction", "gamma")}
        split = drawn_split(dataset, trained, seed=seed, **how)
    return Request(split.forget, split.retain, unseen), split


def drawn_split(dataset: data.Dataset, trained: np.ndarray, **how: Any) -> data.Split:
    """Return `forget_split` of the samples trained on, in ids of the data set."""
    labels = dataset.train.labels[trained]
    split = data.forget_split(labels, num_classes=dataset.num_classes, **how)
    return data.to_ids(split, trained)


def requested(
    subject: Any, trained_ids: np.ndarray, text: str
) -> tuple[np.ndarray, str | None]:
    """Return the ids that a request names, and the word it is about, if any."""
    dataset = subject.dataset
    found = subject.modality.concerned(subject, trained_ids, text)
    if found is None and (Path(text).suffix or Path(text).exists()):
        size = len(dataset.train.labels)
        asked = data.check_ids(
            data.load_ids(text), num_samples=size, trained_ids=trained_ids
        )
        return asked, None
    if found is None:
        labels = dataset.train.labels[trained_ids]
        found = trained_ids[labels == class_id(text, dataset.class_names)], None
        if len(found[0]) == len(trained_ids):
            raise InputError(f"forget={text!r} names all that the model was trained on")
    if not len(found[0]):
        raise InputError(
            f"forget={text!r}: this model was not trained on any image of it; there is "
            "nothing to forget"
        )
    return found


def class_id(name: str, class_names: Sequence[str]) -> int:
    """Return the class of a name or a number."""
    names = list(class_names)
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise unknown_name("class", name, names)
