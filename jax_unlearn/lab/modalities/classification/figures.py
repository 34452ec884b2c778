"""Figures of classifiers, a row a model over seeds beside target and null; probes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import audit
from jax_unlearn.audit import Metrics, Predictions, unlearning_metrics
from jax_unlearn.data import Dataset
from jax_unlearn.lab.job import Trained, probabilities
from jax_unlearn.lab.probes import over_seeds, pressed
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.results import COSTS, NULL, ORIGINAL, RETRAIN, spread
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject

__all__ = ["Outputs", "Table", "measure", "outputs_of"]

BINS = 20  # of the confidence histograms


class Outputs(NamedTuple):
    """Softmax outputs of one model on training and test arrays, `[N, K]`, `[M, K]`."""

    train: np.ndarray
    test: np.ndarray

    def confidence(self, dataset: Dataset, ids: np.ndarray) -> np.ndarray:
        """Return the probability of the true class of training samples, `[n]`."""
        return self.train[ids, dataset.train.labels[ids]]


def outputs_of(subject: Subject, trained: Trained) -> Outputs:
    """Run a model over all of its data set."""
    parts = subject.dataset.train, subject.dataset.test
    return Outputs(*(probabilities(subject.model, trained, p.inputs) for p in parts))


def measure(
    outputs: Outputs, dataset: Dataset, request: Request, *, seed: int = 0
) -> Metrics:
    """Return UA, FA, RA, TA and MIA; classes all forgotten leave the test set."""
    labels = dataset.train.labels

    def part(ids: np.ndarray) -> Predictions:
        return Predictions(outputs.train[ids], labels[ids], ids)

    gone = np.setdiff1d(labels[request.forget], labels[request.retain])
    return unlearning_metrics(
        part(request.forget),
        part(request.retain),
        Predictions(outputs.test, dataset.test.labels),
        forgotten_classes=gone.tolist(),
        seed=seed,
    )


class _Row(NamedTuple):
    """One model of the table: what was measured by name, a dictionary a seed."""

    label: str
    setting: Unlearning | None
    seeds: list[dict[str, Any]]

    def of(self, name: str) -> list[Any]:
        """Return what was measured by a name, of the seeds that have it."""
        return [seed[name] for seed in self.seeds if name in seed]


class Table:
    """Collect the figures of all models of a subject, seed by seed.

    If asked to `keep`, it holds the outputs of the models of the last seed.
    """

    def __init__(self, subject: Subject, *, keep: bool = False):
        self._subject, self._dataset, self._keep = subject, subject.dataset, keep
        self.outputs: dict[str, Outputs] = {}
        self.probes: Sequence[str] = ()  # that every model is put to
        self.original: Trained | None = None  # of the seed, which some probes read
        self._rows: dict[str, _Row] = {}
        self._counts: list[list[int]] = []  # of forget samples by class, a list a seed

    def start(self, request: Request, target: Trained | None, seed: int) -> None:
        """Begin a seed: a request, Retrain (if there is one), the attack's seed."""
        self._request, self._seed, self._retrained = request, seed, target
        self._target = None if target is None else outputs_of(self._subject, target)
        labels, classes = self._dataset.train.labels, self._dataset.num_classes
        counts = np.bincount(labels[request.forget], minlength=classes)
        self._counts.append(counts.tolist())

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
        outputs = self._target
        if outputs is None or trained is not self._retrained:
            outputs = outputs_of(self._subject, trained)
        if self._keep:
            self.outputs[key] = outputs
        dataset, request = self._dataset, self._request
        parts = request._asdict().items()
        sure = {part: outputs.confidence(dataset, ids) for part, ids in parts}
        if not len(request.unseen):  # what no model was trained on is like it
            labels = dataset.test.labels
            sure["unseen"] = outputs.test[np.arange(len(labels)), labels]
        found = {
            "metrics": measure(outputs, dataset, request, seed=self._seed),
            "seconds": trained.seconds,
            "notes": dict(notes or {}),
            "histograms": {
                part: np.histogram(confidence, BINS, (0.0, 1.0))[0]
                for part, confidence in sure.items()
            },
        }
        if self.probes:
            given = self._subject, trained, request, self.probes
            told = {"original": self.original, "seed": self._seed}
            found["probes"] = pressed(*given, **told)
        if self._target is not None:
            found |= self._deviation(outputs, self._target)
        self._rows.setdefault(key, _Row(label, setting, [])).seeds.append(found)

    def drop(self, label: str) -> None:
        """Take a row out, of all seeds."""
        rows = self._rows.items()
        self._rows = {key: row for key, row in rows if row.label != label}

    def _deviation(self, outputs: Outputs, target: Outputs) -> dict[str, Any]:
        """Return how far the forget samples' confidence is from Retrain's."""
        dataset, forget = self._dataset, self._request.forget
        labels, classes = dataset.train.labels[forget], dataset.num_classes
        counts = np.bincount(labels, minlength=classes)
        pair = outputs.confidence(dataset, forget), target.confidence(dataset, forget)
        deviation = audit.unlearning_deviation(*pair)
        by_class = audit.deviation_by_class(deviation, labels, classes).mean
        found = {
            "deviation": audit.per_sample_deviation(*pair),
            "by_rank": np.asarray(by_class)[np.argsort(-counts, kind="stable")],
        }
        if np.count_nonzero(counts) >= 3:
            groups = audit.deviation_by_group(deviation, labels, counts)
            found["groups"] = {name: group.mean for name, group in groups.items()}
        return found

    def summary(self) -> dict[str, Any]:
        """Return what the results hold, JSON-able."""
        first = {key: row.seeds[0]["notes"] for key, row in self._rows.items()}
        put = {key: row.of("probes") for key, row in self._rows.items()}
        return (
            {"rows": {key: self._summarize(key) for key in self._rows}}
            | {"forget_counts": self._counts}
            | {
                name: {
                    key: notes[name] for key, notes in first.items() if name in notes
                }
                for name in ("scatter", "conflict")
            }
            | (over_seeds(put) if self.probes else {})
        )

    def _summarize(self, key: str) -> dict[str, Any]:
        """Return one row; `report.reading.Row` says what is in it."""
        row = self._rows[key]
        metrics, seconds, notes = map(row.of, ("metrics", "seconds", "notes"))
        counts = row.of("histograms")
        summary: dict[str, Any] = {
            "label": row.label,
            "setting": None if row.setting is None else row.setting.record(),
            "metrics": {
                name: spread([getattr(m, name) for m in metrics])
                for name in Metrics._fields
            },
            "histograms": {
                part: np.sum([seed[part] for seed in counts], axis=0).tolist()
                for part in Request._fields
            },
            "seconds": {
                name: spread([s.get(name, 0.0) for s in seconds])
                for name in ("prepare", "compile", "run")
            },
        }
        if any("attacks" in told for told in notes):
            summary["learned"] = {
                name: _mean_notes([told[name] for told in notes])
                for name in ("attacks", "gaps")
            }
        if "certificate" in notes[0]:
            summary["certificate"] = notes[0]["certificate"]["says"]
        if RETRAIN not in self._rows:
            return summary
        retrain = self._rows[RETRAIN].of("metrics")[: len(metrics)]
        for figure in (audit.avg_gap, audit.tow, audit.tow_mia):
            values = [figure(m, r) for m, r in zip(metrics, retrain, strict=True)]
            summary[figure.__name__] = spread(values)
        summary["cost"] = self._cost(key, seconds)
        groups = row.of("groups")
        ranks = np.ma.masked_invalid(np.asarray(row.of("by_rank"), np.float64))
        return {
            **summary,
            "deviation": spread(row.of("deviation")),
            "groups": {
                name: spread([seed[name] for seed in groups])
                for name in (groups[0] if groups else ())
            },
            "by_rank": ranks.mean(axis=0).tolist(),
            **self._compare(key, retrain),
        }

    def _cost(self, key: str, seconds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """Return what a row cost as a share of Retrain, by count and by the clock.

        The clock is that of the run alone: compilation and preparation are apart.
        """
        told = self._rows[key].of("notes")
        counts = [note.get("cost", COSTS.get(key)) for note in told]
        whole = [s.get("run", 0.0) for s in self._rows[RETRAIN].of("seconds")]
        own = [0.0 if key == ORIGINAL else s.get("run", 0.0) for s in seconds]
        clock = [s / w for s, w in zip(own, whole, strict=False) if w]
        both = {"counted": counts, "measured": clock}
        return {n: spread(v) for n, v in both.items() if v and None not in v}

    def _compare(self, key: str, retrain: Sequence[Metrics]) -> dict[str, Any]:
        """Return the comparison with null and original, given seeds for it."""
        row, null = self._rows[key], self._rows.get(NULL)
        if key in (RETRAIN, NULL) or null is None or len(retrain) < 2:
            return {}
        nothing = self._rows.get(ORIGINAL) if key != ORIGINAL else None
        compared = audit.compare(
            row.of("metrics"),
            retrain,
            null.of("metrics")[: len(retrain)],
            nothing=None if nothing is None else nothing.of("metrics")[: len(retrain)],
        )
        found: dict[str, Any] = {"comparison": compared._asdict()}
        if nothing is not None:
            before = nothing.of("deviation")[: len(retrain)]
            test = audit.paired_test(row.of("deviation"), before)
            found["deviation_test"] = test._asdict()
        return found


def _mean_notes(notes: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the means over seeds of numbers by name and field."""
    return {
        name: {
            field: float(np.mean([note[name][field] for note in notes]))
            for field in fields
        }
        for name, fields in notes[0].items()
    }
