"""The commands on diffusion models, on files, at the smallest size."""

import functools
import json

import jax
import numpy as np
import pytest
from inception_arrays import drawn
from small import refused, small_data

from jax_unlearn import audit
from jax_unlearn.audit.inception import inception_shapes
from jax_unlearn.cli import forget, main
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.lab.ledger import read
from jax_unlearn.lab.modalities.classification.networks import Training
from jax_unlearn.lab.modalities.diffusion import figures
from jax_unlearn.lab.modalities.diffusion.settings import Sampling
from jax_unlearn.lab.store import load_model

TINY = ["--widths", "4", "--attention", "0", "--timesteps", "30", "--steps", "3"]
TINY += ["--batch-size", "16"]
DRAWN = ["--sampling-steps", "2"]
RELABEL = ["--forget", "1", "--steps", "2", "--batch-size", "8", "--replace", "next"]
RELABEL += ["--weighting", "loreun"]


def generate(*arguments):
    main(["generate", *(str(a) for a in arguments)])


@pytest.fixture(autouse=True)
def alike(monkeypatch):
    """Measure parts of one size: they are one program."""
    monkeypatch.setattr(figures, "MEASURED", 2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generate")
    data = small_data(folder / "data.npz")
    source = ["--data", data]
    generate("train", *source, *TINY, "--out", folder / "original")
    generate("train", *source, *TINY, "--forget", "1", "--out", folder / "retrained")
    generate(
        *("unlearn", "salun", *source, "--checkpoint", folder / "original", *RELABEL),
        *("--out", folder / "salun"),
    )
    return folder


def test_the_record_says_what_was_forgotten(made):
    record = read_record(made / "salun")
    assert record["forgotten_as"] == "1"
    assert record["forgotten"] > 0
    assert record["unlearning"]["weighting"] == "loreun"
    assert record["unlearning"]["modality"] == "diffusion"
    assert record["unlearning"]["modality_options"]["replace"] == "next"
    assert record["num_ids"] == read_record(made / "retrained")["num_ids"]


def test_a_complete_model_is_not_made_again(made, capsys):
    source = ["--data", made / "data.npz", "--resume"]
    generate("train", *source, *TINY, "--out", made / "original")
    ask = ["unlearn", "salun", *source, "--checkpoint", made / "original", *RELABEL]
    generate(*ask, "--out", made / "salun")
    assert capsys.readouterr().out.count("is complete; nothing to resume") == 2
    other = [*ask, "--seed", "4", "--out", made / "salun"]
    told = refused(capsys, ["generate", *other])
    assert "was made with another setting, seed" in told


def test_images_are_drawn_and_the_same_again(made):
    ask = ("sample", "--checkpoint", made / "salun", *DRAWN, "--count", "2")
    for name in ("a.npz", "b.npz"):
        generate(*ask, "--classes", "0", "2", "--out", made / name)
    first, second = (np.load(made / name) for name in ("a.npz", "b.npz"))
    assert first["images"].shape == (4, 8, 8, 1)
    assert first["asked"].tolist() == ["0", "0", "2", "2"]
    np.testing.assert_array_equal(first["images"], second["images"])
    generate(*ask, "--out", made / "grid.png")
    assert (made / "grid.png").read_bytes()[:4] == b"\x89PNG"


def test_the_audit_writes_figures_and_a_page(made, capsys):
    generate(
        "audit",
        *("--data", made / "data.npz", "--original", made / "original"),
        *("--unlearned", made / "salun", "--retrained", made / "retrained"),
        *("--forget", "1", "--network", "mlp", "--width", "8", "--epochs", "1"),
        *("--per-class", "8", *DRAWN, "--out", made / "found.json"),
    )
    told = " ".join(capsys.readouterr().out.split())
    assert "The target is Retrain's value" in told
    found = json.loads((made / "found.json").read_text())
    assert set(found["rows"]) == {"original", "retrain", "salun"}
    row = found["runs"][0]["rows"]["salun"]
    confusion = np.array(row["confusion"])
    assert confusion.sum(axis=1).tolist() == [8, 8, 8]
    assert row["ua"] == pytest.approx(100 * (1 - confusion[1, 1] / 8))
    assert "salun" in (made / "found.html").read_text()


def audited_fid(made, name, weights):
    np.savez(
        weights, **{at: drawn(at, shape) for at, shape in inception_shapes().items()}
    )
    generate(
        "audit",
        *("--data", made / "data.npz", "--original", made / "original"),
        *("--inception", weights, "--forget", "1", "--per-class", "8", *DRAWN),
        *("--network", "mlp", "--width", "8", "--epochs", "1", "--out", made / name),
    )
    found = json.loads((made / name).read_text())
    assert found["plan"]["inception"]["file"] == weights.name
    assert 0 < found["floor"]["fid"] < found["rows"]["original"]["fid"]["mean"]
    assert "<dt>FID</dt>" in (made / name).with_suffix(".html").read_text()


def test_the_audit_tells_fid_in_features_of_small_images(made, capsys, monkeypatch):
    features = functools.partial(audit.inception_features, size=75)

    def few(weights, images):
        return features(weights, images)[:, ::8]  # roots of 2048 x 2048 take seconds

    monkeypatch.setattr(audit, "inception_features", few)
    audited_fid(made, "small.json", made / "fid.npz")
    assert "FID of as many real images" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_audit_tells_fid(made):
    audited_fid(made, "fid.json", made / "fid.npz")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "unlearn --data D --checkpoint original --forget 7 --out x",
            "unknown class '7'",
        ),
        (
            "unlearn --data D --checkpoint retrained --forget 1 --out x",
            "not trained on any image of it",
        ),
        (
            "unlearn --data D --checkpoint original --forget 1 --replace 1 --out x",
            "is to be forgotten itself",
        ),
        (
            "unlearn --data D --checkpoint original --forget 1 --out salun",
            "out=salun exists",
        ),
        (
            "unlearn --data D --checkpoint original --forget 1 --method forget",
            "unknown method 'forget'",
        ),
        (
            "sample --checkpoint original --sampling-steps 31",
            "--sampling-steps=31: this model has 30 timesteps",
        ),
        ("sample --checkpoint original --prompts cat", "was trained on classes"),
        ("sample --checkpoint original --out x.gif", "write a .png or an .npz"),
        ("sample --checkpoint nothing", "does not exist"),
        ("train --data D --timesteps 0", "timesteps=0 must be at least 1"),
        ("train --data D --widths 4 8 16 32 64 --out new", "multiples of 16"),
        ("train --data D --forget 0 1 2", "nothing is left to train on"),
        ("train --data D --reduce 3", "factor=3 must divide the sides"),
        (
            "audit --data D --original original --forget 1 --inception x.npz",
            "x.npz: no such file; give the FID weights",
        ),
        ("fly", "unknown command 'fly'"),
    ],
)
def test_bad_input_is_one_line(made, capsys, monkeypatch, command, message):
    monkeypatch.chdir(made)
    words = command.replace(" D", " data.npz").split()
    assert message in refused(capsys, ["generate", *words])
    assert not (made / "x").exists()


