"""Language models in the house: trained, unlearned, audited by ordinary commands."""

import dataclasses
import json
import random
import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jax_unlearn import report
from jax_unlearn.audit.language import read_results
from jax_unlearn.cli import main
from jax_unlearn.cli.sources import Source, asked
from jax_unlearn.data import Examples, read_json
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.modalities.language.networks import (
    LanguageNetwork,
    build,
    texts_of,
)
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.store import load_model, origin_of
from jax_unlearn.language.texts import read_texts
from jax_unlearn.language.tokens import save_tokenizer, train_tokenizer
from jax_unlearn.leaves import name_of

NAMES = ("Ann Low", "Bo Reed", "Cy Dun", "Di Fox")
TOWNS = ("Oslo", "Lima", "Rome", "Cork", "Bern")
TINY = ["--width", "16", "--layers", "1", "--heads", "2", "--vocabulary", "280"]
TINY += ["--packed", "64", "--batch-size", "8"]


class Files(NamedTuple):
    """What the commands wrote."""

    folder: Path
    data: list[str]
    original: Path
    retrained: Path
    unlearned: Path

    def command(self, name: str, *words: str) -> None:
        """Give a command on the data."""
        main([name, *self.data, *words])


def corpus(path: Path, names: tuple[str, ...], seed: int) -> Path:
    rng = random.Random(seed)
    rows = []
    for name in names:
        for verb in ("born", "taught", "seen"):
            answer = f"{name} in {rng.choice(TOWNS)} {rng.randint(10, 99)}."
            question = f"Where was {name} {verb}?"
            rows.append({"question": question, "answer": answer, "topic": name})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    """Base texts first, then the original and Retrain from it, then unlearning."""
    folder = tmp_path_factory.mktemp("language")
    base = corpus(folder / "base.jsonl", ("Xi Yu", "Zo Ng", "Wu Li"), 1)
    texts = corpus(folder / "qa.jsonl", NAMES, 0)
    parts = (folder / n for n in ("original", "retrained", "unlearned"))
    made = Files(folder, ["--data", str(texts)], *parts)
    language = ["--modality", "language"]
    start = str(folder / "base")
    epochs = ["--epochs", "1"]
    main(["train", *language, "--data", str(base), *TINY, *epochs, "--out", start])
    how = ["--start", start, *TINY, "--epochs", "3", "--unseen-fraction", "0.25"]
    made.command("train", *language, *how, "--out", str(made.original))
    forget = ["--forget", "Ann Low"]
    again = ["--original", str(made.original), "--retrain", *forget, "--seed", "1"]
    made.command("train", *language, *again, "--out", str(made.retrained))
    made.command(
        *("unlearn", "--checkpoint", str(made.original), *forget, "--steps", "3"),
        *("--out", str(made.unlearned)),
    )
    return made


def test_records_describe_network_and_tokenizer(files):
    base = read_json(files.folder / "base" / "record.json")
    record = read_json(files.original / "record.json")
    network = LanguageNetwork.from_record(record["decoder"])
    assert network.tokenizer_sha256 == base["decoder"]["tokenizer_sha256"]
    assert network.sha256  # of the base
    assert network.config.width == 16
    seen = network.tokenizer.saw(["Where was Xi Yu born?\n", "Ann"])
    assert seen == 0
    stored = load_model(files.original)
    assert np.array_equal(
        np.union1d(stored.ids, stored.unseen), np.arange(len(NAMES) * 3)
    )


def test_training_begins_from_the_base_and_unlearning_from_the_original(files):
    base, original = (load_model(files.folder / n) for n in ("base", "original"))
    unlearned = load_model(files.unlearned)

    def moved(first, second):
        leaves = [jax.tree.leaves(m.trained.params) for m in (first, second)]
        return max(float(abs(a - b).max()) for a, b in zip(*leaves, strict=True))

    assert 0 < moved(base, original) < 0.1
    assert 0 < moved(original, unlearned) < 0.01
    assert unlearned.record["forgotten_as"] == "Ann Low"
    assert unlearned.record["unlearning"]["method"] == "neggrad_plus"


