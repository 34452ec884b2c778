"""DualOptim by a setting: for every method of two gradients, and in float64."""

import dataclasses

import jax
import numpy as np
import pytest
from toys import softmax64, three_digits

from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.job import Trained, checked, execute
from jax_unlearn.lab.modalities.classification import CLASSIFICATION
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.refusals import two_gradients
from jax_unlearn.lab.subject import subject_of
from jax_unlearn.optimizers import DualState

DATA = three_digits(90, 30)
IDS = np.arange(len(DATA.train.labels))
REQUEST = Request(IDS[:24], IDS[24:60], IDS[60:])
SERVED = [
    name
    for name, card in METHODS.items()
    if two_gradients(card)
    and name not in ("esd", "ltu")  # slow, and of diffusion
    and set(card.roles) <= CLASSIFICATION.roles
]
ALPHA, RATE, RETAIN_RATE = 0.9, 0.003, 0.05


@pytest.fixture(scope="module")
def world():
    training = Training(network="linear", epochs=1, batch_size=20)
    subject = subject_of(training, DATA)
    params, state = jax.jit(subject.model.init)(
        jax.random.key(0), subject.examples.inputs[:2]
    )
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    return subject, Trained(params, state, {})


def dual(method, **options):
    return Unlearning.of(method=method, dual=True, epochs=2, batch_size=12, **options)


def has_two(state):
    found = jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, DualState))
    return any(isinstance(s, DualState) for s in found)


@pytest.mark.parametrize("method", SERVED)
def test_every_method_of_two_gradients_has_two_optimizers(world, method):
    subject, original = world
    job = Preparer(subject)(dual(method), REQUEST, original, seed=0)
    unlearner, schedule = checked(job)
    state = unlearner.init(*original[:2])
    assert has_two(state.opt_state)
    for step in (0, len(schedule) - 1):  # of phases, one of each
        batch = schedule[step]
        after, _ = jax.eval_shape(unlearner.step, state, batch, jax.random.key(0))
        assert jax.tree.structure(after) == jax.tree.structure(state)


def gradient64(variables, samples):
    """Return the mean gradient of the linear network's cross-entropy."""
    w, b, mean, std = variables
    x = np.asarray(samples.inputs, np.float64).reshape(len(samples.labels), -1)
    x = (x / 255 - mean) / std
    mask = np.ones(len(x), bool) if samples.mask is None else np.asarray(samples.mask)
    truth = np.eye(b.size)[np.asarray(samples.labels)]
    error = (softmax64(x @ w + b) - truth)[mask] / mask.sum()
    return [x[mask].T @ error, error.sum(0)]


def adamw64(state, grad, weight, rate, decay):
    state["t"] += 1
    state["m"] = 0.9 * state["m"] + 0.1 * grad
    state["v"] = 0.999 * state["v"] + 0.001 * grad**2
    first, second = (state[k] / (1 - c ** state["t"]) for k, c in _MOMENTS)
    return rate * (first / (np.sqrt(second) + 1e-8) + decay * weight)


_MOMENTS = (("m", 0.9), ("v", 0.999))


