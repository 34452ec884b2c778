"""What a search of settings reads: none of the samples that are reported.

Settings that were chosen on the forget samples and the test set would flatter the
figures of both. So a search has a data set of its own, without them, and requests drawn
like the one that is to be served.
"""

from typing import Any, NamedTuple

import numpy as np

from jax_unlearn.data import Dataset, Examples, holdout
from jax_unlearn.data.splits import draw_per_class, random_bits
from jax_unlearn.errors import InputError
from jax_unlearn.lab.plan import Plan
from jax_unlearn.lab.requests import Request, draw_request, drawn_split, held_out

__all__ = ["Ground", "Likeness", "draw", "ground_of"]

HELD = 0.1  # of the samples that may be read: the search's test set


class Likeness(NamedTuple):
    """What the requests of a search are like.

    Attributes:
      kind, fraction, gamma: of requests that are drawn at random, as in `Plan`.
      counts: samples of each class of the request that they are drawn like, `[K]`.
      gone: whether it takes all samples of a class that there are, `[K]`.
    """

    kind: str = "given"
    fraction: float = 0.1
    gamma: float = 1.0
    counts: np.ndarray | None = None
    gone: np.ndarray | None = None

    @classmethod
    def like(cls, dataset: Dataset, request: Request) -> "Likeness":
        """Return the kind of a request that is given."""
        labels, classes = dataset.train.labels, dataset.num_classes
        counts, left = (
            np.bincount(labels[ids], minlength=classes)
            for ids in (request.forget, request.retain)
        )
        return cls(counts=counts, gone=(counts > 0) & (left == 0))

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        arrays = {"counts": self.counts, "gone": self.gone}
        lists = {k: None if v is None else v.tolist() for k, v in arrays.items()}
        return self._asdict() | lists


class Ground(NamedTuple):
    """The data set of a search, and who may be trained on in it.

    Attributes:
      dataset: copies of the samples that it reads, no other; its test set are samples
        held out for it.
      trained: ids that a model is, or may be, trained on.
      unseen: ids that the checkpoint's model was not trained on; none where each seed
        holds out its own.
    """

    dataset: Dataset
    trained: np.ndarray
    unseen: np.ndarray


def ground_of(
    dataset: Dataset, trained: np.ndarray, unseen: np.ndarray, forget: np.ndarray
) -> Ground:
    """Return what a search reads beside a model's own training samples.

    Without `unseen` a tenth of the samples it was trained on takes the place of the
    test set, and models are trained anew on the others; with them, half of them do, and
    the model itself is looked at.
    """
    labels, pool = dataset.train.labels, np.setdiff1d(trained, forget)
    source = unseen if len(unseen) else pool
    options: Any = {"count": len(unseen) // 2} if len(unseen) else {"fraction": HELD}
    try:
        left, held = holdout(labels[source], **options)
    except InputError as error:
        raise InputError(
            f"{len(source)} samples are left for the search, too few to hold some out "
            "as its test set; give more data"
        ) from error
    rest = source[left] if len(unseen) else pool[:0]
    both = np.union1d(pool if len(unseen) else pool[left], rest)
    own = dataset._replace(
        train=_rows(dataset.train, both),
        test=_rows(dataset.train, np.sort(source[held])),
        columns={name: column[both] for name, column in dataset.columns.items()},
    )
    is_unseen = np.isin(both, rest)
    return Ground(own, np.flatnonzero(~is_unseen), np.flatnonzero(is_unseen))


def draw(
    ground: Ground, asked: Likeness, plan: Plan, seed: int, features: Any
) -> Request:
    """Return the request of a seed; models of the seed are trained on its samples."""
    dataset, unseen = ground.dataset, ground.unseen
    if asked.counts is None and not len(unseen):
        return draw_request(plan, dataset, seed, features)[0]
    trained = ground.trained
    if not len(unseen):
        trained, unseen = held_out(plan, dataset, seed)
    if asked.counts is not None:
        forget = _drawn_like(dataset, trained, asked, seed)
    elif plan.by_model:
        raise InputError(
            f"kind={asked.kind!r} needs models of the search's own; leave "
            "--without-retrain out, or choose random, class or long_tailed"
        )
    else:
        how = {name: getattr(asked, name) for name in ("kind", "fraction", "gamma")}
        forget = drawn_split(dataset, trained, seed=seed, **how).forget
    return Request(forget, np.setdiff1d(trained, forget), unseen)


def _drawn_like(
    dataset: Dataset, trained: np.ndarray, asked: Likeness, seed: int
) -> np.ndarray:
    """Draw as many samples of each class as a request has, of others than those.

    Of a class that the request takes whole, or more than half of, too few are left:
    another class, drawn by the seed, stands for it, whole or with as many samples.
    """
    assert asked.counts is not None
    assert asked.gone is not None
    counts, gone = asked.counts, asked.gone
    labels = dataset.train.labels[trained].astype(np.int64)
    sizes = np.bincount(labels, minlength=len(counts))
    wanted = np.where((counts < sizes) & ~gone, counts, 0)
    rng = np.random.default_rng([seed, len(trained)])
    for k in np.flatnonzero((counts > 0) & (wanted == 0)):
        free = (wanted == 0) & ((counts == 0) | (np.arange(len(counts)) == k))
        free &= sizes > (0 if gone[k] else counts[k])
        if not free.any() or np.count_nonzero(sizes) < 2:
            raise InputError(
                f"the request takes {counts[k]} samples of class {k}, and of no other "
                "class are so many left to draw a request like it; leave --forget out "
                "and say --kind and --fraction"
            )
        other = rng.choice(np.flatnonzero(free))
        wanted[other] = sizes[other] if gone[k] else counts[k]
    if wanted.sum() >= len(trained):
        raise InputError(
            f"a request like this one takes all {len(trained)} samples that are left; "
            "leave --forget out and say --kind and --fraction"
        )
    return np.sort(trained[draw_per_class(random_bits(seed), labels, wanted)])


def _rows(examples: Examples, ids: np.ndarray) -> Examples:
    return Examples(examples.inputs[ids], examples.labels[ids])