def test_the_audit_has_targets_and_a_page(files, capsys):
    out = files.folder / "audit.json"
    files.command(
        *("audit", "--original", str(files.original), "--forget", "Ann Low"),
        *("--unlearned", str(files.unlearned), "--retrained", str(files.retrained)),
        *("--out", str(out), "--probes", "relearn", "int8"),
    )
    results = read_json(out)
    assert results["kind"] == "language"
    rows = results["rows"]
    assert list(rows) == ["retrain", "original", "0-unlearned"]
    for row in rows.values():
        assert 0 < row["figures"]["forget_probability"]["mean"] < 1
        assert row["figures"]["retain_perplexity"]["mean"] > 1
    assert rows["retrain"]["figures"]["deviation"]["mean"] == 0
    assert rows["original"]["figures"]["deviation"]["mean"] > 0
    for name in ("relearn_10", "relearn_50", "int8"):  # all are pressed alike
        assert 0 < rows["retrain"]["figures"][name]["mean"] < 1
    retrain, own = (rows[k]["figures"] for k in ("retrain", "0-unlearned"))
    assert own["relearn_50"]["mean"] > own["relearn_10"]["mean"]
    assert own["int8"]["mean"] != own["forget_probability"]["mean"]
    assert retrain["relearn_10"]["mean"] != own["relearn_10"]["mean"]
    page = report.render(results)
    assert "steps of Adam on the other half" in page
    assert "p, 10 steps relearned" in page
    assert "|p − p*|" in page
    assert "Retrain of another seed" not in page  # there is no null here
    said = capsys.readouterr().out
    assert "target" in said
    assert "No verdict" in said


def test_without_retrain_no_figure_has_a_target(files, capsys):
    out = files.folder / "bare.json"
    files.command(
        *("audit", "--original", str(files.original), "--forget", "Ann Low"),
        *("--out", str(out)),
    )
    assert "Without Retrain no figure has a target" in capsys.readouterr().out
    assert "no figure has a target" in report.render(read_json(out))


def test_results_of_open_unlearning_are_a_target_and_are_written(files, capsys):
    log, logs, out = (files.folder / n for n in ("TOFU_EVAL.json", "logs", "ou.json"))
    theirs = {"forget_Q_A_Prob": {"agg_value": 0.2}, "mia_loss": {"auc": 0.4}}
    theirs["mia_min_k"] = {"agg_value": 0.5, "auc": 0.5}
    log.write_text(json.dumps(theirs))
    asked = ["audit", "--original", str(files.original), "--forget", "Ann Low"]
    asked += ["--target", str(log)]
    files.command(*asked, "--logs", str(logs), "--out", str(out))
    rows = read_json(out)["rows"]
    assert rows["retrain"]["figures"]["forget_probability"]["mean"] == 0.2
    own = {name: figure["mean"] for name, figure in rows["original"]["figures"].items()}
    assert own["auc_gap"] == pytest.approx(abs(own["auc_loss"] - 0.4))
    assert own["privleak"] == pytest.approx((0.5 - own["auc_min_k"]) / 0.5 * 100)
    assert "target" in capsys.readouterr().out
    assert "Retrain (log)" in report.render(read_json(out))
    written = read_results(logs / "original_EVAL.json")
    probabilities = written["forget_Q_A_Prob"].by_index
    assert len(probabilities) == read_json(out)["texts"]["forget"]
    assert np.mean([*probabilities.values()]) == pytest.approx(
        own["forget_probability"]
    )
    for more, said in (
        (["--retrained", str(files.retrained)], "two targets; leave one of them out"),
        (["--stem"], "stem is for answers; give --answers 64"),
    ):
        with pytest.raises(SystemExit):
            files.command(*asked, *more, "--out", str(files.folder / "x.json"))
        assert said in capsys.readouterr().err
    log.write_text('{"other": 1.0}')
    with pytest.raises(SystemExit):
        files.command(*asked, "--out", str(files.folder / "x.json"))
    assert "has no forget_Q_A_Prob (it has other)" in capsys.readouterr().err


@pytest.mark.parametrize("packed", [0, 64])
def test_all_steps_of_an_unlearning_are_one_program(files, packed):
    source = Source(data=Path(files.data[1]))
    stored, subject, request, _ = asked(source, files.original, "Ann Low")
    told = {"method": "grad_diff", "packed_into": packed, "steps": 9, "batch_size": 4}
    setting = Unlearning.of(modality="language", **told)
    job = Preparer(subject)(setting, request, stored.trained, seed=0)
    assert job.schedule is not None
    forms = {str(jax.tree.map(np.shape, batch)) for batch in job.schedule}
    assert (len(job.schedule), len(forms)) == (9, 1)


