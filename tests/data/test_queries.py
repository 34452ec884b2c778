"""Subsets, query strategies, the schedule of queries, and the measured gaps."""

import math

import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given, settings

from jax_unlearn.data import (
    Examples,
    Gap,
    Strategy,
    by_distance,
    digits,
    distribution_gap,
    queried,
    queries,
    query_gaps,
    retain_subset,
    zipped,
)
from jax_unlearn.errors import InputError

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 60).astype(np.int32)
EXAMPLES = Examples(np.arange(60, dtype=np.float32).reshape(60, 1, 1, 1), LABELS)
FORGET, SUBSET = np.arange(7), np.arange(10, 50)[::-1]
SORTED = np.sort(SUBSET)
FEATURES = RNG.normal(size=(60, 3))
CONFIDENCE = RNG.random(60)


def _strategies():
    return [
        queries.uniform(40),
        queries.class_skewed(LABELS[SORTED]),
        queries.feature_cluster(FEATURES[SORTED], clusters=3),
        queries.hard(CONFIDENCE[SORTED]),
        queries.nearest(FEATURES[SORTED], FEATURES[FORGET]),
    ]


ALL = {strategy.name: strategy for strategy in _strategies()}


def _equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def _draws(strategy, size, number=30):
    return [strategy.draw(np.random.default_rng(seed), size) for seed in range(number)]


# The subset.


@st.composite
def _retain_sets(draw):
    labels = np.asarray(draw(st.lists(st.integers(0, 5), min_size=2, max_size=80)))
    chosen = draw(st.sets(st.integers(0, len(labels) - 1), min_size=1))
    ids = draw(st.permutations(sorted(chosen)))
    # Two parts, neither too small for one sample of each class.
    totals = st.integers(len(set(labels[ids])), len(ids))
    parts = [(draw(totals) + draw(st.floats(-0.4, 0.4))) / len(ids) for _ in range(2)]
    return labels, ids, sorted(min(part, 1.0) for part in parts)


@given(_retain_sets(), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_subsets_are_stratified_and_nested(retain, seed):
    labels, ids, (low, high) = retain
    sizes = np.bincount(labels[ids], minlength=6)
    subsets = [retain_subset(labels, ids, rho=rho, seed=seed) for rho in (low, high)]
    counts = []
    for rho, subset in zip((low, high), subsets, strict=True):
        assert subset.dtype == np.int64
        assert np.all(np.diff(subset) > 0)
        assert set(subset.tolist()) <= set(ids)
        assert len(subset) == round(rho * len(ids))
        counts.append(np.bincount(labels[subset], minlength=6))
        assert np.array_equal(counts[-1] > 0, sizes > 0)
        exact = len(subset) * sizes / len(ids)
        if np.all(exact[sizes > 0] >= 1):
            assert np.all(np.abs(counts[-1] - exact) < 1)
    for label in range(6):
        small, large = (set(s[labels[s] == label].tolist()) for s in subsets)
        grows = counts[0][label] <= counts[1][label]
        assert small <= large if grows else large < small
    np.testing.assert_array_equal(
        subsets[0], retain_subset(labels, np.sort(ids), rho=low, seed=seed)
    )
    everything = retain_subset(labels, ids, rho=1, seed=seed)
    np.testing.assert_array_equal(everything, np.sort(ids))


def test_small_classes_keep_one_and_the_others_share_the_rest():
    labels = np.repeat([0, 1, 3], [100, 50, 2])
    subset = retain_subset(labels, range(152), rho=16 / 152)
    assert np.bincount(labels[subset]).tolist() == [10, 5, 0, 1]
    fewest = retain_subset(labels, range(152), rho=3 / 152)
    assert np.bincount(labels[fewest]).tolist() == [1, 1, 0, 1]


def test_the_seed_names_the_subset():
    made = [retain_subset(LABELS, SUBSET, rho=0.3, seed=seed) for seed in range(20)]
    assert len({tuple(subset) for subset in made}) == 20
    assert set(np.concatenate(made).tolist()) == set(SUBSET.tolist())
    # The raw stream of PCG64 alone decides, the same in all NumPy versions.
    bits, expected = np.random.PCG64(7), []
    for members in ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9]):
        order = np.argsort(bits.random_raw(5))
        expected += [members[place] for place in order[:2]]
    subset = retain_subset(np.arange(10) % 2, range(10), rho=0.4, seed=7)
    assert subset.tolist() == sorted(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 0}, "rho=0 must be over 0"),
        ({"rho": 1.5}, "rho=1.5 must be from 0 to 1"),
        ({"rho": -0.1}, "rho=-0.1 must"),
        ({"rho": math.nan}, "rho=nan must"),
        ({"rho": "0.3"}, "rho=0.3 must"),
        ({"rho": True}, "rho=True must"),
        (
            {"rho": 0.05},
            "rho=0.05 keeps 2 of 40 retain samples, fewer than their 4 classes; "
            "raise rho to 0.1$",
        ),
        ({"rho": 0.3, "seed": -1}, "seed=-1 must"),
    ],
)
def test_subset_mistakes_are_named(options, message):
    with pytest.raises(InputError, match=message):
        retain_subset(LABELS, SUBSET, **options)


