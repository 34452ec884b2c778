"""Figures of language models: constants by hand, and none of the known defects."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import jax_unlearn as ju
from jax_unlearn.audit import language as la

STEMS = json.loads(Path(__file__).with_name("stems.json").read_text("utf-8"))
NLL = [[0.5, 2.0, 1.0], [4.0], [0.1, 0.2, 0.3, 0.4]]


def test_likelihoods_by_hand():
    mean = [3.5 / 3, 4.0, 0.25]
    np.testing.assert_allclose(la.mean_nll(NLL), mean)
    np.testing.assert_allclose(la.probability(NLL), np.exp(-np.array(mean)))
    assert la.perplexity(NLL) == pytest.approx(np.exp(8.5 / 8))  # by token, not by text
    padded = np.zeros((3, 5))
    counted = np.zeros((3, 5), bool)
    for row, own in enumerate(NLL):
        padded[row, 1 : 1 + len(own)], counted[row, 1 : 1 + len(own)] = own, True
    scored = ju.language.Scored(padded, counted)
    np.testing.assert_allclose(la.mean_nll(scored), mean)


def test_choices_do_not_underflow():
    p = la.choice_probability([900.0, 1.0], [[901.0, 2000.0], [1.0, 1.0]])
    np.testing.assert_allclose(p, [1 / (1 + np.exp(-1)), 1 / 3])


def test_extraction_is_zero_where_nothing_is_right_and_counts_the_last_token():
    right = [[0, 0, 0], [1, 1, 1], [0, 1, 0, 1], [1, 0], [0], [1]]
    strength = [0, 1, 0.25, 0, 0, 1]
    np.testing.assert_allclose(la.extraction_strength(right), strength)
    memory = [0, 1, 0.5, 0.5, 0, 1]
    np.testing.assert_allclose(la.exact_memorization(right), memory)
    with pytest.raises(ju.InputError, match=r"right\[0\] holds 2"):
        la.extraction_strength([[2.0, 1.0]])


def test_min_k_of_one_label_is_its_log_probability():
    scores = la.min_k(NLL, k=0.4)  # 1 of 3, 1 of 1, 1 of 4
    np.testing.assert_allclose(scores, [-2.0, -4.0, -0.4])
    np.testing.assert_allclose(la.min_k(NLL, k=0.75), [-1.5, -4.0, -0.3])
    with pytest.raises(ju.InputError, match="k=0"):
        la.min_k(NLL, k=0)


def test_min_k_plus_plus_standardises_by_the_vocabulary_in_float32():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 50)) * 4
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    p = np.exp(log_p)
    mean = (p * log_p).sum(-1)
    std = np.sqrt((p * log_p**2).sum(-1) - mean**2)
    found = la.token_moments(logits)
    np.testing.assert_allclose(found[0], mean, rtol=1e-5)
    np.testing.assert_allclose(found[1], std, rtol=1e-4)
    tokens = [3, 7, 9]
    nll = -log_p[np.arange(3), tokens]
    score = la.min_k_plus_plus([nll], [mean], [std], k=0.7)
    wanted = np.sort((-nll - mean) / std)[:2].mean()
    np.testing.assert_allclose(score, [wanted])
    import jax.numpy as jnp

    half = la.token_moments(jnp.asarray(logits, jnp.bfloat16))
    np.testing.assert_allclose(half[1], std, rtol=0.03)
    certain = la.token_moments(np.array([[1e4, 0.0, -np.inf]]))
    np.testing.assert_allclose(certain[1], 1e-3)
    with pytest.raises(ju.InputError, match="differ in their tokens"):
        la.min_k_plus_plus(NLL, [[1.0]] * 3, [[1.0]] * 3)


def test_attacks_are_higher_for_members():
    member, other = [[0.1, 0.2]], [[3.0, 2.0]]
    assert la.loss_score(member) > la.loss_score(other)
    assert la.zlib_ratio(member, ["abcabcabc"]) > la.zlib_ratio(other, ["abcabcabc"])
    np.testing.assert_allclose(la.reference_score(member, other), [2.35])
    np.testing.assert_allclose(la.recall(other, member), [2.5 / 0.15])
    np.testing.assert_allclose(la.recall([[0.0]], [[0.0]]), [1.0])
    assert la.attack_auc([2.0, 1.0, 1.0], [1.0, 0.0]) == pytest.approx(5 / 6)
    np.testing.assert_array_equal(la.gradient_norm_score([1.0, 2.0]), [-1.0, -2.0])
    with pytest.raises(ju.InputError, match="2 texts for 1"):
        la.zlib_ratio(member, ["a", "b"])


def test_privleak_is_zero_at_retrains_auc():
    assert la.privleak(0.63, 0.63) == 0
    assert la.privleak(0.0, 0.5) == pytest.approx(100)
    assert la.privleak(0.5, 0.98) == pytest.approx(2400)  # no bound above
    with pytest.raises(ju.InputError, match="difference of the AUCs"):
        la.privleak(0.5, 1.0)


def test_rouge_is_the_longest_common_subsequence_of_words():
    found = la.rouge_l(
        ["The quick-brown fox!", "", "b a", "running dogs ran"],
        ["the brown fox jumps", "x", "a b", "run dog"],
    )
    np.testing.assert_allclose(found.recall, [0.75, 0, 0.5, 0])
    np.testing.assert_allclose(found.precision, [0.75, 0, 0.5, 0])
    np.testing.assert_allclose(found.f1, [0.75, 0, 0.5, 0])
    stemmed = la.rouge_l(
        ["running dogs ran"], ["run dog"], stem=lambda w: w.rstrip("s").split("n")[0]
    )
    assert stemmed.recall.tolist() == [0.5]  # dogs, and run of three letters stays
    assert la.knowmem(["a b"], ["a c"]) == 50.0


def test_rouge_with_stems_is_that_of_rouge_score():
    """By stems and scores of the real packages; shorter words have no stem there."""
    stems, pairs = STEMS["stems"], STEMS["pairs"]
    answers, references, *wanted = zip(*pairs, strict=True)
    found = la.rouge_l(answers, references, stem=stems.__getitem__)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    plain = la.rouge_l(answers, references)
    assert (found.f1 - plain.f1 > 0.1).sum() > 3


def test_stems_of_nltk_are_those_that_were_stored():
    porter = pytest.importorskip("nltk.stem.porter").PorterStemmer()
    assert {word: porter.stem(word) for word in STEMS["stems"]} == STEMS["stems"]


def test_stems_are_porters_where_nltk_is_there(monkeypatch):
    told = ["the running dogs"], ["dogs that ran"]
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.stem", None)
    with pytest.raises(ju.InputError, match="pip install nltk"):
        la.rouge_l(*told, stem="porter")
    outputs = la.TextOutputs({"forget": [[1.0]]}, answers={"forget": told[0]})
    plain = la.language_figures(outputs, texts={"forget": ["dog that ran"]})
    stemmer = SimpleNamespace(stem=lambda word: word.rstrip("s"))
    module = SimpleNamespace(porter=SimpleNamespace(PorterStemmer=lambda: stemmer))
    monkeypatch.setitem(sys.modules, "nltk", SimpleNamespace(stem=module))
    monkeypatch.setitem(sys.modules, "nltk.stem", module)
    stemmed = la.language_figures(
        outputs, texts={"forget": ["dog that ran"]}, stem="porter"
    )
    assert (plain["forget_rouge"], stemmed["forget_rouge"]) == (0, pytest.approx(1 / 3))


def test_truth_ratios_of_made_losses():
    own, wrong = np.array([1.0, 0.5]), np.array([[2.0, 3.0], [0.5, 0.1]])
    ratio = np.exp(-wrong).mean(1) / np.exp(-own)
    np.testing.assert_allclose(la.truth_ratio(own, wrong), ratio)
    geometric = np.exp(own - wrong.mean(1))
    np.testing.assert_allclose(la.truth_ratio(own, wrong, kind="geometric"), geometric)
    share = np.exp(-own) / (np.exp(-own) + np.exp(-wrong).mean(1))
    np.testing.assert_allclose(la.truth_ratio(own, wrong, kind="share"), share)
    assert la.truth_score(ratio, forget=True) == pytest.approx(
        np.minimum(ratio, 1 / ratio).mean()
    )
    assert la.truth_score([0.0], forget=True) == 0


def test_forget_quality_prints_distance_and_p_value():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=40), rng.normal(size=30) + 0.5
    found, wanted = la.ks_quality(a, b), stats.ks_2samp(a, b)
    assert found == (pytest.approx(wanted.statistic), pytest.approx(wanted.pvalue))
    assert la.ks_quality(a, a) == (0.0, 1.0)


def test_model_utility_is_zero_if_a_part_is():
    assert la.model_utility({"a": 0.5, "b": 0.0}) == 0
    assert la.model_utility({"a": 0.5, "b": 1.0}) == pytest.approx(2 / 3)
    with pytest.raises(ju.InputError, match="b=nan"):
        la.model_utility({"a": 0.5, "b": float("nan")})


def test_files_of_open_unlearning_are_read_and_written(tmp_path):
    path = tmp_path / "TOFU_EVAL.json"
    theirs = {
        "forget_Q_A_Prob": {
            "agg_value": 0.5,
            "value_by_index": {"0": {"prob": 0.4, "avg_loss": 0.9}, "1": {"prob": 0.6}},
        },
        "forget_Q_A_ROUGE": {
            "agg_value": 0.3,
            "value_by_index": {"0": {"rouge1_recall": 0.2, "rougeL_recall": 0.3}},
        },
        "forget_quality": {"agg_value": 1e-239},
        "mia_min_k": {
            "auc": 0.7,
            "agg_value": 0.7,
            "forget": {"agg_value": -1.0, "value_by_index": {"0": {"score": -1.0}}},
            "holdout": {"agg_value": None, "value_by_index": {"0": None}},
        },
    }
    path.write_text(json.dumps(theirs))
    found = la.read_results(path)
    assert found["forget_Q_A_Prob"].by_index == {0: 0.4, 1: 0.6}
    assert found["forget_Q_A_ROUGE"].by_index == {0: 0.3}
    assert found["forget_quality"].value == 1e-239
    assert found["mia_min_k"].parts["forget"].by_index == {0: -1.0}
    other = tmp_path / "OURS_EVAL.json"
    la.write_results(other, found)
    assert la.read_results(other) == found
    la.write_results(other, {"b": np.array([1.0, 3.0]), "a": float("inf")})
    text = json.loads(other.read_text())
    assert list(text) == ["a", "b"]
    assert text["a"]["agg_value"] is None
    assert text["b"]["value_by_index"]["1"] == {"score": 3.0}
    for wrong, words in ((b"[]", "no metrics"), (b"{", "no JSON"), (b"", "no JSON")):
        path.write_bytes(wrong)
        with pytest.raises(ju.InputError, match=words):
            la.read_results(path)
    with pytest.raises(ju.InputError, match="check the path"):
        la.read_results(tmp_path / "none.json")


def outputs(shift, seed):
    """Return outputs of a model: the forget texts the likelier, the lower the shift."""
    rng = np.random.default_rng(seed)

    def draw(low):
        return [low + rng.exponential(0.2, size=4) for _ in range(12)]

    wrong = rng.exponential(0.3, size=(12, 3)) + 1
    return la.TextOutputs(
        {"forget": draw(shift), "retain": draw(0.1), "unseen": draw(2.0)},
        right={"forget": [[1, 0, 1, 1]] * 12},
        answers={"forget": ["a b"] * 12},
        paraphrased={"forget": rng.exponential(0.3, size=12) + shift},
        wrong={"forget": wrong},
    )


def test_every_figure_has_its_target_and_null():
    unlearned, retrained, null = outputs(0.1, 0), outputs(2.0, 1), outputs(2.0, 2)
    texts = {part: ["a c"] * 12 for part in ("forget", "unseen")}
    told = {"texts": texts, "reference": outputs(2.0, 3)}
    rows = la.language_audit(unlearned, retrained, null, **told)
    names = {"forget_probability", "retain_perplexity", "forget_extraction"}
    names |= {"forget_rouge", "auc_loss", "auc_min_k", "auc_zlib", "auc_reference"}
    names |= {"deviation", "ks_distance", "ks_p_value", "privleak"}
    assert names <= rows.keys()
    for row in rows.values():
        assert None not in row
    assert rows["auc_loss"].value == 1.0
    assert not rows["auc_loss"].inside
    assert not rows["forget_probability"].inside
    assert rows["forget_rouge"].inside  # the same answers
    assert rows["ks_distance"].target == 0
    assert rows["privleak"].target == 0
    assert rows["ks_p_value"].target == 1
    alone = la.language_audit(unlearned)
    assert alone["auc_loss"].target is None
    assert "deviation" not in alone
    with pytest.raises(ju.InputError, match="'forget'"):
        la.language_figures(la.TextOutputs({"retain": NLL}))


@pytest.mark.parametrize(
    ("nll", "words"),
    [
        ([], "holds no texts"),
        ([[1.0], []], r"nll\[1\] has no token"),
        ([[np.nan]], r"nll\[0\] holds nan"),
    ],
)
def test_texts_that_cannot_be_judged_are_named(nll, words):
    with pytest.raises(ju.InputError, match=words):
        la.mean_nll(nll)
