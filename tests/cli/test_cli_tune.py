"""The search of settings on a user's own data and model, of either kind."""

import csv
import dataclasses
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from small import NETWORK, refused, small_data

from jax_unlearn.cli import main, tune
from jax_unlearn.cli.config import check_known
from jax_unlearn.cli.habits import _leaves
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.space import grid_of
from jax_unlearn.lab.tuning import Search

EPOCH = ("--epochs", "1", "--batch-size", "32")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    users = np.char.add("user-", np.arange(100).astype(str))
    file = small_data(folder / "data.npz", user_id_train=users)
    source = ["--data", str(file)]
    tiny = ["--widths", "4", "--attention", "0", "--timesteps", "30", "--steps", "3"]
    main(["train", *source, *NETWORK, "--out", str(folder / "classifier")])
    kind = ["--modality", "diffusion", "--batch-size", "16"]
    main(["train", *source, *kind, *tiny, "--out", str(folder / "generator")])
    (folder / "del.csv").write_text("user-3\nuser-7\nuser-20\nuser-41\n")
    return folder


def words(made, out, *options, model="classifier"):
    source = ["--data", made / "data.npz", "--checkpoint", made / model, "--out", out]
    return [str(word) for word in ["tune", *options, *source]]


def rows(out):
    with (out / "trials.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def timeless(found):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


LIST = "--forget", "{made}/del.csv", "--key-column", "user_id"
SHARED = (*LIST, "--trials", "3", "--seeds", "3", "4", *EPOCH)


@pytest.fixture(scope="module")
def searched(made, tmp_path_factory):
    """Two methods, three trials each, beside Retrains of the search's own."""
    out = tmp_path_factory.mktemp("searched") / "tuned"
    shared = [word.format(made=made) for word in SHARED]
    main(words(made, out, "finetune", "scrub", "--forget-epochs", "1", *shared))
    return out


def test_methods_get_equal_trials_and_the_best_is_that_nearest_to_retrain(searched):
    found = json.loads((searched / "tuning.json").read_text())
    assert found["by"] == "avg_gap"
    assert found["trials"] == {"FT": 3, "SCRUB": 3}
    table = rows(searched)
    assert [row["method"] for row in table] == ["FT"] * 3 + ["SCRUB"] * 3
    assert all(row["seeds"] == "2" for row in table)
    assert float(table[0]["learning_rate"]) == 0.1  # the middle of what the card names
    assert len({row["learning_rate"] for row in table[:3]}) == 3
    assert all(0.01 <= float(row["learning_rate"]) <= 0.6 for row in table[:3])
    assert {"forget_epochs", "epochs"}.isdisjoint(table[3])  # given, not searched
    best = min(table, key=lambda row: float(row["avg_gap"]))
    chosen = tomllib.loads((searched / "best.toml").read_text())
    assert chosen["learning-rate"] == float(best["learning_rate"])
    assert next(iter(found["settings"])) == best["method"]
    for label in ("FT", "SCRUB"):
        setting = Unlearning.of(**found["settings"][label])
        assert (setting.epochs, setting.batch_size) == (1, 32)
        own = tomllib.loads((searched / f"best-{label.lower()}.toml").read_text())
        assert own["method"] == setting.method
    assert (searched / "models" / "seed-3" / "retrain" / "record.json").exists()


def test_the_best_settings_are_options_of_unlearn(made, searched, tmp_path):
    told = (searched / "best.toml").read_text().splitlines()[0]
    command = told.partition("; jax-unlearn ")[2].split()
    assert command[0] == "unlearn"
    main([*command, "--out", str(tmp_path / "unlearned")])
    record = json.loads((tmp_path / "unlearned" / "record.json").read_text())
    chosen = json.loads((searched / "tuning.json").read_text())["settings"]
    best = Unlearning.of(**next(iter(chosen.values())))
    assert Unlearning.read(record["unlearning"]) == best
    assert record["forgotten"] == 4


def test_a_search_is_gone_on_with_and_makes_no_trial_twice(
    made, searched, monkeypatch, capsys
):
    before = rows(searched)
    measure, seen = Search.measure, []

    def counted(self, setting, seed):
        seen.append((setting.method, seed))
        return measure(self, setting, seed)

    monkeypatch.setattr(Search, "measure", counted)
    shared = [word.format(made=made) for word in SHARED]
    given = "finetune", "scrub", "--forget-epochs", "1", *shared
    main(words(made, searched, *given))
    assert (seen, rows(searched)) == ([], before)
    main(words(made, searched, *given, "--trials", "4"))
    assert seen == [(m, s) for m in ("finetune", "scrub") for s in (3, 4)]
    after = rows(searched)
    assert after[:3] == before[:3]
    assert after[4:7] == before[3:]
    main(words(made, searched, *given))  # fewer ask for nothing
    capsys.readouterr()
    other = "finetune", *("5" if word == "3" else word for word in shared)
    line = refused(capsys, words(made, searched, *other))
    assert "holds a search of ft with other settings" in line
    assert "--out" in line
    assert rows(searched) == after


def test_a_stopped_search_ends_as_an_uninterrupted_one(
    made, searched, tmp_path, monkeypatch, capsys
):
    """Stopped in the second seed of the second trial; the first is not made again."""
    measure, seen = Search.measure, []

    def stopped(self, setting, seed):
        seen.append(seed)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return measure(self, setting, seed)

    monkeypatch.setattr(Search, "measure", stopped)
    given = "finetune", *(word.format(made=made) for word in SHARED)
    out = tmp_path / "tuned"
    with pytest.raises(SystemExit) as caught:
        main(words(made, out, *given))
    assert caught.value.code == 130
    main(words(made, out, *given))
    assert seen == [3, 4, 3, 4, 4, 3, 4]
    found, whole = timeless(rows(out)), timeless(rows(searched))[:3]
    numbers = [row.pop("trial") for row in found]
    assert numbers == ["0", "2", "3"]  # the second was passed on
    assert (
        found[:2]
        == [{k: v for k, v in row.items() if k != "trial"} for row in whole][:2]
    )


@pytest.mark.slow
def test_workers_share_a_study_and_no_retrain_is_needed(made, tmp_path, capsys):
    """Two processes, a database, requests drawn like a class, nothing trained."""
    share(made, tmp_path, capsys)


def test_workers_one_after_another_share_a_study(made, tmp_path, capsys, monkeypatch):
    """The same in this process: each worker is given its command once."""

    def run(given, count, look):
        for _ in range(count):
            main(list(given))
            look()

    monkeypatch.setattr(tune, "run_workers", run)
    share(made, tmp_path, capsys)


def share(made, tmp_path, capsys):
    """Search by two workers, and alone."""
    out, study = tmp_path / "tuned", f"sqlite:///{tmp_path / 's.db'}"
    given = "gradient_ascent", "--without-retrain", "--forget", "1", "--trials", "3"
    shared = "--study", study, "--seeds", "3", "4", *EPOCH
    main(words(made, out, *given, *shared, "--workers", "2"))
    printed = capsys.readouterr().out
    assert "GA 3/3: learning_rate=" in printed
    assert "best: GA, unseen_gap" in printed
    table = rows(out)
    assert [row["method"] for row in table] == ["GA"] * 3
    assert {"told_apart", "right", "lost"} < set(table[0])
    assert not (out / "models").exists()
    alone = tmp_path / "alone"
    main(words(made, alone, *given, "--seeds", "3", "4", *EPOCH))
    assert timeless(rows(alone)) == timeless(table)  # whoever makes them


def test_a_worker_that_fails_says_why(monkeypatch, tmp_path):
    stands = tmp_path / "python"
    stands.write_text("#!/bin/sh\necho jax-unlearn: $4 is at fault >&2; exit 2\n")
    stands.chmod(0o755)
    monkeypatch.setattr(tune, "POLL", 0.01)
    monkeypatch.setattr(tune.sys, "executable", str(stands))
    with pytest.raises(InputError, match="with status 2: method is at fault"):
        tune.run_workers(["tune", "method"], 2, lambda: None)


def test_a_diffusion_models_settings_are_searched_by_its_errors(made, tmp_path):
    out = tmp_path / "tuned"
    asked = "finetune", "--steps", "1", "--kind", "class", "--batch-size", "8"
    asked = *asked, "--trials", "2", "--seeds", "3", "4"
    main(words(made, out, *asked, model="generator"))
    table = rows(out)
    assert all(float(row["avg_gap"]) > 0 for row in table)
    assert all(float(row["deviation"]) > 0 for row in table)
    found = json.loads((out / "tuning.json").read_text())
    setting = Unlearning.of(**found["settings"]["FT"])
    assert (setting.modality, setting.steps) == ("diffusion", 1)


def test_a_flag_that_is_off_reaches_workers_and_files():
    known = {"exclude-true", "method"}
    check_known(Path("best.toml"), ["no-exclude-true"], known)
    with pytest.raises(InputError, match="'no-exclude'"):
        check_known(Path("best.toml"), ["no-exclude"], known)
    off = Chosen(exclude_true=False)
    assert list(_leaves("setting", Chosen, off)) == [("no-exclude-true", True)]
    assert list(_leaves("setting", Chosen, Chosen())) == [("exclude-true", True)]


@dataclasses.dataclass
class Chosen:
    exclude_true: bool = True


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


REFUSED = {
    "finetune --epochs 1 --learning-rate 0.5": "you gave every option that a search",
    "finetune --seeds 1": "--seeds 1",
    "finetune --seeds 0 1": "0 is the checkpoint's own",
    "finetune --kind odd": "unknown kind 'odd'",
    "finetune --forget {made}/del.csv --kind class": "leave --kind and --fraction out",
    "finetune --forget {made}/no.csv": "no.csv",
    "finetune finetune": "give each method once",
    "finetune nosuch": "unknown method 'nosuch'",
    "finetune --method scrub --rewind --keep 7": "keep=7.0",
    "finetune ssd --steps 3": "ssd does not count steps",
    "finetune --trials 0": "trials=0",
    "finetune --workers 0": "workers=0",
    "finetune --study {made}/data.npz": "is no journal of optuna",
    "finetune --out {made}": "holds files and no search",
    "finetune --kind near --without-retrain": "leave --without-retrain out",
    "short_retrain finetune --selection 3": "--selection is read with --method ssd",
}


@pytest.mark.parametrize("asked", REFUSED)
def test_what_cannot_be_searched_is_refused(made, tmp_path, capsys, asked):
    out = tmp_path / "out"
    given = [word.format(made=made) for word in asked.split()]
    own = ["--out", out] if "--out" not in given else []
    source = ["--data", made / "data.npz", "--checkpoint", made / "classifier"]
    line = refused(capsys, ["tune", *given, *source, *own])
    assert REFUSED[asked] in line
    assert not out.exists()


def test_a_search_of_nothing_is_that_of_the_demo(made, capsys):
    line = refused(capsys, ["tune", "--data", made / "data.npz"])
    assert "no --checkpoint searches the settings of the demo" in line


def test_optuna_is_asked_for_in_one_line(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    line = refused(capsys, words(made, tmp_path / "out", "finetune"))
    assert 'pip install "jax-unlearn[tune]"' in line


def test_a_folder_is_begun_anew_where_asked_to(made, tmp_path, capsys):
    out = tmp_path / "tuned"
    out.mkdir()
    (out / "tuning.json").write_text("{}")
    (out / "study.journal").write_text("broken")
    given = "gradient_ascent", "--without-retrain", "--trials", "1", *EPOCH
    line = refused(capsys, words(made, out, *given))
    assert "is no journal of optuna" in line
    asked = *words(made, out, *given), "--overwrite"
    refused(capsys, [*asked, "--kind", "near"])
    assert (out / "study.journal").read_text() == "broken"  # nothing is lost by that
    main(list(asked))
    assert len(rows(out)) == 1
