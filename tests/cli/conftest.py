"""A small data set of real digits and the files of one whole job on it."""

from pathlib import Path
from typing import NamedTuple

import pytest
from small import NETWORK, small_data

from jax_unlearn.cli import main


class Job(NamedTuple):
    """Paths of the files that the commands wrote."""

    folder: Path
    data: Path
    split: Path
    original: Path
    retrained: Path
    null: Path
    unlearned: Path


@pytest.fixture(scope="session")
def job(tmp_path_factory) -> Job:
    """Run split, train (three times) and unlearn on files."""
    folder = tmp_path_factory.mktemp("job")
    names = ("split.json", "original", "retrained", "null", "unlearned")
    paths = Job(folder, small_data(folder / "data.npz"), *(folder / n for n in names))
    source = ["--data", str(paths.data)]
    split = ["--split", str(paths.split)]
    main(
        ["split", *source, "--out", str(paths.split), "--kind", "long_tailed"]
        + ["--fraction", "0.3", "--unseen-fraction", "0.3"]
    )
    main(["train", *source, *split, *NETWORK, "--out", str(paths.original)])
    again = ["train", *source, *split, *NETWORK, "--retrain"]
    main([*again, "--seed", "1", "--out", str(paths.retrained)])
    main([*again, "--seed", "2", "--out", str(paths.null)])
    main(
        ["unlearn", *source, "--checkpoint", str(paths.original)]
        + ["--forget", str(paths.split), "--out", str(paths.unlearned)]
        + ["--method", "random_label", "--weighting", "loreun", "--epochs", "1"]
        + ["--learning-rate", "0.1"]
    )
    return paths
