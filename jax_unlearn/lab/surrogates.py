"""What a search of settings reads: none of the samples that are reported.

Settings that were chosen on the forget samples and the test set would flatter the
figures of both. So a search has a data set of its own, without them, and requests drawn
like the one that is to be served. How good a model is, is told beside a Retrain, or
without one.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Dataset, Examples, holdout
from jax_unlearn.data.splits import draw_per_class, random_bits
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Trained, probabilities
from jax_unlearn.lab.modalities.classification.figures import measure, outputs_of
from jax_unlearn.lab.plan import Plan
from jax_unlearn.lab.requests import Request, draw_request, drawn_split, held_out
from jax_unlearn.lab.subject import Subject

__all__ = ["Distance", "ForgetAgainstUnseen", "Ground", "Likeness", "Unseen", "draw"]
__all__ += ["ground_of", "text_distances"]

HELD = 0.1  # of the samples that may be read: the search's test set
SOME = 200  # retain texts that are looked at, about


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
        train=dataset.train.at(both),
        test=dataset.train.at(np.sort(source[held])),
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


class Distance:
    """How far models of one request are from its Retrain."""

    by = "avg_gap"

    def __init__(
        self, subject: Subject, request: Request, retrained: Trained, seed: int
    ):
        self._subject, self._request, self._seed = subject, request, seed
        self._goal, self._target = self._look(retrained)

    def __call__(self, trained: Trained) -> dict[str, float]:
        """Return Avg. Gap and mean |p - p*|, or the same of margins in their stead.

        Of texts the mean of `text_distances` stands for Avg. Gap.
        """
        whole, own = self._look(trained)
        if isinstance(whole, dict):
            gap = float(np.mean([*text_distances(whole, self._goal).values()]))
        elif isinstance(whole, audit.Metrics):
            gap = audit.avg_gap(whole, self._goal)
        else:
            gap = float(np.mean(np.abs(whole - self._goal)))
        apart = np.asarray(own, np.float64) - self._target
        return {"avg_gap": gap, "deviation": float(np.mean(np.abs(apart)))}

    def _look(self, trained: Trained) -> tuple[Any, np.ndarray]:
        """Return what is compared of a model as a whole, and by forget sample."""
        subject, request = self._subject, self._request
        dataset, kind = subject.dataset, subject.modality
        if "logits" in kind.roles:
            outputs = outputs_of(subject, trained)
            whole = measure(outputs, dataset, request, seed=self._seed)
            return whole, outputs.confidence(dataset, request.forget)
        if kind.texts:
            losses = _losses(subject, trained, request)
            return losses, np.exp(-losses["forget"])
        most = kind.measured or None
        parts = [subject.examples.at(ids[:most]) for ids in request[:2]]
        parts.append(kind.samples(subject.built, dataset.test).at(slice(most)))
        margins = [_margins(subject, trained, part) for part in parts]
        return np.array([one.mean() for one in margins]), margins[0]


def text_distances(
    losses: Mapping[str, np.ndarray], retrained: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return how far a model of texts is from Retrain, three distances of 0 to 1.

    Mean |p − p*| of the forget and of the retain texts, p = e^{−ℓ̄}, and |AUC − AUC*|,
    by which the loss tells forget from unseen texts. Too much forgotten counts as too
    little does, the one where AUC falls below Retrain's, the other above it; what the
    other texts lose counts as much. Our choice: none of the three is what any method
    minimises.

    >>> own = {name: np.zeros(2) for name in ("forget", "retain", "unseen")}
    >>> text_distances(own, {**own, "unseen": np.ones(2)})
    {'forget': 0.0, 'retain': 0.0, 'auc': 0.5}
    """
    found = {
        part: float(np.abs(np.exp(-losses[part]) - np.exp(-retrained[part])).mean())
        for part in ("forget", "retain")
    }
    if "unseen" in losses:
        own, goal = (
            audit.language.attack_auc(-one["forget"], -one["unseen"])
            for one in (losses, retrained)
        )
        found["auc"] = abs(own - goal)
    return found


