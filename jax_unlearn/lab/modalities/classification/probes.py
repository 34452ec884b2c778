"""Probes: what comes back of the forgotten when a classifier is pressed for it.

Each takes the parameters of every model, and is read beside Retrain treated alike: one
unlearned model and two Retrains (the target and the null), three for an interval.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from jax_unlearn import _validate, audit
from jax_unlearn.audit import Audit, Figure, FigureCard
from jax_unlearn.audit.auditor import level_figure
from jax_unlearn.audit.comparison import metric_row
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.data import take
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Trained, probabilities
from jax_unlearn.lab.modality import Probe as Probe
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.results import NULL, RETRAIN
from jax_unlearn.lab.subject import Subject

__all__ = ["PROBES", "Probe", "judged", "over_seeds", "probe", "with_probes"]

RATE, LOSS, LIMIT = 0.03, 0.1, 500  # of relearning: SGD until the mean loss; our choice
SGD = optax.sgd(RATE)  # one and the same, so that models share a program
BOUND = 8 / 255  # of the attack on test images, of the range of pixels
FEW, STEPS, BATCH = 0.2, 30, 64  # of recovery: share relearned, steps; our choice


def _relearn(subject: Subject, trained: Trained, request: Request, seed: int) -> float:
    at, key = (subject.model, *trained[:2]), jax.random.key(seed)
    few = [take(subject.dataset.train, request.forget)]
    options = {"loss_below": LOSS, "limit": LIMIT}
    return audit.relearn_steps(*at, few, SGD, key, **options).steps


def _robust(subject: Subject, trained: Trained, request: Request, seed: int) -> float:
    del request, seed
    dataset, scale = subject.dataset, subject.dataset.range
    pixels = scale.unit(dataset.test.inputs)
    # test pixels may lie outside the range of the training images
    low, high = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    return audit.robust_accuracy(
        scale.model(subject.model),
        *trained[:2],
        pixels,
        dataset.test.labels,
        bound=BOUND,
        low=low,
        high=high,
    )


def _recover(part: str) -> Callable[[Subject, Trained, Request, int], float]:
    def measure(
        subject: Subject, trained: Trained, request: Request, seed: int
    ) -> float:
        """Return the percentage right of the held-out forget samples afterwards."""
        forget, train = request.forget, subject.dataset.train
        count = max(round(FEW * len(forget)), 1)
        if len(forget) < 2:
            raise InputError(
                f"probe='recover' relearns some of the forget samples and looks at the "
                f"others, and there is {len(forget)}; use int8, int4 or relearn"
            )
        rng = np.random.default_rng(seed)
        few, held = np.split(rng.permutation(forget), [count])
        if part == "retain":
            few = rng.permutation(request.retain)[:count]
        groups = np.array_split(few, -(-len(few) // BATCH))
        batches = [take(train, group) for group in groups]
        given = subject.model, *trained[:2], batches, take(train, held), SGD
        key = jax.random.key(seed)
        found = audit.recovery(*given, key, steps=STEPS, every=STEPS)
        return float(found.right[-1])

    return measure


def _rounded(bits: int) -> Callable[[Subject, Trained, Request, int], float]:
    def measure(
        subject: Subject, trained: Trained, request: Request, seed: int
    ) -> float:
        """Return the percentage right of the forget samples with rounded weights."""
        del seed
        train = subject.dataset.train
        weights = audit.quantised(trained.params, bits=bits)
        inputs = take(train, request.forget).inputs
        outputs = probabilities(subject.model, trained._replace(params=weights), inputs)
        right = outputs.argmax(axis=1) == train.labels[request.forget]
        return float(100 * np.mean(right))

    return measure


def _aligned(
    subject: Subject, trained: Trained, request: Request, seed: int, original: Trained
) -> float:
    """Return the AUC of forget against unseen samples, in percent."""
    del seed
    train, test = subject.dataset.train, subject.dataset.test
    never = take(train, request.unseen) if len(request.unseen) else test
    models = subject.model, original[:2], trained[:2]
    sides = (
        audit.gradient_alignment(*models, part.inputs, part.labels)
        for part in (take(train, request.forget), never)
    )
    return 100 * audit.roc_auc(*sides)


PROBES: dict[str, Probe] = {
    "relearn": Probe(
        "relearn steps",
        f"steps of SGD on the forget samples until their mean loss is {LOSS}",
        "steps · F",
        _relearn,
        (0, np.inf),
    ),
    "recover": Probe(
        "others right after relearning %",
        f"forget samples got right after {STEPS} steps of SGD on {FEW:.0%} of them, of "
        "the others",
        f"{STEPS} steps of up to {BATCH}",
        _recover("forget"),
        share=1 - FEW,
    ),
    "recover-retain": Probe(
        "right after tuning on retain %",
        f"the same after {STEPS} steps on as many retain samples",
        f"{STEPS} steps of up to {BATCH}",
        _recover("retain"),
        share=1 - FEW,
    ),
    "int8": Probe(
        "forget right, int8 %",
        "forget samples got right with weights rounded to 8 bits, in blocks of 64",
        "F / 3",
        _rounded(8),
        share=1.0,
    ),
    "int4": Probe(
        "forget right, int4 %",
        "the same with 4 bits",
        "F / 3",
        _rounded(4),
        share=1.0,
    ),
    "robustness": Probe(
        "robust accuracy %",
        "test samples that stay right under PGD, 10 steps within 8/255",
        "10 · S",
        _robust,
    ),
    "alignment": Probe(
        "gradient alignment AUC %",
        "forget samples told from unseen ones by how their gradients at the original "
        "point along the step to the model's weights; 50 is guessing",
        "F + S",
        _aligned,
        pair=True,
    ),
}
"""By name; the target of each is Retrain's value, treated alike."""


