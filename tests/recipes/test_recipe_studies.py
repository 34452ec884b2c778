"""The studies beside the tables, whole, at the smallest size."""

import dataclasses
import json

import numpy as np
import pytest

from jax_unlearn.cli.recipe import recipe
from jax_unlearn.data import Dataset, Examples, digits
from jax_unlearn.lab import Plan, Training, Unlearning, experiment
from jax_unlearn.recipes import compared, learned, proxies, sections, studies, tables
from jax_unlearn.recipes.compared import LOREUN

DATA = digits()
RL = Unlearning.of(epochs=2, learning_rate=0.03)
PLAN = Plan(
    title="small",
    kind="random",
    fraction=0.1,
    gamma=1.0,
    unseen=400,
    training=Training(network="mlp", width=16, epochs=4),
    methods={
        "RL": RL,
        "SalUn": RL.but(method="salun"),
        "RL + LoReUn (dynamic)": RL.but(**LOREUN),
        "SalUn + LoReUn (dynamic)": RL.but(method="salun", **LOREUN),
    },
    seeds=(0, 1),
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
    assert set(np.float32(rates[0]["per_seed"])) <= set(np.float32(learned.RATES))
    grid = found["rows"]["LoReUn, τ of the grid"]["temperature"]["per_seed"]
    assert {round(tau, 3) for tau in grid} <= {0.5, 2.0}
    for label in ("LoReUn, τ learned", "weights learned"):
        row = found["rows"][label]
        after = np.array(row["after"]["per_seed"])
        assert (after <= np.array(row["before"]["per_seed"])).all()
        np.testing.assert_allclose(row["objective"]["per_seed"], after, rtol=1e-5)


@pytest.fixture
def small(monkeypatch):
    part = studies.Part("10 %", "random", 0.1, 1.0, ("FT", "SSD"), "random10")
    other = part._replace(kind="long_tailed", title="tail", methods=("SSD",))
    study = studies.Study(
        "small", 0, 0, 1, 400, PLAN.training, {"random10": part, "tail": other}
    )
    monkeypatch.setitem(studies.STUDIES, "small", study)
    for name in ("FT", "SSD"):
        first = {k: v[:1] for k, v in compared.TRIED[name].items()}
        monkeypatch.setitem(compared.TRIED, name, first)
    return study


def test_searched_settings_make_the_plans(small, monkeypatch, tmp_path):
    found = tables.search_tables("small", DATA, lambda line: None)
    assert list(found) == ["random10"]  # the other part takes its settings
    assert set(found["random10"]["settings"]) == {"FT", "SSD"}
    (tmp_path / "settings.json").write_text(json.dumps(found))
    plan = tables.tables_plan("small", "tail", seeds=(0, 1), folder=tmp_path)
    assert list(plan.methods) == ["SSD"]
    assert "of random10" in plan.note
    results = experiment(plan, DATA, tmp_path / "run")
    assert results["rows"]["ssd"]["avg_gap"]["mean"] >= 0


def test_many_models_are_attacked(small, monkeypatch, tmp_path, capsys):
    inputs = {"x_train": DATA.train.inputs, "x_test": DATA.test.inputs}
    labels = {"y_train": DATA.train.labels, "y_test": DATA.test.labels}
    np.savez(tmp_path / "data.npz", **inputs, **labels)
    monkeypatch.setitem(studies.STUDIES, "fashion", small)
    monkeypatch.setattr(compared, "MODELS", 8)
    monkeypatch.setattr(compared, "ATTACKED", ("SSD",))
    settings = {
        label: Unlearning.of(**compared.FIXED[label]).flat() for label in ("FT", "SSD")
    }
    told = {"settings": settings, "trials": 0, "search_seeds": []}
    (tmp_path / "settings.json").write_text(json.dumps({"random10": told}))
    recipe("lira-fashion", data=tmp_path / "data.npz", out=tmp_path)
    assert "U-LiRA" in capsys.readouterr().out
    found = json.loads((tmp_path / "random10" / "lira" / "results.json").read_text())
    assert found["audit"]["models"] == {"doing nothing": 8, "SSD": 8}
    text = sections.attacked(found, "fashion")
    value = found["audit"]["figures"]["SSD"]["lira_auc"]["value"]
    row = next(line for line in text.splitlines() if line.startswith("| U-LiRA AUC"))
    assert row.split("|")[-2].split()[0] == f"{value:.3f}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "kind"),
    [
        ("cifar10-full", 32, "random10"),
        ("cifar10-vgg", 32, "gamma-1"),
        ("cifar100-full", 32, "gamma-1"),
        ("tiny-imagenet-full", 64, "gamma-0.5"),
    ],
)
def test_a_full_study_runs_at_the_smallest_size(
    name, size, kind, monkeypatch, tmp_path
):
    rng = np.random.default_rng(0)

    def images(count):
        pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        return Examples(pixels, np.arange(count, dtype=np.int32) % 2)

    data = Dataset("noise", images(200), images(20), 2, ("a", "b"))
    full = studies.STUDIES[name]
    asked = full.parts[kind]._replace(methods=("FT", "RL", "RL + FaLW (anchored)"))
    training = dataclasses.replace(full.training, width=2, epochs=1, batch_size=64)
    study = full._replace(unseen=60, training=training, parts={kind: asked}, rounds=1)
    monkeypatch.setitem(studies.STUDIES, name, study)
    for method in ("FT", "RL"):
        first = {k: v[:1] for k, v in compared.TRIED[method].items()}
        monkeypatch.setitem(compared.TRIED, method, first)
    monkeypatch.setattr(compared, "_RELABEL", compared.TRIED["RL"])
    monkeypatch.setattr(tables, "ranked", lambda settings: {})
    assert training.dtype == "bfloat16"
    assert training.augment == "flip_crop"
    found = tables.search_tables(name, data, lambda line: None)
    assert found[kind]["trials"] == 3
    (tmp_path / "settings.json").write_text(json.dumps(found))
    plan = tables.tables_plan(name, kind, folder=tmp_path)
    results = experiment(plan, data, tmp_path / "run")
    assert set(results["rows"]) == {
        *("retrain", "null", "original", "ft", "rl", "rl-falw-anchored")
    }
