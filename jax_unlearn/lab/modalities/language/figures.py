"""Figures of language models, a row a model over seeds beside target and null."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn import audit
from jax_unlearn.data import Examples
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.classification.beside import REACH
from jax_unlearn.lab.modalities.language.measured import mean_losses, scores_of
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.results import NULL, ORIGINAL, RETRAIN, spread
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject
from jax_unlearn.membership.quality import auc_standard_error

__all__ = [
    "Losses",
    "TextTable",
    "against_unseen",
    "figures_of",
    "losses_of",
    "part_of",
]

PARTS = ("forget", "retain", "unseen")
OTHER = "other"  # texts of another source, of which perplexity alone is told
SOME = 800  # retain texts that are looked at, evenly spaced


class Losses(NamedTuple):
    """What a model says of the texts of a part: ℓ̄ and S of each, and its tokens."""

    mean: np.ndarray
    total: np.ndarray
    tokens: np.ndarray

    @property
    def probability(self) -> np.ndarray:
        """p = e^{−ℓ̄} of each text."""
        return np.exp(-self.mean)

    @property
    def perplexity(self) -> float:
        """Exp of the mean loss of all tokens."""
        return float(np.exp(min(self.total.sum() / self.tokens.sum(), 700.0)))


def losses_of(subject: Subject, trained: Trained, examples: Examples) -> Losses:
    """Return what a model says of some texts."""
    found = scores_of(subject.model, trained[:2], examples)
    counted = np.asarray(found.counted)
    total = np.where(counted, np.asarray(found.nll, np.float64), 0.0).sum(axis=1)
    return Losses(mean_losses(found), total, counted.sum(axis=1))


def part_of(examples: Examples, ids: np.ndarray) -> Examples:
    """Return some of the texts."""
    inputs = jax.tree.map(lambda leaf: leaf[ids], examples.inputs)
    return Examples(inputs, examples.labels[ids])


class TextTable:
    """Collect the figures of all models of a subject, seed by seed."""

    def __init__(self, subject: Subject, *, other: Examples | None = None):
        self._subject, self._other = subject, other
        self.seen: dict[str, dict[str, Losses]] = {}  # by row, of the last seed
        self._rows: dict[str, dict[str, Any]] = {}

    def start(self, request: Request, target: Trained | None, seed: int) -> None:
        """Begin a seed: a request, and Retrain if there is one."""
        del seed
        self._request, self._retrained = request, target
        self._target = None if target is None else self._look(target)

    def _look(self, trained: Trained) -> dict[str, Losses]:
        """Return what a model says of each part that has texts."""
        examples, found = self._subject.examples, {}
        for name in PARTS:
            ids = getattr(self._request, name)
            if name == "retain" and len(ids) > SOME:
                ids = ids[np.linspace(0, len(ids) - 1, SOME).astype(int)]
            if len(ids):
                part = part_of(examples, ids)
                found[name] = losses_of(self._subject, trained, part)
        if self._other is not None:
            found[OTHER] = losses_of(self._subject, trained, self._other)
        return found

    def add(
        self,
        key: str,
        label: str,
        trained: Trained,
        setting: Unlearning | None = None,
        notes: Mapping[str, Any] | None = None,
        *,
        keep: Path | None = None,
    ) -> None:
        """Measure one model of the seed begun last."""
        del keep  # measuring is quick
        target = self._target
        same = target is not None and trained is self._retrained
        seen = target if same and target is not None else self._look(trained)
        figures, self.seen[key] = figures_of(seen, target), seen
        row = {"label": label, "setting": setting, "seeds": [], "notes": []}
        row = self._rows.setdefault(key, row)
        row["seeds"].append({"figures": figures, "seconds": trained.seconds})
        row["notes"].append(dict(notes or {}))

    def summary(self) -> dict[str, Any]:
        """Return what the results hold, JSON-able."""
        rows = {key: self._row(key) for key in self._rows}
        sizes = {name: len(getattr(self._request, name)) for name in PARTS}
        return {"kind": "language", "texts": sizes, "rows": rows}

    def _row(self, key: str) -> dict[str, Any]:
        row = self._rows[key]
        seeds, setting = row["seeds"], row["setting"]
        names = [
            n for n in seeds[0]["figures"] if all(n in s["figures"] for s in seeds)
        ]
        usual = {RETRAIN: 1.0, NULL: 1.0, ORIGINAL: 0.0}.get(key)
        costs = [note.get("cost", usual) for note in row["notes"]]
        times = [s["seconds"].get("run", 0.0) for s in seeds]
        return {
            "label": row["label"],
            "setting": None if setting is None else setting.record(),
            "figures": {n: spread([s["figures"][n] for s in seeds]) for n in names},
            "seconds": spread(times),
            "cost": None if None in costs else spread(costs),
        }


def figures_of(
    seen: Mapping[str, Losses], target: Mapping[str, Losses] | None
) -> dict[str, float]:
    """Return the figures of a model by name, those beside Retrain where there is one.

    For each part: the mean probability e^{−ℓ̄} and the perplexity exp(ΣS/Σn).
    `loss_auc`: P(forget has less loss than unseen), membership by the loss alone.
    `deviation`: mean |p − p*| over the forget texts, p* Retrain's.
    """
    figures = {}
    for name, own in seen.items():
        if name != OTHER:
            figures[f"{name}_probability"] = float(own.probability.mean())
            figures[f"{name}_loss"] = float(own.mean.mean())
        figures[f"{name}_perplexity"] = own.perplexity
    figures |= _area(seen, "loss_auc")
    if target is not None:
        pair = seen["forget"].probability, target["forget"].probability
        figures["deviation"] = float(np.abs(pair[0] - pair[1]).mean())
        if "loss_auc" in figures:
            own = _area(target, "loss_auc")["loss_auc"]
            figures["auc_gap"] = abs(figures["loss_auc"] - own)
    return figures


def _area(seen: Mapping[str, Losses], name: str) -> dict[str, float]:
    if "unseen" not in seen:
        return {}
    return {name: float(audit.roc_auc(-seen["forget"].mean, -seen["unseen"].mean))}


def against_unseen(seen: Mapping[str, Mapping[str, Losses]]) -> dict[str, Any] | None:
    """Return how well losses tell forget from unseen texts; None without unseen ones.

    As `classification.beside.against_unseen`: the AUC of each model, and chance, by the
    standard error of the rank-sum test.
    """
    first = next(iter(seen.values()))
    if "unseen" not in first:
        return None
    sizes = {name: len(first[name].mean) for name in ("forget", "unseen")}
    reach = REACH * float(auc_standard_error(0.5, *sizes.values()))
    areas = {key: _area(own, "auc")["auc"] for key, own in seen.items()}
    return {
        "of": "unseen",
        "samples": sizes,
        "low": max(0.5 - reach, 0.0),
        "high": min(0.5 + reach, 1.0),
        "models": {
            k: {"auc": a, "right": None, "test": None} for k, a in areas.items()
        },
    }
