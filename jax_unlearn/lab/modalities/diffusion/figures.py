"""Figures of diffusion models: drawn images and their judge; rows over the runs."""

import base64
import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn import _validate, audit
from jax_unlearn.data import Dataset, Examples, holdout
from jax_unlearn.drivers.loop import predict
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab.job import Progress, Trained, reporting, silent
from jax_unlearn.lab.modalities.classification.networks import Training
from jax_unlearn.lab.modalities.diffusion.networks import draw
from jax_unlearn.lab.modalities.diffusion.settings import COLUMNS, Judging
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.results import RETRAIN, recalled, spread
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import kept_model
from jax_unlearn.lab.subject import Subject, Trainer, subject_of

__all__ = ["ImageTable", "Judge", "Network", "moments", "png_bytes", "to_png"]
__all__ += ["train_judge"]

TARGETED = ("ua", "retained_accuracy", "frechet", "fid")
FIGURES = (*TARGETED, "forget_error", "unseen_error", "retain_error")
FIGURES += ("returned", "unseen_returned", "nearer")
RETURNED = 64  # images that are noised and denoised, at most
HELD_OUT = 0.05  # share of the training images that the judge does not see
MEASURED = 256  # images of a part whose errors are measured, at most

_spread = partial(spread, each="per_run")

Network = Callable[[np.ndarray], np.ndarray]
"""What a network says of images."""


class Judge(NamedTuple):
    """A classifier of real images, independent of any diffusion model."""

    logits: Network  # `f32[N, K]`
    features: Network  # `f32[N, D]`
    accuracy: float  # on real test images, in percent
    by_class: tuple[float, ...]


def train_judge(
    dataset: Dataset, setting: Training, folder: Path | None, progress: Progress
) -> Judge:
    """Train the classifier on real images of all classes, or read it back."""
    subject = subject_of(setting, dataset)
    ids, unseen = holdout(dataset.train.labels, fraction=HELD_OUT, seed=0)
    trainer = Trainer(subject, setting)
    told = {"training": vars(setting), "seed": 0}
    callback = reporting(progress, "judge", trainer.steps(len(ids)))

    def make(series: Series | None) -> tuple[Trained, dict[str, Any]]:
        return trainer(ids, seed=0, callback=callback, series=series), {}

    trained, _ = kept_model(folder, told, make, subject=subject, ids=ids, unseen=unseen)
    at, networks = trained[:2], (subject.built.model, subject.built.features)
    logits, features = (partial(predict, one, *at, batch_size=256) for one in networks)
    images, labels = dataset.test
    right = 100.0 * (np.argmax(logits(images), axis=1) == labels)
    by_class = tuple(
        float(right[labels == c].mean()) if (labels == c).any() else 0.0
        for c in range(dataset.num_classes)
    )
    return Judge(logits, features, float(right.mean()), by_class)


def moments(
    networks: Mapping[str, Network], images: Examples, forgotten: int | None
) -> dict[str, audit.Moments]:
    """Return the moments of features by network, the forgotten class left out."""
    others = images.inputs[images.labels != (-1 if forgotten is None else forgotten)]
    _validate.at_least("images of the other classes", len(others), 2)
    made = networks.items()
    return {name: audit.feature_moments(network(others)) for name, network in made}