def test_guidance_needs_a_model_trained_for_it(made, capsys, monkeypatch):
    monkeypatch.chdir(made)
    plain = [*TINY, "--drop", "0", "--out", "plain"]
    generate("train", "--data", "data.npz", *plain)
    line = refused(capsys, ["generate", "sample", "--checkpoint", "plain"])
    assert "without a null condition; use --guidance-scale 1" in line
    line = refused(
        capsys,
        ["generate", "unlearn", "--data", "data.npz", "--checkpoint", "plain"]
        + ["--forget", "1", "--method", "esd", "--out", "esd"],
    )
    assert "method='esd' needs the null condition" in line


def test_words_are_forgotten_by_prompt(made, capsys, monkeypatch):
    monkeypatch.chdir(made)
    source = ["--data", "data.npz"]
    generate("train", *source, *TINY, "--condition", "text", "--out", "text")
    generate(
        "unlearn",
        *(*source, "--checkpoint", "text", "--forget", "bold", "--replace", "thin"),
        *("--steps", "1", "--batch-size", "8", "--out", "thin"),
    )
    ask = ["sample", "--checkpoint", "thin", *DRAWN, "--count", "1", "--prompts"]
    generate(*ask, "a bold 1", "a thin 1", "--out", "text.png")
    assert "unknown word 'blod'" in refused(capsys, ["generate", *ask, "a blod 1"])
    assert "the model reads 4" in refused(
        capsys, ["generate", *ask, "a a a a a", "--out", "y.png"]
    )


