"""Requests: who is to be forgotten, drawn for a plan."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import data
from jax_unlearn.data.checks import check_real
from jax_unlearn.data.lists import LISTS
from jax_unlearn.data.splits import WORST
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab.plan import NEIGHBOURS, Plan
from jax_unlearn.language.texts import TOPIC

__all__ = ["Asked", "Case", "Keys", "LeftOut", "Request", "Search", "class_id"]
__all__ += ["draw_cases", "draw_request", "drawn_split", "held_beside", "held_out"]
__all__ += ["is_list", "left_out", "listed", "listed_split", "requested", "said_of"]
__all__ += ["set_aside", "split_of", "split_within", "trained_on"]


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
    if plan.held:
        unseen = np.sort(np.array(plan.held, np.int64))
        return np.setdiff1d(np.arange(len(labels)), unseen), unseen
    if plan.given:
        count = round(unseen * len(labels)) if 0 < unseen < 1 else int(unseen)
        return held_beside(labels, np.array(plan.given), count=count, seed=seed)
    if 0 < unseen < 1:
        return data.holdout(labels, fraction=unseen, seed=seed)
    return data.holdout(labels, count=int(unseen), seed=seed)


def set_aside(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids that are trained on, and a share held out, none of 0."""
    if fraction == 0:
        return np.arange(len(labels)), np.zeros(0, np.int64)
    check_real("unseen_fraction", fraction, "the part to hold out, such as 0.1")
    return data.holdout(labels, fraction=fraction, seed=seed)


Search = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, dict[str, Any]]]
"""`(trained ids, unseen ids, count) -> (ids, note)`, of the worst request."""


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
    search: Search | None = None,
) -> list[Case]:
    """Return the requests of a seed: one as the plan's kind says, or one a class."""
    if not plan.classes:
        request, split = draw_request(plan, dataset, seed, features, search)
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
    search: Search | None = None,
) -> tuple[Request, data.Split]:
    """Return the forget request of a seed and its split, in ids of the data set.

    Base model and request come from one split: no forget sample was held out. The kinds
    "near" and "far" need features, `ids [n] -> [n, d]`, "worst" and "hard" a search.

    Raises:
      InputError: a request that the data cannot serve.
    """
    labels = dataset.train.labels
    trained, unseen = held_out(plan, dataset, seed)
    if plan.kind in WORST:
        if search is None:
            raise InputError(
                f"kind={plan.kind!r} needs a model to search with; give the split that "
                f"`jax-unlearn split --kind {plan.kind} --original MODEL` writes as "
                "--forget"
            )
        ids, note = search(trained, unseen, round(plan.fraction * len(trained)))
        split = split_within(dataset, trained, ids, kind=plan.kind)
        split = split._replace(manifest={**split.manifest, "search": note})
    elif plan.by_distance:
        if features is None:
            raise InputError(
                f"kind={plan.kind!r} goes by distances between a model's features, and "
                "no model is given; choose random, class or long_tailed"
            )
        options = {"near": plan.kind == "near", "neighbours": NEIGHBOURS}
        count = round(plan.fraction * len(trained))
        given = features(trained), labels[trained]
        chosen = data.by_distance(*given, count=count, **options)
        classes = dataset.num_classes
        split = data.given_split(given[1], chosen, kind=plan.kind, num_classes=classes)
        split = data.to_ids(split, trained)
    elif plan.given:
        split = split_within(dataset, trained, np.array(plan.given))
    else:
        how = {name: getattr(plan, name) for name in ("kind", "fraction", "gamma")}
        split = drawn_split(dataset, trained, seed=seed, **how)
    return Request(split.forget, split.retain, unseen), split


