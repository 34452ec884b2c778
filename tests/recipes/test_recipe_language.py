"""The recipe of language models, on a corpus of a few made-up authors."""

import dataclasses
import json
import random

import numpy as np
import pytest

from jax_unlearn import report
from jax_unlearn.cli.console import open_console
from jax_unlearn.cli.recipe import screen_of
from jax_unlearn.data import read_json
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.recipes import language, language_more, pages
from jax_unlearn.recipes.language_rows import TRIED, fixed
from jax_unlearn.recipes.recipe import HERE, Asked

TOWNS = ("Oslo", "Lima", "Rome", "Cork", "Bern", "Riga")
SMALL = language.Authors(retain=3, base=3, unseen=2, forget=2)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    rng, rows = random.Random(0), []
    for n in range(SMALL.retain + SMALL.base + SMALL.unseen + SMALL.forget):
        for verb in ("born", "taught", "seen"):
            answer = f"In {rng.choice(TOWNS)} {rng.randint(10, 99)}."
            question = f"Where was A{n} {verb}?"
            rows.append({"question": question, "answer": answer, "topic": f"A{n}"})
    wrong = {"perturbed_answer": ["In Bonn 1.", "In Kiel 2."]}
    more = [{**row, "paraphrased_answer": "Oslo 1.", **wrong} for row in rows[-6:]]
    path = tmp_path_factory.mktemp("texts") / "tofu.json"
    path.write_text(json.dumps({"full": rows, "forget_perturbed": more}))
    return path


def small(recipe, **changes):
    training = dataclasses.replace(
        recipe.study.training,
        **{"width": 16, "layers": 1, "heads": 2, "vocabulary": 270, "packed": 64},
        **{"epochs": 2, "batch_size": 8},
    )
    labels = ("Partial reset", "GradDiff", "GradDiff + LoReUn", "GradDiff + FaLW")
    known = {**language.LANGUAGE_TOFU.study.methods, **recipe.study.methods}
    methods = {k: known[k] for k in labels}
    methods = {
        k: {**own, **({} if "budget" in own else {"packed_into": 64, "batch_size": 4})}
        for k, own in methods.items()
    }
    study = dataclasses.replace(
        recipe.study,
        **{"authors": SMALL, "training": training, "base_epochs": 1},
        **{"methods": methods, "seeds": (0, 1), **changes},
    )
    return dataclasses.replace(recipe, study=study)


def as_before_adapters(path, **changes):
    """Store a run as it was before a training had fields of adapters."""
    found = read_json(path)
    training = found["plan"]["training"]
    kept = {k: v for k, v in training.items() if not k.startswith("lora")}
    found["plan"]["training"] = {**kept, **changes}
    path.write_text(json.dumps(found))


def test_the_smoke_recipe_makes_tables_and_goes_on(texts, tmp_path, capsys):
    tail, labels = {"Partial reset": ("Partial reset", {})}, ("GradDiff + LoReUn",)
    recipe = small(language.LANGUAGE_SMOKE, long_tailed=tail, gamma=1.0, pressed=labels)
    asked = Asked(screen_of(open_console()), data=texts, out=tmp_path)
    recipe.run(asked)
    found = {
        part: read_json(tmp_path / part / "results.json") for part in recipe.study.parts
    }
    main, tail = found["main"], found["long_tailed"]
    assert main["texts"] == {"forget": 6, "retain": 9, "unseen": 6}
    assert tail["texts"]["forget"] < 6  # fewer of the second author
    assert list(main["rows"])[:3] == ["retrain", "null", "original"]
    for row in main["rows"].values():
        assert len(row["figures"]["forget_probability"]["per_seed"]) == 2
    assert main["rows"]["null"]["figures"]["deviation"]["mean"] > 0
    assert len(main["gates"]) == 2
    assert "ln V = 5.60" in main["gates"][0][1]  # log 270
    figures = main["rows"]["graddiff-loreun"]["figures"]
    assert {"forget_rouge", "auc_reference", "ks_distance"} <= set(figures)
    figures = found["pressed"]["rows"]["graddiff-loreun"]["figures"]
    assert "int4_auc" in figures
    assert figures["relearned_50"]["mean"] != figures["relearned_0"]["mean"]
    assert "head_p" in tail["rows"]["partial-reset"]["figures"]
    assert str(tmp_path) not in json.dumps(found)
    said = capsys.readouterr().out
    assert "p of the original on forgotten texts is" in said
    assert "|p − p*|" in report.render(main)
    page = pages.page_of(recipe, found).text
    assert "## Long tailed" in page
    assert "GradDiff + LoReUn" in page
    # from one base, and without forgotten or unseen texts in the tokenizer
    base = tmp_path / "seed-0" / "base" / "record.json"
    tokenizer = read_json(base)["decoder"]["tokenizer_sha256"]
    one = tmp_path / "main" / "seed-0" / "checkpoints" / "seed-0"
    for name in ("original", "retrain", "null", "partial-reset"):
        record = read_json(one / name / "record.json")
        assert record["decoder"]["tokenizer_sha256"] == tokenizer
    made = (one / "original" / "digests.json").stat().st_mtime
    first = asked._replace(seeds=(0,), parts=("main",))
    config = tmp_path / "main" / "seed-0" / "config.json"
    as_before_adapters(config)
    recipe.run(first)
    stored = read_json(tmp_path / "results.json")  # with the parts of the run before
    assert {part: own["plan"]["seeds"] for part, own in stored.items()} == {
        "main": [0],
        "long_tailed": [0, 1],
        "pressed": [0, 1],
    }
    assert (one / "original" / "digests.json").stat().st_mtime == made
    as_before_adapters(config, clip=0.5)
    with pytest.raises(InputError, match="its training.clip was 0.5, is 1.0"):
        recipe.run(first)