def test_subset_ids_are_checked():
    assert len(retain_subset(LABELS, SUBSET, rho=0.1)) == 4  # as the message advises
    with pytest.raises(InputError, match="retain_ids holds 60"):
        retain_subset(LABELS, [3, 60], rho=0.5)
    with pytest.raises(InputError, match="retain_ids holds 3 twice"):
        retain_subset(LABELS, [3, 8, 3], rho=1)
    with pytest.raises(InputError, match="retain_ids of shape"):
        retain_subset(LABELS, [], rho=1)
    with pytest.raises(InputError, match="must be integers"):
        retain_subset(LABELS / 2, SUBSET, rho=1)


# The strategies.


@given(st.sampled_from(sorted(ALL)), st.integers(2, 40), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_queries_lie_in_the_subset_and_repeat_only_small_pools(name, size, seed):
    query = ALL[name].draw(np.random.default_rng(seed), size)
    assert query.shape == (size,)
    assert query.dtype == np.int64
    assert query.min() >= 0
    assert query.max() < 40
    counts = np.bincount(query)
    pool = {"uniform": 40, "feature_cluster": 40, "hard": 10, "nearest": 10}.get(name)
    if pool is None:  # the classes drawn
        drawn = np.unique(LABELS[SORTED][query])
        pool = np.isin(LABELS[SORTED], drawn).sum()
    assert np.count_nonzero(counts) == min(pool, size)
    assert np.ptp(counts[counts > 0]) <= 1
    again = ALL[name].draw(np.random.default_rng(seed), size)
    np.testing.assert_array_equal(query, again)


@pytest.mark.parametrize("name", sorted(ALL))
def test_strategies_draw_anew_and_are_made_alike(name):
    drawn = _draws(ALL[name], 6)
    assert len({tuple(query) for query in drawn}) > 25
    again = {strategy.name: strategy for strategy in _strategies()}[name]
    np.testing.assert_array_equal(drawn, _draws(again, 6))


def test_uniform_draws_every_sample_alike():
    counts = np.bincount(np.concatenate(_draws(ALL["uniform"], 10, 400)), minlength=40)
    assert np.abs(counts - 100).max() < 5 * math.sqrt(400 * 0.25 * 0.75)


@pytest.mark.parametrize("classes", [1, 2, 3, 4])
def test_skewed_queries_hold_so_many_classes_in_equal_parts(classes):
    labels = np.repeat([2, 3, 5, 7], [9, 9, 9, 9])
    strategy = queries.class_skewed(labels, classes=classes)
    seen = set()
    for query in _draws(strategy, 8):
        present, counts = np.unique(labels[query], return_counts=True)
        assert len(present) == classes
        assert np.ptp(counts) <= 1
        seen.add(tuple(present))
    assert len(seen) == math.comb(4, classes)


def test_skewed_queries_take_what_a_small_class_has_and_fill_up_from_the_other():
    labels = np.repeat([0, 1], [2, 10])
    for query in _draws(queries.class_skewed(labels), 9):
        assert np.bincount(labels[query]).tolist() == [2, 7]
        assert len(set(query)) == 9


def test_clusters_are_drawn_by_size_and_filled_up_from_the_nearest():
    # Clusters of 6, 2 and 4 samples at 0, 10 and 30.
    places = np.repeat([0.0, 10.0, 30.0], [6, 2, 4])
    features = np.stack([places, np.tile([0.0, 0.1], 6)], axis=1)
    strategy = queries.feature_cluster(features, clusters=3)
    held = [tuple(np.unique(places[q]).tolist()) for q in _draws(strategy, 2, 600)]
    assert set(held) == {(0.0,), (10.0,), (30.0,)}
    for place, share in ((0.0, 6 / 12), (10.0, 2 / 12), (30.0, 4 / 12)):
        spread = math.sqrt(600 * share * (1 - share))
        assert abs(held.count((place,)) - 600 * share) < 5 * spread
    for query in _draws(strategy, 5):
        counts = tuple((places[query] == place).sum() for place in (0, 10, 30))
        # From 10 the next is 0; from 30 it is 10, and then 0.
        assert counts in {(5, 0, 0), (3, 2, 0), (0, 1, 4)}
    for query in _draws(strategy, 7):
        counts = tuple((places[query] == place).sum() for place in (0, 10, 30))
        assert counts in {(6, 1, 0), (5, 2, 0), (1, 2, 4)}


def test_hard_queries_hold_the_lowest_confidences_with_ties_by_position():
    strategy = queries.hard(CONFIDENCE[SORTED])
    lowest = np.sort(CONFIDENCE[SORTED])[:10]
    pool = np.unique(np.concatenate(_draws(strategy, 4)))
    np.testing.assert_array_equal(np.sort(CONFIDENCE[SORTED][pool]), lowest)
    ties = queries.hard([0.5, 0.1, 0.5, 0.5, 0.9], share=0.6)
    assert sorted(ties.draw(RNG, 3).tolist()) == [0, 1, 2]
    assert sorted(queries.hard(np.arange(100) / 100, share=0.07).draw(RNG, 7)) == [
        *range(7)
    ]
    assert queries.hard([0.3, 0.2], share=1e-9).draw(RNG, 2).tolist() == [1, 1]


def test_nearest_queries_agree_with_brute_force():
    distances = [
        min(math.dist(row, FEATURES[place]) for place in FORGET)
        for row in FEATURES[SORTED]
    ]
    expected = sorted(range(40), key=lambda place: distances[place])[:10]
    strategy = queries.nearest(FEATURES[SORTED], FEATURES[FORGET])
    pool = np.unique(np.concatenate(_draws(strategy, 5)))
    assert pool.tolist() == sorted(expected)
    # Far from the origin and in float32, as features often are.
    far = (FEATURES + 100).astype(np.float32)
    shifted = queries.nearest(far[SORTED], far[FORGET])
    np.testing.assert_array_equal(_draws(shifted, 5), _draws(strategy, 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: queries.uniform(0), "count=0 must"),
        (lambda: queries.class_skewed([0, 1, 1], classes=3), "classes=3 is more than"),
        (lambda: queries.class_skewed([0, 1, 1], classes=0), "classes=0 must"),
        (
            lambda: queries.class_skewed([0, 1, 2], classes=3).draw(RNG, 2),
            "classes=3 is more classes than the query can hold, size=2",
        ),
        (lambda: queries.hard([0.1, np.nan]), r"confidence\[1\]=nan must be finite"),
        (lambda: queries.hard([]), r"confidence of shape \(0,\)"),
        (lambda: queries.hard([0.1], share=0), "share=0 must be over 0"),
        (lambda: queries.hard([0.1], share=2), "share=2 must be from 0 to 1"),
        (lambda: queries.nearest([[1.0]], [[1.0, 2.0]]), "must have 1 columns"),
        (lambda: queries.nearest([[1.0]], [[np.inf]]), r"forget_features\[0\]"),
        (lambda: queries.nearest([[1.0]], [1.0]), r"forget_features of shape \(1,\)"),
        (lambda: queries.nearest([[1.0]], [[1.0]], share=-1), "share=-1 must"),
        (
            lambda: queries.feature_cluster([[1.0], [1.0], [2.0]], clusters=3),
            "clusters=3 is more than the 2 distinct features",
        ),
        (lambda: queries.feature_cluster([[1.0]], clusters=0), "clusters=0 must"),
        (lambda: queries.feature_cluster([[1.0]], clusters=1, seed=-1), "seed=-1"),
        (
            lambda: queries.feature_cluster([[1.0]], clusters=1, seed=2**32),
            "seed=4294967296 must be under",
        ),
    ],
)
def test_strategy_mistakes_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


