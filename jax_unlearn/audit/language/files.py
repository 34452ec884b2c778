"""Results of open-unlearning read and written, so that its logs can serve as targets.

A file holds `{metric: {"agg_value": number, "value_by_index": {index: {...}}}}`;
attacks have the parts "forget" and "holdout" in its place.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.errors import InputError

__all__ = ["Logged", "figures_in", "logged", "read_results", "write_results"]

FIELDS = ("score", "prob", "rougeL_recall", "rougeL_f1")
"""What a text's number is called, first where there are several."""

NAMES = {
    "forget_Q_A_Prob": "forget_probability",
    "forget_Q_A_ROUGE": "forget_rouge",
    "forget_truth_ratio": "forget_truth_geometric",
    "forget_quality": "ks_p_value",
    "retain_Q_A_Prob": "retain_probability",
    "retain_Q_A_ROUGE": "retain_rouge",
    "extraction_strength": "forget_extraction",
    "exact_memorization": "forget_memorization",
    "privleak": "privleak",
    "mia_loss": "auc_loss",
    "mia_min_k": "auc_min_k",
    "mia_min_k_plus_plus": "auc_min_k_plus_plus",
    "mia_zlib": "auc_zlib",
    "mia_reference": "auc_reference",
}
"""What open-unlearning calls figures of `language_figures`."""


class Logged(NamedTuple):
    """One metric of a file.

    Attributes:
      value: over all texts, or None where the file has none.
      by_index: of each text, by its number; empty where the file has none.
      parts: of an attack, "forget" and "holdout"; empty otherwise.
    """

    value: float | None
    by_index: Mapping[int, float] = {}
    parts: Mapping[str, "Logged"] = {}


def read_results(path: str | os.PathLike[str]) -> dict[str, Logged]:
    """Return the metrics of an open-unlearning `..._EVAL.json`, or its `..._SUMMARY`.

    Raises:
      InputError: no such file, no JSON, or nothing in it that is a metric.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "TOFU_EVAL.json"
    ...     write_results(path, {"forget_Q_A_Prob": Logged(0.5, {0: 0.4, 1: 0.6})})
    ...     read_results(path)["forget_Q_A_Prob"].by_index
    {0: 0.4, 1: 0.6}
    """
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise InputError(
            f"{path} is no JSON ({error}); give a file ..._EVAL.json"
        ) from (error)
    if not isinstance(found, dict) or not found:
        raise InputError(
            f"{path} holds no metrics; give open-unlearning's ..._EVAL.json, an object "
            "of one entry a metric"
        )
    return {name: _logged(entry, f"{path}: {name}") for name, entry in found.items()}


def write_results(
    path: str | os.PathLike[str], results: Mapping[str, Logged | float | ArrayLike]
) -> None:
    """Write metrics as open-unlearning does, names in order; plain numbers, too.

    An array is written as its mean, and by index. A number that is not finite becomes
    null.
    """
    record = {name: _record(results[name]) for name in sorted(results)}
    text = json.dumps(record, indent=4, allow_nan=False) + "\n"
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(text, "utf-8")
    part.replace(target)


def figures_in(results: Mapping[str, Logged]) -> dict[str, float]:
    """Return the figures of a file that are ones of `language_figures`, by name.

    Their extraction strength and memorization, which leave tokens out or count none as
    one, differ a little from ours: see `extraction_strength`, `exact_memorization`.

    >>> figures_in({"forget_Q_A_Prob": Logged(0.5), "other": Logged(1.0)})
    {'forget_probability': 0.5}
    """
    return {
        NAMES[name]: found.value
        for name, found in results.items()
        if name in NAMES and found.value is not None
    }


def logged(
    figures: Mapping[str, float], by_text: Mapping[str, ArrayLike] | None = None
) -> dict[str, Logged]:
    """Return figures as open-unlearning calls them, for `write_results`.

    `by_text` are the numbers of single texts of some figures, by their name here.

    >>> logged({"forget_probability": 0.5}, {"forget_probability": [0.4, 0.6]})
    {'forget_Q_A_Prob': Logged(value=0.5, by_index={0: 0.4, 1: 0.6}, parts={})}
    """
    found = {}
    for theirs, name in NAMES.items():
        if name in figures:
            rows = np.asarray((by_text or {}).get(name, ()), np.float64).tolist()
            found[theirs] = Logged(float(figures[name]), dict(enumerate(rows)))
    return found


def _logged(entry: Any, where: str) -> Logged:
    if isinstance(entry, int | float) or entry is None:
        return Logged(None if entry is None else float(entry))
    if not isinstance(entry, dict):
        raise InputError(f"{where} is a {type(entry).__name__}, no metric of a result")
    value = entry.get("agg_value")
    rows, parts = {}, {}
    for index, row in (entry.get("value_by_index") or {}).items():
        if (number := _number(row)) is not None and str(index).lstrip("-").isdigit():
            rows[int(index)] = number
    for name in ("forget", "holdout", "retain"):
        if isinstance(entry.get(name), dict):
            parts[name] = _logged(entry[name], f"{where}.{name}")
    if isinstance(value, dict):  # of several aggregates
        value = next((v for v in value.values() if isinstance(v, int | float)), None)
    if value is None:
        value = entry.get("auc")
    if not isinstance(value, int | float) or not math.isfinite(value):
        value = None
    return Logged(None if value is None else float(value), rows, parts)


def _number(row: Any) -> float | None:
    """Return the number of one text."""
    if isinstance(row, dict):
        named = [row[field] for field in FIELDS if field in row]
        row = (
            named or [v for v in row.values() if isinstance(v, int | float)] or [None]
        )[0]
    if not isinstance(row, int | float) or not math.isfinite(row):
        return None
    return float(row)


def _record(given: Any) -> dict[str, Any]:
    if not isinstance(given, Logged):
        values = np.asarray(given, np.float64)
        rows = dict(enumerate(values.tolist())) if values.ndim else {}
        given = Logged(float(values.mean()), rows)
    record: dict[str, Any] = {"agg_value": _finite(given.value)}
    if given.by_index:
        rows = given.by_index.items()
        record["value_by_index"] = {str(k): {"score": _finite(v)} for k, v in rows}
    return record | {name: _record(part) for name, part in given.parts.items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
