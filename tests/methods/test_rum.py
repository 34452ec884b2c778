"""RUM: parts by memorisation, each by a method of its own, in order and from files."""

import jax
import numpy as np
import pytest
from toys import three_digits

from jax_unlearn import audit
from jax_unlearn.drivers.loop import predict
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.job import Trained, checked, execute
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import Trainer, subject_of
from jax_unlearn.methods import memorised_parts, rum

DATA = three_digits(150, 30)
IDS = np.arange(len(DATA.train.labels))
REQUEST = Request(IDS[:48], IDS[48:120], IDS[120:])
KEY = jax.random.key(3)  # of the run: that of the seed
SEED = 3


@pytest.fixture(scope="module")
def world():
    training = Training(network="linear", epochs=8, batch_size=20)
    subject = subject_of(training, DATA)
    return subject, Trainer(subject, training)(IDS[:120], seed=0)


def made(world, **values):
    subject, original = world
    quick = {"batch_size": 16, "epochs": 2, "learning_rate": 0.1}
    setting = Unlearning.of(method="rum", **(quick | values))
    return Preparer(subject)(setting, REQUEST, original, seed=SEED)


def ended(world, job, key=KEY):
    return execute(job, world[1][:2], key)


def flat(trained):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(trained[0])])


def logits_of(subject, at, ids):
    params, state = at[:2]
    return predict(subject.model, params, state, DATA.train.inputs[ids])


def forgotten(job):
    """Return the ids of the samples in the forget batches of a job."""
    batches = [batch.forget for batch in checked(job)[1] if batch.forget]
    return {int(i) for b in batches for i in np.asarray(b.index)[np.asarray(b.mask)]}


def test_parts_rise_and_lose_nobody():
    rng = np.random.default_rng(0)
    forget, scores = rng.permutation(100)[:20], rng.random(20)
    parts = memorised_parts(scores, forget, 3)
    assert [len(p) for p in parts] == [7, 7, 6]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.sort(forget))
    by_id = dict(zip(forget.tolist(), scores, strict=True))
    ends = [(min(by_id[i] for i in p), max(by_id[i] for i in p)) for p in parts]
    assert ends[0][1] <= ends[1][0] <= ends[1][1] <= ends[2][0]
    bins = audit.memorisation_bins(scores)  # those of the audit are the same parts
    for part, inside in zip(parts, bins.values(), strict=True):
        np.testing.assert_array_equal(part, np.sort(forget[inside]))
    for bad in ([0.5], [np.nan] * 20):
        with pytest.raises(InputError, match="one for each of the 20"):
            memorised_parts(bad, forget)
    with pytest.raises(InputError, match="give fewer methods"):
        memorised_parts(scores, forget, 21)


def test_later_parts_are_retained_until_their_turn():
    seen = []

    def method(at, forget, retain):
        seen.append((forget.tolist(), retain.tolist()))
        return at[0] + 1, at[1]

    told = {"scores": [0.3, 0.2, 0.1], "methods": (method, None, method)}
    assert rum((0, ()), [5, 6, 7], [1, 9], **told) == (2, ())
    assert seen == [([7], [1, 5, 6, 9]), ([5], [1, 9])]


def test_the_proxy_is_one_minus_the_confidence_of_the_original(world):
    subject, original = world
    job = made(world, parts=("none", "none", "gradient_ascent"))
    logits = logits_of(subject, original, REQUEST.forget)
    true = DATA.train.labels[REQUEST.forget]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    sure = (odds / odds.sum(1, keepdims=True))[np.arange(48), true]
    hard = REQUEST.forget[np.argsort(1 - sure, kind="stable")[32:]]
    ids = forgotten(job)
    assert ids == set(hard.tolist())  # the highest part alone ascends
    told = job.details["refined"]
    assert [one["samples"] for one in told] == [16, 16, 16]
    assert told[0]["scores"][1] <= told[1]["scores"][0] <= told[2]["scores"][0]
    assert told[2]["scores"][1] == pytest.approx(1 - sure.min(), rel=1e-5)


