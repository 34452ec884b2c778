"""Figures of classifiers: one row a model, over seeds, beside target and null."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jax_unlearn import audit
from jax_unlearn.audit import Metrics, Predictions, unlearning_metrics
from jax_unlearn.data import Dataset
from jax_unlearn.lab.job import Trained, probabilities
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.results import NULL, ORIGINAL, RETRAIN, spread
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject

BINS = 20  # of the confidence histograms


class Outputs(NamedTuple):
    """Softmax outputs of one model on a data set.

    Attributes:
      train: on the training arrays, `[N, K]`.
      test: on the test arrays, `[M, K]`.
    """

    train: np.ndarray
    test: np.ndarray

    def confidence(self, dataset: Dataset, ids: np.ndarray) -> np.ndarray:
        """Return the probability of the true class of training samples, `[n]`."""
        return self.train[ids, dataset.train.labels[ids]]


def outputs_of(subject: Subject, trained: Trained) -> Outputs:
    """Run a model over all of its data set."""
    dataset = subject.dataset
    return Outputs(
        probabilities(subject.model, trained, dataset.train.inputs),
        probabilities(subject.model, trained, dataset.test.inputs),
    )


def measure(
    outputs: Outputs, dataset: Dataset, request: Request, *, seed: int = 0
) -> Metrics:
    """Return UA, FA, RA, TA and MIA; classes forgotten as a whole leave the test set.

    Args:
      outputs: of the model.
      dataset: its data.
      request: forget and retain ids.
      seed: of the attack's sample of the retain set.
    """

    def part(ids: np.ndarray) -> Predictions:
        return Predictions(outputs.train[ids], dataset.train.labels[ids], ids)

    labels = dataset.train.labels
    gone = np.setdiff1d(labels[request.forget], labels[request.retain])
    return unlearning_metrics(
        part(request.forget),
        part(request.retain),
        Predictions(outputs.test, dataset.test.labels),
        forgotten_classes=gone.tolist(),
        seed=seed,
    )


class _Row:
    """Figures of one model of the table, one entry a seed."""

    def __init__(self, label: str, setting: Unlearning | None):
        self.label, self.setting = label, setting
        self.metrics: list[Metrics] = []
        self.deviation: list[float] = []
        self.groups: list[dict[str, float]] = []
        self.by_rank: list[np.ndarray] = []
        self.histograms: list[dict[str, np.ndarray]] = []
        self.seconds: list[dict[str, float]] = []
        self.notes: list[dict[str, Any]] = []


class Table:
    """Collect the figures of all models, seed by seed.

    Args:
      subject: the network and the data that the models are measured on.
    """

    def __init__(self, subject: Subject):
        self._subject, self._dataset = subject, subject.dataset
        self._rows: dict[str, _Row] = {}

    def start(self, request: Request, target: Trained | None, seed: int) -> None:
        """Begin a seed.

        Args:
          request: whom its models forget.
          target: Retrain; None if there is no such model.
          seed: of the attack.
        """
        self._request, self._seed, self._retrained = request, seed, target
        self._target = None if target is None else outputs_of(self._subject, target)
        labels = self._dataset.train.labels[request.forget]
        self._counts = np.bincount(labels, minlength=self._dataset.num_classes)

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
        """Measure one model of the seed begun last.

        Args:
          key: of its row: "retrain", "null", "original", or any other for a method.
          label: what the row is called.
          trained: the model.
          setting: how it was unlearned, if it was.
          notes: what was noted on the way: "scatter", "conflict", "attacks", "gaps".
          keep: not used; measuring is quick.
        """
        del keep
        outputs = self._target
        if outputs is None or trained is not self._retrained:
            outputs = outputs_of(self._subject, trained)
        row = self._rows.setdefault(key, _Row(label, setting))
        dataset, request = self._dataset, self._request
        row.metrics.append(measure(outputs, dataset, request, seed=self._seed))
        row.histograms.append(
            {
                name: np.histogram(
                    outputs.confidence(dataset, getattr(request, name)),
                    bins=BINS,
                    range=(0.0, 1.0),
                )[0]
                for name in Request._fields
            }
        )
        row.seconds.append(trained.seconds)
        row.notes.append(dict(notes or {}))
        if self._target is not None:
            self._add_deviation(row, outputs, self._target)

    def _add_deviation(self, row: _Row, outputs: Outputs, target: Outputs) -> None:
        dataset, request, counts = self._dataset, self._request, self._counts
        labels = dataset.train.labels[request.forget]
        confidence = outputs.confidence(dataset, request.forget)
        retrained = target.confidence(dataset, request.forget)
        deviation = audit.unlearning_deviation(confidence, retrained)
        by_class = audit.deviation_by_class(deviation, labels, dataset.num_classes)
        row.deviation.append(audit.per_sample_deviation(confidence, retrained))
        head_to_tail = np.argsort(-counts, kind="stable")
        row.by_rank.append(np.asarray(by_class.mean)[head_to_tail])
        if np.count_nonzero(counts) >= 3:
            groups = audit.deviation_by_group(deviation, labels, counts)
            row.groups.append({name: group.mean for name, group in groups.items()})

    def summary(self) -> dict[str, Any]:
        """Return what the results hold, JSON-able.

        "rows" by key, see `_summarize` for a row's fields; "scatter" and "conflict" by
        key, of the first seed, where a method has them.
        """
        found: dict[str, Any] = {
            "rows": {key: self._summarize(key) for key in self._rows}
        }
        for name in ("scatter", "conflict"):
            found[name] = {
                key: row.notes[0][name]
                for key, row in self._rows.items()
                if name in row.notes[0]
            }
        return found

    def _summarize(self, key: str) -> dict[str, Any]:
        """Return one row.

        `metrics`: {"ua": {"per_seed", "mean", "std"}, …}; `avg_gap`, `tow`, `tow_mia`
        and `deviation` (mean |p − p*| over the forget samples) likewise, None without
        Retrain; `groups`: deviation p − p* by head, mid, tail; `by_rank`: by class from
        head to tail; `histograms`: counts of the confidence in `BINS` bins over [0, 1],
        summed over seeds; `seconds`; `learned`: the "attacks" of LTU (AUC, its error,
        share of seeds better than chance) and the "gaps" of its queries, means over
        seeds; `comparison`: `audit.compare` of two or more seeds against Retrain and
        the null; `deviation_test`: paired, against doing nothing.
        """
        row = self._rows[key]
        figures = {
            name: spread([getattr(m, name) for m in row.metrics])
            for name in Metrics._fields
        }
        summary: dict[str, Any] = {
            "label": row.label,
            "setting": None if row.setting is None else row.setting.record(),
            "metrics": figures,
            "histograms": {
                name: np.sum([h[name] for h in row.histograms], axis=0).tolist()
                for name in row.histograms[0]
            },
            "seconds": {
                name: spread([s.get(name, 0.0) for s in row.seconds])
                for name in ("prepare", "compile", "run")
            },
        }
        if any("attacks" in notes for notes in row.notes):
            summary["learned"] = {
                name: _mean_notes([notes[name] for notes in row.notes])
                for name in ("attacks", "gaps")
            }
        if RETRAIN not in self._rows:
            return summary
        retrain = self._rows[RETRAIN].metrics
        pairs = list(zip(row.metrics, retrain, strict=True))
        summary["avg_gap"] = spread([audit.avg_gap(m, r) for m, r in pairs])
        summary["tow"] = spread([audit.tow(m, r) for m, r in pairs])
        summary["tow_mia"] = spread([audit.tow_mia(m, r) for m, r in pairs])
        summary["deviation"] = spread(row.deviation)
        summary["groups"] = (
            {n: spread([g[n] for g in row.groups]) for n in row.groups[0]}
            if row.groups
            else {}
        )
        summary["by_rank"] = _mean_over_seeds(row.by_rank)
        summary |= self._compare(key, retrain)
        return summary

    def _compare(self, key: str, retrain: Sequence[Metrics]) -> dict[str, Any]:
        """Return the comparison with null and original, given seeds for it."""
        row, null = self._rows[key], self._rows.get(NULL)
        if key in (RETRAIN, NULL) or null is None or len(retrain) < 2:
            return {}
        nothing = self._rows.get(ORIGINAL) if key != ORIGINAL else None
        compared = audit.compare(
            row.metrics,
            retrain,
            null.metrics,
            nothing=None if nothing is None else nothing.metrics,
        )
        found: dict[str, Any] = {"comparison": compared._asdict()}
        if nothing is not None:
            test = audit.paired_test(row.deviation, nothing.deviation)
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


def _mean_over_seeds(rows: Sequence[np.ndarray]) -> list[float | None]:
    """Return the mean over the seeds that have a value; None where none has."""
    stacked = np.asarray(rows, np.float64)
    present = np.isfinite(stacked)
    total = np.where(present, stacked, 0.0).sum(axis=0)
    count = present.sum(axis=0)
    return [float(t / n) if n else None for t, n in zip(total, count, strict=True)]
