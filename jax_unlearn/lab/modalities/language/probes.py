"""What language models are pressed by for forgotten texts, see `lab.probes`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from jax_unlearn import audit, methods, objectives
from jax_unlearn.audit import FigureCard
from jax_unlearn.cards import Variables
from jax_unlearn.data import retain_only
from jax_unlearn.drivers.loop import run
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.language.measured import mean_losses, scores_of
from jax_unlearn.lab.modality import adam
from jax_unlearn.lab.probes import Probe, probe_card
from jax_unlearn.types import Model, Unlearner

__all__ = ["PROBES"]

RATE, BATCH, STEPS = 1e-4, 4, (10, 50)  # of relearning by Adam; our choice


def _relearned(
    subject: Any, trained: Trained, request: Any, seed: int
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
    state, found = unlearner.init(*trained[:2]), {}
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
        subject: Any, trained: Trained, request: Any, seed: int
    ) -> dict[str, float]:
        """Return p of the forget texts with weights of fewer bits, in blocks of 64."""
        del seed
        now = audit.quantised(trained.params, bits=bits), trained.model_state
        return {f"int{bits}": _probability(subject, now, request.forget)}

    return measure


def _probability(subject: Any, at: Variables, ids: np.ndarray) -> float:
    found = scores_of(subject.model, at, subject.examples.at(ids))
    return float(np.exp(-mean_losses(found)).mean())


def _card(key: str, how: str, meaning: str) -> FigureCard:
    """Return what is said of a figure: a mean probability of forget texts."""
    return probe_card(key, f"p, {how}", meaning, (0.0, 1.0), digits=3)


_FEW, _MORE = STEPS
_AGAIN = (
    f"p of half of the texts to forget after {_FEW} steps of Adam on the other half"
)
_RELEARNED = (
    _card(f"relearn_{_FEW}", f"{_FEW} steps relearned", _AGAIN),
    _card(
        f"relearn_{_MORE}", f"{_MORE} steps relearned", f"the same after {_MORE} steps"
    ),
)
_INT8, _INT4 = (
    _card(f"int{n}", f"int{n}", f"p forget with weights rounded to {n} bits")
    for n in (8, 4)
)
PROBES = {
    "relearn": Probe(_relearned, _RELEARNED, f"{_MORE} steps"),
    "int8": Probe(_rounded(8), (_INT8,), "F/3"),
    "int4": Probe(_rounded(4), (_INT4,), "F/3"),
}
"""By name; the target of each figure is Retrain's value, treated alike."""
