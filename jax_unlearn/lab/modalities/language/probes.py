"""Probes: what comes back of forgotten texts when a language model is pressed for it.

All models are treated alike, Retrain too, whose value is the target: figures of a row.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from jax_unlearn import _validate, audit, methods, objectives
from jax_unlearn.cards import Variables
from jax_unlearn.data import retain_only
from jax_unlearn.drivers.loop import run
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.language.measured import (
    mean_losses,
    scores_of,
)
from jax_unlearn.lab.modality import Probe, adam
from jax_unlearn.types import Model, Unlearner

__all__ = ["FIGURES", "PROBES", "pressed"]

RATE, BATCH, STEPS = 1e-4, 4, (10, 50)  # of relearning by Adam; our choice


def _relearned(
    subject: Any, at: Variables, request: Any, seed: int
) -> dict[str, float]:
    """Return p of half of the forget texts as the other half is learned again."""
    forget = np.random.default_rng(seed).permutation(request.forget)
    if len(forget) < 2:
        raise InputError(
            "probe='relearn' learns half of the forget texts again and looks at the "
            "others, and there is 1; use int8 or int4"
        )
    few, others = np.array_split(forget, 2)
    size = min(BATCH, len(few))
    told = {"batch_size": size, "steps": STEPS[-1], "seed": seed}
    schedule = retain_only(subject.examples, few, **told)
    unlearner = _relearner(subject.model)
    state, found = unlearner.init(*at), {}
    for start, stop in zip((0, *STEPS), STEPS, strict=False):
        part = dataclasses.replace(schedule, start=start, steps=stop)
        state = run(unlearner, state, part, jax.random.key(seed))
        now = state.params, state.model_state
        found[f"relearn_{stop}"] = _probability(subject, now, others)
    return found


@functools.lru_cache(maxsize=4)
def _relearner(model: Model) -> Unlearner:
    optimizer = optax.chain(adam(), optax.scale_by_learning_rate(RATE))
    loss = objectives.next_token(model, reduction="token")
    return methods.assemble(model, optimizer, retain=loss)


def _rounded(bits: int) -> Callable[..., dict[str, float]]:
    def measure(
        subject: Any, at: Variables, request: Any, seed: int
    ) -> dict[str, float]:
        """Return p of the forget texts with weights of fewer bits, in blocks of 64."""
        del seed
        now = audit.quantised(at[0], bits=bits), at[1]
        return {f"int{bits}": _probability(subject, now, request.forget)}

    return measure


def _probability(subject: Any, at: Variables, ids: np.ndarray) -> float:
    found = scores_of(subject.model, at, subject.examples.at(ids))
    return float(np.exp(-mean_losses(found)).mean())


PROBES: dict[str, Callable[..., dict[str, float]]] = {
    "relearn": _relearned,
    "int8": _rounded(8),
    "int4": _rounded(4),
}


def pressed(
    subject: Any, at: Variables, request: Any, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Return what the probes find of a model, figures by name."""
    found: dict[str, float] = {}
    for name in names:
        _validate.one_of("probe", name, PROBES)
        found |= PROBES[name](subject, at, request, seed)
    return found


def _card(figure: str, label: str, meaning: str, probe: str = "") -> dict[str, Probe]:
    """Return what is said of a figure: a mean probability of forget texts."""

    def measure(subject: Any, trained: Any, request: Any, seed: int) -> float:
        names = (probe or figure,)
        return pressed(subject, trained[:2], request, names, seed)[figure]

    cost = f"{STEPS[-1]} steps" if probe else "F/3"
    return {figure: Probe(label, meaning, cost, measure, (0.0, 1.0))}


_FEW, _MORE = STEPS
_AGAIN = (
    f"p of half of the texts to forget after {_FEW} steps of Adam on the other half"
)
FIGURES: dict[str, dict[str, Probe]] = {
    "relearn": {
        **_card(
            f"relearn_{_FEW}",
            f"p, {_FEW} steps relearned",
            _AGAIN,
            "relearn",
        ),
        **_card(
            f"relearn_{_MORE}",
            f"p, {_MORE} steps relearned",
            f"the same after {_MORE} steps",
            "relearn",
        ),
    },
    **{
        f"int{n}": _card(
            f"int{n}", f"p, int{n}", f"p forget with weights rounded to {n} bits"
        )
        for n in (8, 4)
    },
}
"""What each probe finds, by figure; the target of each is Retrain's value."""
