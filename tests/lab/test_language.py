"""Language models in the house: trained, unlearned, audited by ordinary commands."""

import json
import random
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jax_unlearn import report
from jax_unlearn.cli import main
from jax_unlearn.data import read_json
from jax_unlearn.lab.modalities.language.networks import LanguageNetwork, texts_of
from jax_unlearn.lab.store import load_model

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
        *("--out", str(out)),
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
    page = report.render(results)
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


@pytest.mark.parametrize(
    ("request_", "count"),
    [("Ann Low", None), ("Oslo", None), ("ids.csv", 2), ("0", None)],
)
def test_requests_are_topics_text_or_ids(files, request_, count):
    from jax_unlearn.cli.sources import Source, asked

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
        (["unlearn", "--method", "salun"], "which language models do not have"),
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
