"""What the checks and tables at the top of the package say and give, word by word."""

import jax.numpy as jnp
import pytest

from jax_unlearn import _validate
from jax_unlearn.errors import InputError, check_seed, unknown_name
from jax_unlearn.objectives.base import per_sample, task_loss
from jax_unlearn.tables import check_table, look_up, row_ids
from jax_unlearn.types import Batch

SAID = {
    "temperature=0 must be positive and finite; try 1.0": lambda: _validate.positive(
        "temperature", 0, "try 1.0"
    ),
    "epochs=0 must be at least 1": lambda: _validate.at_least("epochs", 0, 1),
    "keep=0.0 must lie in (0, 1]; SalUn uses 0.5": lambda: _validate.within(
        "keep", 0.0, "(0, 1]", "SalUn uses 0.5"
    ),
    "unknown schedule 'zip'; did you mean 'zipped'? known: merged, zipped": (
        lambda: _validate.one_of("schedule", "zip", ("merged", "zipped"))
    ),
    "normalize='sum': choose 'mean_one' or 'none'": lambda: _validate.choice(
        "normalize", "sum", "mean_one", "none"
    ),
    "seed=-1 must be a whole number from 0 to 2147483647; try 0": lambda: check_seed(
        -1
    ),
    "batch.index=None: fixed labels need the id of each sample; fill Batch.index": (
        lambda: row_ids(None, "fixed labels need")
    ),
    "scores of shape (2, 2) must be [N], one for each sample id": lambda: check_table(
        "scores", jnp.zeros((2, 2)), "[N]"
    ),
}


@pytest.mark.parametrize("line", SAID)
def test_the_line_an_error_says(line):
    with pytest.raises(InputError) as caught:
        SAID[line]()
    assert str(caught.value) == line


def test_an_unknown_name():
    error = unknown_name("method", "salum", ["salun", "finetune"])
    line = "unknown method 'salum'; did you mean 'salun'? known: finetune, salun"
    assert str(error) == line


def test_rows_of_a_table():
    found = look_up(jnp.array([5.0, 7.0]), jnp.array([1, 2, -1]))
    assert str(found.tolist()) == "[7.0, nan, nan]"


def test_losses_of_samples():
    assert per_sample(jnp.array([[1.0, 3.0], [0.0, 4.0]])).tolist() == [2.0, 2.0]
    three_pixels = Batch(None, jnp.array([[0, 1, 2]]))
    losses = task_loss(jnp.zeros((1, 3, 4)), three_pixels)
    assert losses.tolist() == pytest.approx([1.3863], abs=1e-4)  # log 4