def drawn_split(dataset: data.Dataset, trained: np.ndarray, **how: Any) -> data.Split:
    """Return `forget_split` of the samples trained on, in ids of the data set."""
    labels, kind = dataset.train.labels[trained], how.get("kind")
    if dataset.is_text and kind != "random" and TOPIC not in dataset.columns:
        raise InputError(
            f"kind={kind!r} goes by topics, and {dataset.name} has none; give its rows "
            "a topic, or name the column of topics: --label-column NAME"
        )
    split = data.forget_split(labels, num_classes=dataset.num_classes, **how)
    return data.to_ids(split, trained)


class Keys(NamedTuple):
    """How the samples of a list are looked up; no column: by position."""

    column: str | None = None
    skip_unknown: bool = False


class Asked(NamedTuple):
    """What a request names: ids of training samples, sorted; the word it is about."""

    ids: np.ndarray
    concept: str | None
    record: dict[str, Any]  # of the list, see `data.load_request`; {}: no list


def requested(
    subject: Any, trained: np.ndarray, unseen: np.ndarray, text: str, keys: Keys
) -> Asked:
    """Return what a request to a model names: a list, a class or a word."""
    dataset = subject.dataset
    concerned = subject.modality.concerned(subject, trained, text)
    if concerned is not None:
        ids, word = concerned
        asked = Asked(ids, word, {})
    elif is_list(text, dataset):
        named = listed(text, dataset, keys)
        if not keys.column:
            size = {"num_samples": len(dataset.train.labels), "unseen_ids": unseen}
            data.check_ids(named.ids, trained_ids=trained, **size)
        asked = _held(named, trained, text)
    else:
        labels = dataset.train.labels[trained]
        try:
            inside = labels == class_id(text, dataset.class_names)
        except InputError as error:
            if keys.column is None:
                raise
            raise InputError(
                f"forget={text!r} is no file and no class; list keys of column "
                f"{keys.column!r} in a file, one a line: --forget keys.txt"
            ) from error
        asked = Asked(trained[inside], None, {})
    if len(asked.ids) == len(trained):
        raise InputError(
            f"forget={text!r} names all that the model was trained on; name fewer"
        )
    if not len(asked.ids):
        raise InputError(
            f"forget={text!r}: this model was not trained on any image of it; there is "
            "nothing to forget"
        )
    return asked


def trained_on(path: Path | None, dataset: data.Dataset, keys: Keys) -> np.ndarray:
    """Return the training samples that a file lists, sorted; without one, all."""
    size = len(dataset.train.labels)
    if path is None:
        return np.arange(size)
    ids = listed(path, dataset, keys).ids
    if not keys.column and len(ids) < size:
        data.check_ids(ids, num_samples=size)
    if len(np.unique(ids)) != len(ids) or len(ids) > size:
        raise InputError(
            f"trained_on={path} names {len(ids)} samples, some twice; name each once"
        )
    return np.sort(ids)


def is_list(text: str, dataset: data.Dataset) -> bool:
    """Return whether a request is a file, and no class by its name."""
    return text not in dataset.class_names and bool(
        Path(text).suffix or Path(text).exists()
    )


def listed(path: str | Path, dataset: data.Dataset, keys: Keys) -> data.Named:
    """Return the training samples that a file lists, see `data.load_request`."""
    how = {"key_column": keys.column, "skip_unknown": keys.skip_unknown}
    return data.load_request(path, dataset, **how)


def _held(named: data.Named, trained: np.ndarray, text: str) -> Asked:
    """Return those of the samples of keys that a model was trained on."""
    ids = np.intersect1d(named.ids, trained)
    left = len(named.ids) - len(ids)
    if not len(ids):
        raise InputError(
            f"forget={text!r}: the model was trained on none of the {left} samples of "
            "these keys; there is nothing to forget"
        )
    # samples of a key that were held out are no part of the model
    return Asked(ids, None, {**named.record, **({"not_trained": left} if left else {})})