# The schedule.


def _schedule(**options):
    options = {"batch_size": 3, "query_size": 4, "epochs": 3, **options}
    strategies = options.pop("strategies", list(ALL.values()))
    return queried(EXAMPLES, FORGET, SUBSET, strategies, **options)


def test_each_step_holds_the_forget_batch_and_one_query_a_strategy():
    schedule = _schedule(seed=2, reference=np.arange(50, 60))
    assert len(schedule) == 6  # 2 steps of 5 x 4 read as many as the 40 samples
    assert len(_schedule(query_size=7, epochs=1)) == 2
    others = zipped(EXAMPLES, FORGET, SUBSET, batch_size=3, steps=6, seed=2)
    for step, other in zip(schedule, others, strict=True):
        _equal(step.forget, other.forget)
        assert step.retain.labels.shape == (20,)
        assert step.retain.index.dtype == np.int32
        assert step.retain.mask.all()
        np.testing.assert_array_equal(step.retain.labels, LABELS[step.retain.index])
        np.testing.assert_array_equal(
            step.retain.inputs[:, 0, 0, 0], step.retain.index.astype(np.float32)
        )
        assert set(step.retain.index.tolist()) <= set(SUBSET.tolist())
        _, skewed, _, hard, near = step.retain.index.reshape(5, 4)
        assert len(set(LABELS[skewed])) == 2
        assert CONFIDENCE[hard].max() <= np.sort(CONFIDENCE[SORTED])[9]
        gaps = np.linalg.norm(FEATURES[SORTED][:, None] - FEATURES[FORGET], axis=-1)
        limit = np.sort(gaps.min(axis=1))[9]
        own = np.linalg.norm(FEATURES[near][:, None] - FEATURES[FORGET], axis=-1)
        assert own.min(axis=1).max() <= limit
        assert step.reference.index.tolist() == [*range(50, 60)]


