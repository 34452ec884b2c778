"""A comparison says of models what the audit says, and what is missing."""

import re

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import jax_unlearn as ju
from jax_unlearn.data import Examples

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
DATA = (X[:40], Y[:40], X[40:], Y[40:])
SPLIT = ju.data.forget_split(Y[:40], fraction=0.25, seed=1)


def network(rngs):
    return ju.zoo.MLP(3, in_features=4, hidden=(), rngs=rngs)


MODEL = ju.from_nnx(network)
ONES = [MODEL.init(jax.random.key(seed), None) for seed in range(6)]


def compare(models=None, data=DATA, split=SPLIT, **options):
    models = {"ours": ONES[0]} if models is None else models
    return ju.compare(MODEL, models, data, split, **{"metrics": ["ua"], **options})


def value(table, name="ours", key="ua"):
    return table.figures[name][key].value


def test_it_says_what_the_figures_of_predictions_say():
    table = ju.compare(MODEL, {"ours": ONES[0]}, DATA, SPLIT, retrain=ONES[1])

    def metrics(variables):
        def part(inputs, labels):
            logits = ju.predict(MODEL, *variables, inputs)
            return ju.audit.Predictions(jax.nn.softmax(logits), labels)

        ids = SPLIT.forget, SPLIT.retain
        return ju.audit.unlearning_metrics(
            *(part(X[:40][i], Y[:40][i]) for i in ids), part(X[40:], Y[40:])
        )

    ours, target = metrics(ONES[0]), metrics(ONES[1])
    for key in ("ua", "ra", "ta", "mia"):
        assert value(table, key=key) == pytest.approx(getattr(ours, key))
        assert value(table, "Retrain (target)", key) == getattr(target, key)
    assert value(table, key="avg_gap") == pytest.approx(ju.audit.avg_gap(ours, target))
    assert value(table, "Retrain (target)", "avg_gap") == 0
    assert table.audit.retrained == 1
    lines = str(table).splitlines()
    assert lines[0].split() == [
        "model",
        "UA",
        "%",
        "RA",
        "%",
        "TA",
        "%",
        "MIA",
        "%",
    ] + [*("Avg.", "Gap", "|p", "-", "p*|")]
    assert f"{ours.ua:.1f}" in lines[3]
    assert "No verdict: 1 Retrain given; 3 or more" in lines[-1]


def test_without_retrain_it_says_that_targets_are_missing():
    table = ju.compare(MODEL, {"ours": ONES[0]}, DATA, SPLIT)
    assert [*table.figures["ours"]] == ["ua", "ra", "ta", "mia"]
    assert "No target" in str(table)
    assert "retrain=" in table._repr_html_()
    with pytest.raises(ju.InputError, match="distances from Retrain; give retrain="):
        ju.compare(MODEL, {"ours": ONES[0]}, DATA, SPLIT, metrics=["avg_gap"])


def test_three_retrains_make_a_verdict_and_an_interval():
    known = {"retrain": ONES[1:4], "null": ONES[4], "original": ONES[5]}
    models = {"ours": ONES[0], "a Retrain": ONES[1]}
    table = compare(models, **known, cost={"ours": 0.25}, metrics=["ua", "deviation"])
    assert [*table.figures] == [
        *("Retrain (target)", "Null (another Retrain)", "Original", "ours", "a Retrain")
    ]
    text = str(table)
    low, high = table.figures["ours"]["ua"][3:5]
    assert f"[{low:.1f}, {high:.1f}]" in text
    assert text.splitlines()[0].endswith("cost %")
    assert [row[-1] for row in table.rows] == ["100", "", "100", "0", "25", ""]
    assert re.search(r"a Retrain: 3 Retrains do not tell it .*; \w+", text)
    assert "than doing nothing by |p - p*|" in text
    assert "● inside" in text
    html = table._repr_html_()
    assert '<td class="inside">' in html
    assert (
        '<th title="share of the forget samples got wrong: 100 - accuracy">UA %</th>'
        in html
    )
    assert html.count("<tr") == 7


def test_what_is_farther_than_doing_nothing_is_said_to_be():
    options = {"retrain": ONES[1], "metrics": ["deviation"]}
    table = compare({"same": ONES[1], "other": ONES[2]}, original=ONES[3], **options)
    said = [line for line in table.reading if line.startswith(("same", "other"))]
    assert "same: nearer than doing nothing by |p - p*| (0.000 against" in said[0]
    nearer = value(table, "other", "deviation") < value(table, "Original", "deviation")
    assert f"other: {'nearer' if nearer else 'farther'} than" in said[1]


def test_of_two_retrains_the_second_is_the_null():
    table = compare(retrain=ONES[1:3])
    assert value(table, "Null (another Retrain)") == value(compare({"ours": ONES[2]}))
    assert value(table, "Retrain (target)") == value(compare({"ours": ONES[1]}))


def test_models_of_every_form():
    params, state = ONES[0]
    expected = value(compare())
    alg = ju.methods.finetune(MODEL, optax.sgd(0.1))
    module = network(nnx.Rngs(0))
    nnx.update(module, jax.tree.map(lambda x: x, params))
    for given in (params, (params, state), alg.init(params, state), module):
        assert value(compare({"ours": given})) == expected
    both = compare({"ours": [ONES[0], alg.init(*ONES[1])]}).figures["ours"]["ua"]
    assert both.value == (expected + value(compare({"ours": ONES[1]}))) / 2
    assert both.std > 0
    fixed = ju.from_nnx(module)  # it has no init
    own = ju.compare(fixed, {"ours": params}, DATA, SPLIT, metrics=["ua"])
    assert value(own) == expected


