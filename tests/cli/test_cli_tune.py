"""The search of settings on a user's own data and model, of either kind."""

import json

import pytest
from small import NETWORK, refused, small_data

from jax_unlearn.cli import main
from jax_unlearn.lab import Unlearning
from jax_unlearn.recipes.search import grid_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    source = ["--data", str(small_data(folder / "data.npz"))]
    tiny = ["--widths", "4", "--attention", "0", "--timesteps", "30", "--steps", "3"]
    main(["train", *source, *NETWORK, "--out", str(folder / "classifier")])
    kind = ["--modality", "diffusion", "--batch-size", "16"]
    main(["train", *source, *kind, *tiny, "--out", str(folder / "generator")])
    return folder


def tune(made, model, *words):
    out = made / f"{model}.json"
    source = ["--data", made / "data.npz", "--checkpoint", made / model, "--out", out]
    main([str(word) for word in ["tune", *words, *source, "--overwrite"]])
    return json.loads(out.read_text())


def test_a_classifiers_settings_are_those_nearest_to_retrain(made, capsys):
    asked = ("finetune", "--epochs", "1", "--seeds", "3", "4", "--folder", made / "run")
    found = tune(made, "classifier", *asked)
    rows = found["table"]["FT"]
    rates = [row["learning_rate"] for row in rows]
    assert rates[:3] == [0.03, 0.1, 0.2]
    assert len(rows) == found["trials"] == 5  # a round more
    assert found["search_seeds"] == [3, 4]
    assert found["training"]["network"] == "mlp"  # as the checkpoint's
    best = min(rows, key=lambda row: row["avg_gap"])
    setting = Unlearning.of(**found["settings"]["FT"])
    assert setting.learning_rate == best["learning_rate"]
    assert setting.epochs == 1
    assert "best of 5: FT" in capsys.readouterr().out
    stored = json.loads((made / "run" / "trials.json").read_text())
    for row in stored["trials"].values():
        row["avg_gap"] = 1.0
    (made / "run" / "trials.json").write_text(json.dumps(stored))
    again = tune(made, "classifier", *asked)  # read, not made again
    assert {row["avg_gap"] for row in again["table"]["FT"][:3]} == {1.0}


def test_a_diffusion_models_settings_are_searched_by_its_errors(made):
    asked = ("finetune", "--steps", "1", "--kind", "class", "--rounds", "0")
    found = tune(made, "generator", *asked, "--batch-size", "8")
    rows = found["table"]["FT"]
    assert [row["learning_rate"] for row in rows] == [0.03, 0.1, 0.2]
    assert all(row["avg_gap"] > 0 and row["deviation"] > 0 for row in rows)
    assert rows[0]["avg_gap"] < rows[2]["avg_gap"]  # one step of Adam, far too long
    setting = Unlearning.of(**found["settings"]["FT"])
    assert (setting.modality, setting.steps) == ("diffusion", 1)
    assert setting.learning_rate == 0.03


def test_what_is_given_is_not_searched():
    card = Unlearning.of(method="salun").card.search
    assert grid_of(Unlearning.of(method="salun")).items() >= card.items()
    fixed = grid_of(Unlearning.of(method="salun", learning_rate=0.5))
    assert fixed["learning_rate"] == 0.5
    weighed = grid_of(Unlearning.of(method="salun", weighting="falw", tau=0.5))
    assert weighed["tau"] == 0.5
    assert "epochs" not in grid_of(Unlearning.of(method="salun", steps=7))
    queried = Unlearning.of(method="ltu", strategies=("uniform", "hard"))
    assert grid_of(queried)["strategies"] == (("uniform", "hard"),)  # one value


def test_what_cannot_be_searched_is_refused(made, capsys):
    data = ["--data", made / "data.npz"]
    line = refused(capsys, ["tune", *data])
    assert "checkpoint=None searches the settings of the demo" in line
    asked = ["tune", "finetune", *data, "--checkpoint", made / "classifier"]
    given = ["--epochs", "1", "--learning-rate", "0.5"]
    assert "names nothing to try" in refused(capsys, [*asked, *given])
    assert "seeds=[1]" in refused(capsys, [*asked, "--seeds", "1"])
    assert "unknown kind 'odd'" in refused(capsys, [*asked, "--kind", "odd"])