def test_the_schedule_is_seeded_and_resumes_anywhere():
    steps = list(_schedule(seed=3))
    _equal(steps, list(_schedule(seed=3)))
    for start in range(7):
        _equal(steps[start:], list(_schedule(seed=3).from_step(start)))
    _equal(steps[-1], _schedule(seed=3)[5])
    _equal(steps[:4], list(_schedule(seed=3, epochs=None, steps=4)))
    rows = {tuple(step.retain.index) for step in [*steps, *_schedule(seed=4)]}
    assert len(rows) == 12


def test_a_query_depends_on_the_number_of_its_strategy_only():
    twice = [ALL["uniform"], ALL["uniform"]]
    index = [
        step.retain.index for step in _schedule(strategies=twice, steps=5, epochs=None)
    ]
    first, second = np.reshape(index, (5, 2, 4)).swapaxes(0, 1)
    assert not np.array_equal(first, second)
    alone = _schedule(strategies=twice[:1], steps=5, epochs=None)
    np.testing.assert_array_equal(first, [step.retain.index for step in alone])
    other = _schedule(strategies=[ALL["hard"], twice[1]], steps=5, epochs=None)
    np.testing.assert_array_equal(second, [step.retain.index[4:] for step in other])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategies": []}, r"strategies=\[\] must hold at least one"),
        ({"strategies": ALL["uniform"]}, r"strategies\[0\]='uniform' must be a Strat"),
        ({"query_size": 41}, "query_size=41 is more than the 40 samples"),
        ({"query_size": 0}, "query_size=0 must"),
        (
            {"query_size": 1},
            "classes=2 is more classes than the query can hold, size=1",
        ),
        ({"batch_size": 0}, "batch_size=0 must"),
        ({"seed": -1}, "seed=-1 must"),
        ({"steps": 2}, "epochs=3, steps=2: give exactly one"),
        ({"reference_size": 2}, "reference_size=2 needs"),
        (
            {"strategies": [Strategy("edge", lambda rng, size: np.full(size, 40))]},
            r"strategies\[0\]='edge' must draw 4 positions, 0 to 39",
        ),
        (
            {"strategies": [Strategy("short", lambda rng, size: np.arange(3))]},
            r"strategies\[0\]='short' must draw 4 positions",
        ),
        (
            {"strategies": [Strategy("real", lambda rng, size: np.ones(size))]},
            r"strategies\[0\]='real' must draw 4 positions",
        ),
    ],
)
def test_schedule_mistakes_are_named_before_the_first_step(options, message):
    with pytest.raises(InputError, match=message):
        _schedule(**options)