def probe(
    subject: Subject,
    trained: Trained,
    request: Request,
    names: Sequence[str],
    *,
    original: Trained | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Return what the probes find of a model, which came of an original."""
    for name in names:
        _validate.one_of("probe", name, PROBES)
        if PROBES[name].pair and original is None:
            raise InputError(
                f"probe={name!r} looks at what changed from the original; give "
                "original=, a trained model"
            )
    given = subject, trained, request, seed
    return {
        name: PROBES[name].measure(*given, *((original,) if PROBES[name].pair else ()))
        for name in names
    }


def over_seeds(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Return what results hold of probes over seeds: means, and figures beside null.

    The interval is that of `ju.audit.compare`: from the differences of null and Retrain
    seed by seed; without a null, or of under three seeds, there is none.
    """
    told: dict[str, Any] = {
        key: {name: float(np.mean([s[name] for s in seeds])) for name in seeds[0]}
        for key, seeds in rows.items()
        if seeds
    }
    figures: dict[str, dict[str, Any]] = {}
    for key in [k for k in told if k not in (RETRAIN, NULL) and RETRAIN in told]:
        for name in told[key]:
            values, target, null = (
                np.array([seed[name] for seed in rows[side]], np.float64)
                for side in (key, RETRAIN, NULL if NULL in told else RETRAIN)
            )
            goal = float(target.mean())
            std = float(values.std(ddof=1)) if len(values) > 1 else None
            ends: tuple[Any, ...] = (None, None, "")
            if NULL in told and len(values) >= FEWEST:
                row = metric_row(values, target, null)
                ends = goal + row.null_low, goal + row.null_high, row.verdict
            figure = Figure(float(values.mean()), std, goal, *ends)
            figures.setdefault(key, {})[name] = figure._asdict()
    return {"probes": told, "probe_figures": figures}


def with_probes(
    found: Audit,
    probes: Mapping[str, Mapping[str, np.ndarray]],
    retrained: Mapping[str, np.ndarray],
    known: Mapping[str, Probe] = PROBES,
) -> Audit:
    """Add to an audit what probes found of each model, `f64[N]`, as levels.

    Target and interval are from what they found of each Retrain, as of any level.
    """

    def figure(name: str, values: np.ndarray) -> Figure:
        return level_figure(
            values,
            retrained[name],
            samples=round(known[name].share * found.forgotten),
            bounds=known[name].bounds,
            level=found.level,
        )

    cards = {
        name: FigureCard(
            name,
            known[name].label,
            known[name].meaning,
            kind="level",
            group="Hidden memory",
            digits=3 if known[name].bounds[1] == 1 else 1,
            bounds=known[name].bounds,
        )
        for name in retrained
    }
    figures = {
        method: own | {name: figure(name, probes[method][name]) for name in cards}
        for method, own in found.figures.items()
    }
    return found._replace(figures=figures, cards={**found.cards, **cards})


def judged(
    found: Mapping[str, Mapping[str, float]],
    more: Sequence[Mapping[str, float]],
    forgotten: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the probes of models beside those of Retrains, as figures by row.

    `found` are values by row and probe, `more` those of Retrains without a row.
    """
    again = [found[key] for key in (RETRAIN, NULL) if key in found]
    again += more
    rows = [key for key in found if key not in (RETRAIN, NULL)]
    if not again:
        return {}

    def figure(key: str, name: str) -> Figure:
        card = PROBES[name]
        values = np.array([one[name] for one in again], np.float64)
        how = {"bounds": card.bounds, "samples": round(card.share * forgotten)}
        return level_figure(np.array([found[key][name]], np.float64), values, **how)

    return {
        key: {name: figure(key, name)._asdict() for name in found[key]} for key in rows
    }