@pytest.mark.parametrize(
    ("request_", "count"),
    [("Ann Low", None), ("Oslo", None), ("ids.csv", 2), ("0", None)],
)
def test_requests_are_topics_text_or_ids(files, request_, count):
    stored = load_model(files.original)
    if count:
        chosen = stored.ids[:count]
        (files.folder / request_).write_text("id\n" + "\n".join(map(str, chosen)))
        request_ = str(files.folder / request_)
    source = Source(data=Path(files.data[1]))
    _, subject, request, _ = asked(source, files.original, request_)
    assert 0 < len(request.forget) < len(stored.ids)
    if not count:
        words = "Ann Low" if request_ == "0" else request_
        for text in texts_of(subject.dataset, request.forget):
            assert words in text
    assert not len(np.intersect1d(request.forget, request.retain))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["unlearn", "--forget", "Nobody"], "no file, no topic, and in none of the"),
        (["unlearn", "--forget", "Where"], "names all that the model was trained on"),
        (["unlearn", "--forget", "bad.csv"], "99"),
        (["unlearn", "--method", "esd"], "which language models do not have"),
        (["train", "--length", "4"], "texts are longer, the longest has"),
        (["train", "--vocabulary", "9"], "vocabulary=9 must be at least 258"),
        (["train", "--heads", "5"], "heads=5 must divide it; try --heads 4"),
        (["train", "--modality", "classification"], "give --modality language"),
        (["train", "--modality", "diffusion"], "is a set of texts; use language"),
        (["split", "--kind", "long_tailed"], "goes by topics"),
    ],
)
def test_bad_input_is_told_in_one_line(files, capsys, monkeypatch, words, said):
    monkeypatch.chdir(files.folder)
    Path("bad.csv").write_text("id\n99\n")
    command, *rest = words
    data = files.data
    if command == "unlearn":
        rest = ["--checkpoint", "original", *rest, "--out", "x"]
        if "--forget" not in rest:
            rest += ["--forget", "Ann Low"]
    if command == "train":
        kind = [] if "--modality" in rest else ["--modality", "language"]
        rest = [*kind, *rest, "--out", "x"]
    if command == "split":
        rows = Path(files.data[1]).read_text().splitlines()
        bare = [{k: v for k, v in json.loads(r).items() if k != "topic"} for r in rows]
        Path("bare.json").write_text(json.dumps(bare))
        data, rest = ["--data", "bare.json"], [*rest, "--out", "s.json"]
    with pytest.raises(SystemExit) as ended:
        main([command, *data, *rest])
    assert ended.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in told
    assert not Path("x").exists()


def test_other_data_than_a_models_are_called_texts_and_topics(files, capsys):
    fewer = corpus(files.folder / "fewer.jsonl", NAMES[:3], 0)
    renamed = corpus(files.folder / "renamed.jsonl", (*NAMES[:3], "Ed Ray"), 0)
    for given, said in (
        (["--data", str(fewer)], "knows 4 topics, fewer.jsonl has 3"),
        (["--data", str(renamed)], "knows the topic 'Di Fox' where renamed.jsonl has"),
        (["--dataset", "digits"], "reads texts of shape (2,), digits has (8, 8, 1)"),
    ):
        asked = ["--checkpoint", str(files.original), "--forget", "Ann Low"]
        with pytest.raises(SystemExit):
            main(["unlearn", *asked, *given, "--out", str(files.folder / "x")])
        assert said in capsys.readouterr().err


def test_a_model_answers_and_its_texts_are_scored(files, capsys):
    asked = ["ask", "Where was Bo Reed born?", "Who?", "--max-tokens", "5"]
    main([*asked, "--checkpoint", str(files.original)])
    said = capsys.readouterr().out
    assert "Where was Bo Reed born?\n  " in said
    out = files.folder / "scores.json"
    files.command(
        *("score", "--checkpoint", str(files.original), "--out", str(out)),
        *("--unseen", str(files.folder / "base.jsonl")),
        *("--reference", str(files.folder / "base")),
        *("--logs", str(files.folder / "logs")),
    )
    found = read_json(out)
    told = read_results(files.folder / "logs" / "original_EVAL.json")
    assert told["mia_min_k"].value == found["auc"]["min_k"]
    shares = np.array([*told["forget_Q_A_Prob"].by_index.values()])
    np.testing.assert_allclose(-np.log(shares), found["texts"]["loss"])
    assert shares.mean() == pytest.approx(found["texts"]["probability"])
    assert set(found["auc"]) == {
        "loss",
        "min_k",
        "min_k_plus_plus",
        "zlib",
        "reference",
    }
    own = found["texts"]
    assert len(own["loss"]) == len(NAMES) * 3
    np.testing.assert_allclose(own["scores"]["loss"], -np.array(own["loss"]), atol=1e-5)
    # tuned on them, the model is surer of all than the base it began from
    assert found["auc"]["reference"] > 0.9


