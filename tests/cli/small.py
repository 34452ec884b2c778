"""A small data set of real digits for the command line's tests."""

import json
from pathlib import Path

import numpy as np
import pytest

from jax_unlearn.cli import main
from jax_unlearn.data import digits

USERS = np.array([f"u{n // 5}" for n in range(100)])  # 20 users of 5 samples
NETWORK = ["--network", "mlp", "--width", "8", "--epochs", "2", "--batch-size", "32"]


def small_data(path: Path, **changes) -> Path:
    """Write 100 digits of the classes 0 to 2 as an npz file, with changes."""
    full = digits()
    keep = np.flatnonzero(full.train.labels < 3)[:100]
    test = np.flatnonzero(full.test.labels < 3)[:60]
    arrays = {
        "x_train": full.train.inputs[keep],
        "y_train": full.train.labels[keep],
        "x_test": full.test.inputs[test],
        "y_test": full.test.labels[test],
    }
    np.savez(path, **{**arrays, **changes})
    return path


def run(*words) -> None:
    """Run a command."""
    main([str(word) for word in words])


def unlearn(job, out, *options):
    """Return the words that unlearn the request of a job."""
    return [
        *("unlearn", *options, "--data", str(job.data), "--epochs", "1"),
        *("--checkpoint", str(job.original), "--forget", str(job.split)),
        *("--out", str(out)),
    ]


def record(path: Path) -> dict:
    """Return the record of a checkpoint or of a job."""
    return json.loads((path / "record.json").read_text())


def refused(capsys, arguments) -> str:
    """Run a command that must be refused; return its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("jax-unlearn: ")
    return line
