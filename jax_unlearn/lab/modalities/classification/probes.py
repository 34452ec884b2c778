"""What classifiers are pressed by for the forgotten, see `lab.probes`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jax_unlearn import audit
from jax_unlearn.data import take
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Trained, probabilities
from jax_unlearn.lab.probes import Probe, probe_card

__all__ = ["PROBES"]

RATE, LOSS, LIMIT = 0.03, 0.1, 500  # of relearning: SGD until the mean loss; our choice
SGD = optax.sgd(RATE)  # one and the same, so that models share a program
BOUND = 8 / 255  # of the attack on test images, of the range of pixels
FEW, STEPS, BATCH = 0.2, 30, 64  # of recovery: share relearned, steps; our choice


def _relearn(subject: Any, trained: Trained, request: Any, seed: int) -> float:
    at, key = (subject.model, *trained[:2]), jax.random.key(seed)
    few = [take(subject.dataset.train, request.forget)]
    options = {"loss_below": LOSS, "limit": LIMIT}
    return audit.relearn_steps(*at, few, SGD, key, **options).steps


def _robust(subject: Any, trained: Trained, request: Any, seed: int) -> float:
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


def _recover(part: str) -> Callable[..., float]:
    def measure(subject: Any, trained: Trained, request: Any, seed: int) -> float:
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


def _rounded(bits: int) -> Callable[..., float]:
    def measure(subject: Any, trained: Trained, request: Any, seed: int) -> float:
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
    subject: Any, trained: Trained, request: Any, seed: int, original: Trained
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


def _probe(
    key: str,
    label: str,
    meaning: str,
    cost: str,
    measure: Callable[..., float],
    *,
    bounds: tuple[float, float] = (0.0, 100.0),
    **told: Any,
) -> Probe:
    """Return a probe of one figure, which has its name."""

    def measured(*given: Any) -> dict[str, float]:
        return {key: measure(*given)}

    return Probe(measured, (probe_card(key, label, meaning, bounds),), cost, **told)


_EVERY = (
    _probe(
        "relearn",
        "relearn steps",
        f"steps of SGD on the forget samples until their mean loss is {LOSS}",
        "steps · F",
        _relearn,
        bounds=(0, np.inf),
    ),
    _probe(
        "recover",
        "others right after relearning %",
        f"forget samples got right after {STEPS} steps of SGD on {FEW:.0%} of them, of "
        "the others",
        f"{STEPS} steps of up to {BATCH}",
        _recover("forget"),
        share=1 - FEW,
    ),
    _probe(
        "recover-retain",
        "right after tuning on retain %",
        f"the same after {STEPS} steps on as many retain samples",
        f"{STEPS} steps of up to {BATCH}",
        _recover("retain"),
        share=1 - FEW,
    ),
    _probe(
        "int8",
        "forget right, int8 %",
        "forget samples got right with weights rounded to 8 bits, in blocks of 64",
        "F / 3",
        _rounded(8),
        share=1.0,
    ),
    _probe(
        "int4",
        "forget right, int4 %",
        "the same with 4 bits",
        "F / 3",
        _rounded(4),
        share=1.0,
    ),
    _probe(
        "robustness",
        "robust accuracy %",
        "test samples that stay right under PGD, 10 steps within 8/255",
        "10 · S",
        _robust,
    ),
    _probe(
        "alignment",
        "gradient alignment AUC %",
        "forget samples told from unseen ones by how their gradients at the original "
        "point along the step to the model's weights; 50 is guessing",
        "F + S",
        _aligned,
        pair=True,
    ),
)
PROBES = {probe.figures[0].key: probe for probe in _EVERY}
"""By name; the target of each is Retrain's value, treated alike."""