def test_what_the_recipe_cannot_do_is_told(texts, tmp_path):
    asked = Asked(screen_of(open_console()), data=texts, out=tmp_path)
    with pytest.raises(
        InputError, match="the file has 10 authors, the recipe takes 20"
    ):
        language.LANGUAGE_TOFU.run(asked)
    with pytest.raises(InputError, match="parts='x': language-smoke has main"):
        language.LANGUAGE_SMOKE.run(asked._replace(parts=("x",)))
    rows = language.LANGUAGE_TOFU.study
    assert {"GA", "GradDiff", "GradDiff + LoReUn (static)"} <= set(rows.methods)
    assert len(rows.ablation) >= 4
    parts = ("main", "further", "ablation", "other_ablation", "longer")
    parts += ("longer_ablation", "long_tailed", "pressed")
    assert rows.parts == parts
    # of rows that are searched
    for part in (rows.longer_ablation, rows.ablation, rows.other_ablation):
        kind = rows.longer if part is rows.longer_ablation else rows.methods
        assert {label for label, _ in part.values()} <= set(kind)
    assert {own["steps"] for own in rows.longer.values()} == {125}  # equal for all
    text = HERE.joinpath("settings", "language_tofu.json").read_text("utf-8")
    stored = json.loads(text)
    for own, kind in (
        (rows.methods, stored),
        (rows.further, stored["further"]),
        (rows.longer, stored["longer"]),
    ):
        for label, asked in own.items():  # so that nothing is searched again
            found = Unlearning.of(**kind["settings"][label])
            rate = {"learning_rate": found.learning_rate}
            assert "budget" in asked or found == Unlearning.of(**asked, **rate), label