# The gaps.


def _mmd_by_loops(x, y, h):
    def kernel(a, b):
        return math.exp(-sum((a - b) ** 2) / (2 * h**2))

    n, m = len(x), len(y)
    own = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    others = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    cross = sum(kernel(a, b) for a in x for b in y)
    return own / (n * (n - 1)) + others / (m * (m - 1)) - 2 * cross / (n * m)


def _median_by_loops(pooled):
    pairs = [math.dist(a, b) for i, a in enumerate(pooled) for b in pooled[:i]]
    return float(np.median(pairs))


@pytest.mark.parametrize("bandwidth", [None, 0.7])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_the_gap_agrees_with_loops(bandwidth, shift):
    x, y = FEATURES[:9], 1.5 * FEATURES[9:22] + 0.5
    h = bandwidth or _median_by_loops(np.concatenate([x, y]))
    gap = distribution_gap(
        x + shift,
        LABELS[:9],
        y + shift,
        LABELS[9:22],
        num_classes=5,
        bandwidth=bandwidth,
    )
    assert gap.features == pytest.approx(_mmd_by_loops(x, y, h), abs=1e-9)
    a, b = (
        np.asarray([list(part).count(k) for k in range(5)]) / len(part)
        for part in (LABELS[:9], LABELS[9:22])
    )
    assert gap.labels == pytest.approx(sum(abs(a - b)) / 2)
    back = distribution_gap(
        y, LABELS[9:22], x, LABELS[:9], num_classes=5, bandwidth=bandwidth
    )
    assert back == pytest.approx(gap, abs=1e-9)


def test_the_gap_is_unbiased():
    gaps = []
    for seed in range(200):
        x, y = np.random.default_rng(seed).normal(size=(2, 6, 2))
        gaps.append(
            distribution_gap(
                x, [0] * 6, y, [0] * 6, num_classes=1, bandwidth=1.0
            ).features
        )
    assert min(gaps) < 0
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / math.sqrt(200)


def test_gaps_of_equal_samples():
    same = np.full((3, 2), 0.1)
    assert distribution_gap(same, [0] * 3, same, [1] * 3, num_classes=2) == Gap(
        1.0, 0.0
    )
    # Most distances 0: the median of the others, 2, stands in.
    other = np.array([[0.1, 0.1], [0.1, 0.1], [0.1, 2.1]])
    mostly = distribution_gap(same, [0] * 3, other, [0] * 3, num_classes=1)
    assert mostly.features == pytest.approx(_mmd_by_loops(same, other, 2.0))
    assert mostly.features != 0


