"""Outputs of models as arrays are those of each model alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, batchnorm_net

import jax_unlearn as ju
from jax_unlearn.audit.evidence import PartInputs, model_outputs
from jax_unlearn.errors import InputError

MODEL = batchnorm_net()


def fitted(seed):
    params, state = MODEL.init(jax.random.key(seed), jnp.zeros((2, 4)))
    return ju.methods.finetune(MODEL, optax.sgd(0.1)).init(params, state)


def test_each_row_is_a_model_run_in_eval_mode():
    states = [fitted(0), fitted(1)]
    parts = PartInputs(*(np.asarray(batch(s, 5 + s).inputs) for s in range(3)))
    found = model_outputs(MODEL, states, parts, batch_size=4)
    assert found.unseen is None
    for part, name in zip(parts[:3], ("forget", "retain", "test"), strict=True):
        for state, rows in zip(states, getattr(found, name), strict=True):
            alone, _ = MODEL.apply(state.params, state.model_state, part, train=False)
            np.testing.assert_allclose(rows, alone, rtol=1e-6, atol=1e-6)


def test_an_ensemble_is_unstacked():
    stacked = ju.stack([fitted(0), fitted(1), fitted(2)])
    x = batch(0, 3).inputs
    found = model_outputs(MODEL, ju.unstack(stacked), PartInputs(x, x, x, x))
    assert found.unseen.shape == (3, 3, 3)
    assert not np.allclose(found.test[0], found.test[1])


def test_no_model_is_refused():
    with pytest.raises(InputError, match="one model or more"):
        model_outputs(MODEL, [], PartInputs(np.zeros(1), np.zeros(1), np.zeros(1)))