def test_the_same_commands_serve_diffusion_models(made, capsys, monkeypatch):
    """The kind of model is asked for once, and read from its checkpoint after that."""
    monkeypatch.chdir(made)
    source = ["--data", "data.npz"]
    main(["train", *source, "--modality", "diffusion", *TINY, "--out", "same"])
    first, second = (load_model(made / name) for name in ("original", "same"))
    assert second.modality.name == "diffusion"
    jax.tree.map(
        np.testing.assert_array_equal, first.trained.params, second.trained.params
    )
    main(["unlearn", "salun", *source, "--checkpoint", "original", *RELABEL])
    plain, alias = load_model(made / "unlearned"), load_model(made / "salun")
    assert alias.record["unlearning"] == plain.record["unlearning"]
    jax.tree.map(
        np.testing.assert_array_equal, alias.trained.params, plain.trained.params
    )
    main(
        ["audit", *source, "--original", "same", "--unlearned", "salun"]
        + ["--forget", "1", "--network", "mlp", "--width", "8", "--epochs", "1"]
        + ["--per-class", "2", *DRAWN, "--out", "two.json"]
    )
    found = json.loads((made / "two.json").read_text())
    assert set(found["rows"]) == {"original", "salun"}
    assert "are not recognised as it (before" in found["advice"][0]
    assert "--original same --retrain --forget 1" in found["advice"][1]


def test_a_chain_of_classes_on_a_diffusion_model(made, capsys, monkeypatch):
    monkeypatch.chdir(made)
    ask = ["chain", "--data", "data.npz", "--checkpoint", "original", "--steps", "2"]
    ask += ["--batch-size", "8", "--out", "chain", "--requests", "1", "2"]
    main(ask)
    assert "request 2: forgot" in capsys.readouterr().out
    entries = read(made / "chain" / "ledger.jsonl")
    assert [entry["number"] for entry in entries] == [1, 2]
    with np.load(made / "data.npz") as data:
        labels = data["y_train"]
    stored = load_model(made / "chain" / "request-2")
    assert stored.modality.name == "diffusion"
    assert set(labels[stored.ids]) == {0}
    assert entries[1]["left"] == len(stored.ids)
    line = refused(capsys, [*ask, "7"])
    assert "unknown class '7'" in line


def test_one_shot_methods_count_no_steps_on_diffusion_models(made, monkeypatch):
    monkeypatch.chdir(made)
    ask = ["--data", "data.npz", "--checkpoint", "original", "--forget", "1"]
    main(["unlearn", "ssd", *ask, "--batch-size", "32", "--out", "ssd"])
    assert read_record(made / "ssd")["unlearning"]["steps"] == 0


def test_guards_of_accuracy_are_refused_on_diffusion_models(made, capsys):
    ask = ["unlearn", "--data", made / "data.npz", "--checkpoint", made / "original"]
    ask += ["--forget", "1", "--guard-utility", "90", "--out", made / "x"]
    assert "diffusion models have no accuracy to look at" in refused(capsys, ask)
    assert not (made / "x").exists()


def test_a_class_is_forgotten_by_the_command_for_the_whole_job(
    made, tmp_path, capsys, monkeypatch
):
    quick = functools.partial(Training, network="mlp", width=8, epochs=1)
    monkeypatch.setattr(forget, "Training", quick)
    few = functools.partial(Sampling, sampling_steps=2)
    monkeypatch.setattr(forget, "Sampling", few)
    words = ["forget", "--data", made / "data.npz", "--request", "1", "--steps", "2"]
    words += ["--checkpoint", made / "original", "--batch-size", "8"]
    words += ["--retrained", made / "retrained", made / "again", "--per-class", "8"]
    again = ["--original", made / "original", "--retrain", "--forget", "1"]
    again += ["--data", made / "data.npz", "--seed", "2", "--out", made / "again"]
    main(["train", *map(str, again)])
    generate(*words, "--out", tmp_path / "served")
    files = {path.name for path in (tmp_path / "served").iterdir()}
    assert files == {"unlearned", "audit.json", "report.html", "record.json"}
    record = json.loads((tmp_path / "served" / "record.json").read_text())
    assert record["unlearning"]["method"] == "random_label"
    assert record["conclusion"].startswith("Asked for '1', ")
    assert "a Retrain's" in record["conclusion"]
    assert "No verdict: shares of drawn images are not tested" in record["conclusion"]
    rows = json.loads((tmp_path / "served" / "audit.json").read_text())["rows"]
    assert list(rows) == ["retrain", "null", "original", "unlearned"]
    assert "What to do next" in (tmp_path / "served" / "report.html").read_text()
    said = capsys.readouterr().out
    assert said.rstrip().endswith(record["conclusion"])
    assert " ".join(said.split()).count("No verdict: shares of drawn") == 1