def test_large_sets_are_summed_in_parts():
    x = np.random.default_rng(0).normal(size=(1100, 1))
    gap = distribution_gap(
        x, np.zeros(1100, int), x[:5], np.zeros(5, int), num_classes=1, bandwidth=2.0
    )
    kernel = np.exp(-((x - x.T) ** 2) / 8)
    few = kernel[:5, :5]
    expected = (kernel.sum() - 1100) / (1100 * 1099) + (few.sum() - 5) / 20
    assert gap.features == pytest.approx(expected - 2 * kernel[:5].mean())


def test_query_gaps_are_means_over_the_queries_of_the_schedule():
    strategies = [ALL["hard"], ALL["uniform"]]
    support = np.arange(10)
    gaps = query_gaps(
        strategies,
        FEATURES[SORTED],
        LABELS[SORTED],
        support_features=FEATURES[support],
        support_labels=LABELS[support],
        num_classes=4,
        query_size=4,
        draws=6,
        seed=5,
    )
    assert list(gaps) == ["hard", "uniform", "support"]
    h = _median_by_loops(FEATURES[np.concatenate([SORTED, support])])
    schedule = queried(
        EXAMPLES,
        support,
        SUBSET,
        strategies,
        batch_size=2,
        query_size=4,
        steps=6,
        seed=5,
    )
    for number, strategy in enumerate(strategies):
        drawn = []
        for step in schedule:
            ids = step.retain.index.reshape(2, 4)[number]
            drawn.append(
                distribution_gap(
                    FEATURES[ids],
                    LABELS[ids],
                    FEATURES[support],
                    LABELS[support],
                    num_classes=4,
                    bandwidth=h,
                )
            )
        assert gaps[strategy.name] == pytest.approx(tuple(np.mean(drawn, axis=0)))


def test_the_null_is_a_gap_of_the_support_to_its_rest():
    # Of 4 samples 2 are drawn: each of the 3 ways to halve them comes up.
    features = np.array([[0.0], [1.0], [3.0], [7.0]])
    labels = np.array([0, 0, 1, 1])
    h = _median_by_loops(np.concatenate([features, FEATURES[:5, :1]]))
    ways = {}
    for other in (1, 2, 3):
        one, rest = [0, other], sorted({1, 2, 3} - {other})
        ways[other] = distribution_gap(
            features[one],
            labels[one],
            features[rest],
            labels[rest],
            num_classes=2,
            bandwidth=h,
        )
    seen = set()
    for seed in range(20):
        null = query_gaps(
            [queries.uniform(5)],
            FEATURES[:5, :1],
            LABELS[:5],
            support_features=features,
            support_labels=labels,
            num_classes=4,
            query_size=2,
            draws=1,
            seed=seed,
        )["support"]
        (way,) = [k for k, gap in ways.items() if null == pytest.approx(gap)]
        seen.add(way)
    assert seen == {1, 2, 3}


def test_gaps_tell_the_strategies_apart_on_digits():
    train = digits().train
    features = train.inputs.reshape(1000, -1) / 255
    forget = np.flatnonzero(train.labels == 3)[:50]
    ids = retain_subset(
        train.labels, np.setdiff1d(np.arange(1000), forget), rho=0.3, seed=0
    )
    near = queries.nearest(features[ids], features[forget], share=0.1)
    gaps = query_gaps(
        [queries.uniform(len(ids)), near, queries.class_skewed(train.labels[ids])],
        features[ids],
        train.labels[ids],
        support_features=features[forget],
        support_labels=train.labels[forget],
        num_classes=10,
        query_size=20,
    )
    assert abs(gaps["support"].features) < 0.02
    assert gaps["support"].labels == 0
    for part in ("features", "labels"):
        close, even, skewed = (
            getattr(gaps[name], part) for name in ("nearest", "uniform", "class_skewed")
        )
        assert getattr(gaps["support"], part) < close < even
        assert close < skewed


