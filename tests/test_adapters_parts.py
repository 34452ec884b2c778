"""Parts of the adapters that are not exported."""

import jax
import numpy as np

from jax_unlearn.adapters.common import adapted, mode_arguments


def test_the_mode_is_told_by_the_names_of_arguments():
    told = mode_arguments(lambda x, *, train, deterministic: x, True)
    assert told == {"train": True, "deterministic": False}


def test_the_state_of_the_call_is_used_in_train_mode_only():
    def call(params, count, inputs, *, train, key):
        return params * inputs, count + 1

    model = adapted(lambda key, inputs: (2.0, 0), call)
    params, count = model.init(jax.random.key(0), None)
    after = [model.apply(params, count, 3.0, train=mode)[1] for mode in (True, False)]
    assert [state.tolist() for state in after] == [1, 0]
    assert {state.dtype for state in after} == {np.dtype(np.int32)}