def test_single_images_are_forgotten_and_audited(made, tmp_path, capsys):
    trained = load_model(made / "original").ids
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{number}\n" for number in trained[:2]))
    whom = ["--data", made / "data.npz", "--forget", ids]
    generate(
        *("unlearn", "siss", *whom, "--checkpoint", made / "original", "--steps", "2"),
        *("--batch-size", "8", "--mixture", "0.3", "--out", tmp_path / "siss"),
    )
    record = read_record(tmp_path / "siss")
    assert record["forgotten"] == 2
    assert record["unlearning"]["options"]["mixture"] == 0.3
    again = ["--original", made / "original", "--retrain"]
    generate("train", *whom, *again, "--out", tmp_path / "retrained")
    capsys.readouterr()
    generate(
        *("audit", *whom, "--original", made / "original"),
        *("--unlearned", tmp_path / "siss", "--retrained", tmp_path / "retrained"),
        *("--network", "mlp", "--width", "8", "--epochs", "1", "--per-class", "8"),
        *(*DRAWN, "--out", tmp_path / "found.json"),
    )
    told = " ".join(capsys.readouterr().out.split())
    assert "Noised and denoised, 2 images come back from siss at a distance of" in told
    assert "Returned at: a forgotten image is noised" in told
    found = json.loads((tmp_path / "found.json").read_text())
    rows = found["rows"]
    assert rows["retrain"]["nearer"]["mean"] == 50.0
    assert rows["siss"]["returned_gap"]["mean"] >= 0
    assert 0 < rows["original"]["returned"]["mean"] != rows["siss"]["returned"]["mean"]
    for row in rows.values():
        assert "ua" not in row
        assert 0 <= row["nearer"]["mean"] <= 100
        assert row["unseen_returned"]["mean"] > 0
    (run,) = found["runs"]
    assert (run["class"], run["forget_images"]) == (None, 2)
    assert [sum(row) for row in run["rows"]["siss"]["confusion"]] == [8, 8, 8]
    page = (tmp_path / "found.html").read_text()
    assert "Forget 2 images" in page
    assert "forget single images" in page


def test_models_without_conditions_forget_images_and_draw_of_no_class(
    made, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data = ["--data", made / "data.npz"]
    generate("train", *data, *TINY, "--condition", "none", "--out", "bare")
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{n}\n" for n in load_model(tmp_path / "bare").ids[:2]))
    asked = [*data, "--checkpoint", "bare", "--batch-size", "8", "--steps", "2"]
    generate("unlearn", "siss", *asked, "--forget", ids, "--out", "siss")
    judged = ["--original", "bare", "--unlearned", "siss", "--per-class", "8", *DRAWN]
    judged += ["--network", "mlp", "--width", "8", "--epochs", "1"]
    judged += ["--guidance-scale", "1"]
    generate("audit", *data, *judged, "--forget", ids, "--out", "images.json")
    generate("audit", *data, *judged, "--forget", "1", "--out", "class.json")
    told = " ".join(capsys.readouterr().out.split())
    assert "Noised and denoised, 2 images come back from siss at" in told
    assert "Of the images that siss draws," in told
    assert "other classes" not in told
    for name, own in (("images", "returned"), ("class", "ua")):
        found = json.loads((tmp_path / f"{name}.json").read_text())
        for row in found["rows"].values():
            assert own in row
            assert "retained_accuracy" not in row
        assert found["runs"][0]["rows"]["siss"]["by_class"] == [None] * 3
        page = (tmp_path / f"{name}.html").read_text()
        assert "Images of no class that was asked for" in page
        assert "Share recognised by class" not in page
    small = ["--guidance-scale", "1", *DRAWN]
    two = ["--count", "2", "--out", "drawn.npz"]
    generate("sample", "--checkpoint", "bare", *two, *small)
    assert np.load("drawn.npz")["asked"].tolist() == ["any class"] * 2
    for words, message in (
        (["sample", "--checkpoint", "bare", *DRAWN], "use --guidance-scale 1"),
        (
            ["sample", "--checkpoint", "bare", *small, "--classes", "1"],
            "leave them out",
        ),
        (["sample", "--checkpoint", "bare", *small, "--prompts", "1"], "without cond"),
        (["unlearn", *asked, "--forget", "1", "--out", "x"], "choose 'siss' or"),
        (["unlearn", "esd", *asked, "--forget", "1", "--out", "x"], "'neggrad_plus'"),
    ):
        assert message in refused(capsys, ["generate", *map(str, words)])
