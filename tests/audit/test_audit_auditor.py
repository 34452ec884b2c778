"""The whole audit: figures by hand, verdicts, what is left out and what is refused."""

import json

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

import jax_unlearn as ju
from jax_unlearn.audit.auditor import Audit, audit, audit_table, to_record
from jax_unlearn.audit.evidence import ModelOutputs, PartLabels
from jax_unlearn.audit.figures import GROUPS, KINDS
from jax_unlearn.audit.forgetting import forgetting_null
from jax_unlearn.errors import InputError
from jax_unlearn.pipeline.results import to_json

SIZES = {"forget": 60, "retain": 40, "test": 40, "unseen": 60}
CLASSES = 3
LABELS = PartLabels(*(np.arange(size) % CLASSES for size in SIZES.values()))


def models(seed, count, *, shift=0.0, own=1.0, unseen=True):
    """Return logits of models: the same samples, whose difficulty all share.

    Args:
      seed: of the models' own noise.
      count: how many.
      shift: added to the true class of the forget samples.
      own: standard deviation of a model's own noise.
      unseen: whether to give outputs on unseen samples.
    """
    shared, noise = np.random.default_rng(99), np.random.default_rng(seed)
    arrays = {}
    for part, size in SIZES.items():
        array = shared.normal(0, 1, (size, CLASSES))
        array[range(size), np.arange(size) % CLASSES] += 1.5
        array = array + own * noise.normal(0, 1, (count, size, CLASSES))
        if part == "forget":
            array[:, range(size), np.arange(size) % CLASSES] += shift
        arrays[part] = array
    return ModelOutputs(**(arrays if unseen else {**arrays, "unseen": None}))


def accuracy(array, part) -> np.ndarray:
    truth = np.arange(SIZES[part]) % CLASSES
    return 100 * np.mean(np.asarray(array).argmax(axis=-1) == truth, axis=-1)


@pytest.fixture(scope="module")
def found() -> Audit:
    """Return the audit of a Retrain of other seeds, and of a method that overshoots."""
    unlearned = {"same": models(1, 8), "shifted": models(2, 8, shift=-2.0)}
    return audit(unlearned, models(3, 16), LABELS, resamples=4)


def test_every_figure_is_there_in_the_order_in_which_it_is_shown(found):
    assert found.left_out == {}
    for figures in found.figures.values():
        assert list(figures) == list(KINDS)
    assert (found.retrained, found.half, found.forgotten) == (16, 8, 60)
    assert found.models == {"same": 8, "shifted": 8}
    assert {key for group in GROUPS.values() for key in group} == set(KINDS)


def test_accuracies_are_those_by_hand(found):
    target = models(3, 16)
    for name, outputs in (("same", models(1, 8)), ("shifted", models(2, 8, shift=-2))):
        figures = found.figures[name]
        for key, part in (("ua", "forget"), ("ra", "retain"), ("ta", "test")):
            ours, theirs = (accuracy(getattr(o, part), part) for o in (outputs, target))
            if key == "ua":
                ours, theirs = 100 - ours, 100 - theirs
            assert figures[key].value == pytest.approx(ours.mean())
            assert figures[key].std == pytest.approx(ours.std(ddof=1))
            assert figures[key].target == pytest.approx(theirs.mean())
            # Retrains alone tell how far two means may be apart
            spread = theirs.std(ddof=1) * np.sqrt(1 / 8 + 1 / 16)
            reach = stats.t.ppf(0.975, df=15) * spread
            assert figures[key].null_low == pytest.approx(theirs.mean() - reach)
            assert figures[key].null_high == pytest.approx(theirs.mean() + reach)
            apart = abs(ours.mean() - theirs.mean())
            verdict = "inside" if apart <= reach else "outside"
            assert figures[key].verdict == verdict


def test_another_retrain_is_mostly_inside_and_a_shifted_model_outside(found):
    verdicts = {
        name: {key: figure.verdict for key, figure in figures.items()}
        for name, figures in found.figures.items()
    }
    inside = [verdict == "inside" for verdict in verdicts["same"].values()]
    assert np.mean(inside) > 0.7
    moved = {
        *("ua", "mia", "mia_loss", "avg_gap", "tow", "tow_mia", "deviation"),
        *("lira_auc", "lira_accuracy", "rmia_auc", "forgetting_f", "epsilon", "klom"),
    }
    outside = {key for key, v in verdicts["shifted"].items() if v == "outside"}
    assert moved <= outside
    assert verdicts["shifted"]["ra"] == "inside"


def test_the_target_of_ensembles_of_one_distribution_is_that_of_the_null(found):
    null = forgetting_null(8, 8)
    for figure in (found.figures["same"]["forgetting_f"],):
        assert figure.value == pytest.approx(null.f, abs=0.05)
        assert figure.target == pytest.approx(null.f, abs=0.05)
    epsilon = found.figures["same"]["epsilon"]
    assert epsilon.target == pytest.approx(null.median, abs=0.35)
    auc = found.figures["same"]["lira_auc"]
    assert auc.target == pytest.approx(0.5, abs=0.03)
    assert found.figures["shifted"]["lira_auc"].value > 0.75


