"""Results: one row a model, figures over seeds, each beside its target and the null."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jax_unlearn.data import Dataset, fingerprint, read_json, write_atomic
from jax_unlearn.errors import InputError

__all__ = ["LABELS", "dataset_record", "difference", "environment", "head", "spread"]
__all__ += ["recalled", "to_json"]

RETRAIN, NULL, ORIGINAL = "retrain", "null", "original"  # keys of the reference rows
LABELS = {
    RETRAIN: "Retrain",
    NULL: "Null (Retrain, other seed)",
    ORIGINAL: "Original (nothing done)",
}


COSTS = {RETRAIN: 1.0, NULL: 1.0, ORIGINAL: 0.0}  # shares of Retrain's


def dataset_record(dataset: Dataset) -> dict[str, Any]:
    """Return what results say of a data set: its name, sizes and fingerprint."""
    return {
        "name": dataset.name,
        "fingerprint": fingerprint(dataset),
        "train": len(dataset.train.labels),
        "test": len(dataset.test.labels),
        "classes": list(dataset.class_names),
    }


def environment() -> dict[str, Any]:
    """Return versions and device, for records."""
    packages = ("jax-unlearn", "jax", "flax", "optax", "numpy", "scikit-learn")
    return {
        "versions": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
    }


def _version(name: str) -> str:
    """Return the version of a package, also of one run from a copy of its source."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def to_json(value: Any) -> str:
    """Return JSON text that any reader takes: no NaN, no infinity."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def difference(before: Any, now: Any, name: str = "") -> str:
    """Say the first value of a record that is another now, by its dotted path."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                return difference(before.get(key), now.get(key), f"{name}.{key}")
    return f"{name[1:]} was {str(before)[:40]}, is {str(now)[:40]}"


def spread(values: Sequence[float], each: str = "per_seed") -> dict[str, Any]:
    """Return the values with mean and sample deviation (None for a single one)."""
    numbers = [float(v) for v in values]
    std = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return {each: numbers, "mean": float(np.mean(numbers)), "std": std}


def recalled(
    path: Path | None,
    make: Callable[[], dict[str, Any]],
    names: Set[str],
    *,
    stale: Callable[[Mapping[str, Any]], bool] = lambda record: False,
    finite: bool = True,
) -> dict[str, Any]:
    """Return the figures of a model that a file keeps, or make and keep them.

    Figures that are not finite are kept only where `finite` is False.
    """
    if path is not None and path.exists():
        record = read_json(path)
        if not isinstance(record, dict) or not names <= record.keys():
            raise InputError(f"path={path} holds no figures; delete it to go on")
        if not stale(record):
            return record
    record = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record, allow_nan=not finite)
        write_atomic(path, text + "\n", overwrite=True)
    return record


def head(plan: Mapping[str, Any], dataset: Dataset | None = None) -> dict[str, Any]:
    """Return what results begin with: the plan, the data (if known), the machine."""
    data = {} if dataset is None else {"dataset": dataset_record(dataset)}
    return {"format": 1, "plan": plan, **data, "environment": environment()}
