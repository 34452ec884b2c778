"""UA, RA, TA, MIA, Avg. Gap and ToW against values worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jax_unlearn import audit
from jax_unlearn.audit import Metrics, Predictions
from jax_unlearn.errors import InputError

percent = st.floats(0, 100)


@st.composite
def any_metrics(draw):
    fa, ra, ta, mia = (draw(percent) for _ in range(4))
    return Metrics(100 - fa, fa, ra, ta, mia)


def predictions(seed, rows, sharpness, classes=4, index=None):
    """Predictions right more often the sharper they are."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += sharpness
    p = np.exp(logits)
    return Predictions(p / p.sum(axis=1, keepdims=True), labels, index)


def test_accuracy_counts_by_hand():
    logits = [[1.0, 2.0, 0.0], [5.0, 5.0, 0.0], [-np.inf, 0.0, -1.0], [0, 0, 9]]
    assert audit.accuracy(logits, [1, 0, 0, 2]) == 75
    assert audit.accuracy(jnp.asarray(logits, "bfloat16"), [1, 1, 1, 2]) == 75


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_accuracy_refuses_outputs_of_a_diverged_model(bad):
    with pytest.raises(InputError, match=r"outputs\[1\].*1 of 2 rows.*diverged"):
        audit.accuracy([[0.0, 1.0], [bad, 0.0]], [0, 0])


def test_unlearning_metrics_by_hand():
    def rows(*confidences):
        return [[p, 1 - p] for p in confidences]

    got = audit.unlearning_metrics(
        Predictions(rows(0.9, 0.95, 0.4, 0.3, 0.92), [0] * 5),
        Predictions(rows(0.97, 0.96, 0.95, 0.9), [0] * 4),
        Predictions(rows(0.3, 0.4, 0.35, 0.6), [0] * 4),
    )
    assert got == Metrics(ua=40, fa=60, ra=100, ta=25, mia=40)
    assert all(type(value) is float for value in got)


def test_mia_of_the_metrics_is_svc_efficacy():
    forget, retain = predictions(0, 50, 2.0), predictions(1, 200, 3.0)
    test = predictions(2, 60, 1.0)
    conf = [audit.true_class_confidence(*p[:2]) for p in (retain, test, forget)]
    got = audit.unlearning_metrics(forget, retain, test, seed=7)
    assert got.mia == audit.svc_mia_efficacy(*conf, seed=7)
    assert got.fa == audit.accuracy(forget.probs, forget.labels)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_metrics_do_not_depend_on_sample_order(seed):
    rng = np.random.default_rng(seed)
    sets = [predictions(seed + i, n, 2.0) for i, n in enumerate((20, 90, 40))]
    orders = [rng.permutation(len(s.labels)) for s in sets]
    shuffled = [
        Predictions(s.probs[o], s.labels[o]) for s, o in zip(sets, orders, strict=True)
    ]
    assert audit.unlearning_metrics(*sets) == audit.unlearning_metrics(*shuffled)


def test_a_forgotten_class_leaves_ta_and_the_mia():
    test, retain = predictions(2, 200, 1.0), predictions(1, 300, 3.0)
    keep, held = test.labels != 3, retain.labels != 3
    retain = Predictions(retain.probs[held], retain.labels[held])
    forget = Predictions(predictions(0, 50, 2.0).probs, np.full(50, 3))
    rest = Predictions(test.probs[keep], test.labels[keep])
    got = audit.unlearning_metrics(forget, retain, test, forgotten_classes=[3])
    assert got == audit.unlearning_metrics(forget, retain, rest)
    assert got.ta != audit.unlearning_metrics(forget, retain, test).ta


def test_splits_that_cannot_be_right_are_refused():
    forget = predictions(0, 3, 1.0, index=[1, 2, 3])
    retain = predictions(1, 3, 1.0, index=[3, 4, 5])
    test = predictions(2, 20, 1.0)
    with pytest.raises(InputError, match=r"share 1 ids, 3 first.*one split"):
        audit.unlearning_metrics(forget, retain, test)
    with pytest.raises(InputError, match=r"forget.index holds id 1 2 times.*padding"):
        audit.unlearning_metrics(forget._replace(index=[1, 1, 2]), retain, test)
    with pytest.raises(InputError, match=r"retain.index of type"):
        audit.unlearning_metrics(forget, retain._replace(index=[4, 5]), test)
    retain = retain._replace(index=None)
    with pytest.raises(InputError, match=r"retain samples.*as a whole"):
        audit.unlearning_metrics(
            forget, retain, test, forgotten_classes=[retain.labels[0]]
        )
    with pytest.raises(InputError, match="leave no test sample"):
        audit.unlearning_metrics(
            forget,
            retain._replace(labels=[0, 0, 0]),
            test._replace(labels=np.full(20, 2)),
            forgotten_classes=(2,),
        )
    with pytest.raises(InputError, match=r"forgotten_classes\[0\]=4 is outside 0..3"):
        audit.unlearning_metrics(forget, retain, test, forgotten_classes=(4,))
    with pytest.raises(InputError, match=r"have \[4, 4, 5\] classes"):
        audit.unlearning_metrics(forget, retain, predictions(2, 20, 1.0, classes=5))
    with pytest.raises(InputError, match=r"retain.probs.*is empty"):
        audit.unlearning_metrics(forget, Predictions(np.zeros((0, 4)), []), test)


def test_avg_gap_of_published_rows():
    # SalUn's Table 1, CIFAR-10, 10 % random: method against Retrain.
    retrain = Metrics(5.24, 94.76, 100, 94.26, 12.88)
    rows = {
        3.78: Metrics(0.63, 99.37, 99.88, 94.06, 2.70),
        7.15: Metrics(7.61, 92.39, 99.67, 92.83, 37.36),
        1.15: Metrics(2.85, 97.15, 99.62, 93.93, 14.39),
    }
    for published, row in rows.items():
        assert abs(audit.avg_gap(row, retrain) - published) < 0.0051


@given(any_metrics(), any_metrics())
def test_avg_gap_is_a_distance(a, b):
    gap = audit.avg_gap(a, b)
    assert gap == audit.avg_gap(b, a)
    assert audit.avg_gap(a, a) == 0
    equal = all(getattr(a, k) == getattr(b, k) for k in ("ua", "ra", "ta", "mia"))
    assert (gap == 0) == equal
    assert 0 <= gap <= 100


@given(any_metrics(), any_metrics())
def test_tug_of_war_lies_in_the_unit_interval(a, b):
    for score, fields in ((audit.tow, "fa ra ta"), (audit.tow_mia, "mia ra ta")):
        expected = 1.0
        for field in fields.split():
            expected *= 1 - abs(getattr(a, field) - getattr(b, field)) / 100
        assert 0 <= score(a, b) <= 1
        assert abs(score(a, b) - expected) < 1e-12
        assert score(a, b) == score(b, a)
        assert score(a, a) == 1


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ((-1, 101, 90, 90, 10), r"metrics.ua=-1 is outside 0..100"),
        ((5, 95, 90, 90, np.nan), r"metrics.mia=nan is outside"),
        ((5, 94, 90, 90, 10), r"metrics.ua=5 and metrics.fa=94 must add up to 100"),
    ],
)
def test_figures_no_model_can_score_are_refused(figures, message):
    good = Metrics(5, 95, 90, 90, 10)
    for score in (audit.avg_gap, audit.tow, audit.tow_mia):
        with pytest.raises(InputError, match=message):
            score(Metrics(*figures), good)
        with pytest.raises(InputError, match=message.replace("metrics", "retrained")):
            score(good, Metrics(*figures))
