"""A whole experiment, small: its folder, its rows, its references."""

import json

import jax
import numpy as np
import pytest
from toys import small_plan

from jax_unlearn import report
from jax_unlearn.cli.console import open_console
from jax_unlearn.cli.recipe import screen_of
from jax_unlearn.data import Dataset, Examples, digits, load_manifest
from jax_unlearn.drivers.series import Series, locked
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Plan, Training, Unlearning, draw_request, experiment
from jax_unlearn.lab.results import NULL, ORIGINAL, RETRAIN
from jax_unlearn.lab.store import load_model

SEEDS = 0, 1, 2  # three: fewer make no verdict
METHODS = {
    "FT": Unlearning.of(method="finetune", epochs=1, batch_size=32),
    "RL + LoReUn": Unlearning.of(weighting="loreun", epochs=1, batch_size=32),
}


def plan(**changes) -> Plan:
    settings = {
        "kind": "long_tailed",
        "fraction": 0.3,
        "unseen": 60,
        "training": Training(network="mlp", width=8, epochs=3, batch_size=32),
        "methods": METHODS,
        "seeds": SEEDS,
    }
    return small_plan(**{**settings, **changes})


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    full = digits()
    keep, test = full.train.labels < 4, full.test.labels < 4
    return Dataset(
        "four digits",
        Examples(full.train.inputs[keep][:200], full.train.labels[keep][:200]),
        Examples(full.test.inputs[test][:80], full.test.labels[test][:80]),
        4,
        ("0", "1", "2", "3"),
    )


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment") / "run"
    phases = []
    results = experiment(
        plan(),
        dataset,
        folder,
        progress=lambda phase, done, total: phases.append((phase, done, total)),
    )
    return folder, results, phases


def test_the_folder_holds_the_whole_run(run, dataset):
    folder, results, _ = run
    assert json.loads((folder / "results.json").read_text()) == results
    config = json.loads((folder / "config.json").read_text())
    assert config["plan"]["methods"]["RL + LoReUn"]["weighting"] == "loreun"
    for seed in SEEDS:
        split, unseen = load_manifest(
            folder / "splits" / f"seed-{seed}.json", labels=dataset.train.labels
        )
        store = folder / "checkpoints" / f"seed-{seed}"
        everything = np.union1d(split.forget, split.retain)
        for name in ("original", "retrain", "null", "ft", "rl-loreun"):
            stored = load_model(store / name, dataset)
            ids = everything if name == "original" else split.retain
            np.testing.assert_array_equal(stored.ids, ids)
            np.testing.assert_array_equal(stored.unseen, unseen)


def test_the_report_is_drawn_of_what_the_run_returned(run, tmp_path):
    page = report.write(run[1], tmp_path / "report.html").read_text()
    assert "RL + LoReUn" in page
    assert page == report.render(report.load_results(run[0] / "results.json"))


def test_every_row_stands_beside_retrain_and_the_null(run):
    rows = run[1]["rows"]
    assert list(rows) == [RETRAIN, NULL, ORIGINAL, "ft", "rl-loreun"]
    assert rows[RETRAIN]["avg_gap"]["per_seed"] == [0.0] * len(SEEDS)
    assert rows[RETRAIN]["tow"]["mean"] == 1.0
    assert rows[NULL]["deviation"]["mean"] > 0
    for key in (ORIGINAL, "ft", "rl-loreun"):
        found = rows[key]["comparison"]["metrics"]["ua"]
        assert found["verdict"] in ("inside", "outside")
        expected = (
            rows[key]["metrics"]["ua"]["mean"] - rows[RETRAIN]["metrics"]["ua"]["mean"]
        )
        assert found["difference"] == pytest.approx(expected)
        assert sum(rows[key]["histograms"]["unseen"]) == len(SEEDS) * 60
    assert rows["ft"]["comparison"]["against_nothing"]["pairs"] == len(SEEDS)


def test_the_weights_of_the_first_seed_fall_with_the_loss(run):
    points = run[1]["scatter"]["rl-loreun"]
    losses, weights = (np.array(points[f"first_{n}"]) for n in ("losses", "weights"))
    assert len(losses) == len(weights) > 0
    assert np.corrcoef(losses, weights)[0, 1] < 0


def test_every_phase_reports_from_its_first_to_its_last_step(run):
    phases = run[2]
    starts = [phase for phase, done, _ in phases if done == 0]
    assert starts == len(SEEDS) * [
        *("Original", "Retrain", "null (Retrain, other seed)"),
        *METHODS,
    ]
    assert sum(done == total for _, done, total in phases) == len(starts)


def test_unlearning_starts_from_the_original(run, dataset):
    store = run[0] / "checkpoints" / "seed-0"
    original, retrain, unlearned = (
        jax.tree.leaves(load_model(store / name, dataset).trained.params)
        for name in ("original", "retrain", "rl-loreun")
    )

    def distance(a, b):
        return sum(float(np.square(x - y).sum()) for x, y in zip(a, b, strict=True))

    assert 0 < distance(unlearned, original) < distance(retrain, original)


def test_base_model_and_request_come_from_one_split(dataset):
    request, split = draw_request(plan(), dataset, 3)
    parts = (request.forget, request.retain, request.unseen)
    assert len(np.unique(np.concatenate(parts))) == len(dataset.train.labels)
    assert (
        split.manifest["forget_counts"]
        == np.bincount(dataset.train.labels[request.forget], minlength=4).tolist()
    )