class ImageTable:
    """Collect what images of all models show, run by run, judged by one classifier."""

    def __init__(
        self,
        subject: Subject,
        judging: Judging,
        *,
        folder: Path | None = None,
        inception: Path | None = None,  # weights for FID, see `audit.load_inception`
        progress: Progress = silent,
    ):
        self._subject, self._judging, self._progress = subject, judging, progress
        weights = None if inception is None else audit.load_inception(inception)
        self._judge = train_judge(subject.dataset, judging.judge, folder, progress)
        self._networks = {"frechet": self._judge.features}
        if weights is not None:
            self._networks["fid"] = partial(audit.inception_features, weights)
        self._runs: list[dict[str, Any]] = []
        self._floors: list[dict[str, float]] = []

    def start(self, request: Request, target: Trained | None, seed: int) -> None:
        """Begin a run: a request to the models of a seed, Retrain added like others."""
        del target
        train, test = self._subject.dataset.train, self._subject.dataset.test
        counts = np.bincount(train.labels[request.forget])
        self._request, self._seed = request, seed
        most = int(counts.argmax())  # most of the images are of it
        # where images of it stay, single ones are forgotten and no class
        single = (train.labels[request.retain] == most).any()
        self._forgotten = None if single else most
        self._back: list[list[float]] | None = None  # how images return from Retrain
        if "fid" in self._networks:
            self._progress("FID: real images", 0, 1)
        self._moments = moments(self._networks, test, self._forgotten)
        self._floors.append(self._distances(self._real(train)))
        run = {"seed": seed, "class": self._forgotten}
        run |= {"forget_images": len(request.forget), "rows": {}, "grids": {}}
        self._runs.append(run)

    @property
    def _gone(self) -> tuple[int, ...]:
        """The forgotten class, if any is."""
        return () if self._forgotten is None else (self._forgotten,)

    def _distances(self, images: Examples) -> dict[str, float]:
        """Return the Fréchet distances of images to real test images, by name."""
        own = moments(self._networks, images, self._forgotten)
        real = self._moments.items()
        return {name: audit.frechet_distance(own[name], one) for name, one in real}

    def _real(self, train: Examples) -> Examples:
        """Return as many real images as are drawn of the other classes."""
        rng = np.random.default_rng(0)
        others = np.setdiff1d(np.unique(train.labels), self._gone)
        drawn = [rng.permutation(np.flatnonzero(train.labels == c)) for c in others]
        ids = np.concatenate([some[: self._judging.per_class] for some in drawn])
        return train.at(ids)

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
        """Look at one model of the run begun last, see the table of classifiers."""
        key = key if setting is None else label  # a method's label is its row's key
        if keep is not None and keep.exists():  # else drawing tells it
            self._progress(f"{label}: images", 0, 1)
        make = partial(self._look, label, trained)
        record = recalled(keep, make, {"figures", "grid"})
        run, row = self._runs[-1], dict(record["figures"])
        run["rows"][key], run["grids"][key] = row, record["grid"]
        if (back := record.get("returned")) is not None:
            if key == RETRAIN:
                self._back = back
            if self._back is not None:
                row["nearer"] = _nearer(back, self._back)
        noted = {n: v for n, v in (notes or {}).items() if n in ("attacks", "stopped")}
        if noted:
            row["details"] = noted

    def drop(self, label: str) -> None:
        """Take a row out, of all runs."""
        for run in self._runs:
            run["rows"].pop(label, None)
            run["grids"].pop(label, None)

    def _look(self, label: str, trained: Trained) -> dict[str, Any]:
        """Return the figures of a model and a grid of some images, a row a class."""
        built, judging = self._subject.built, self._judging
        classes = np.arange(self._subject.dataset.num_classes)
        counts = judging.forget_images, judging.per_class
        asked = np.repeat(classes, np.where(np.isin(classes, self._gone), *counts))
        images = draw(
            built,
            trained,
            built.prompts(asked),
            judging.sampling,
            seed=self._seed,
            progress=self._progress,
            phase=f"{label}: images",
        )
        seen = np.argmax(self._judge.logits(images), axis=1).astype(np.int32)
        if built.network.condition == "none":  # no class was asked for
            judged: dict[str, Any] = {"by_class": [None] * len(classes)}
            if self._gone:
                judged["ua"] = float(100 * np.mean(~np.isin(seen, self._gone)))
            kinds = np.full(len(images), len(classes), np.int32)  # another
        else:
            judged, kinds = self._judged(seen, asked), asked.astype(np.int32)
        figures = {
            **judged,
            **self._distances(Examples(images, kinds)),
            **self._errors(trained),
            "seconds": trained.seconds,
        }
        shown = np.stack([images[asked == c][:COLUMNS] for c in classes])
        record = {"figures": figures, "grid": to_png(shown)}
        if self._gone:
            return record
        back = {name: self._returned(trained, name) for name in ("forget", "unseen")}
        figures["returned"] = float(np.mean(back["forget"]))
        if len(back["unseen"]):
            figures["unseen_returned"] = float(np.mean(back["unseen"]))
        return {**record, "returned": back["forget"].tolist()}

    def _judged(self, seen: np.ndarray, asked: np.ndarray) -> dict[str, Any]:
        """Return how often the judge sees the class that was asked for."""
        classes = self._subject.dataset.num_classes
        told = {"forget": self._gone, "num_classes": classes}
        judged = audit.generation_metrics(seen, asked, **told)
        return {
            **({"ua": judged.ua} if self._gone else {}),
            "retained_accuracy": judged.retained_accuracy,
            "by_class": [None if np.isnan(v) else float(v) for v in judged.by_class],
            "confusion": judged.confusion.tolist(),
        }

    def _chosen(self, part: str, most: int) -> np.ndarray:
        """Return some images of a part, the unseen ones of the forgotten classes."""
        request, labels = self._request, self._subject.dataset.train.labels
        ids = getattr(request, part)
        if part == "unseen":
            ids = ids[np.isin(labels[ids], np.unique(labels[request.forget]))]
        return np.sort(np.random.default_rng(self._seed).permutation(ids)[:most])

    def _returned(self, trained: Trained, part: str) -> np.ndarray:
        """Return how far from themselves noised images of a part come back."""
        ids = self._chosen(part, RETURNED)
        if not len(ids):
            return np.zeros((0, 1))
        at, key = (trained.params, trained.model_state), jax.random.key(self._seed)
        return self._subject.built.returned(at, self._subject.examples, ids, key)

    def _errors(self, trained: Trained) -> dict[str, float]:
        """Return the mean denoising error of some images of each part."""
        means, at = {}, (trained.params, trained.model_state)
        for name in ("forget", "retain", "unseen"):
            chosen = self._chosen(name, MEASURED)
            if len(chosen):
                given = at, self._subject.examples, chosen
                key = jax.random.key(self._seed)
                table = self._subject.built.errors(*given, key=key, draws=4)
                means[f"{name}_error"] = float(table.errors.mean())
        return means

    def summary(self) -> dict[str, Any]:
        """Return what the results hold, JSON-able: rows over all runs, and the runs."""
        judge = self._judge
        floors = {name: [own[name] for own in self._floors] for name in self._floors[0]}
        return {
            "kind": "generation",
            "judge": {"accuracy": judge.accuracy, "by_class": list(judge.by_class)},
            "floor": {name: float(np.mean(own)) for name, own in floors.items()},
            "rows": {key: self._row(key) for key in self._runs[0]["rows"]},
            "runs": self._runs,
        }

    def _row(self, key: str) -> dict[str, Any]:
        shown = [run["rows"][key] for run in self._runs]
        row = {
            name: _spread([figures[name] for figures in shown])
            for name in FIGURES
            if all(name in figures for figures in shown)
        }
        if all(RETRAIN in run["rows"] for run in self._runs):
            for name in (n for n in (*TARGETED, "returned") if n in row):
                targets = [run["rows"][RETRAIN][name] for run in self._runs]
                pairs = zip(shown, targets, strict=True)
                gaps = [abs(figures[name] - target) for figures, target in pairs]
                row[f"{name}_gap"] = _spread(gaps)
        times = [figures["seconds"] for figures in shown]
        row["seconds"] = _spread([t.get("prepare", 0) + t.get("run", 0) for t in times])
        return row


