"""The whole audit: figures by hand, verdicts, what is left out and what is refused."""

import json

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

import jax_unlearn as ju
from jax_unlearn.audit.auditor import Audit, Figure, audit, audit_table, to_record
from jax_unlearn.audit.evidence import ModelOutputs, PartLabels
from jax_unlearn.audit.figures import GROUPS, KINDS
from jax_unlearn.audit.forgetting import forgetting_null
from jax_unlearn.errors import InputError
from jax_unlearn.lab.results import to_json

SIZES = {"forget": 60, "retain": 40, "test": 40, "unseen": 60}
CLASSES = 3
LEVELS = ("ua", "ra", "ta", "mia")
LABELS = PartLabels(*(np.arange(size) % CLASSES for size in SIZES.values()))


def models(seed, count, *, shift=0.0, unseen=True) -> ModelOutputs:
    """Return logits of models: the same samples, whose difficulty all share.

    Args:
      seed: of the models' own noise.
      count: how many.
      shift: added to the true class of the forget samples.
      unseen: whether to give outputs on unseen samples.
    """
    shared, noise = np.random.default_rng(99), np.random.default_rng(seed)
    arrays = {}
    for part, size in SIZES.items():
        array = shared.normal(0, 1, (size, CLASSES))
        array[range(size), np.arange(size) % CLASSES] += 1.5
        array = array + noise.normal(0, 1, (count, size, CLASSES))
        if part == "forget":
            array[:, range(size), np.arange(size) % CLASSES] += shift
        arrays[part] = array
    return ModelOutputs(**(arrays if unseen else {**arrays, "unseen": None}))


def accuracy(array, part) -> np.ndarray:
    truth = np.arange(SIZES[part]) % CLASSES
    return 100 * np.mean(np.asarray(array).argmax(axis=-1) == truth, axis=-1)


def constant(count, *, right=True) -> ModelOutputs:
    """Return equal models, which get all retain samples right, or none."""
    arrays = [array.repeat(count, axis=0) for array in models(0, 1, unseen=False)[:3]]
    truth = np.arange(SIZES["retain"]) % CLASSES
    arrays[1] = 5 * np.eye(CLASSES)[truth if right else (truth + 1) % CLASSES]
    return ModelOutputs(arrays[0], np.stack([arrays[1]] * count), arrays[2])


def interval(figure: Figure) -> tuple[float, float]:
    assert figure.null_low is not None
    assert figure.null_high is not None
    return figure.null_low, figure.null_high


ORIGINAL = {*GROUPS["vulnerable"], *GROUPS["protected"], *GROUPS["difference"]}
UNLEARNED = {"same": models(1, 4), "shifted": models(2, 4, shift=-3.0)}
RETRAINED = models(3, 8)


@pytest.fixture(scope="module")
def found() -> Audit:
    """Return the audit of Retrains of other seeds, and of a method that overshoots."""
    return audit(UNLEARNED, RETRAINED, LABELS, resamples=10)


def test_every_figure_is_there_in_the_order_in_which_it_is_shown(found):
    assert set(found.left_out) == ORIGINAL
    assert set(found.left_out.values()) == {
        "needs outputs of the original that each model comes from"
    }
    for figures in found.figures.values():
        assert list(figures) == [key for key in KINDS if key not in ORIGINAL]
    assert (found.retrained, found.half, found.forgotten) == (8, 4, 60)
    assert found.models == {"same": 4, "shifted": 4}
    assert {key for group in GROUPS.values() for key in group} == set(KINDS)


def test_levels_and_their_intervals_are_those_by_hand(found):
    for name, outputs in UNLEARNED.items():
        figures = found.figures[name]
        for key, part in (("ua", "forget"), ("ra", "retain"), ("ta", "test")):
            ours, theirs = (
                accuracy(getattr(given, part), part) for given in (outputs, RETRAINED)
            )
            if key == "ua":
                ours, theirs = 100 - ours, 100 - theirs
            assert figures[key].value == pytest.approx(ours.mean())
            assert figures[key].std == pytest.approx(ours.std(ddof=1))
            assert figures[key].target == pytest.approx(theirs.mean())
            # the spread of Retrains tells how far two means may be apart
            spread = theirs.std(ddof=1) * np.sqrt(1 / 4 + 1 / 8)
            reach = stats.t.ppf(0.975, df=7) * spread
            assert figures[key].null_low == pytest.approx(theirs.mean() - reach)
            assert figures[key].null_high == pytest.approx(theirs.mean() + reach)
            apart = abs(ours.mean() - theirs.mean())
            assert figures[key].verdict == ("inside" if apart <= reach else "outside")


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