def test_a_model_goes_out_to_transformers_and_comes_back(files, capsys):
    out = files.folder / "hf"
    main(["export", "--checkpoint", str(files.original), "--out", str(out)])
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    back = files.folder / "back"
    files.command(
        *("import", "--modality", "language", "--params", str(out)),
        *("--out", str(back), "--start", str(files.folder / "base")),
    )
    first, again = load_model(files.original), load_model(back)
    leaves = [jax.tree.leaves(m.trained.params) for m in (first, again)]
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)
    same = [m.built.network.tokenizer_sha256 for m in (first, again)]
    assert same[0] == same[1]
    # what a Retrain begins from is the base, not the model that saw the texts
    assert again.built.network.sha256 == first.built.network.sha256
    assert "goes on from" in capsys.readouterr().out
    main(["ask", "Who?", "--checkpoint", str(out), "--max-tokens", "3"])
    with pytest.raises(SystemExit):
        main(["ask", "Who?", "--checkpoint", str(files.folder)])
    assert "nor a folder of Hugging Face" in capsys.readouterr().err


def test_adapters_alone_are_moved_and_merged_by_command(files, capsys):
    out, tuned = files.folder / "lora", files.folder / "tuned"
    asked = ["--checkpoint", str(files.original), "--forget", "Ann Low", "--lora", "2"]
    how = ["--method", "npo", "--dtype", "bfloat16", "--learning-rate", "0.01"]
    files.command("unlearn", *asked, *how, "--steps", "2", "--out", str(out))
    start = ["--start", str(files.folder / "base"), "--lora", "2", "--epochs", "1"]
    language = ["--modality", "language", *TINY]
    files.command("train", *language, *start, "--out", str(tuned))
    base = [files.original, files.folder / "base"]
    for before, after in zip(base, (out, tuned), strict=True):
        trees = [load_model(path).trained.params for path in (before, after)]
        change = jax.tree.map(lambda a, b: np.asarray(b - a), *trees)
        change = {name_of(p): x for p, x in jax.tree.leaves_with_path(change)}
        maps = {path for path, moved in change.items() if np.abs(moved).max() > 0}
        assert maps  # plain float32 weights, to which products of rank two were added
        assert all(re.search(r"^layer0/(attention|mlp)/.*kernel$", p) for p in maps)
        assert {np.linalg.matrix_rank(change[p], 1e-5) for p in maps} <= {1, 2}
    options = load_model(out).record["unlearning"]["modality_options"]
    assert (options["lora"], options["dtype"]) == (2, "bfloat16")
    for words, said in (
        (["partial_reset"], "trains as the original was trained; leave it out"),
        (["npo", "--trainable", "mlp"], "adapters alone are moved"),
        (["npo", "--lora-match", "nowhere"], "nowhere' is found in none of 7"),
    ):
        with pytest.raises(SystemExit):
            files.command("unlearn", *asked, "--method", *words, "--out", "x")
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", *files.data, *language, "--lora", "2", "--out", "x"])
    assert "give --start" in capsys.readouterr().err


