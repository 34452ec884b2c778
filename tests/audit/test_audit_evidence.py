"""Outputs of many models: how they are had, what is derived, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import logit, softmax
from toys import batch, batchnorm_net

import jax_unlearn as ju
from jax_unlearn.audit.evidence import (
    ModelOutputs,
    PartInputs,
    PartLabels,
    evidence,
    model_outputs,
    select,
)
from jax_unlearn.errors import InputError

SIZES = {"forget": 4, "retain": 6, "test": 5, "unseen": 3}
CLASSES = 3


def drawn(seed=0, models=2, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        part: rng.normal(0, 2, (models, size, CLASSES)) for part, size in SIZES.items()
    }
    truth = {part: np.arange(size) % CLASSES for part, size in SIZES.items()}
    return ModelOutputs(**{**arrays, **changes}), PartLabels(**truth)


def test_confidence_and_margins_are_those_of_scipy():
    outputs, labels = drawn()
    found = evidence("ours", outputs, labels)
    assert found.models == 2
    assert list(found.probs) == ["forget", "retain", "test", "unseen"]
    for part, size in SIZES.items():
        expected = softmax(getattr(outputs, part), axis=2)
        np.testing.assert_allclose(found.probs[part], expected, atol=1e-14)
        picked = expected[:, range(size), np.arange(size) % CLASSES]
        np.testing.assert_allclose(found.confidence[part], picked, atol=1e-14)
    np.testing.assert_allclose(
        found.margins, logit(found.confidence["forget"]), atol=1e-12
    )


def test_probabilities_say_the_same_as_logits():
    outputs, labels = drawn()
    probs = ModelOutputs(*(softmax(array, axis=2) for array in outputs))
    one = evidence("ours", outputs, labels)
    two = evidence("ours", probs, labels, kind="probabilities")
    for part in SIZES:
        np.testing.assert_allclose(one.probs[part], two.probs[part], atol=1e-14)
    np.testing.assert_allclose(one.margins, two.margins, atol=1e-10)


def test_a_single_model_needs_no_axis_of_its_own():
    outputs, labels = drawn(models=1)
    flat = ModelOutputs(*(array[0].tolist() for array in outputs))
    one, two = (evidence("ours", given, labels) for given in (outputs, flat))
    assert two.models == 1
    np.testing.assert_array_equal(one.margins, two.margins)


def test_selected_models_are_those_asked_for():
    outputs, labels = drawn(models=4)
    found = evidence("ours", outputs, labels)
    chosen = select(found, np.array([3, 1]))
    again = evidence(
        "ours", ModelOutputs(*(array[[3, 1]] for array in outputs)), labels
    )
    assert chosen.models == 2
    np.testing.assert_array_equal(chosen.margins, again.margins)
    for part in SIZES:
        np.testing.assert_array_equal(chosen.probs[part], again.probs[part])
        np.testing.assert_array_equal(chosen.confidence[part], again.confidence[part])
    np.testing.assert_array_equal(chosen.labels["test"], found.labels["test"])


def test_unseen_samples_may_be_missing():
    outputs, labels = drawn(unseen=None)
    found = evidence("ours", outputs, labels)
    assert "unseen" not in found.probs
    evidence("ours", outputs, labels._replace(unseen=None))
    with pytest.raises(InputError, match=r"labels.unseen=None but ours.unseen"):
        evidence("ours", drawn()[0], labels._replace(unseen=None))


def spoiled(part, value):
    outputs, _ = drawn()
    array = getattr(outputs, part).copy()
    array[1, 2, 0] = value
    return {part: array}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (spoiled("retain", np.nan), r"ours.retain\[1, \d\]=\[.*nan"),
        (spoiled("test", np.inf), r"ours.test\[1, \d\]=\[.*inf"),
        ({"forget": np.zeros((2, 5, CLASSES))}, r"labels.forget.shape=\(4,\)"),
        ({"test": np.zeros((3, 5, CLASSES))}, r"parts of \[\(2, 3\), \(3, 3\)\]"),
        ({"test": np.zeros((2, 5, 4))}, r"parts of \[\(2, 3\), \(2, 4\)\]"),
        ({"test": np.zeros((2, 5, 1))}, "under 2 classes"),
        ({"retain": np.zeros((0, 6, CLASSES))}, r"retain.shape=\(0, 6, 3\) is empty"),
        ({"retain": np.zeros(6)}, r"shape=\(6,\) must be \[models"),
        ({"retain": "text"}, "ours.retain of type str is no array"),
        ({"retain": [[1.0, 2.0], [3.0]]}, "ours.retain of type list is no array"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_outputs_that_cannot_be_used_are_named(changes, words):
    outputs, labels = drawn(**changes)
    with pytest.raises(InputError, match=words) as caught:
        evidence("ours", outputs, labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ([0, 1, 2], r"labels.forget.shape=\(3,\) must be \(4,\)"),
        ([0, 1, 2, 3], r"labels.forget\[3\]=3 is outside 0..2"),
        ([0, 1, 2, -1], r"labels.forget\[3\]=-1"),
        ([0.0, 1.0, 2.0, 0.0], "not an integer type"),
    ],
)
def test_labels_that_do_not_fit_are_named(truth, words):
    outputs, labels = drawn()
    with pytest.raises(InputError, match=words):
        evidence("ours", outputs, labels._replace(forget=truth))


def test_kinds_that_are_unknown_or_not_what_was_given():
    outputs, labels = drawn()
    with pytest.raises(InputError, match="kind='probs': choose 'logits'"):
        evidence("ours", outputs, labels, kind="probs")
    with pytest.raises(InputError, match=r"ours.forget\[0, 0\] sums to"):
        evidence("ours", outputs, labels, kind="probabilities")


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