def test_ensembles_of_one_distribution_are_as_far_apart_as_the_null_says(found):
    null = forgetting_null(4, 4)
    quality = found.figures["same"]["forgetting_f"]
    assert quality.value == pytest.approx(null.f, abs=0.06)
    assert quality.target == pytest.approx(null.f, abs=0.06)
    epsilon = found.figures["same"]["epsilon"]
    assert epsilon.target == pytest.approx(null.median, abs=0.3)
    area = found.figures["same"]["lira_auc"]
    assert area.target == pytest.approx(0.5, abs=0.03)
    assert found.figures["shifted"]["lira_auc"].value > 0.7


def test_nearer_to_retrain_than_retrain_is_inside_and_farther_outside():
    # One Retrain of eight fails on the retain set: it is in one of the four pairs of
    # every division, but beside a method in those only where it is in the second half.
    pairs = zip(constant(7)[:3], constant(1, right=False)[:3], strict=True)
    target = ModelOutputs(*(np.concatenate(pair) for pair in pairs))
    given = {"right": constant(4), "wrong": constant(4, right=False)}
    found = audit(given, target, LABELS, metrics=["standard", "deviation"])
    near, far = (found.figures[name] for name in given)
    for key in ("tow", "tow_mia"):
        low, high = interval(near[key])
        assert low == high == pytest.approx(0.75)
        assert high + 0.01 < near[key].value < 1
        assert near[key].verdict == "inside"
        assert far[key].value < 0.25
        assert far[key].verdict == "outside"
    low, high = interval(near["avg_gap"])
    assert 0 < near["avg_gap"].value < low - 0.1
    assert near["avg_gap"].verdict == "inside"
    assert far["avg_gap"].value > high
    assert far["avg_gap"].verdict == "outside"
    assert near["deviation"].value == 0
    assert near["deviation"].verdict == "inside"


def test_the_very_same_models_are_not_apart():
    metrics = ["standard", "deviation", "u_lira", "forgetting", "klom"]
    found = audit(constant(4), constant(8), LABELS, metrics=metrics, resamples=2)
    expected = {
        **{"avg_gap": 0, "tow": 1, "tow_mia": 1, "deviation": 0, "lira_auc": 0.5},
        **{"epsilon": 0, "forgetting_f": 1, "klom": 0, "klom_95": 0},
    }
    for key, value in expected.items():
        figure = found.figures["unlearned"][key]
        assert figure.value == pytest.approx(value, abs=1e-9)
        assert figure.target == pytest.approx(value, abs=1e-9)
    assert {f.verdict for f in found.figures["unlearned"].values()} == {"inside"}


def test_one_model_beside_one_retrain_has_no_verdict():
    one, other = models(1, 1, shift=-1.0), models(3, 1)
    found = audit(one, other, LABELS)
    figures = found.figures["unlearned"]
    alone = ("standard", "mia", "deviation", "retain")
    expected = {key for group in alone for key in GROUPS[group]}
    assert set(figures) == expected
    for figure in figures.values():
        assert figure[1] is None
        assert figure[3:] == (None, None, "")
    assert figures["avg_gap"].target == 0
    assert figures["tow"].target == 1
    truth = np.arange(SIZES["forget"]) % CLASSES
    ours, theirs = (
        softmax(given.forget[0], axis=1)[range(len(truth)), truth]
        for given in (one, other)
    )
    assert figures["deviation"].value == pytest.approx(np.abs(ours - theirs).mean())
    assert figures["avg_gap"].value == pytest.approx(
        np.mean([abs(figures[k].value - figures[k].target) for k in LEVELS])
    )
    assert "null" not in found.details
    assert set(found.left_out) == set(KINDS) - expected
    assert "needs 4 unlearned models and 8 Retrains" in found.left_out["lira_auc"]