def test_nearer_than_retrain_to_itself_is_inside():
    # the same difficulty without noise of their own: nearer than two Retrains
    centres = models(1, 4, own=0.0)
    target = models(3, 8)
    found = audit(centres, target, LABELS, metrics=["deviation", "standard"])
    figures = found.figures["unlearned"]
    for key in ("deviation", "avg_gap", "tow", "tow_mia"):
        assert figures[key].verdict in ("inside", "outside")
    assert figures["deviation"].value < figures["deviation"].null_low
    assert figures["deviation"].verdict == "inside"
    # the very same models: no distance at all, and every point of F
    same = ModelOutputs(*(np.repeat(array[:1], 8, axis=0) for array in target))
    noisy = [
        np.concatenate([array[:4] + 0.001, array[4:]], axis=0)
        for array in (np.random.default_rng(0).permuted(a, axis=0) for a in target)
    ]
    del noisy
    alike = audit(same, same, LABELS, metrics=["standard", "klom", "forgetting"])
    for key, expected in {
        **{"avg_gap": 0, "tow": 1, "tow_mia": 1, "klom": 0, "epsilon": 0},
        "forgetting_f": 1,
    }.items():
        figure = alike.figures["unlearned"][key]
        assert figure.value == pytest.approx(expected, abs=1e-9)
        assert figure.verdict == "inside"


def test_a_closeness_above_the_null_is_inside_and_one_below_is_outside():
    target = models(3, 8)
    close = audit(models(1, 4, own=0.3), target, LABELS, metrics=["standard"])
    tow = close.figures["unlearned"]["tow"]
    far = audit(models(1, 4, shift=-3.0), target, LABELS, metrics=["standard"])
    worse = far.figures["unlearned"]["tow"]
    assert worse.value < worse.null_low
    assert worse.verdict == "outside"
    assert far.figures["unlearned"]["avg_gap"].verdict == "outside"
    assert tow.null_low == worse.null_low
    forced = tow._replace(value=1.0)
    assert forced.value > tow.null_high


def test_one_model_beside_one_retrain_has_no_verdict():
    found = audit(models(1, 1, shift=-1.0), models(3, 1), LABELS)
    figures = found.figures["unlearned"]
    assert list(figures) == [
        *(*GROUPS["standard"], *GROUPS["mia"], *GROUPS["deviation"])
    ] or set(figures) == {
        *GROUPS["standard"],
        *GROUPS["mia"],
        *GROUPS["deviation"],
    }
    for figure in figures.values():
        assert (figure.null_low, figure.null_high, figure.verdict) == (None, None, "")
        assert figure.std is None
    assert figures["avg_gap"].target == 0
    assert figures["tow"].target == 1
    one, other = (models(seed, 1, shift=s) for seed, s in ((1, -1.0), (3, 0.0)))
    truth = np.arange(SIZES["forget"]) % CLASSES
    confidence = [
        softmax(array.forget[0], axis=1)[range(len(truth)), truth]
        for array in (one, other)
    ]
    expected = np.abs(confidence[0] - confidence[1]).mean()
    assert figures["deviation"].value == pytest.approx(expected)
    assert "null" not in found.details
    assert "needs 4 unlearned models and 8 Retrains" in found.left_out["lira_auc"]


def test_what_is_left_out_says_why():
    given = models(1, 2, unseen=False), models(3, 4, unseen=False)
    found = audit(*given, LABELS, resamples=2)
    assert set(found.left_out) == {
        *("mia_loss", "rmia_auc", "rmia_tpr_1"),
        *GROUPS["u_lira"],
    }
    assert found.left_out["mia_loss"] == "needs outputs on unseen samples"
    assert found.left_out["lira_tpr_1"].endswith("; 2 can be compared")
    assert "klom" in found.figures["unlearned"]


@pytest.mark.parametrize(
    ("metric", "count", "unseen", "words"),
    [
        ("u_lira", 6, True, "metrics='u_lira': .*needs 4 unlearned .*; 3 can be"),
        ("forgetting", 2, True, "metrics='forgetting': .*needs 2 unlearned"),
        ("klom", 3, True, "metrics='klom': .*; 1 can be compared"),
        ("rmia", 1, True, "metrics='rmia': .*needs 1 unlearned models and 2 Retrains"),
        ("rmia", 4, False, "metrics='rmia': .*needs outputs on unseen samples"),
        ("mia", 4, False, "metrics='mia': .*needs outputs on unseen samples"),
    ],
)
def test_a_metric_that_is_asked_for_and_cannot_be_had(metric, count, unseen, words):
    given = [models(seed, count, unseen=unseen) for seed in (1, 2)]
    with pytest.raises(InputError, match=words):
        audit(*given, LABELS, metrics=[metric])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metrics": ["ulira"]}, "unknown metric 'ulira'; did you mean 'u_lira'"),
        ({"kind": "softmax"}, "kind='softmax'"),
        ({"resamples": 1}, "resamples=1 must be at least 2"),
        ({"level": 1.0}, "level=1.0"),
    ],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(InputError, match=words):
        audit(models(1, 2), models(2, 2), LABELS, **options)


