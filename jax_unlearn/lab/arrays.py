"""Outputs of models as one .npz file: what an audit of any framework reads."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jax_unlearn.audit.evidence import PARTS, ModelOutputs, PartLabels
from jax_unlearn.data.files import read_npz, write_atomic
from jax_unlearn.errors import InputError

__all__ = ["NOTHING", "load_outputs", "originals_among", "save_outputs"]

LABELS, RETRAINED = "labels", "retrained"
NOTHING = "doing nothing"  # what an ensemble calls its originals


def save_outputs(
    path: str | os.PathLike,
    unlearned: Mapping[str, ModelOutputs],
    retrained: ModelOutputs,
    labels: PartLabels,
) -> Path:
    """Write outputs for `load_outputs`, whole or not at all, over what is there."""
    for name in unlearned:
        if name in (LABELS, RETRAINED) or "/" in name:
            raise InputError(f"method {name!r}: choose a name without a slash")
    groups = {LABELS: labels, RETRAINED: retrained, **unlearned}
    arrays = {
        f"{name}/{part}": np.asarray(getattr(given, part))
        for name, given in groups.items()
        for part in PARTS
        if getattr(given, part) is not None
    }
    savez: Any = np.savez_compressed  # the stubs take keywords for other options
    return write_atomic(path, lambda file: savez(file, **arrays), overwrite=True)


def load_outputs(
    path: str | os.PathLike,
) -> tuple[dict[str, ModelOutputs], ModelOutputs, PartLabels]:
    """Read outputs of models of any framework: by method, of the Retrains, the labels.

    The file holds `labels/PART [n]`, `retrained/PART [N, n, K]`, and `NAME/PART
    [N, n, K]` for each method, with PART of forget, retain, test and (if at hand)
    unseen; `[n, K]` is a single model. `numpy.savez` writes it.
    """
    if not Path(path).exists():
        raise InputError(f"cannot read path={path}: no such file")
    try:
        arrays = read_npz(path)
    except ValueError as error:
        raise InputError(
            f"path={path} is no .npz file of arrays ({error}); write it anew with "
            "numpy.savez"
        ) from error
    groups: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        name, _, part = key.rpartition("/")
        if not name or part not in PARTS:
            raise InputError(
                f"path={path} holds {key!r}; name its arrays NAME/PART with PART of "
                f"{', '.join(PARTS)}"
            )
        groups.setdefault(name, {})[part] = array
    for name in (LABELS, RETRAINED, *groups):
        missing = set(PARTS[:3]) - set(groups.get(name, {}))
        if missing:
            raise InputError(f"path={path} lacks {name}/{min(missing)}; add it")
    labels, retrained = groups.pop(LABELS), groups.pop(RETRAINED)
    if not groups:
        raise InputError(f"path={path} holds no unlearned model; add NAME/forget, ...")
    return (
        {name: ModelOutputs(**parts) for name, parts in groups.items()},
        ModelOutputs(**retrained),
        PartLabels(**labels),
    )


def originals_among(unlearned: Mapping[str, ModelOutputs]) -> str | None:
    """Return which of some methods the others come from, by its name; None if none.

    It has one model that all come from, or as many as each method.
    """
    shapes = {name: np.shape(given.forget) for name, given in unlearned.items()}
    counts = {name: shape[0] if shape[2:] else 1 for name, shape in shapes.items()}
    for name in ("original", "originals", NOTHING):
        if name in counts and (counts[name] == 1 or len(set(counts.values())) == 1):
            return name
    return None
