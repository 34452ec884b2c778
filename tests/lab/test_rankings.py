"""Rankings of the forget samples: finite, of their size, and what `reference` asks."""

import dataclasses
from typing import get_args

import jax
import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from toys import small_plan

from jax_unlearn.data import digits
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.context import Context
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.modalities.classification.measured import LEAF, RANKINGS, TREES
from jax_unlearn.methods.relabel import Ranking

PLAN = small_plan(fraction=0.1, unseen=200)
NAMES = get_args(Ranking)
SETTING = Unlearning.of(method="endpoint_transport", epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def bench():
    return Bench(PLAN, digits())


@pytest.fixture(scope="module")
def original(bench):
    inputs = bench.dataset.train.inputs[:2].astype(np.float32)
    params, state = jax.jit(bench.subject.model.init)(jax.random.key(0), inputs)
    return Trained(params, state, {})


@pytest.fixture(scope="module")
def task(bench, original):
    subject, request = bench.subject, bench.case(0).request
    return Context(subject, subject.model, SETTING, request, original, None, 0)


def test_every_ranking_of_the_method_is_there():
    assert set(NAMES) == set(RANKINGS)


@pytest.mark.parametrize("name", NAMES)
def test_every_ranking_ranks_and_unlearns(bench, original, task, name):
    ranking = task.difficulty(name)
    assert ranking.scores.shape == (len(task.request.forget),)
    assert np.isfinite(ranking.scores).all()
    assert np.ptp(ranking.scores) > 0
    setting = SETTING.but(ranking=name)
    made = bench.unlearn(name, setting, bench.case(0), original)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), made.trained.params, original.params
    )
    assert 0 < max(jax.tree.leaves(moved)) < np.inf


def test_the_reference_saw_the_retain_samples_alone(task):
    train, request = task.examples, task.request
    ranking = RANKINGS["reference"](task)

    def flat(ids):
        return train.inputs[ids].astype(np.float32).reshape(len(ids), -1)

    trees = ExtraTreesClassifier(TREES, min_samples_leaf=LEAF, random_state=0)
    trees.fit(flat(request.retain), train.labels[request.retain])
    for found, ids in zip(ranking.ease, (request.forget, request.unseen), strict=True):
        said = trees.predict_proba(flat(ids))
        expected = said[np.arange(len(ids)), train.labels[ids]]
        np.testing.assert_allclose(found, expected, atol=0.02)
        assert np.corrcoef(found, expected)[0, 1] > 0.99


def test_a_class_that_is_forgotten_whole_is_unknown_to_the_reference(task):
    labels = task.examples.labels
    kept = task.request.retain[labels[task.request.retain] != 3]
    request = task.request._replace(retain=kept)
    ease, _ = RANKINGS["reference"](dataclasses.replace(task, request=request)).ease
    is_3 = labels[request.forget] == 3
    assert (ease[is_3] == 0).all()
    assert (ease[~is_3] > 0).any()


def test_ranks_are_those_of_the_class(task):
    ranking = RANKINGS["reference"](task)
    labels, own = task.labels("forget"), task.confidence("forget")
    members = np.flatnonzero(labels == 2)
    for one in members:
        below = [
            (values[members] < values[one]).sum()
            + (values[members] == values[one]).sum()
            for values in (own, ranking.ease[0])
        ]
        ties = [
            ((values[members] == values[one]).sum() - 1) / 2
            for values in (own, ranking.ease[0])
        ]
        assert ranking.scores[one] == pytest.approx(sum(below) - sum(ties))