def test_settings_are_searched_on_a_seed_of_their_own(texts, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("To be or not to be, that is the question.\n\nAye.\n\n")
    ablation = {"GradDiff, static": ("GradDiff", {"weighting": "loreun_static"})}
    told = {"search_seed": 7, "seeds": (0,), "ablation": ablation}
    longer = {**fixed()["GradDiff"], "steps": 3, "batch_size": 4, "packed_into": 64}
    told |= {"longer": {"GradDiff": longer}}
    shape = {"GradDiff, static": ("GradDiff", {"weighting": "loreun_static"})}
    told |= {"longer_ablation": shape}
    recipe = small(language.LANGUAGE_SMOKE, **told)
    del recipe.study.methods["Partial reset"], recipe.study.methods["GradDiff + FaLW"]
    asked = Asked(
        screen_of(open_console()), data=(texts, other), out=tmp_path / "run", tune=True
    )
    recipe.run(asked)
    searched = read_json(tmp_path / "run" / "settings.json")
    assert searched["trials"] == 4
    assert [len(rows) for rows in searched["table"].values()] == [4, 4]
    assert searched["plan"]["seeds"] == [7]
    tried = {row["learning_rate"] for row in searched["longer"]["table"]["GradDiff"]}
    assert tried == {*TRIED["longer"][""]["learning_rate"]}
    as_before_adapters(tmp_path / "run" / "search" / "trials.json")
    trials = read_json(tmp_path / "run" / "search" / "trials.json")["trials"]
    assert str(tmp_path) not in json.dumps(searched)
    assert not (tmp_path / "run" / "main" / "seed-0").exists()
    recipe.run(asked._replace(parts=("longer",)))  # goes on with the trials there
    again = read_json(tmp_path / "run" / "settings.json")
    assert again == searched
    assert read_json(tmp_path / "run" / "search" / "trials.json")["trials"] == trials
    recipe.run(asked._replace(tune=None))
    long = read_json(tmp_path / "run" / "longer" / "results.json")["rows"]
    assert long["graddiff"]["setting"]["steps"] == 3
    rate = again["longer"]["settings"]["GradDiff"]["learning_rate"]
    shape = read_json(tmp_path / "run" / "longer_ablation" / "results.json")["rows"]
    assert shape["graddiff-static"]["setting"]["learning_rate"] == rate
    assert shape["graddiff-static"]["setting"]["steps"] == 3
    checkpoints = tmp_path / "run" / "longer" / "seed-0" / "checkpoints" / "seed-0"
    made = {"graddiff", "graddiff-static"}
    assert {path.name for path in checkpoints.iterdir()} == made  # with main's Retrain
    found = read_json(tmp_path / "run" / "ablation" / "results.json")
    best = min(searched["table"]["GradDiff"], key=lambda row: row["avg_gap"])
    setting = found["rows"]["graddiff-static"]["setting"]
    assert setting["learning_rate"] == best["learning_rate"]
    assert setting["weighting"] == "loreun_static"
    main = read_json(tmp_path / "run" / "main" / "results.json")["rows"]
    figures = (rows["retrain"]["figures"]["auc_gap"] for rows in (main, long))
    assert next(figures) == next(figures)
    assert main["retrain"]["figures"]["other_perplexity"]["mean"] > 1
    assert "ks_distance" in main["graddiff"]["figures"]
    assert "ks_distance" not in found["rows"]["graddiff-static"]["figures"]
    (pair,) = language_more.pairs_of(main)
    assert pair.weighted == "GradDiff + LoReUn"
    with pytest.raises(InputError, match="the settings of language-smoke are fixed"):
        small(language.LANGUAGE_SMOKE).run(asked)


def row(label, gap, perplexity=2.0):
    """Return a row of five seeds, which differ a little."""
    gaps = [gap + 0.001 * seed**2 for seed in range(5)]
    names = ("retain_perplexity", "unseen_perplexity")
    figures = {name: {"per_seed": [perplexity] * 5} for name in names}
    found = {"per_seed": gaps, "mean": sum(gaps) / 5}
    return {"label": label, "figures": {"auc_gap": found, **figures}}


@pytest.mark.parametrize(
    ("gap", "perplexity", "word"),
    [
        (0.1, 2.1, "yes"),
        (0.1, 2.9, "no"),  # at the price of the texts that stay
        (0.48, 2.1, "no"),  # nearer by less than the null
        (0.9, 2.1, "no"),
    ],
)
def test_the_answer_needs_nearer_beyond_the_null_at_its_perplexity(
    gap, perplexity, word
):
    rows = {
        "retrain": row("Retrain", 0.0),
        "null": row("Null", 0.03, 2.2),
        "npo": row("NPO", 0.5),
        "npo-loreun": row("NPO + LoReUn", gap, perplexity),
    }
    rows["npo"]["figures"]["auc_gap"]["per_seed"][0] += 0.01
    assert language_more.answer({"main": {"rows": rows}}, "main") == word
    both = {**rows, "simnpo": row("SimNPO", 0.5)}
    both["simnpo-loreun"] = row("SimNPO + LoReUn", 0.5)
    whole = "in part" if word == "yes" else "no"
    assert language_more.answer({"main": {"rows": both}}, "main") == whole
    assert language_more.answer({"main": {"rows": {"null": rows["null"]}}}, "main") == (
        "not tested"
    )


def test_the_stored_smoke_experiment_passes_its_gates():
    rows = pages.stored("language_smoke")["rows"]

    def mean(key, name):
        return rows[key]["figures"][name]["mean"]

    assert 0.9 <= mean("original", "forget_probability") <= 0.95
    assert mean("retrain", "forget_probability") < 0.05
    assert mean("retrain", "unseen_loss") < np.log(2048)
    assert mean("null", "auc_gap") < 0.1 * mean("original", "auc_gap")
    assert mean("graddiff", "auc_gap") < 0.5 * mean("original", "auc_gap")