def test_what_is_left_out_says_why():
    one, other = models(1, 2, unseen=False), models(3, 4, unseen=False)
    found = audit(one, other, LABELS, resamples=2)
    gone = {"mia_loss", *GROUPS["rmia"], *GROUPS["u_lira"], *ORIGINAL}
    assert set(found.left_out) == gone
    assert found.left_out["mia_loss"] == "needs outputs on unseen samples"
    assert found.left_out["lira_tpr_1"].endswith("; 2 can be compared")
    assert set(found.figures["unlearned"]) == set(KINDS) - gone


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
    one, other = (models(seed, count, unseen=unseen) for seed in (1, 2))
    with pytest.raises(InputError, match=words):
        audit(one, other, LABELS, metrics=[metric])


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
    with pytest.raises(InputError, match=r"FT.forget\[1, 0\].* not finite"):
        audit({"FT": diverged}, target, LABELS)
    with pytest.raises(InputError, match=r"labels.unseen.shape=\(2,\)"):
        audit(models(1, 2), target, LABELS._replace(unseen=[0, 1]))
    short = target._replace(retain=target.retain[:1])
    with pytest.raises(InputError, match="retrained has parts of .*same models"):
        audit(models(1, 2), short, LABELS)
    with pytest.raises(InputError, match="FT has parts of shape .*same samples"):
        audit({"FT": models(1, 2, unseen=False)}, target, LABELS)


@pytest.mark.parametrize(
    ("counts", "metrics"), [((2, 4), ["standard", "klom"]), ((1, 1), ["mia"])]
)
def test_probabilities_give_the_figures_of_logits(counts, metrics):
    given = [models(seed, count) for seed, count in enumerate(counts)]
    if "mia" not in metrics:
        given = [outputs._replace(unseen=None) for outputs in given]
    probs = [
        ModelOutputs(*(None if a is None else softmax(a, axis=2) for a in outputs))
        for outputs in given
    ]
    one, two = (
        audit(ours, theirs, LABELS, metrics=metrics, resamples=2, kind=kind)
        for (ours, theirs), kind in ((given, "logits"), (probs, "probabilities"))
    )
    assert set(one.figures["unlearned"]) == {k for m in metrics for k in GROUPS[m]}
    for key, figure in one.figures["unlearned"].items():
        other = two.figures["unlearned"][key]
        assert figure.verdict == other.verdict
        assert other.value == pytest.approx(figure.value, abs=1e-6)
        assert other.target == pytest.approx(figure.target, abs=1e-6)


def test_a_class_forgotten_as_a_whole_leaves_the_test_set():
    ours, theirs = (models(seed, 2, unseen=False) for seed in (1, 3))
    truth = LABELS._replace(forget=np.zeros(60, int), retain=1 + np.arange(40) % 2)
    found = audit(ours, theirs, truth, metrics=["standard"])
    labels = np.arange(40) % CLASSES
    right = (theirs.test.argmax(axis=2) == labels)[:, labels != 0]
    assert found.figures["unlearned"]["ta"].target == pytest.approx(100 * right.mean())


def test_the_divisions_follow_the_seed():
    ours, theirs = models(1, 4, unseen=False), models(3, 8, unseen=False)
    one, again, other = (
        audit(ours, theirs, LABELS, metrics=["klom"], seed=seed, resamples=3)
        for seed in (0, 0, 1)
    )
    assert one.figures == again.figures
    assert one.figures != other.figures


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
    far, target = models(1, 4, unseen=False), models(2, 8, unseen=False)
    far.forget[..., 0] -= 1e4  # told apart by all that there is
    apart = audit(far, target, LABELS, resamples=2)
    assert json.loads(to_json(to_record(apart)))["figures"]["unlearned"]


def test_figures_do_not_depend_on_what_else_is_audited():
    target, methods = models(8, 3), {"a": models(4, 1), "b": models(6, 2)}
    both = audit(methods, target, LABELS, metrics=["deviation"], resamples=3)
    turned = dict(reversed(methods.items()))
    again = audit(turned, target, LABELS, metrics=["deviation"], resamples=3)
    assert both.figures["a"] == again.figures["a"]
    assert both.figures["b"] == again.figures["b"]


def test_attacks_have_intervals_of_their_own(found):
    for detail in found.details.values():
        assert set(detail.intervals) == {"lira_auc", "lira_tpr_1", "lira_tpr_01"}
        for value, low, high in detail.intervals.values():
            assert low <= value <= high
    rates = found.details["null"].intervals
    assert 0 <= rates["lira_tpr_01"][0] <= rates["lira_tpr_1"][0] <= 100


def test_the_package_can_be_called():
    given = constant(1), constant(1, right=False), LABELS
    called = ju.audit(*given)  # pyright: ignore[reportCallIssue]
    assert called.figures == ju.audit.audit(*given).figures
    assert ju.audit.audit is audit
    assert (ju.audit.__doc__ or "").startswith("Audits")


