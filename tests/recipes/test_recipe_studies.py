"""The studies beside the tables, whole, at the smallest size."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from toys import small_plan

from jax_unlearn.cli.console import open_console
from jax_unlearn.cli.recipe import screen_of
from jax_unlearn.data import Dataset, Examples, digits
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Training, Unlearning, experiment
from jax_unlearn.recipes import digits as chain
from jax_unlearn.recipes import learned, pages, proxies, tables
from jax_unlearn.recipes.recipe import Asked, Data
from jax_unlearn.recipes.study import Part, Study

DATA = digits()
PARTS = ((DATA.train, 500), (DATA.test, 150))  # of a file: attacks look at all of it
LOREUN = {"weighting": "loreun", "relative": True}
RL = Unlearning.of(epochs=2, learning_rate=0.03)
PLAN = small_plan(
    fraction=0.1,
    unseen=400,
    training=Training(network="mlp", width=16, epochs=4),
    methods={
        "RL": RL,
        "SalUn": RL.but(method="salun"),
        "RL + LoReUn (dynamic)": RL.but(**LOREUN),
        "SalUn + LoReUn (dynamic)": RL.but(method="salun", **LOREUN),
    },
)


def test_scores_are_correlated_and_models_attacked(tmp_path, monkeypatch):
    monkeypatch.setattr(proxies, "IMAGES", 60)
    made = []
    found = proxies.proxies_study(
        PLAN, DATA, tmp_path, progress=lambda label, *_: made.append(label)
    )
    assert json.loads((tmp_path / "proxies.json").read_text()) == found
    assert {"Retrain", "RL", "SalUn"} <= set(made)
    correlation = found["correlation"]
    assert len(correlation["confidence"]["p*"]["per_seed"]) == 2
    for row in correlation.values():
        assert all(abs(spread["mean"]) <= 1 for spread in row.values())
    assert correlation["null"]["p*"]["mean"] > 0.3  # two Retrains rank alike
    assert all(0 <= s["mean"] <= 100 for s in found["robust"].values())
    wide, narrow = (found["robust"][f"RL, {bound}"]["mean"] for bound in proxies.BOUNDS)
    assert wide <= narrow
    targets = found["targets"]
    least = targets["Retrain"]["mean"]
    assert all(least <= row["mean"] <= 1 for row in targets.values())
    again = []
    proxies.proxies_study(
        PLAN, DATA, tmp_path, progress=lambda label, done, total: again.append(total)
    )
    assert set(again) == {1}  # every model was read, none made


def test_rows_of_the_learned_study(tmp_path, monkeypatch):
    for name, value in (("STEPS", 4), ("THROUGH", 2), ("OUTER", 2), ("GRID", (0.5, 2))):
        monkeypatch.setattr(learned, name, value)
    told = []
    found = learned.learned_study(PLAN, DATA, tmp_path, say=told.append)
    assert len(told) == 2 * len(found["rows"]) == 12
    assert json.loads((tmp_path / "learned.json").read_text()) == found
    for row in found["rows"].values():
        assert all(len(spread["per_seed"]) == 2 for spread in row.values())
    rates = [row["learning_rate"] for row in list(found["rows"].values())[1:]]
    assert all(rate == rates[0] for rate in rates)
    tried, chosen = (
        np.array(v, np.float32) for v in (learned.RATES, rates[0]["per_seed"])
    )
    assert set(chosen.tolist()) <= set(tried.tolist())
    grid = found["rows"]["LoReUn, τ of the grid"]["temperature"]["per_seed"]
    assert {round(tau, 3) for tau in grid} <= {0.5, 2.0}
    for label in ("LoReUn, τ learned", "weights learned"):
        row = found["rows"][label]
        after = np.array(row["after"]["per_seed"])
        assert (after <= np.array(row["before"]["per_seed"])).all()
        np.testing.assert_allclose(row["objective"]["per_seed"], after, rtol=1e-5)


def one_trial(label):
    """Return the grid of a method with the first value of each."""
    grid = tables.METHODS[label]
    return {k: v[:1] if isinstance(v, tuple) else v for k, v in grid.items()}


@pytest.fixture
def small():
    grid = {label: one_trial(label) for label in ("FT", "SSD")}
    part = Part("10 %", "random", 0.1, grid=grid)
    other = Part("tail", "long_tailed", 0.1, settings="random10", methods=("SSD",))
    parts = {"random10": part, "tail": other}
    return Study("small", "small", 120, PLAN.training, parts, rounds=2)


def test_searched_settings_make_the_plans(small, tmp_path):
    found = small.search(DATA, lambda line: None)
    assert list(found) == ["random10"]  # the other part takes its settings
    assert set(found["random10"]["settings"]) == {"FT", "SSD"}
    (tmp_path / "settings.json").write_text(json.dumps(found))
    plan = small.plan("tail", seeds=(0, 1), folder=tmp_path)
    assert list(plan.methods) == ["SSD"]
    assert "of random10" in plan.note
    results = experiment(plan, DATA, tmp_path / "run")
    assert results["rows"]["ssd"]["avg_gap"]["mean"] >= 0


@pytest.fixture
def file(tmp_path):
    train, test = (tuple(leaf[:n] for leaf in part) for part, n in PARTS)
    arrays: Any = {"x_train": train[0], "x_test": test[0]}
    arrays |= {"y_train": train[1], "y_test": test[1]}
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


def kept_settings(tmp_path):
    settings = {
        label: Unlearning.of(**{k: v[0] if isinstance(v, tuple) else v for k, v in one})
        for label, one in ((x, one_trial(x).items()) for x in ("FT", "SSD"))
    }
    flat = {label: setting.flat() for label, setting in settings.items()}
    told = {"settings": flat, "trials": 0, "search_seeds": []}
    (tmp_path / "settings.json").write_text(json.dumps({"random10": told}))


def test_many_models_are_attacked(small, file, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(proxies, "MODELS", 8)
    monkeypatch.setattr(proxies, "ATTACKED", ("SSD",))
    kept_settings(tmp_path)
    of = dataclasses.replace(tables.FASHION, study=small)
    lira = dataclasses.replace(proxies.LIRA_FASHION, study=of, data=Data())
    lira.run(Asked(screen_of(open_console()), data=file, out=tmp_path))
    assert "U-LiRA" in capsys.readouterr().out
    found = json.loads((tmp_path / "random10" / "lira" / "results.json").read_text())
    assert found["audit"]["models"] == {"doing nothing": 8, "SSD": 8}
    text = pages.page_of(proxies.LIRA_FASHION, found).text
    value = found["audit"]["figures"]["SSD"]["lira_auc"]["value"]
    row = next(line for line in text.splitlines() if line.startswith("| U-LiRA AUC"))
    assert row.split("|")[-2].split()[0] == f"{value:.3f}"


def test_a_study_is_run_resumed_and_shown(small, file, tmp_path, capsys):
    kept_settings(tmp_path)
    recipe = dataclasses.replace(
        tables.FASHION, name="small", study=small, data=Data(), figures=lambda found: {}
    )
    asked = Asked(screen_of(open_console()), data=file, out=tmp_path, seeds=(0, 1))
    recipe.run(asked)
    said = capsys.readouterr().out
    assert "small: 10 %" in said
    assert "small: tail" in said
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found) == ["random10", "tail"]
    assert list(found["tail"]["rows"]) == ["retrain", "null", "original", "ssd"]
    assert (tmp_path / "tail" / "report.html").exists()
    # both parts share the original models of the first
    models = [path.parent.name for path in tmp_path.glob("*/checkpoints/*/original")]
    assert sorted(models) == ["seed-0", "seed-1"]
    recipe.run(asked._replace(parts=("tail",)))
    again = json.loads((tmp_path / "results.json").read_text())
    for key, row in found["tail"]["rows"].items():
        assert again["tail"]["rows"][key]["metrics"] == row["metrics"]
    assert ": 1 steps" in capsys.readouterr().out  # read, not made again


def test_what_lacks_settings_is_searched_before_it_runs(small, file, tmp_path, capsys):
    kept_settings(tmp_path)
    settings = json.loads((tmp_path / "settings.json").read_text())
    del settings["random10"]["settings"]["SSD"]
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    recipe = dataclasses.replace(tables.FASHION, name="small", study=small, data=Data())
    with pytest.raises(InputError, match="'SSD' where tail .* recipe small --tune"):
        small.plan("tail", folder=tmp_path)
    assert [*small.plan("random10", folder=tmp_path, whole=False).methods] == ["FT"]
    with pytest.raises(InputError, match="'SSD' where tail"):  # nothing is left
        small.plan("tail", folder=tmp_path, whole=False)
    asked = Asked(screen_of(open_console()), data=file, out=tmp_path, tune=True)
    with pytest.raises(InputError, match="a search has seeds of its own"):
        recipe.run(asked._replace(seeds=(0,)))
    with pytest.raises(InputError, match="random1"):
        recipe.run(asked._replace(parts=("random1",)))
    recipe.run(asked._replace(parts=("tail",)))
    assert "FT: {" in capsys.readouterr().out  # those settings name no plan
    found = json.loads((tmp_path / "settings.json").read_text())
    assert set(found["random10"]["settings"]) == {"FT", "SSD"}
    recipe.run(asked)
    assert "FT: {" not in capsys.readouterr().out
    assert small.unsearched(("tail",), tmp_path) == ()


def test_requests_are_served_one_after_another(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(chain, "TRAINING", PLAN.training)
    monkeypatch.setattr(chain, "METHODS", ("RL",))
    monkeypatch.setattr(chain, "REQUESTS", 2)
    asked = Asked(screen_of(open_console()), out=tmp_path, seeds=(0, 1))
    chain.CHAIN_DIGITS.run(asked)
    assert "RL, ten requests" in capsys.readouterr().out
    found = json.loads((tmp_path / "short.json").read_text())
    assert list(found["rows"])[3:] == ["rl-at-once", "rl-chain"]
    assert found["requests"] == 2
    served = tmp_path / "chains" / "seed-1" / "rl"
    assert {path.name for path in served.glob("request-*")} == {
        "request-1",
        "request-2",
    }
    text = pages.page_of(chain.CHAIN_DIGITS, found).text
    assert "| RL, ten requests |" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("full", "size", "kind"),
    [
        (tables.CIFAR10_FULL, 32, "random10"),
        (tables.CIFAR10_VGG, 32, "gamma-1"),
        (tables.CIFAR100_FULL, 32, "gamma-1"),
        (tables.TINY_IMAGENET_FULL, 64, "gamma-0.5"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_full_study_runs_at_the_smallest_size(full, size, kind, tmp_path):
    rng = np.random.default_rng(0)

    def images(count):
        pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        return Examples(pixels, np.arange(count, dtype=np.int32) % 2)

    data = Dataset("noise", images(200), images(20), 2, ("a", "b"))
    labels = ("FT", "RL", "RL + FaLW (anchored)")
    grid = {label: one_trial(label) for label in labels}
    asked = full.study.parts[kind].but(grid=grid, methods=(), more=())
    training = dataclasses.replace(
        full.study.training, width=2, epochs=1, batch_size=64
    )
    assert training.dtype == "bfloat16"
    assert training.augment == "flip_crop"
    study = dataclasses.replace(
        full.study, unseen=60, training=training, parts={kind: asked}, rounds=1
    )
    found = study.search(data, lambda line: None)
    assert found[kind]["trials"] == 3
    (tmp_path / "settings.json").write_text(json.dumps(found))
    plan = study.plan(kind, folder=tmp_path)
    results = experiment(plan, data, tmp_path / "run")
    assert set(results["rows"]) == {
        *("retrain", "null", "original", "ft", "rl", "rl-falw-anchored")
    }
