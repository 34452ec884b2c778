"""The search of settings reads no sample, seed or model that is reported."""

import jax
import numpy as np
import pytest
from toys import three_digits

from jax_unlearn.data import Examples
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.lab.bench import Bench
from jax_unlearn.lab.job import Trained
from jax_unlearn.lab.requests import Request
from jax_unlearn.lab.store import load_model, save_model
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.lab.surrogates import (
    Distance,
    ForgetAgainstUnseen,
    Likeness,
    Unseen,
    draw,
    ground_of,
)
from jax_unlearn.lab.tuning import Search

TRAINING = Training(network="linear", epochs=1, batch_size=32)
FT = Unlearning.of(method="finetune", epochs=1, batch_size=32, learning_rate=0.1)
SEEDS = (7, 8)


@pytest.fixture(scope="module")
def dataset():
    return three_digits(140, 30)


@pytest.fixture(scope="module")
def checkpoint(dataset, tmp_path_factory):
    """A model of 120 samples, 20 held out."""
    path = tmp_path_factory.mktemp("tuning") / "original"
    subject, ids = subject_of(TRAINING, dataset), np.arange(120)
    trained = Trainer(subject, TRAINING)(ids, seed=0)
    record = {"training": vars(TRAINING), "seed": 0}
    unseen = np.arange(120, 140)
    save_model(path, trained, subject, ids=ids, unseen=unseen, record=record)
    return path


def search(dataset, checkpoint, forget, **options):
    stored = load_model(checkpoint, dataset)
    request = Request(forget, np.setdiff1d(stored.ids, forget), stored.unseen)
    asked = Likeness.like(dataset, request)
    told = {"checkpoint": checkpoint, "seeds": SEEDS, **options}
    return Search(stored, dataset, asked, request, **told)


def poisoned(dataset, forget):
    """Return data whose reported samples are noise, under other classes."""
    rng = np.random.default_rng(0)
    parts = []
    for part, ids in ((dataset.train, forget), (dataset.test, slice(None))):
        inputs, labels = part.inputs.copy(), part.labels.copy()
        inputs[ids] = rng.integers(0, 256, inputs[ids].shape).astype(inputs.dtype)
        labels[ids] = (labels[ids] + 1) % 3
        parts.append(Examples(inputs, labels))
    return dataset._replace(train=parts[0], test=parts[1])


@pytest.mark.parametrize("without", [False, True], ids=["retrain", "without"])
def test_no_trial_reads_the_request_or_the_test_set(dataset, checkpoint, without):
    forget = np.array([3, 7, 20, 41, 99])
    found = {}
    for name in ("own", "poisoned"):
        data = dataset if name == "own" else poisoned(dataset, forget)
        one = search(dataset, checkpoint, forget, without_retrain=without)
        if name == "poisoned":  # the counts of its classes are all that is known of it
            stored = load_model(checkpoint, dataset)
            given = stored, data, one.asked, Request(forget, stored.ids, stored.unseen)
            told = {"checkpoint": checkpoint, "seeds": SEEDS}
            one = Search(*given, **told, without_retrain=without)
        found[name] = [one.measure(FT, seed) for seed in SEEDS]
        for each in found[name]:
            del each["seconds"]
    assert found["own"] == found["poisoned"]
    assert found["own"][0] != found["own"][1]


def test_a_trial_is_what_the_bench_makes(dataset, checkpoint):
    """Avg. Gap to a Retrain of its own, on the search's data."""
    forget = np.array([3, 7, 20, 41, 99])
    one = search(dataset, checkpoint, forget)
    case, ground = one.case(7), one.ground
    held = len(ground.dataset.test.labels)
    assert held == 12  # a tenth of 115
    assert len(ground.dataset.train.labels) + held == 115
    trained = np.union1d(case.request.forget, case.request.retain)
    assert not np.intersect1d(trained, case.request.unseen).size
    assert len(trained) + len(case.request.unseen) == len(ground.trained)
    counts = np.bincount(ground.dataset.train.labels[case.request.forget], minlength=3)
    np.testing.assert_array_equal(
        counts, np.bincount(dataset.train.labels[forget], minlength=3)
    )
    retrained = Trainer(one.subject, TRAINING)(case.request.retain, seed=1007)
    measured = Distance(one.subject, case.request, retrained, 7)
    made = one.measure(FT, 7)
    job = one._preparer(FT, case.request, case.original, seed=7, origin=case.origin)
    assert measured(retrained) == {"avg_gap": 0.0, "deviation": 0.0}
    assert made["avg_gap"] > 0
    assert job.steps > 0


