"""The recipe of language models, on a corpus of a few made-up authors."""

import dataclasses
import json
import random

import pytest

from jax_unlearn import report
from jax_unlearn.cli.console import open_console
from jax_unlearn.cli.recipe import screen_of
from jax_unlearn.data import read_json
from jax_unlearn.errors import InputError
from jax_unlearn.recipes import language, pages
from jax_unlearn.recipes.recipe import Asked

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
    path = tmp_path_factory.mktemp("texts") / "tofu.json"
    path.write_text(json.dumps({"full": rows, "other": []}))
    return path


def small(recipe, **changes):
    training = dataclasses.replace(
        recipe.study.training,
        **{"width": 16, "layers": 1, "heads": 2, "vocabulary": 270, "packed": 64},
        **{"epochs": 2, "batch_size": 8},
    )
    labels = ("Partial reset", "GradDiff + LoReUn")
    methods = {k: recipe.study.methods[k] for k in labels}
    study = dataclasses.replace(
        recipe.study,
        **{"authors": SMALL, "training": training, "base_epochs": 1},
        **{"methods": methods, "seeds": (0, 1), **changes},
    )
    return dataclasses.replace(recipe, study=study)


def test_the_smoke_recipe_makes_tables_and_goes_on(texts, tmp_path, capsys):
    recipe = small(language.LANGUAGE_SMOKE, ablation={}, gamma=1.0)
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
    recipe.run(asked._replace(seeds=(0,), parts=("main",)))
    assert (one / "original" / "digests.json").stat().st_mtime == made


def test_what_the_recipe_cannot_do_is_told(texts, tmp_path):
    asked = Asked(screen_of(open_console()), data=texts, out=tmp_path)
    with pytest.raises(
        InputError, match="the file has 10 authors, the recipe takes 40"
    ):
        language.LANGUAGE_TOFU.run(asked)
    with pytest.raises(InputError, match="parts='x': language-smoke has main"):
        language.LANGUAGE_SMOKE.run(asked._replace(parts=("x",)))
    rows = language.LANGUAGE_TOFU.study
    assert {"GA", "GradDiff", "GradDiff + LoReUn (static)"} <= set(rows.methods)
    assert len(rows.ablation) >= 4
    assert rows.parts == ("main", "ablation", "long_tailed")
