"""Requests one after another: each from the model that the last one left."""

import shutil

import jax
import numpy as np
import pytest
from toys import trees_close

from jax_unlearn.data import digits, holdout
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.chain import Chain, chain
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.ledger import read
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.store import load_model
from jax_unlearn.lab.subject import subject_of

DATA = digits()
IDS, UNSEEN = holdout(DATA.train.labels, count=700, seed=0)
SETTING = Unlearning.of(epochs=1, batch_size=64, learning_rate=0.05)
SUBJECT = subject_of(Training(network="mlp", width=6), DATA)


@pytest.fixture(scope="module")
def preparer():
    return Preparer(SUBJECT)


@pytest.fixture(scope="module")
def original():
    inputs = DATA.train.inputs[:2]
    params, state = jax.jit(SUBJECT.model.init)(jax.random.key(0), inputs)
    return Trained(params, state, {})


def served(preparer, original, parts, folder, **rest):
    rest = {"folder": folder, "seed": 3} | rest
    start = Chain(SUBJECT, original, IDS, UNSEEN)
    return list(chain(start, SETTING, parts, preparer=preparer, **rest))


def test_the_last_model_is_that_of_single_requests(preparer, original, tmp_path):
    parts = [IDS[:20], IDS[20:40], IDS[40:60]]
    models = served(preparer, original, parts, tmp_path)
    current = original
    for number, part in enumerate(parts):
        asked = Request(np.sort(part), np.sort(IDS[20 * (number + 1) :]), UNSEEN)
        job = preparer(SETTING, asked, current, seed=3 + number)
        key = jax.random.key(3 + number)
        current = execute(job, current[:2], key)
        trees_close(models[number].params, current.params, rtol=0, atol=0)
        stored = load_model(tmp_path / f"request-{number + 1}", DATA)
        trees_close(stored.trained.params, current.params, rtol=0, atol=0)
        np.testing.assert_array_equal(stored.ids, asked.retain)
    entries = read(tmp_path / "ledger.jsonl")
    assert [entry["left"] for entry in entries] == [280, 260, 240]
    assert [e["before"] for e in entries[1:]] == [e["after"] for e in entries[:-1]]
    assert len({entry["after"] for entry in entries}) == 3


def test_a_stopped_chain_goes_on(preparer, original, tmp_path):
    parts = [IDS[:20], IDS[20:40], IDS[40:60]]
    whole = served(preparer, original, parts, tmp_path / "whole")

    def stop(phase, done, total):
        if phase == "request-2" and done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        served(preparer, original, parts, tmp_path / "cut", progress=stop)
    assert len(read(tmp_path / "cut" / "ledger.jsonl")) == 1
    again = served(preparer, original, parts, tmp_path / "cut")
    for one, other in zip(whole, again, strict=True):
        trees_close(one.params, other.params, rtol=0, atol=0)
    entries = [read(tmp_path / name / "ledger.jsonl") for name in ("whole", "cut")]
    kept = [[e["after"] for e in found] for found in entries]
    assert kept[0] == kept[1]
    more = served(preparer, original, [*parts, IDS[60:80]], tmp_path / "cut")
    assert len(more) == len(read(tmp_path / "cut" / "ledger.jsonl")) == 4


def test_a_model_saved_before_its_line_gets_it(preparer, original, tmp_path):
    parts = [IDS[:20], IDS[20:40]]
    served(preparer, original, parts, tmp_path)
    path = tmp_path / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0])  # killed between the model and its line
    served(preparer, original, parts, tmp_path)
    assert len(read(path)) == 2


def test_folders_of_other_chains_are_refused(preparer, original, tmp_path):
    parts = [IDS[:20], IDS[20:40]]
    served(preparer, original, parts, tmp_path)
    for other, words in (
        ([IDS[:20], IDS[30:50]], "request-2 was made with another"),
        (parts[:1], "2 entries, there are 1 requests"),
    ):
        with pytest.raises(InputError, match=words):
            served(preparer, original, other, tmp_path)
    with pytest.raises(InputError, match="request-1 was made with another"):
        served(preparer, original, parts, tmp_path, seed=4)
    shutil.rmtree(tmp_path / "request-2")
    with pytest.raises(InputError, match=r"its model .*request-2 is gone"):
        served(preparer, original, parts, tmp_path)


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
    with pytest.raises(InputError, match=words):
        served(preparer, original, parts, tmp_path / "chain")
    assert not (tmp_path / "chain").exists()