def test_what_cannot_be_run_is_refused_before_anything_is_written(dataset, tmp_path):
    with pytest.raises(InputError, match="at least two different"):
        plan(seeds=(1, 1))
    (tmp_path / "note.txt").write_text("kept")
    with pytest.raises(InputError, match="already holds files"):
        experiment(plan(), dataset, tmp_path)
    with pytest.raises(InputError, match="infeasible"):
        experiment(plan(fraction=0.99), dataset, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_goes_on_where_it_stopped(run, dataset):
    folder, results, _ = run
    phases = []
    more = METHODS | {"RL": Unlearning.of(epochs=1, batch_size=32)}
    again = experiment(
        plan(methods=more),
        dataset,
        folder,
        progress=lambda phase, done, total: phases.append((phase, done, total)),
        resume=True,
    )
    made = {phase for phase, done, total in phases if total > 1}
    assert made == {"RL"}  # all else was found
    for key in ("ft", "rl-loreun"):
        assert again["rows"][key] == results["rows"][key]
    assert again["scatter"] == results["scatter"]
    assert json.loads((folder / "results.json").read_text()) == again


def test_a_run_of_another_request_is_not_gone_on_with(run, dataset):
    with pytest.raises(InputError, match="other data, training or request"):
        experiment(plan(fraction=0.2), dataset, run[0], resume=True)
    other = METHODS | {"FT": Unlearning.of(method="finetune", epochs=2, batch_size=32)}
    config = run[0] / "config.json"
    before = config.read_text()
    with pytest.raises(InputError, match="made with another setting"):
        experiment(plan(methods=other), dataset, run[0], resume=True)
    assert config.read_text() == before  # the plan of what is there


def test_near_and_far_requests_share_the_original_of_another_run(
    run, dataset, tmp_path
):
    methods = {"FT": METHODS["FT"]}
    near, far = (
        experiment(
            plan(kind=kind, methods=methods),
            dataset,
            tmp_path / kind,
            originals=run[0],
        )
        for kind in ("near", "far")
    )
    assert not (tmp_path / "near" / "checkpoints" / "seed-0" / "original").exists()
    first, second = (
        load_manifest(tmp_path / kind / "splits" / "seed-0.json")[0]
        for kind in ("near", "far")
    )
    assert first.manifest["kind"] == "near"
    assert first.manifest["forget_counts"] == second.manifest["forget_counts"]
    assert len(np.intersect1d(first.forget, second.forget)) == 0
    assert report.render(near) != report.render(far)


def test_a_diverging_method_names_itself_and_the_last_good_checkpoint(
    dataset, tmp_path
):
    bad = {"GA": Unlearning.of(method="gradient_ascent", learning_rate=1e30, epochs=9)}
    words = "GA .*at step .*last good checkpoint"
    with pytest.raises(InputError, match=words) as caught:
        experiment(plan(methods=bad), dataset, tmp_path / "run")
    path = str(caught.value).rsplit(" ", 1)[1]
    assert load_model(path, dataset).record["network"]["name"] == "mlp"
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_diverging_method_has_no_row_beside_others(dataset, run, tmp_path, capsys):
    bad = Unlearning.of(method="finetune", epochs=1, batch_size=32, learning_rate=1e30)
    results = experiment(
        plan(methods={"FT": METHODS["FT"], "Wild": bad}, seeds=SEEDS[:2], note="Mine."),
        dataset,
        tmp_path / "run",
        originals=run[0],
        retrains=run[0],
    )
    assert list(results["rows"]) == [RETRAIN, NULL, ORIGINAL, "ft"]
    alone = run[1]["rows"]["ft"]["avg_gap"]["per_seed"][:2]
    assert results["rows"]["ft"]["avg_gap"]["per_seed"] == alone
    (why,) = results["diverged"].values()
    assert why.startswith("Wild (seed 0) with learning_rate=1e+30, the loss")
    assert "not finite at step" in why
    assert results["plan"]["note"] == f"Mine. No row, because it diverged: {why}."
    screen_of(open_console()).show([results])
    said = "o row, because it diverged: Wild (seed 0)"
    assert said in report.render(results)
    assert said in capsys.readouterr().out


class Killed(BaseException):
    """What a test raises where a process would be gone."""


def timeless(value):
    """Return results without what a clock said."""
    if isinstance(value, dict):
        kept = {k: timeless(v) for k, v in value.items() if "second" not in k}
        return {k: v for k, v in kept.items() if k not in ("rte", "measured")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def test_killed_inside_models_the_results_are_the_same(
    run, dataset, tmp_path, monkeypatch
):
    save = Series.save
    for name, step in (("retrain", 4), ("rl-loreun", 2)):

        def last(self, at, state, name=name, step=step):
            path = save(self, at, state)
            if at == step and self.folder.name == f"{name}.partial":
                raise Killed
            return path

        with monkeypatch.context() as patch:
            patch.setattr(Series, "save", last)
            with pytest.raises(Killed):
                experiment(plan(), dataset, tmp_path, resume=True, save_every=0)
    found = experiment(plan(), dataset, tmp_path, resume=True)
    assert timeless(found) == timeless(run[1])
    assert [*tmp_path.rglob("*.partial"), *tmp_path.rglob(".lock")] == []


def test_a_run_that_goes_on_elsewhere_is_refused(dataset, tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(InputError, match="in use by another run"),
    ):
        experiment(plan(), dataset, tmp_path)
