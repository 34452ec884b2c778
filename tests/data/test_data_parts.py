"""Parts of the room that are not exported."""

import numpy as np
import pytest

from jax_unlearn.data.batches import take, without_inputs
from jax_unlearn.data.checks import check_real, positive_integer
from jax_unlearn.data.schedules import combined
from jax_unlearn.data.sources import Examples
from jax_unlearn.errors import InputError


def test_take_gathers_no_inputs_inside_without_inputs():
    examples = Examples(np.eye(3), np.arange(3, dtype=np.int32))
    with without_inputs():
        assert take(examples, [2, 0]).inputs is None


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match="^epochs=0 must be a positive integer; try 1"):
        positive_integer("epochs", 0)
    with pytest.raises(InputError, match=r"^fraction=2 must be from 0 to 1; try 0\.1"):
        check_real("fraction", 2, "try 0.1")


def test_a_plan_of_the_two_sets_in_turn():
    def in_turn(first, second):  # each step another set, each epoch two steps
        def pattern(n):
            return (None, n // 2) if n % 2 else (n // 2, None)

        return lambda epochs: 2 * epochs, pattern

    examples = Examples(np.zeros((9, 1), np.float32), np.zeros(9, np.int32))
    options = dict(batch_size=4, epochs=3)
    schedule, _ = combined(examples, [0, 1], range(2, 9), in_turn, **options)
    sizes = [len(batch.labels) for step in schedule for batch in step if batch]
    assert sizes == [2, 4, 2, 4, 2, 4]