def test_the_published_phases_in_float64(world):
    """A pass of AdamW up the forget set, a pass of SGD down the retain set, masked."""
    subject, original = world
    told = {"learning_rate": RETAIN_RATE, "dual_rate": RATE, "weight_decay": 5e-4}
    setting = dual("neggrad_plus", alpha=ALPHA, salient=True, keep=0.4, **told)
    job = Preparer(subject)(setting, REQUEST, original, seed=0)
    found = execute(job, original[:2], jax.random.key(0))

    named = dict(jax.tree.leaves_with_path(original.params))
    keys = sorted(named, key=lambda key: -np.ndim(named[key]))  # kernel, bias
    pair = [np.asarray(named[key], np.float64) for key in keys]
    scale = subject.network.mean[0], subject.network.std[0]
    at = gradient64((*pair, *scale), whole(job, "forget"))
    sizes = np.concatenate([np.abs(g).ravel() for g in at])
    bound = np.sort(sizes)[-int(np.ceil(0.4 * sizes.size))]
    masks = [np.abs(g) >= bound for g in at]
    moments = [{"t": 0, "m": 0.0, "v": 0.0} for _ in pair]
    velocity = [np.zeros_like(p) for p in pair]
    phases = []
    for batch in checked(job)[1]:
        assert (batch.forget is None) != (batch.retain is None)
        phases.append(batch.retain is None)
        samples = batch.forget or batch.retain
        grads = gradient64((*pair, *scale), samples)
        for i, (grad, mask) in enumerate(zip(grads, masks, strict=True)):
            if phases[-1]:
                up = -(1 - ALPHA) * grad * mask
                move = adamw64(moments[i], up, pair[i], RATE, 0.05)
            else:
                down = ALPHA * grad * mask + 5e-4 * pair[i]
                velocity[i] = 0.9 * velocity[i] + down * mask
                move = RETAIN_RATE * velocity[i]
            pair[i] = pair[i] - mask * move
    assert phases == ([True] * 2 + [False] * 3) * 2
    ends = dict(jax.tree.leaves_with_path(found.params))
    start, end = (
        np.concatenate([np.float64(tree[key]).ravel() for key in keys])
        for tree in (named, ends)
    )
    expected = np.concatenate([leaf.ravel() for leaf in pair])
    moved = np.linalg.norm(expected - start)
    assert np.linalg.norm(end - expected) < 2e-4 * moved
    np.testing.assert_array_equal(
        end != start, np.concatenate([mask.ravel() for mask in masks])
    )
    assert moments[0]["t"] == 4  # of each gradient its own count


def whole(job, part):
    """Return the samples of a part, those of the first phases, as one batch."""
    batches = [getattr(checked(job)[1][step], part) for step in (0, 1)]
    return jax.tree.map(lambda *rows: np.concatenate(rows), *batches)


def test_what_a_setting_says_of_it():
    setting = Unlearning.of(method="salun", dual=True)
    assert (setting.schedule, setting.scheduling) == ("merged", "sequential")
    told = setting.told()
    assert (told["dual_rate"], told["dual_decay"]) == (1e-4, 0.05)
    assert told["schedule"] == "sequential"
    assert Unlearning.read(setting.record()) == setting
    zipped = setting.but(schedule="zipped")
    assert zipped.scheduling == "zipped"
    plain = Unlearning.of(method="salun")
    assert not {"dual", "dual_rate", "dual_decay"} & {*plain.record(), *plain.told()}
    ltu = Unlearning.of(method="ltu", dual=True)  # its own harmonizer gives way
    assert ltu.joining == "none"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "finetune"}, "finetune has no two gradients"),
        ({"method": "gradient_ascent"}, "gradient_ascent has no two gradients"),
        ({"method": "ssd"}, "ssd has no two gradients"),
        (
            {"method": "salun", "schedule": "zipped", "harmonizer": "one_way"},
            "harmonizer='one_way' makes one gradient",
        ),
        ({"method": "sfron", "forget_rate": 0.02}, "forget_rate=0.02 is of ascents"),
    ],
)
def test_what_does_not_go_together(values, words):
    with pytest.raises(InputError, match=words) as caught:
        Unlearning.of(dual=True, **values)
    assert "\n" not in str(caught.value)
    assert "leave" in str(caught.value)
    with pytest.raises(InputError, match="dual_rate=0"):
        Unlearning.of(method="salun", dual=True, dual_rate=0.0)


def test_it_is_a_method_of_its_own_beside_the_plain_one(world):
    subject, original = world
    ends = []
    for values in ({"dual": True}, {"schedule": "sequential"}):
        setting = Unlearning.of(method="salun", epochs=2, batch_size=12, **values)
        setting = dataclasses.replace(setting, learning_rate=0.05)
        job = Preparer(subject)(setting, REQUEST, original, seed=0)
        found = execute(job, original[:2], jax.random.key(0))
        ends.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(found[0])]))
    assert np.abs(ends[0] - ends[1]).max() > 1e-3
