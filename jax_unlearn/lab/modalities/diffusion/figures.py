"""Figures of diffusion models: drawn images, judged; rows over seeds and classes."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.audit import load_inception
from jax_unlearn.data import read_json, write_atomic
from jax_unlearn.errors import InputError
from jax_unlearn.lab.job import Progress, Trained, silent
from jax_unlearn.lab.modalities.diffusion.judge import (
    Fid,
    Look,
    floor_of,
    forgotten_class,
    train_judge,
)
from jax_unlearn.lab.modalities.diffusion.settings import Judging
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.results import RETRAIN
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.subject import Subject

FIGURES = (
    "ua",
    "retained_accuracy",
    "frechet",
    "fid",
    "forget_error",
    "unseen_error",
    "retain_error",
)
TARGETED = ("ua", "retained_accuracy", "frechet", "fid")


class ImageTable:
    """Collect what images of all models show, run by run.

    Args:
      subject: the diffusion model and real images.
      judging: how images are drawn and judged.
      folder: where the judge is kept; None keeps none.
      inception: file of weights, as `audit.load_inception` reads it, for FID; None
        leaves it out.
      progress: told (phase, done, total).
    """

    def __init__(
        self,
        subject: Subject,
        judging: Judging,
        *,
        folder: Path | None = None,
        inception: Path | None = None,
        progress: Progress = silent,
    ):
        self._subject, self._progress = subject, progress
        self._weights = None if inception is None else load_inception(inception)
        judge = train_judge(
            subject.dataset, judging.judge, seed=0, folder=folder, progress=progress
        )
        self._look = Look(judge, judging, progress)
        self._runs: list[dict[str, Any]] = []
        self._floors: list[dict[str, float]] = []

    def start(self, request: Request, target: Trained | None, seed: int) -> None:
        """Begin a run: a request to the models of a seed.

        Args:
          request: whom its models forget.
          target: Retrain, whose row is added like any other.
          seed: of all noise.
        """
        del target
        dataset, self._request, self._seed = self._subject.dataset, request, seed
        forgotten, per_class = (
            forgotten_class(dataset, request),
            self._look.judging.per_class,
        )
        if self._weights is not None:
            phase = "FID: real images"
            self._progress(phase, 0, 1)
            fid = Fid(
                self._weights,
                dataset.test,
                [forgotten],
                progress=lambda done, total: self._progress(phase, done, total),
            )
            self._look = self._look._replace(fid=fid)
        judge, fid = self._look.judge, self._look.fid
        self._floors.append(floor_of(judge, dataset, forgotten, per_class, fid))
        self._runs.append(
            {
                "seed": seed,
                "class": forgotten,
                "forget_images": len(request.forget),
                "rows": {},
                "grids": {},
            }
        )

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
        """Look at one model of the run begun last.

        Args:
          key: of its row: "original", "retrain", "null"; of a method its label is
            taken.
          label: what the row is called.
          trained: the model.
          setting: how it was unlearned, if it was.
          notes: what was noted on the way: "attacks".
          keep: file of its figures, which are read where they stand.

        Raises:
          InputError: that file holds something else.
        """
        key = key if setting is None else label
        if keep is not None and keep.exists():
            record = read_json(keep)
            if not isinstance(record, dict) or not {"figures", "grid"} <= set(record):
                raise InputError(f"path={keep} holds no figures; delete it to go on")
            self._progress(f"{label}: images", 0, 1)
            figures, grid = record["figures"], record["grid"]
        else:
            at = self._subject, trained, self._request
            figures, grid = self._look(label, *at, seed=self._seed)
            if keep is not None:
                keep.parent.mkdir(parents=True, exist_ok=True)
                text = json.dumps({"figures": figures, "grid": grid}, allow_nan=False)
                write_atomic(keep, text + "\n", overwrite=True)
        run, notes = self._runs[-1], dict(notes or {})
        run["rows"][key], run["grids"][key] = dict(figures), grid
        details = {
            name: notes[name] for name in ("attacks", "stopped") if name in notes
        }
        if details:
            run["rows"][key]["details"] = details

    def summary(self) -> dict[str, Any]:
        """Return what the results hold, JSON-able: rows over all runs, and the runs."""
        judge = self._look.judge
        floor = {
            name: float(np.mean([floor[name] for floor in self._floors]))
            for name in self._floors[0]
        }
        return {
            "kind": "generation",
            "judge": {"accuracy": judge.accuracy, "by_class": judge.by_class},
            "floor": floor,
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
            for name in (n for n in TARGETED if n in row):
                targets = [run["rows"][RETRAIN][name] for run in self._runs]
                pairs = zip(shown, targets, strict=True)
                gaps = [abs(figures[name] - target) for figures, target in pairs]
                row[f"{name}_gap"] = _spread(gaps)
        times = [figures["seconds"] for figures in shown]
        row["seconds"] = _spread([t.get("prepare", 0) + t.get("run", 0) for t in times])
        return row


def shortened(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results without images, as they are kept beside a recipe."""
    runs = [
        {
            **run,
            "grids": {},
            "rows": {
                key: {n: v for n, v in row.items() if n != "confusion"}
                for key, row in run["rows"].items()
            },
        }
        for run in results["runs"]
    ]
    return {**results, "runs": runs}


def file_record(path: Path) -> dict[str, str]:
    """Return name and checksum of a file."""
    return {"file": path.name, "sha256": sha256(path.read_bytes()).hexdigest()}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std, "per_run": list(values)}