def test_the_programs_of_a_method_are_made_once(dataset, checkpoint, caplog):
    one = search(dataset, checkpoint, np.arange(5))

    def compiled(setting):
        caplog.clear()
        with jax.log_compiles():
            one.measure(setting, 7)
        return [r for r in caplog.records if "Compiling" in r.getMessage()]

    assert compiled(FT)
    assert compiled(FT.but(momentum=0.5))  # a constant of the step
    for rate in (0.03, 0.2):
        assert not compiled(FT.but(learning_rate=rate))
    assert not compiled(FT.but(epochs=2))


def test_seeds_and_checkpoints_that_are_reported_are_refused(dataset, checkpoint):
    with pytest.raises(InputError, match="0 is the checkpoint's own"):
        search(dataset, checkpoint, np.arange(5), seeds=(0, 1))


def test_a_model_of_unknown_training_is_searched_without_retrain(
    dataset, checkpoint, tmp_path
):
    stored = load_model(checkpoint, dataset)
    path, options = tmp_path / "imported", {"ids": stored.ids, "unseen": stored.unseen}
    save_model(path, stored.trained, stored.subject(dataset), **options)
    with pytest.raises(InputError, match="give --without-retrain"):
        search(dataset, path, np.arange(5))
    one = search(dataset, path, np.arange(5), without_retrain=True)
    assert one.measure(FT, 7)["unseen_gap"] >= 0
    with pytest.raises(InputError, match="search other methods"):
        one.check(Unlearning.of(method="deltagrad"))
    record = {"training": vars(TRAINING), "seed": 0, "imported": {}}
    told = load_model(checkpoint, dataset)._replace(
        record={**load_model(checkpoint, dataset).record, **record}
    )
    request = Request(stored.ids[:5], stored.ids[5:], stored.unseen)
    given = told, dataset, Likeness.like(dataset, request), request
    trained = Search(*given, checkpoint=path, seeds=SEEDS)
    assert "trained as `import` was told (" in trained.assumes
    assert "epochs=1" in trained.assumes
    with pytest.raises(InputError, match="search other methods"):
        trained.check(Unlearning.of(method="deltagrad"))
    assert search(dataset, checkpoint, np.arange(5)).assumes == ""
    every = stored._replace(unseen=stored.unseen[:0])
    told = {"checkpoint": checkpoint, "seeds": SEEDS, "without_retrain": True}
    with pytest.raises(InputError, match="was trained on all samples"):
        Search(every, dataset, Likeness("random"), None, **told)


def test_requests_are_drawn_like_the_one_that_is_given(dataset):
    labels, trained = dataset.train.labels, np.arange(120)
    forget = np.flatnonzero(labels[:120] == 1)[:9]
    request = Request(forget, np.setdiff1d(trained, forget), np.arange(120, 140))
    ground = ground_of(dataset, trained, request.unseen, forget)
    own = ground.dataset
    assert len(own.test.labels) == 10
    assert len(ground.unseen) == 10
    plan = Plan("", "random", 0.1, 1.0, 10, None, {}, SEEDS)
    drawn = [
        draw(ground, Likeness.like(dataset, request), plan, s, None) for s in SEEDS
    ]
    for one in drawn:
        assert np.bincount(own.train.labels[one.forget]).tolist() == [0, 9]
        assert not np.intersect1d(one.forget, one.retain).size
    assert drawn[0].forget.tolist() != drawn[1].forget.tolist()
    inputs = {image.tobytes() for image in dataset.train.inputs[forget]}
    assert not inputs & {image.tobytes() for image in own.train.inputs}