def test_outputs_that_cannot_be_compared():
    target = models(3, 2)
    with pytest.raises(InputError, match="none of them 'null'"):
        audit({"null": models(1, 2)}, target, LABELS)
    with pytest.raises(InputError, match=r"unlearned=\[\]"):
        audit({}, target, LABELS)
    diverged = models(1, 2)
    diverged.forget[1, 0] = np.nan
    with pytest.raises(InputError, match=r"FT.forget\[60\].* not finite"):
        audit({"FT": diverged}, target, LABELS)
    with pytest.raises(InputError, match="retrained.unseen"):
        audit(models(1, 2), target, LABELS._replace(unseen=[0, 1]))
    short = target._replace(retain=target.retain[:1])
    with pytest.raises(InputError, match="retrained has parts of .*same models"):
        audit(models(1, 2), short, LABELS)
    with pytest.raises(InputError, match="FT has parts of shape .*same samples"):
        audit({"FT": models(1, 2, unseen=False)}, target, LABELS)


def test_probabilities_give_the_figures_of_logits():
    given = [models(seed, 4) for seed in (1, 2)]
    probs = [ModelOutputs(*(softmax(a, axis=2) for a in o)) for o in given]
    options = {"resamples": 2, "metrics": ["standard", "mia", "klom"]}
    one = audit(*given, LABELS, **options)
    two = audit(*probs, LABELS, kind="probabilities", **options)
    for key, figure in one.figures["unlearned"].items():
        other = two.figures["unlearned"][key]
        assert figure.verdict == other.verdict
        assert other.value == pytest.approx(figure.value, abs=1e-6)
        assert other.target == pytest.approx(figure.target, abs=1e-6)


def test_a_class_forgotten_as_a_whole_leaves_the_test_set():
    rng = np.random.default_rng(0)
    target = models(3, 2, unseen=False)
    truth = LABELS._replace(forget=np.zeros(60, int), retain=1 + np.arange(40) % 2)
    found = audit(models(1, 2, unseen=False), target, truth, metrics=["standard"])
    kept = np.arange(40) % CLASSES != 0
    right = target.test[:, kept].argmax(axis=2) == (np.arange(40) % CLASSES)[kept]
    assert found.figures["unlearned"]["ta"].target == pytest.approx(100 * right.mean())
    del rng


def test_the_same_seed_gives_the_same_figures(found):
    unlearned = {"same": models(1, 8), "shifted": models(2, 8, shift=-2.0)}
    again = audit(unlearned, models(3, 16), LABELS, resamples=4)
    assert again.figures == found.figures


def test_the_record_goes_through_json(found):
    record = to_record(found)
    assert json.loads(to_json(record)) == json.loads(json.dumps(record))
    read = json.loads(to_json(record))
    assert read["figures"]["shifted"]["ua"] == found.figures["shifted"]["ua"]._asdict()
    assert set(read["details"]) == {"same", "shifted", "null"}
    for detail in read["details"].values():
        assert len(detail["epsilon"]) == 60
        roc = detail["roc"]
        assert len(roc["fpr"]) == len(roc["tpr"]) <= 202
        assert (roc["fpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0, 1, 1)
        assert np.all(np.diff(roc["fpr"]) >= 0)
        assert np.all(np.diff(roc["tpr"]) >= 0)
        assert set(detail["groups"]) == {"head", "mid", "tail"}
    assert read["details"]["shifted"]["groups"]["head"] < -0.1
    apart = audit(models(1, 4, shift=-1e4), models(3, 8), LABELS, resamples=2)
    json.loads(to_json(to_record(apart)))  # far apart is finite all the same


def test_the_package_can_be_called():
    given = models(1, 1), models(3, 1), LABELS
    assert ju.audit(*given).figures == ju.audit.audit(*given).figures
    assert ju.audit.audit is audit
    assert (ju.audit.__doc__ or "").startswith("Audits")


def test_the_table_has_a_row_a_figure(found):
    lines = audit_table(found, "shifted").splitlines()
    assert len(lines) == 2 + len(KINDS)
    figure = found.figures["shifted"]["ua"]
    assert lines[2] == (
        f"| UA % | {figure.value:.1f} ± {figure.std:.1f} | {figure.target:.1f} "
        f"| [{figure.null_low:.1f}, {figure.null_high:.1f}] | outside |"
    )
    alone = audit(models(1, 1), models(3, 1), LABELS)
    rows = audit_table(alone, "unlearned").splitlines()[2:]
    assert all(row.endswith("| – | – |") for row in rows)
    with pytest.raises(InputError, match="unknown method 'shiftd'; did you mean"):
        audit_table(found, "shiftd")
