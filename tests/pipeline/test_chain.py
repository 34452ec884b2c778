"""Requests one after another: each from the model that the last one left."""

import jax
import numpy as np
import pytest
from toys import trees_close

from jax_unlearn.data import digits, holdout
from jax_unlearn.errors import InputError
from jax_unlearn.pipeline.chain import chain
from jax_unlearn.pipeline.ledger import read
from jax_unlearn.pipeline.networks import build, describe
from jax_unlearn.pipeline.prepare import Preparer
from jax_unlearn.pipeline.settings import Training, Unlearning
from jax_unlearn.pipeline.stages import Request, Trained, execute

DATA = digits()
IDS, UNSEEN = holdout(DATA.train.labels, count=700, seed=0)
SETTING = Unlearning(epochs=1, batch_size=64, learning_rate=0.05)
NETWORK = describe(Training(network="mlp", width=6), DATA)


@pytest.fixture(scope="module")
def preparer():
    return Preparer(build(NETWORK), DATA)


@pytest.fixture(scope="module")
def original():
    made = build(NETWORK).init(jax.random.key(0), DATA.train.inputs[:2])
    return Trained(*made, {})


def test_the_last_model_is_that_of_single_requests(preparer, original, tmp_path):
    parts = [IDS[:20], IDS[20:40], IDS[40:60]]
    path = tmp_path / "ledger.jsonl"
    rest = {"path": path, "seed": 3}
    models = chain(preparer, SETTING, original, IDS, parts, UNSEEN, **rest)
    current = original
    for number, part in enumerate(parts):
        asked = Request(np.sort(part), np.sort(IDS[20 * (number + 1) :]), UNSEEN)
        job = preparer(SETTING, asked, current, seed=3 + number)
        key = jax.random.key(3 + number)
        current = execute(job, current.params, current.model_state, key)
        trees_close(models[number].params, current.params, rtol=0, atol=0)
    entries = read(path)
    assert [entry["left"] for entry in entries] == [280, 260, 240]
    assert [e["before"] for e in entries[1:]] == [e["after"] for e in entries[:-1]]
    assert len({entry["after"] for entry in entries}) == 3


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([IDS[:3], IDS[2:5]], f"id {IDS[2]} is asked for twice"),
        ([UNSEEN[:1]], f"id {UNSEEN[0]} is not among the 300"),
        ([IDS[:3], IDS[:0]], "one or more"),
        ([], "one or more"),
    ],
)
def test_requests_that_cannot_be_served(preparer, original, parts, words, tmp_path):
    path = tmp_path / "ledger.jsonl"
    with pytest.raises(InputError, match=words):
        chain(preparer, SETTING, original, IDS, parts, UNSEEN, path=path)
    assert not path.exists()
