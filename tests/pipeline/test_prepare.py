"""Settings become the unlearners they name; two requests share one program."""

import jax
import numpy as np
import pytest

from jax_unlearn.data import digits, forget_split, holdout, to_ids
from jax_unlearn.errors import InputError
from jax_unlearn.pipeline.networks import build, describe
from jax_unlearn.pipeline.prepare import Preparer, check_unseen
from jax_unlearn.pipeline.settings import Training, Unlearning
from jax_unlearn.pipeline.stages import Request, Trained, execute

DATA = digits()


def request(seed: int) -> Request:
    trained, unseen = holdout(DATA.train.labels, fraction=0.2, seed=seed)
    split = forget_split(DATA.train.labels[trained], fraction=0.1, seed=seed)
    split = to_ids(split, trained)
    return Request(split.forget, split.retain, unseen)


@pytest.fixture(scope="module")
def network():
    return describe(Training(network="mlp", width=6), DATA)


@pytest.fixture(scope="module")
def original(network):
    params, state = build(network).init(jax.random.key(0), DATA.train.inputs[:2])
    return Trained(params, state, {})


def test_a_second_request_runs_the_program_of_the_first(network, original):
    preparer = Preparer(build(network), DATA)
    setting = Unlearning(
        method="salun", weighting="falw", estimator="anchored", epochs=1, batch_size=400
    )
    jobs = [preparer(setting, request(s), original, seed=s) for s in (0, 1)]
    assert jobs[0].unlearner.step is jobs[1].unlearner.step
    states = [j.unlearner.init(original.params, original.model_state) for j in jobs]
    masks = [jax.tree.leaves(state.opt_state) for state in states]
    assert any(
        not np.array_equal(a, b) for a, b in zip(*masks, strict=True) if a.dtype == bool
    )
    key = jax.random.key(0)
    done = [execute(j, original.params, original.model_state, key) for j in jobs]
    assert done[1].seconds["compile"] < done[0].seconds["compile"]


def test_a_forget_class_without_unseen_samples_is_named():
    forget = np.flatnonzero(DATA.train.labels == 3)[:4]
    unseen = np.flatnonzero(DATA.train.labels != 3)[:9]
    with pytest.raises(InputError, match="class 3"):
        check_unseen(DATA, Request(forget, unseen[:0], unseen))
