"""RUM: divide the forget set by memorisation, unlearn each part by a method of its own.

A wrapper of any methods. What is memorised is hard to forget; what is not, the retain
set teaches anyway, and forgetting it by force costs utility.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.cards import Card, Job, Lab, Options, Variables
from jax_unlearn.errors import InputError

__all__ = ["NOTHING", "RUM", "Rum", "memorised_parts", "rum"]

NOTHING = "none"
"""The name of no method: a part that is left alone."""

Method = Callable[[Variables, np.ndarray, np.ndarray], Variables]
"""`((parameters, state), ids to forget, ids to retain) -> (parameters, state)`."""


def memorised_parts(scores: ArrayLike, forget: ArrayLike, count: int = 3) -> list[Any]:
    """Divide ids to forget into equal parts by rising memorisation score.

    `scores` `f64[F]` belong to the ids `forget` `[F]`. Returns `count` sorted arrays of
    ids, the least memorised first; equal scores go by position.

    Raises:
      InputError: as many scores as ids are not there, or parts than ids.

    Source: three equal parts in RUM, arXiv 2406.01257.

    >>> [part.tolist() for part in memorised_parts([0.9, 0.1, 0.5], [7, 8, 9])]
    [[8], [9], [7]]
    """
    ids, values = np.asarray(forget), np.asarray(scores, np.float64)
    if values.shape != ids.shape or ids.ndim != 1 or not np.isfinite(values).all():
        raise InputError(
            f"scores of shape {values.shape} must be finite, one for each of the "
            f"{ids.size} forget samples"
        )
    if not 1 <= count <= ids.size:
        raise InputError(
            f"{ids.size} forget samples cannot be {count} parts; give fewer methods"
        )
    order = np.argsort(values, kind="stable")
    return [np.sort(ids[part]) for part in np.array_split(order, count)]


def rum(
    start: Variables,
    forget: ArrayLike,
    retain: ArrayLike,
    *,
    scores: ArrayLike,
    methods: Sequence[Method | None],
) -> Variables:
    """Unlearn the parts of a forget set one after the other (RUM).

    One method a part, of rising memorisation; None leaves its part alone. Parts whose
    turn is still to come are among the samples to retain, those done are not, and each
    method begins at the model of the one before. Published: for low, medium and high
    (None, fine-tuning, SalUn), or one method thrice with strengths of its own.

    Args:
      start: parameters and state of the original.
      forget: ids to forget `[F]`.
      retain: ids to retain `[R]`.
      scores: `f64[F]`; `ju.audit.memorisation` of models with and without the samples
        (exact, costly), or `ju.audit.memorisation_proxy` of the original (published).
      methods: `((params, state), forget, retain) -> (params, state)`, or None.

    Raises:
      InputError: as `memorised_parts`.

    Reference: Zhao et al., arXiv 2406.01257; proxies: arXiv 2410.16516.

    >>> def method(at, forget, retain):
    ...     print(forget.tolist(), retain.tolist())
    ...     return at[0] + len(forget), at[1]
    >>> told = {"scores": [0.9, 0.1, 0.5], "methods": (None, method, method)}
    >>> rum((0, ()), [7, 8, 9], [1, 2], **told)
    [9] [1, 2, 7]
    [7] [1, 2]
    (2, ())
    """
    parts = memorised_parts(scores, forget, len(methods))
    at = start
    for number, method in enumerate(methods):
        if method is not None:
            left = [np.asarray(retain), *parts[number + 1 :]]
            at = method(at, parts[number], np.sort(np.concatenate(left)))
    return at


@dataclasses.dataclass(frozen=True)
class Rum(Options):
    """Options of RUM.

    Attributes:
      parts: methods of the parts of the forget set, which are of equal size, from least
        to most memorised; "none" leaves its part alone. Options of these methods are
        given as usual.
      part_epochs: epochs of each part, instead of --epochs.
      part_rates: learning rate of each part, instead of --learning-rate.
      memorised: file (.npy) with a memorisation score for each training sample, by id,
        as `ju.audit.memorisation` estimates it. Default: one minus the original's
        confidence.
    """

    parts: tuple[str, ...] = (NOTHING, "finetune", "salun")
    part_epochs: tuple[int, ...] | None = None
    part_rates: tuple[float, ...] | None = None
    memorised: str | None = None

    def __post_init__(self):
        for name in ("parts", "part_epochs", "part_rates"):  # JSON has lists
            if isinstance(given := getattr(self, name), list):
                object.__setattr__(self, name, tuple(given))
        super().__post_init__()
        if not set(self.parts) - {NOTHING}:
            raise InputError(
                f"parts={self.parts}: name a method for at least one part, e.g. "
                "none finetune salun"
            )
        for name in ("part_epochs", "part_rates"):
            given = getattr(self, name)
            if given is not None and len(given) != len(self.parts):
                raise InputError(
                    f"{name}={given}: give one for each of the {len(self.parts)} parts"
                )
            if given is not None and not all(value > 0 for value in given):
                raise InputError(f"{name}={given} must be positive")

    def changes(self, number: int) -> dict[str, Any]:
        """Return what the setting of a part has of its own."""
        told: dict[str, Any] = {"method": self.parts[number]}
        if self.part_epochs is not None:
            told["epochs"] = self.part_epochs[number]
        if self.part_rates is not None:
            told["learning_rate"] = self.part_rates[number]
        return told


def _scores(lab: Lab, path: str | None) -> np.ndarray:
    """Return the memorisation score of each forget sample."""
    if path is None:
        return lab.memorisation("forget")
    try:
        scores = np.load(os.fspath(Path(path)), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"memorised={path!r} is no .npy file of numbers; save one by numpy.save"
        ) from error
    size = len(lab.examples.labels)
    if np.shape(scores) != (size,) or scores.dtype.kind not in "fiu":
        raise InputError(
            f"memorised={path!r} holds {np.shape(scores)} {scores.dtype}; give a "
            f"number for each of the {size} training samples, by id"
        )
    return scores[lab.ids("forget")]


def _rum(lab: Lab, options: Rum) -> Job:
    scores, forget = _scores(lab, options.memorised), lab.ids("forget")
    parts = memorised_parts(scores, forget, len(options.parts))
    by_id = dict(zip(forget.tolist(), np.asarray(scores, np.float64), strict=True))
    found = [
        {
            "method": method,
            "samples": len(part),
            "scores": [min(own), max(own)],
        }
        for method, part in zip(options.parts, parts, strict=True)
        if (own := [by_id[i] for i in part.tolist()])
    ]
    chosen = [n for n, name in enumerate(options.parts) if name != NOTHING]
    jobs: dict[int, Job] = {}

    def method(number: int) -> Method:
        def run(at: Variables, forget: np.ndarray, retain: np.ndarray) -> Variables:
            given = options.changes(number), forget, retain, at
            if number == chosen[-1]:  # which the lab runs, and times
                jobs[number] = lab.part(*given)
                return at
            end, seconds = lab.done(lab.part(*given), at, number)
            found[number]["seconds"] = seconds
            return end

        return run

    methods = [method(n) if n in chosen else None for n in range(len(parts))]
    told = {"scores": scores, "methods": methods}
    at = rum(lab.original, forget, lab.ids("retain"), **told)
    job = jobs[chosen[-1]]
    details = {**job.details, "refined": found}
    if (transform := job.transform) is not None:
        return job._replace(transform=lambda *_: transform(*at), details=details)
    return job._replace(start=job.start or at, details=details)


def _check(setting: Any) -> None:
    """Refuse parts whose settings do not go together."""
    if setting.guarded or setting.trainable:
        name = "trainable" if setting.trainable else "guard_utility, guard_endpoint"
        raise InputError(
            f"{name}: rum makes several runs, and this would see the last alone; leave "
            "it out"
        )
    if setting.budget is not None and setting.options.part_epochs is not None:
        raise InputError(
            f"budget={setting.budget}, part_epochs={setting.options.part_epochs}: both "
            "say how long it takes; leave one of them out"
        )
    for number, name in enumerate(setting.options.parts):
        if name == "rum":
            raise InputError("parts: rum is no method of a part of itself; name others")
        if name != NOTHING:
            setting.part(setting.options.changes(number))


RUM = (
    Card.of(_rum, "RUM", "By memorisation, part by part (RUM)", "arXiv 2406.01257")
    .but(reads=("forget", "retain", "original"), by_epochs=True, schedule=True)
    .but(cost="E·(2·R + 2/3·F) + 2/3·F: of the parts none, finetune and salun")
    .but(roles=("remember", "logits"), check=_check)
    .but(
        suits="Good for mixed requests: strong methods for memorised samples alone. It "
        "depends on the rates of its methods, so search those first, and on the "
        "memorisation scores; the proxy for these says little once all confidences are "
        "near one."
    )
    .tries(learning_rate=(0.003, 0.01, 0.03), epochs=(2, 5))
)
