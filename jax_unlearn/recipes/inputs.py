"""What a recipe is asked for: a study by its name, a data set by its file."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from jax_unlearn.data import Dataset, from_npz
from jax_unlearn.errors import InputError, unknown_name

Study = TypeVar("Study")


def study_named(name: str, studies: Mapping[str, Study]) -> Study:
    """Return a study.

    Raises:
      InputError: there is none of that name.
    """
    if name not in studies:
        raise unknown_name("study", name, studies)
    return studies[name]


def read_file(data: Path | None, title: str) -> Dataset:
    """Return the data set of a file.

    Args:
      data: .npz file.
      title: of the study that reads it.

    Raises:
      InputError: no file, or not such a one.
    """
    if data is None:
        raise InputError(
            f"data=None: {title!r} needs --data FILE.npz with x_train, y_train, "
            "x_test, y_test"
        )
    return from_npz(data)