def test_the_table_has_a_row_a_figure(found):
    lines = audit_table(found, "shifted").splitlines()
    assert len(lines) == 2 + len(KINDS) - len(ORIGINAL)
    figure = found.figures["shifted"]["ua"]
    assert lines[2] == (
        f"| UA % | {figure.value:.1f} ± {figure.std:.1f} | {figure.target:.1f} "
        f"| [{figure.null_low:.1f}, {figure.null_high:.1f}] | outside |"
    )
    alone = audit(constant(1), constant(1), LABELS)
    rows = audit_table(alone, "unlearned").splitlines()[2:]
    assert all(row.endswith("| – | – |") for row in rows)
    with pytest.raises(InputError, match="unknown method 'shiftd'; did you mean"):
        audit_table(found, "shiftd")


def test_two_retrains_show_no_null_and_three_an_interval_within_bounds():
    ours, theirs = models(1, 1, shift=-1.0), models(3, 3)
    pair = ModelOutputs(*(part[:2] for part in theirs))
    two = audit(ours, pair, LABELS).figures["unlearned"]
    assert {figure[3:] for figure in two.values()} == {(None, None, "")}
    three = audit(ours, theirs, LABELS).figures["unlearned"]
    assert {figure.verdict for figure in three.values()} >= {"inside"}
    for key, figure in three.items():
        least, most = KINDS[key].bounds
        if figure.null_low is None:
            assert figure.verdict == ""
            continue
        assert least <= figure.null_low <= figure.null_high <= most, key
        assert figure.null_low > least or figure.null_high < most, key


def test_every_figure_states_its_bounds_and_keeps_them():
    for card in KINDS.values():
        assert card.bounds[0] == 0, card.key
        percent = card.label.endswith("%") or card.key == "avg_gap"
        wanted = {100} if percent else {1, np.inf}
        assert card.bounds[1] in wanted, card.key
    found = audit(models(1, 8), models(3, 16), LABELS, resamples=3)
    for own in found.figures.values():
        for key, figure in own.items():
            least, most = KINDS[key].bounds
            assert least <= figure.value <= most, key


def test_where_nothing_can_lie_outside_there_is_no_verdict():
    # one Retrain right of everything, one of nothing, one of half
    labels = PartLabels(*(np.arange(4) % 2 for _ in range(3)))
    right = np.eye(2)[np.arange(4) % 2] * 8
    half = right * np.array([1, 1, -1, -1])[:, None]
    far = ModelOutputs(*(np.stack([right, -right, half]) for _ in range(3)))
    found = audit(ModelOutputs(*[half] * 3), far, labels, metrics=["standard"])
    figures = found.figures["unlearned"]
    for key in ("ua", "ra", "ta", "tow"):
        assert figures[key][3:] == (None, None, ""), key
    near = ModelOutputs(*(np.stack([right, right, right]) for _ in range(3)))
    found = audit(ModelOutputs(*[half] * 3), near, labels, metrics=["standard"])
    assert found.figures["unlearned"]["ua"].verdict == "outside"


def test_few_retrains_are_wrong_about_another_retrain_no_more_than_stated():
    # distances of one model from one other: three Retrains make three of them, whose
    # largest a fourth Retrain passed in every fourth case
    rng, wrong, trials = np.random.default_rng(5), 0, 120
    labels = PartLabels(*(np.arange(12) % 2 for _ in range(3)))
    for _ in range(trials):
        ours, theirs = (
            ModelOutputs(*(rng.normal(0, 1, (count, 12, 2)) for _ in range(3)))
            for count in (1, 3)
        )
        found = audit(ours, theirs, labels, metrics=["deviation"])
        wrong += found.figures["unlearned"]["deviation"].verdict == "outside"
    assert wrong <= 0.09 * trials  # 5 % and the noise of so many trials


@pytest.mark.parametrize(
    ("wrong", "verdict"), [(1, "inside"), (12, "outside")], ids=["a step", "many"]
)
def test_retrains_that_agree_exactly_have_the_spread_of_rounding(wrong, verdict):
    truth = np.arange(22) % 2
    right = np.eye(2)[truth] * 4.0
    labels = PartLabels(truth, truth, truth)
    other = right.copy()
    other[:wrong] *= -1
    three = ModelOutputs(*(np.stack([right] * 3) for _ in range(3)))
    one = ModelOutputs(other[None], right[None], right[None])
    figure = audit(one, three, labels, metrics=["standard"]).figures["unlearned"]["ua"]
    assert figure.verdict == verdict
    quantile = 4.3027  # of Student's t with two degrees of freedom
    reach = quantile * 100 / 22 / np.sqrt(12) * np.sqrt(1 + 1 / 3)
    assert (figure.null_low, figure.null_high) == (0, pytest.approx(reach, rel=1e-4))