def _losses(
    subject: Subject, trained: Trained, request: Request
) -> dict[str, np.ndarray]:
    """Return the mean losses of the texts of a request by part."""
    from jax_unlearn.lab.modalities.language import measured

    parts = {
        "forget": request.forget,
        "retain": request.retain[:: max(len(request.retain) // SOME, 1)],
        "unseen": request.unseen,
    }
    found, (model, examples) = {}, (subject.model, subject.examples)
    for name, ids in parts.items():
        if len(ids):
            own = measured.scores_of(model, trained[:2], examples.at(ids))
            found[name] = measured.mean_losses(own)
    return found


class Unseen(NamedTuple):
    """What a model shows of one request, where there is no Retrain."""

    forget: np.ndarray  # how sure it is of the true class of each sample, as the others
    unseen: np.ndarray
    held: np.ndarray  # of the held-out samples
    right: np.ndarray  # whether it is right of each forget sample
    accuracy: float  # share of the held-out samples of classes that stay


class ForgetAgainstUnseen:
    r"""How well forget samples are told from unseen ones, and what utility is lost.

    .. math::
        S(\theta) = 100 \Big| \sum_{k\ \text{stays}} \frac{F_k}{F} (2 A_k - 1) \Big|
          {} + 100 \sum_{k\ \text{goes}} \frac{F_k}{F} \text{acc}_k(\theta)
          {} + \max(0, TA(\theta_o) - TA(\theta))

    A_k is the AUC by which the confidence in the true class tells the F_k forget
    samples of class k from unseen samples of that class (of all classes, where it has
    none): 1/2 where nothing does, as of a model that never saw either. Both sides
    count: forget samples that are less sure than unseen ones stand out too. The signed
    values are joined first, since the AUC of the few samples of a class is noise. A
    class that goes, all of whose samples are to be forgotten, has another target: a
    model that never saw it is never right of it. TA is the accuracy, in percent, on
    held-out samples of the classes that stay; the original θ_o has what a Retrain of
    little less data would have. Of models without classes to be right of, the AUC of
    the held-out samples' margins, θ_o against θ, takes its place.

    All three terms are percentages with target 0, and weigh alike, as those of Avg. Gap
    do. Our choice: it reads no Retrain, so it cannot know the accuracy that a Retrain
    would have on samples it never saw; what it can know is that they are like unseen
    ones. Settings chosen by it are to be audited as any others.
    """

    by = "unseen_gap"

    def __init__(self, subject: Subject, request: Request, original: Trained):
        self._subject, self._request = subject, request
        labels = subject.dataset.train.labels
        self._own, self._others = labels[request.forget], labels[request.unseen]
        self._gone = np.setdiff1d(self._own, labels[request.retain])
        if self._gone.size and "logits" not in subject.modality.roles:
            raise InputError(
                f"without_retrain=True: what a {subject.modality.name} model makes of "
                f"class {self._gone[0]}, had it never seen it, is not known without a "
                "Retrain; leave --without-retrain out"
            )
        if not len(self._others):
            raise InputError(
                "without_retrain=True compares with unseen samples, and this model was "
                "trained on all samples; give a checkpoint that some were held out from"
            )
        self._original = self._look(original)

    def __call__(self, trained: Trained) -> dict[str, float]:
        """Return S, and its three terms."""
        found, before = self._look(trained), self._original
        told, right = 0.0, 0.0
        for k in np.unique(self._own):
            own, share = self._own == k, np.mean(self._own == k)
            if k in self._gone:
                right += share * np.mean(found.right[own])
                continue
            same = self._others == k
            others = found.unseen[same] if same.any() else found.unseen
            told += share * (2 * audit.roc_auc(found.forget[own], others) - 1)
        if "logits" in self._subject.modality.roles:
            lost = 100 * (before.accuracy - found.accuracy)
        else:
            lost = 100 * (2 * audit.roc_auc(before.held, found.held) - 1)
        terms = {"told_apart": 100 * abs(told), "right": 100 * right}
        terms |= {"lost": max(0.0, lost)}
        terms = {name: float(value) for name, value in terms.items()}
        return {"unseen_gap": sum(terms.values()), **terms}

    def _look(self, trained: Trained) -> Unseen:
        subject, request = self._subject, self._request
        train, test = subject.dataset.train, subject.dataset.test
        forget, unseen = request.forget, request.unseen
        if "logits" not in subject.modality.roles:
            held = subject.modality.samples(subject.built, test)
            parts = [subject.examples.at(ids) for ids in (forget, unseen)]
            own, others, held = (_margins(subject, trained, p) for p in (*parts, held))
            return Unseen(own, others, held, np.zeros(len(forget), bool), 0.0)
        stays = ~np.isin(test.labels, self._gone)
        own, others, held = (
            probabilities(subject.model, trained, inputs)
            for inputs in (train.inputs[forget], train.inputs[unseen], test.inputs)
        )
        right = held.argmax(1) == test.labels
        return Unseen(
            _sure(own, self._own),
            _sure(others, self._others),
            _sure(held, test.labels),
            own.argmax(1) == self._own,
            float(np.mean(right[stays])) if stays.any() else 0.0,
        )


def _sure(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return probabilities[np.arange(len(labels)), labels]


def _margins(subject: Subject, trained: Trained, examples: Examples) -> np.ndarray:
    """Return how sure a model of any kind is of each sample, `[n]`."""
    kind = subject.modality
    logits = kind.observe(subject, trained[:2], examples)
    return audit.margins(logits, kind.targets(examples))