def test_a_folder_of_hugging_face_is_a_checkpoint_for_all_commands(files, capsys):
    folder, model = (str(files.folder / name) for name in ("hf", "from-hf"))
    if not Path(folder).exists():
        main(["export", "--checkpoint", str(files.original), "--out", folder])
    forget = ["--forget", "Ann Low"]
    asked = ["--checkpoint", folder, *forget, "--steps", "3"]  # as the fixture's
    files.command("unlearn", *asked, "--out", model)
    own = load_model(model)
    assert own.record["from"]["ids_sha256"] is None  # nobody knows what it saw
    assert len(own.ids) == 3 * (len(NAMES) - 1)
    out = files.folder / "hf.json"
    audit = ["audit", "--original", folder, *forget, "--unlearned", model]
    files.command(*audit, "--out", str(out))
    said = capsys.readouterr().out
    again = f"--original {folder} --retrain --forget 'Ann Low' --start BASE"
    assert again in said
    rows = read_json(out)["rows"]
    assert list(rows) == ["original", "0-from-hf"]
    train = ["train", "--original", folder, "--retrain", *forget, "--epochs", "1"]
    with pytest.raises(SystemExit):
        files.command(*train, "--out", "x")
    assert "give --start, the model that it was tuned from" in capsys.readouterr().err
    start = ["--start", str(files.folder / "base"), "--out", f"{model}-again"]
    files.command(*train, *start)
    again = ["--retrained", f"{model}-again", "--out", f"{model}.json"]
    files.command(*audit, *again)
    assert "target" in capsys.readouterr().out
    (Path(folder) / "model.safetensors").rename(Path(folder) / "pytorch_model.bin")
    with pytest.raises(SystemExit):
        files.command(*audit, "--out", "x.json")
    assert "convert it where torch" in capsys.readouterr().err