def _gap(**options):
    arguments = {
        "strategies": [ALL["uniform"]],
        "features": FEATURES[SORTED],
        "labels": LABELS[SORTED],
        "support_features": FEATURES[:6],
        "support_labels": LABELS[:6],
        "num_classes": 4,
        "query_size": 4,
        **options,
    }
    return query_gaps(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_size": 5}, "query_size=5 must be 2 to 4"),
        ({"query_size": 1}, "query_size=1 must be 2 to 4"),
        ({"query_size": 0}, "query_size=0 must"),
        ({"draws": 0}, "draws=0 must"),
        ({"seed": -1}, "seed=-1 must"),
        ({"strategies": []}, r"strategies=\[\]"),
        ({"strategies": [ALL["hard"]] * 2}, r"strategies\[0\]='hard' has the name"),
        (
            {"strategies": [ALL["hard"]._replace(name="support")]},
            r"strategies\[0\]='support' has the name",
        ),
        ({"features": FEATURES[:5], "labels": LABELS[:5]}, "uniform' must draw 4"),
        ({"labels": LABELS}, r"labels of shape \(60,\) must be one a row"),
        ({"support_labels": [0]}, r"support_labels of shape \(1,\) must be one a row"),
        ({"support_features": FEATURES[:6, :2]}, "support_features .* have 3 columns"),
        ({"num_classes": 2}, "must be 0 to 1"),
        ({"num_classes": 0}, "num_classes=0 must"),
    ],
)
def test_gap_mistakes_are_named(options, message):
    with pytest.raises(InputError, match=message):
        _gap(**options)


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.nan, math.inf, "1", True])
def test_bandwidths_are_positive(bandwidth):
    with pytest.raises(InputError, match=f"bandwidth={bandwidth} must be a positive"):
        distribution_gap(
            FEATURES, LABELS, FEATURES, LABELS, num_classes=4, bandwidth=bandwidth
        )


def test_gaps_need_two_samples_a_set():
    with pytest.raises(InputError, match=r"features_b of shape \(1, 3\) must hold at"):
        distribution_gap(FEATURES, LABELS, FEATURES[:1], LABELS[:1], num_classes=4)


# Near and far forget sets.


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize("neighbours", [1, 4])
def test_forget_sets_by_distance_agree_with_brute_force(near, neighbours):
    mean = []
    for one in range(60):
        others = [n for n in range(60) if n != one]
        distance = sorted(math.dist(FEATURES[one], FEATURES[n]) for n in others)
        mean.append(sum(distance[:neighbours]) / neighbours)
    drawn = by_distance(FEATURES, LABELS, count=20, near=near, neighbours=neighbours)
    assert drawn.dtype == np.int64
    assert len(drawn) == 20
    assert np.all(np.diff(drawn) > 0)
    counts, sizes = np.bincount(LABELS[drawn]), np.bincount(LABELS)
    assert np.all(np.abs(counts - sizes / 3) < 1)
    for label, count in enumerate(counts):
        members = [place for place in range(60) if LABELS[place] == label]
        members.sort(key=lambda place: mean[place] if near else -mean[place])
        assert sorted(members[:count]) == drawn[LABELS[drawn] == label].tolist()


def test_near_and_far_sets_break_ties_by_position():
    features = np.zeros((6, 1))
    for near in (True, False):
        drawn = by_distance(features, [0] * 6, count=2, near=near, neighbours=3)
        assert drawn.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count=0 must"),
        ({"count": 60}, "count=60 must be less than the 60 samples"),
        ({"count": 2.5}, "count=2.5 must"),
        ({"neighbours": 0}, "neighbours=0 must"),
        ({"neighbours": 60}, "neighbours=60 must be less than the 60 samples"),
    ],
)
def test_by_distance_mistakes_are_named(options, message):
    with pytest.raises(InputError, match=message):
        by_distance(FEATURES, LABELS, **{"count": 5, "near": True, **options})


def test_by_distance_needs_a_label_a_sample():
    with pytest.raises(InputError, match=r"labels of shape \(59,\) must be one a row"):
        by_distance(FEATURES, LABELS[:59], count=5, near=True)