def test_another_class_stands_for_one_that_goes(dataset):
    labels, trained = dataset.train.labels, np.arange(140)
    forget = np.flatnonzero(labels == 1)
    retain, none = np.setdiff1d(trained, forget), np.zeros(0, int)
    asked = Likeness.like(dataset, Request(forget, retain, none))
    assert asked.gone.tolist() == [False, True, False]
    ground = ground_of(dataset, trained, none, forget)
    plan = Plan("", "random", 0.1, 1.0, 0.1, TRAINING, {}, SEEDS)
    seen = set()
    for seed in range(8):
        one = draw(ground, asked, plan, seed, None)
        own = ground.dataset.train.labels
        (number,) = set(own[one.forget].tolist())
        assert number != 1
        assert number not in own[one.retain]
        seen.add(number)
    assert seen == {0, 2}
    most = np.flatnonzero(labels == 1)[:-2]
    asked = Likeness.like(dataset, Request(most, np.setdiff1d(trained, most), none))
    assert not asked.gone.any()
    ground = ground_of(dataset, trained, none, most)
    with pytest.raises(InputError, match="of no other class are so many left"):
        draw(ground, asked._replace(counts=asked.counts * 3), plan, 0, None)


class Shown(ForgetAgainstUnseen):
    """The figure of what a model shows, without a model."""

    def _look(self, trained):
        return trained


def figure(labels, gone, before, after):
    train = Examples(np.zeros((len(labels), 1, 1, 1)), np.asarray(labels))
    dataset = three_digits(10, 3)._replace(train=train)
    subject = subject_of(TRAINING, dataset)
    half = len(labels) // 2
    ids = np.arange(len(labels))
    retain = ids[:0] if gone else ids[:half]
    return Shown(subject, Request(ids[:half], retain, ids[half:]), before)(after)


def test_forget_against_unseen_by_hand():
    none = np.zeros(0)
    sure, right = np.array([0.9, 0.6, 0.2, 0.1]), np.zeros(4, bool)
    unseen = np.array([0.5, 0.7, 0.1, 0.3])
    before = Unseen(none, none, none, right, 0.9)
    labels = [0, 0, 1, 1] * 2
    # class 0: 0.9 over both, 0.6 over one: 3/4; class 1: 0.2 over one, 0.1 ties: 3/8
    after = Unseen(sure, unseen, none, right, 0.8)
    found = figure(labels, False, before, after)
    assert found["told_apart"] == pytest.approx(100 * abs(0.5 * 0.5 - 0.5 * 0.25))
    assert found["lost"] == pytest.approx(10.0)
    assert found["right"] == 0
    assert found["unseen_gap"] == pytest.approx(12.5 + 10)
    better = figure(labels, False, before, after._replace(accuracy=0.95))
    assert better["lost"] == 0  # no reward for more than was there
    less = figure(labels, False, before, Unseen(-sure, -unseen, none, right, 0.9))
    assert less["told_apart"] == pytest.approx(12.5)  # the other side counts too
    gone = Unseen(sure, unseen, none, np.array([True, True, True, False]), 0.9)
    found = figure(labels, True, before, gone)
    assert found["unseen_gap"] == found["right"] == pytest.approx(75.0)


def test_bench_and_search_share_the_distance(dataset):
    plan = Plan("tiny", "random", 0.2, 1.0, 30, TRAINING, {}, SEEDS)
    bench = Bench(plan, dataset)
    case = bench.case(7)
    retrained = bench.retrained(case)
    distance = Distance(bench.subject, case.request, retrained, 7)
    assert distance(retrained) == {"avg_gap": 0.0, "deviation": 0.0}
    assert distance(bench.original(7))["avg_gap"] > 0
    assert isinstance(retrained, Trained)