def _nearer(own: Any, others: Any) -> float:
    """Return the percentage of images that come nearer than of another, ties half.

    >>> _nearer([[1.0, 3.0]], [[2.0, 3.0]])
    75.0
    """
    first, second = np.asarray(own), np.asarray(others)
    return float(100 * np.mean((first < second) + 0.5 * (first == second)))


def png_bytes(images: np.ndarray, *, enlarge: int = 1) -> bytes:
    """Return `u8[rows, columns, H, W, C]` as one PNG file, black lines between."""
    from matplotlib.image import imsave

    rows, columns, height, width, channels = images.shape
    framed = np.zeros((rows, columns, height + 1, width + 1, channels), np.uint8)
    framed[:, :, :height, :width] = images
    whole = framed.transpose(0, 2, 1, 3, 4).reshape(
        rows * (height + 1), columns * (width + 1), channels
    )[:-1, :-1]
    colours = np.repeat(whole, 3 // channels, axis=-1)
    buffer, block = io.BytesIO(), np.ones((enlarge, enlarge, 1), np.uint8)
    imsave(buffer, np.kron(colours, block), format="png")
    return buffer.getvalue()


def to_png(images: np.ndarray) -> str:
    """Return a sheet of images as PNG in base64, for json files and pages."""
    return base64.b64encode(png_bytes(images)).decode("ascii")