def test_it_is_its_methods_one_after_the_other(world):
    """Bit for bit what each method makes of its part, begun where the last ended."""
    subject, original = world
    parts = ("finetune", "none", "neggrad_plus")
    rates = {"part_rates": (0.05, 0.1, 0.01), "part_epochs": (1, 9, 2)}
    job = made(world, parts=parts, **rates)
    found = ended(world, job)
    scores = audit.memorisation_proxy(
        softmax(logits_of(subject, original, REQUEST.forget)),
        DATA.train.labels[:48],
    )
    low, middle, high = memorised_parts(scores, REQUEST.forget)
    at = original
    for number, (name, forget, rest, rate, epochs) in enumerate(
        (
            ("finetune", low, [middle, high], 0.05, 1),
            ("neggrad_plus", high, [], 0.01, 2),
        )
    ):
        told = {"epochs": epochs, "learning_rate": rate, "batch_size": 16}
        setting = Unlearning.of(method=name, **told)
        retain = np.sort(np.concatenate([REQUEST.retain, *rest]))
        request = REQUEST._replace(forget=forget, retain=retain)
        own = Preparer(subject)(setting, request, at, seed=SEED)
        key = KEY if number else jax.random.fold_in(KEY, 0)
        at = Trained(*execute(own, at[:2], key)[:2], {})
    np.testing.assert_array_equal(flat(found), flat(at))
    assert np.abs(flat(found) - flat(original)).max() > 1e-3
    seconds = [one.get("seconds") for one in job.details["refined"]]
    assert seconds[0]["run"] > 0
    assert seconds[1:] == [None, None]  # nothing, and the run that is timed itself


def softmax(logits):
    odds = np.exp(np.float64(logits) - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def test_scores_of_a_file_and_a_last_part_without_steps(world, tmp_path):
    scores = np.zeros(len(IDS))
    scores[:48] = np.arange(48)[::-1]
    path = tmp_path / "scores.npy"
    np.save(path, scores)
    job = made(world, parts=("finetune", "ssd"), memorised=str(path))
    assert job.details["refined"][0]["scores"] == [0.0, 23.0]
    assert job.transform is not None
    both = ended(world, job)
    assert np.isfinite(flat(both)).all()
    only = ended(world, made(world, parts=("none", "ssd"), memorised=str(path)))
    assert np.abs(flat(both) - flat(only)).max() > 1e-4
    np.save(path, scores[:48])
    with pytest.raises(InputError, match=r"number for each of the \d+ training"):
        made(world, memorised=str(path))
    with pytest.raises(InputError, match=r"no \.npy file"):
        made(world, memorised=str(tmp_path / "none.npy"))


def test_memorised_samples_are_forgotten(world):
    parts = ("none", "none", "gradient_ascent")
    job = made(world, parts=parts, learning_rate=0.5, epochs=40)
    end = ended(world, job)
    subject, original = world
    ids = np.array(sorted(forgotten(job)))

    def right(at, which):
        logits = logits_of(subject, at, which)
        return (logits.argmax(1) == DATA.train.labels[which]).mean()

    assert right(end, ids) < right(original, ids) - 0.3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"parts": ("none", "none")}, "at least one part"),
        ({"parts": ("none", "salum")}, "unknown method 'salum'; did you mean 'salun'"),
        ({"parts": ("rum", "salun")}, "no method of a part of itself"),
        ({"part_rates": (0.1, 0.2)}, "one for each of the 3 parts"),
        ({"part_epochs": (1, 0, 2)}, "must be positive"),
        ({"guard_utility": 50.0}, "the last alone"),
        ({"parts": ("esd", "none")}, "esd"),
    ],
)
def test_mistakes(values, words):
    with pytest.raises(InputError, match=words):
        Unlearning.of(method="rum", **values)


def test_common_fields_go_to_the_parts_that_read_them():
    setting = Unlearning.of(method="rum", weighting="loreun", dual=True, salient=True)
    tuned = setting.part({"method": "finetune"})
    assert (tuned.weighting, tuned.dual, tuned.salient) == ("uniform", False, True)
    salun = setting.part({"method": "salun", "learning_rate": 0.3})
    assert (salun.weighting, salun.dual, salun.learning_rate) == ("loreun", True, 0.3)
    assert Unlearning.read(setting.record()) == setting