def test_parameters_that_are_tuples_or_lists():
    def make(kind):
        def init(key, inputs):
            return kind((jax.random.normal(key, (4, 3)), jax.numpy.zeros(3)))

        return ju.from_stateless(init, lambda p, x: x @ p[0] + p[1][None])

    for kind in (tuple, list):
        model = make(kind)
        one, two = (model.init(jax.random.key(i), X)[0] for i in (0, 1))
        found = {}
        for name, given in {"bare": one, "pair": (one, ()), "many": [one, two]}.items():
            table = ju.compare(model, {"a": given}, DATA, SPLIT, metrics=["ua"])
            found[name] = table.figures["a"]["ua"]
        assert found["bare"].value == found["pair"].value
        assert found["bare"].std is None
        assert found["many"].std is not None
        many = ju.compare(model, {"a": (two, ())}, DATA, SPLIT, metrics=["ua"])
        mean = (found["bare"].value + value(many, "a")) / 2
        assert found["many"].value == pytest.approx(mean)


def test_data_of_every_form(tmp_path):
    expected = value(compare())
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(tmp_path / "mine.npz", **dict(zip(names, DATA, strict=True)))
    stream = ju.data.from_source(
        [{"x": x, "y": y} for x, y in zip(*DATA[:2], strict=True)],
        decode=lambda record: record["x"],
        labels=DATA[1],
    )
    for data in (
        dict(zip(names, DATA, strict=True)),
        (DATA[:2], DATA[2:]),
        (Examples(*DATA[:2]), Examples(*DATA[2:])),
        np.load(tmp_path / "mine.npz"),
        (stream, DATA[2:]),
    ):
        assert value(compare(data=data)) == expected
    assert value(compare(split=SPLIT.forget)) == expected
    assert value(compare(batch_size=7)) == expected


def test_samples_in_neither_part_are_unseen():
    kept, _ = ju.data.holdout(Y[:40], count=10)
    split = ju.data.to_ids(ju.data.forget_split(Y[kept], fraction=0.4), kept)
    table = compare(split=split, retrain=ONES[1], metrics=["mia_loss"])
    assert "mia_loss" in table.figures["ours"]


def test_batch_statistics_go_with_the_parameters():
    model = ju.from_nnx(lambda rngs: ju.zoo.SmallCNN(3, width=2, rngs=rngs))
    images = RNG.normal(size=(12, 8, 8, 1)).astype(np.float32)
    data = (images[:8], Y[:8], images[8:], Y[8:12])
    params, state = model.init(jax.random.key(0), images)
    options = {"metrics": ["ua"]}
    assert ju.compare(model, {"a": (params, state)}, data, [0, 1], **options)
    with pytest.raises(
        ju.InputError, match=r"models\['a'\].*pair \(params, model_state"
    ):
        ju.compare(model, {"a": params}, data, [0, 1], **options)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"models": {}}, "must be parameters by name"),
        ({"models": ONES}, "must be parameters by name"),
        ({"models": {"Original": ONES[0]}}, "'Original' is taken"),
        ({"models": {"ours": {"no": 1.0}}}, r"models\['ours'\] does not fit the model"),
        ({"models": {"ours": []}}, r"models\['ours'\]=\[\] holds no model"),
        ({"retrain": []}, r"retrain=\[\] holds no model"),
        ({"null": ONES[1]}, "null is given and retrain=None"),
        ({"data": X}, "must be a ju.data.Dataset or"),
        ({"data": {"x_train": X}}, "data: y_train, x_test, y_test missing"),
        ({"data": (X, Y[:9], X, Y)}, "x_train has 60 samples, y_train 9"),
        ({"data": (X, Y + 0.5, X, Y)}, "labels of type float64"),
        ({"data": (X[:20], Y[:20], X, Y)}, "data that the split was drawn from"),
        ({"data": (X[:40], Y[:40][::-1], X, Y)}, "drawn from other labels"),
        ({"data": (X[:40], Y[:40], X, Y + 9)}, r"labels.test\[0\]=9"),
        ({"split": [99]}, "99"),
        ({"metrics": "ua"}, r"give a list such as \['ua', 'ra'\]"),
        ({"metrics": ["uaa"]}, "unknown metric 'uaa'; did you mean 'ua'"),
        ({"metrics": ["klom"], "retrain": ONES[1]}, "needs"),
        ({"cost": {"theirs": 0.1}}, "unknown model in cost 'theirs'"),
        ({"cost": {"ours": -1}}, r"cost\['ours'\]=-1 must not be negative"),
        ({"level": 2.0, "retrain": ONES[1]}, "level=2.0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_input_is_told_in_one_line(given, said):
    with pytest.raises(ju.InputError, match=said) as told:
        compare(**given)
    assert "\n" not in str(told.value)


def test_outputs_that_are_no_classes_are_refused():
    model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x[:, 0])
    with pytest.raises(ju.InputError, match="for classifiers"):
        ju.compare(model, {"a": 2.0}, DATA, SPLIT)


def test_a_model_that_diverged_is_named():
    broken = jax.tree.map(lambda leaf: leaf * np.nan, ONES[0])
    with pytest.raises(ju.InputError, match=r"^ours\.forget.* is not finite"):
        compare({"ours": broken})