def listed_split(
    dataset: data.Dataset, named: data.Named, *, fraction: float, seed: int
) -> tuple[data.Split, np.ndarray]:
    """Return the split that forgets listed samples, and others held out of all."""
    check_real("unseen_fraction", fraction, "the part to hold out, such as 0.1")
    labels = dataset.train.labels
    count = round(fraction * len(labels))
    trained, unseen = held_beside(labels, named.ids, count=count, seed=seed)
    parts = split_within(dataset, trained, named.ids)
    manifest = {**parts.manifest, "request": named.record}
    return parts._replace(manifest=manifest), unseen


def held_beside(
    labels: np.ndarray, forget: np.ndarray, *, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids that are trained on, those to forget included, and others."""
    data.check_ids(forget, num_samples=len(labels))
    rest = np.setdiff1d(np.arange(len(labels)), forget)
    if not count:
        return np.arange(len(labels)), rest[:0]
    kept, unseen = data.holdout(labels[rest], count=count, seed=seed)
    return np.union1d(forget, rest[kept]), rest[unseen]


def split_within(
    dataset: data.Dataset,
    trained: np.ndarray,
    forget: np.ndarray,
    *,
    kind: str = "given",
) -> data.Split:
    """Return the split of the samples trained on that forgets some of them."""
    inside = np.flatnonzero(np.isin(trained, forget))
    labels, classes = dataset.train.labels[trained], dataset.num_classes
    parts = data.given_split(labels, inside, kind=kind, num_classes=classes)
    return data.to_ids(parts, trained)


def split_of(path: Path, labels: np.ndarray) -> tuple[data.Split, np.ndarray]:
    """Return a split and its unseen ids; of a list, say where that belongs."""
    listing = path.suffix.lower() in LISTS
    if path.suffix.lower() == ".json" and path.is_file():
        listing = isinstance(data.read_json(path), list)
    if listing and path.is_file():
        raise InputError(
            f"split={path} is a list of samples, no manifest of `jax-unlearn split`; "
            f"give it as --forget {path}"
        )
    return data.load_manifest(path, labels=labels)


class LeftOut(NamedTuple):
    """Samples that a model is trained without: those of lists, and whole classes."""

    ids: np.ndarray
    classes: list[int]
    told: dict[str, Any]  # of lists, what decides the model
    notes: dict[str, Any]  # what its record says of them


def left_out(texts: Sequence[str], dataset: data.Dataset, keys: Keys) -> LeftOut:
    """Return what lists and classes, as the command line names them, leave out."""
    lists = [text for text in texts if is_list(text, dataset)]
    names = [text for text in texts if text not in lists]
    classes = [class_id(name, dataset.class_names) for name in names]
    named = [listed(text, dataset, keys) for text in lists]
    none = np.zeros(0, np.int64)
    ids = functools.reduce(np.union1d, [one.ids for one in named], none)
    told = {"forgotten_sha256": data.digest(ids)} if lists else {}
    notes = {"requests": [one.record for one in named]} if lists else {}
    inside = np.flatnonzero(np.isin(dataset.train.labels, classes))
    return LeftOut(np.union1d(ids, inside), classes, told, notes)


def said_of(record: dict[str, Any]) -> str:
    """Return in words what a list's record says: how many ids or keys, of which file.

    >>> said_of(
    ...     {"file": "del.csv", "count": 2, "key_column": "user", "sha256": "0" * 64}
    ... )
    'The request: 2 keys of column user, listed in del.csv (sha256 000000000000).'
    """
    count, column = record.get("count"), record.get("key_column")
    what = f"{count} keys of column {column}" if column else f"{count} samples"
    digest = str(record.get("sha256", ""))[:12]
    said = f"The request: {what}, listed in {record.get('file')} (sha256 {digest})"
    for name, whom in (("unknown", "no sample"), ("in_test", "test samples alone")):
        if missing := len(record.get(name, ())):
            said += f"; {missing} of the keys name {whom}"
    if left := record.get("not_trained"):
        said += f"; the model was not trained on {left} of their samples"
    return f"{said}."


def class_id(name: str, class_names: Sequence[str]) -> int:
    """Return the class of a name or a number."""
    names = list(class_names)
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise unknown_name("class", name, names)