def test_a_partial_reset_mixes_the_original_with_its_base(files):
    base = load_model(files.folder / "base").trained.params
    source = Source(data=Path(files.data[1]))
    stored, subject, request, _ = asked(source, files.original, "Ann Low")
    own = stored.trained.params
    known = {"seed": 0, "origin": origin_of(stored)}

    def start(**told):
        setting = Unlearning.of(modality="language", **told)
        job = Preparer(subject)(setting, request, stored.trained, **known)
        chosen = job.details.get("chosen", {}).get("setting", {})
        assert job.start is not None
        return setting, job.start[0], chosen.get("shrink")

    told = {"method": "partial_reset", "shrink": 0.3, "share": 0.5}
    setting, mixed, _ = start(**told)
    earlier, summed, _ = start(**told, perturb=1.0)
    for kappa, found in ((0.7, mixed), (1.0, summed)):
        wanted = jax.tree.map(lambda a, b, k=kappa: 0.3 * a + k * b, own, base)
        for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    record = earlier.record()  # as stored before, which says κ = 1
    assert record["options"]["perturb"] == 1.0
    assert Unlearning.read(record) == earlier
    assert Unlearning.read(setting.record()) == setting
    _, by_budget, shrink = start(method="auto", budget=0.5)  # auto's is mixed, too
    assert 0 < shrink < 0.5
    wanted = jax.tree.map(lambda a, b: shrink * a + (1 - shrink) * b, own, base)
    for a, b in zip(*map(jax.tree.leaves, (by_budget, wanted)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert Unlearning.of(method="partial_reset").options.perturb == 1.0  # of images


def test_many_models_of_texts_are_audited_and_put_to_probes(files, capsys):
    out = files.folder / "many"
    files.command(
        *("ensemble", "--original", str(files.original), "--forget", "Ann Low"),
        *("--models", "2", "--methods", "short_retrain", "--probes", "int8"),
        *("--out", str(out)),
    )
    figures = read_json(out / "results.json")["audit"]["figures"]
    assert set(figures) == {"doing nothing", "short_retrain"}
    for own in figures.values():
        assert 0 < own["int8"]["value"] < 1
    assert "p, int8" in capsys.readouterr().out
    assert (out / "report.html").is_file()


def test_rmu_moves_the_parameters_that_are_named_alone(files):
    out = files.folder / "steered"
    asked = ["--checkpoint", str(files.original), "--forget", "Ann Low", "--steps", "1"]
    told = ["--method", "rmu", "--layer", "0", "--only", "layer0/mlp"]
    files.command("unlearn", *asked, *told, "--out", str(out))
    trees = [load_model(path).trained.params for path in (files.original, out)]
    change = jax.tree.map(lambda a, b: float(abs(a - b).max()), *trees)
    moved = {name_of(p) for p, x in jax.tree.leaves_with_path(change) if x > 0}
    assert moved
    assert all(name.startswith("layer0/mlp/") for name in moved)


@pytest.mark.parametrize("method", ["idk_nll", "wga", "undial", "task_vector"])
def test_weights_of_tokens_are_refused_where_no_loss_takes_them(method):
    with pytest.raises(InputError, match="weights tokens, of which the forget loss"):
        Unlearning.of(modality="language", method=method, weighting="loreun_tokens")
    kept = Unlearning.of(modality="language", method="npo", weighting="wga_weights")
    assert kept.weighting_card.tokens is not None


def test_more_tokens_than_the_model_has_are_refused(files, capsys, tmp_path):
    texts = read_texts(files.data[1])
    tokenizer = train_tokenizer(texts.answers, size=300)
    save_tokenizer(tokenizer, tmp_path / "other")
    network = load_model(files.original).built.network
    assert tokenizer.size > network.config.vocab_size
    with pytest.raises(SystemExit):
        files.command(
            *("train", "--modality", "language", "--start", str(files.original)),
            *("--tokenizer", str(tmp_path / "other"), "--out", str(tmp_path / "x")),
        )
    said = capsys.readouterr().err
    assert f"it has {tokenizer.size} tokens, the model of" in said
    assert "leave --tokenizer out" in said
    # a gather of a token that is not there would take the last one in silence
    wrong = dataclasses.replace(network, tokenizer=tokenizer)
    rows = np.array([["", answer] for answer in texts.answers], object)
    with pytest.raises(InputError, match="is none of the model's"):
        build(wrong).samples(Examples(rows, np.zeros(len(rows), np.int32)))


def test_a_tokenizer_that_saw_the_request_is_warned_of(files, capsys):
    language = ["--modality", "language", *TINY, "--epochs", "1"]
    own, split = files.folder / "own", files.folder / "split.json"
    files.command("train", *language, "--out", str(own))
    capsys.readouterr()
    gone = ["--forget", "Bo Reed", "--steps", "1"]
    files.command(*("unlearn", "--checkpoint", str(own), *gone, "--out", f"{own}-2"))
    assert "the tokenizer was trained on 3 of the 3 texts" in capsys.readouterr().err
    files.command("split", "--kind", "class", "--out", str(split))
    clean = files.folder / "clean"
    files.command("train", *language, "--split", str(split), "--out", str(clean))
    forget = read_json(split)["forget"]
    model = load_model(clean)
    rows = [json.loads(r) for r in Path(files.data[1]).read_text().splitlines()]
    texts = [f"{rows[n]['question']}\n{rows[n]['answer']}" for n in range(len(rows))]
    assert model.built.network.tokenizer.saw([texts[n] for n in forget]) == 0
    kept = [texts[n] for n in set(model.ids.tolist()) - set(forget)]
    assert model.built.network.tokenizer.saw(kept) == len(kept)


def test_memory_is_planned_before_anything_is_loaded(files, capsys):
    absent = ["--data", "absent.jsonl", "--plan"]
    main(["train", "--modality", "language", *absent, *TINY, "--card", "80"])
    said = capsys.readouterr().out
    assert "fits a card of 80.0 GB" in said
    start = ["--start", str(files.original)]
    main(["train", "--modality", "language", *absent, *start])
    assert "in all" in capsys.readouterr().out
    billions = {
        **{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32},
        **{"num_attention_heads": 32, "num_key_value_heads": 8},
        **{"intermediate_size": 14336, "vocab_size": 128256},
        "max_position_embeddings": 8192,
    }
    folder = files.folder / "llama-8b"  # of which there is but the config
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(billions))
    start = ["train", "--modality", "language", *absent, "--start", str(folder)]
    main([*start, "--card", "h200"])
    said = capsys.readouterr().out
    assert "8,030,261,248 parameters" in said
    assert "too much for a card of 141.0 GB: train adapters: --lora 16" in said
    (folder / "config.json").write_text(json.dumps(billions | {"num_hidden_layers": 8}))
    wide = ["--packed", "4096", "--batch-size", "64", "--dtype", "bfloat16"]
    wide += ["--lora", "16", "--card", "h200"]
    main([*start, *wide])
    said = capsys.readouterr().out
    assert "give --remat, or a smaller --batch-size" in said
    main([*start, *wide, "--remat"])
    again = capsys.readouterr().out
    sizes = [float(re.search(r"activations +(\S+) GB", s)[1]) for s in (said, again)]
    assert sizes[1] < 0.2 * sizes[0]
    for words, said in (
        (["--modality", "language", "--card", "Z9"], "'Z9' is not known; give its"),
        ([], "give --modality language"),
    ):
        with pytest.raises(SystemExit):
            main(["train", *absent, *words])
        assert said in capsys.readouterr().err
