"""Options that follow from the method, the weighting and the kind of model."""

import dataclasses
import itertools
import json
import re

import jax
import numpy as np
import pytest
from small import refused, unlearn
from test_extensions import MINE

from jax_unlearn.cli import choices, main
from jax_unlearn.drivers.checkpoint import read_record
from jax_unlearn.errors import InputError
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.modalities import MODALITIES
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.store import load_model

COMMON = {flag for _, names in choices.GROUPS.values() for flag in names}


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def flags_of(options: type) -> set[str]:
    return {flag(field.name) for field in dataclasses.fields(options)}


@pytest.fixture
def boxes(capsys, monkeypatch):
    """Return what the help of a command shows: the flags by the title of their box."""
    monkeypatch.setenv("COLUMNS", "100")

    def shown(*words):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--help"])
        assert caught.value.code == 0
        found, title, text = {}, "", capsys.readouterr().out
        for line in text.splitlines():
            if match := re.match(r"(?:╭─)? (.*options) [─╮ ]*$", line):
                title = match[1]
            elif match := re.match(r"[│ ] (--[a-z][a-z-]*)(?![a-z,-])", line):
                found.setdefault(title, set()).add(match[1])
        return found, " ".join(text.replace("│", " ").split())

    return shown


def test_the_help_of_a_method_shows_its_options_and_the_common_ones(boxes):
    found, text = boxes("unlearn", "scrub")
    assert found["scrub options"] == {
        *("--forget-epochs", "--rewind", "--teacher-temperature"),
        *("--distill-share", "--task-share"),
    }
    assert list(found) == [
        *("options", "data options", "method options", "scrub options"),
        *("step options", "optimizer options", "part options"),
        *("memory options", "guard options", "general options"),
    ]
    assert found["method options"] == {"--modality", "--method", "--weighting"}
    assert {"--checkpoint", "--forget", "--out"} <= found["options"]
    assert {"--learning-rate", "--momentum"} <= found["optimizer options"]
    every = set().union(*found.values())
    others = [c.options for c in (*METHODS.values(), *WEIGHTINGS.values())]
    foreign = set().union(*map(flags_of, others)) - flags_of(METHODS["scrub"].options)
    assert not every & foreign
    # neither read: SCRUB schedules its batches itself, in whole epochs, and joins none
    assert not every & {"--schedule", "--steps", "--harmonizer", "--per-leaf"}
    assert "SCRUB (+R with rewind), arXiv 2302.09880" in text
    assert "--optimizer {sgd,adam}" in text
    assert "--modality {classification,diffusion,language}" in text
    assert "{auto,uniform,loreun," in text
    assert "FILE.py:CARD}" in text
    assert "weight α of the distance from the teacher on the retain set." in text


def test_the_help_follows_weighting_and_modality(boxes):
    words = ("--weighting", "loreun", "--modality", "diffusion")
    found, text = boxes("unlearn", "salun", *words)
    loreun = {"--temperature", "--relative", "--normalize"}
    assert found["weighting loreun options"] == loreun
    assert "--replace" in found["diffusion model options"]
    assert {"--schedule", "--steps", "--harmonizer"} <= found["step options"]
    assert "--freeze-statistics" not in found["step options"]
    assert "guard options" not in found
    assert "--normalize {mean_one,none}" in text
    # where that of diffusion differs
    assert "the same in all steps. (default: 0.001)" in text
    found, _ = boxes("chain", "ssd")
    assert found["ssd options"] == {"--selection", "--dampening"}
    assert found["step options"] == {"--rho", "--batch-size", "--budget"}
    assert "optimizer options" not in found
    assert "--timesteps" in boxes("generate", "train")[0]["training options"]
    assert "--network" in boxes("train")[0]["training options"]


@pytest.mark.parametrize("modality", [kind.name for kind in MODALITIES])
def test_no_two_options_of_a_command_have_one_name(modality):
    made = 0
    for method, weighting in itertools.product(METHODS, ("auto", *WEIGHTINGS)):
        kind = next(kind for kind in MODALITIES if kind.name == modality)
        choice = choices.Choice(kind, method, weighting)
        try:
            groups = choice.groups()
        except InputError:  # does not serve this kind of model, or weights nothing
            continue
        names = [f.name for g in groups.values() for f in dataclasses.fields(g)]
        assert len(names) == len(set(names)), (method, weighting)
        defaults = choice.form()
        assert defaults.make(defaults.values()).method == method
        made += 1
    assert made > 30


def test_a_method_is_named_by_its_place_or_by_its_option(job, tmp_path):
    main(unlearn(job, tmp_path / "a", "salun", "--keep", "0.3"))
    main(unlearn(job, tmp_path / "b", "--keep=0.3", "--method=salun"))
    first, second = (load_model(tmp_path / name) for name in ("a", "b"))
    assert first.record["unlearning"] == second.record["unlearning"]
    assert first.record["unlearning"]["method"] == "salun"
    jax.tree.map(
        np.testing.assert_array_equal, first.trained.params, second.trained.params
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["scrub", "--penalty", "1"], "--penalty is read with --method l1_sparse;"),
        (["salun", "--tau=1"], "--tau is read with --weighting falw; give that, or"),
        (
            ["--temperature", "2"],
            "--temperature is read with --weighting loreun or loreun_static or el2n",
        ),
        (["--replace", "next"], "--replace is read with --modality diffusion;"),
        (["ssd", "--rewind"], "--rewind is read with --method scrub; give that, or"),
        (["--keep", "2"], "keep=2.0 must lie in (0, 1]"),
        (["srub"], "unknown method 'srub'; did you mean 'scrub'"),
        (["scrub", "--method", "salun"], "scrub --method salun: two methods; leave"),
        (["my.py:METHOD"], "there is no file my.py; check the path"),
    ],
    ids="-".join,
)
def test_the_options_of_another_card_are_refused(
    job, tmp_path, capsys, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, unlearn(job, tmp_path / "out", *options))
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_the_options_of_another_training_are_refused(job, tmp_path, capsys):
    source = ["--data", job.data, "--out", tmp_path / "x"]
    line = refused(capsys, ["train", *source, "--timesteps", "9"])
    assert "--timesteps is read with --modality diffusion; give that, or" in line
    line = refused(capsys, ["generate", "train", *source, "--network", "mlp"])
    assert "--network is read with --modality classification; give that" in line


def test_help_names_the_options_of_other_kinds_of_model():
    classes, texts = (kind for kind in MODALITIES if kind.name != "diffusion")
    said = choices.Choice(classes, "salun", "auto", True).groups()["method"].__doc__
    assert said is not None
    named = re.findall(r"With --modality (\w+) there are (.*?), too", said)
    assert {kind: set(flags.split(", ")) for kind, flags in named} == {
        kind.name: flags_of(kind.options) for kind in MODALITIES if kind is not classes
    }
    groups = choices.Choice(texts, "npo", "auto", True).groups()
    assert "With --modality" not in str(groups["method"].__doc__)
    own = {field.name for field in dataclasses.fields(groups["language model"])}
    assert "packed_into" in own


TAKEN = """
@dataclasses.dataclass(frozen=True)
class Taken:
    steps: int = 3


TAKEN = dataclasses.replace(METHOD, options=Taken)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.py").write_text(MINE + TAKEN)
    return tmp_path


def test_a_method_and_a_weighting_of_ones_own(job, mine, capsys, boxes):
    own = ["--method", "my.py:METHOD", "--weighting", "my.py:WEIGHTING"]
    main(unlearn(job, mine / "out", *own, "--push", "0.25"))
    record = read_record(mine / "out")["unlearning"]
    assert record["method"] == "my.py:METHOD"
    assert record["options"] == {"push": 0.25}
    assert Unlearning.read(record).card.title == "Shove the forget samples away"
    main(unlearn(job, mine / "same", "my.py:METHOD", *own[2:], "--push", "0.25"))
    main(unlearn(job, mine / "other", "my.py:METHOD", *own[2:], "--push", "1"))
    arrays = [
        jax.tree.leaves(load_model(mine / name).trained.params)
        for name in ("out", "same", "other")
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*arrays[:2], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(*arrays[1:], strict=True))
    found, text = boxes("unlearn", *own)
    assert found["shove options"] == {"--push"}
    assert "weighted the half of smaller losses alone" not in text  # has no options
    assert "Shove the forget samples away, our choice: reads forget, retain" in text
    line = refused(capsys, unlearn(job, mine / "x", *own, "--push", "0"))
    assert "push=0.0 must be positive; try 0.5" in line
    line = refused(capsys, unlearn(job, mine / "x", *own, "--rewind"))
    assert "--rewind is read with --method scrub" in line
    for card, message in (
        ("my.py:NONE", "unknown name in my.py 'NONE'"),
        ("my.py:WEIGHTING", "WEIGHTING' is a WeightingCard, no ju.cards.Card"),
        ("my.py:TAKEN", "option 'steps' of shove is one of all methods too"),
    ):
        line = refused(capsys, unlearn(job, mine / "x", "--method", card))
        assert message in line
    assert not (mine / "x").exists()


def test_a_figure_of_ones_own(mine, capsys):
    rng = np.random.default_rng(0)
    arrays = {f"labels/{part}": np.arange(9) % 3 for part in ("forget", "retain")}
    for name, count in (("retrained", 4), ("ours", 2)):
        for part in ("forget", "retain"):
            arrays[f"{name}/{part}"] = 3 * rng.normal(size=(count, 9, 3))
    arrays["labels/test"] = arrays["labels/retain"]
    arrays |= {f"{n}/test": arrays[f"{n}/retain"] for n in ("retrained", "ours")}
    np.savez("outputs.npz", **arrays)
    told = ["audit", "--arrays", "outputs.npz", "--resamples", "2"]
    main([*told, "--metrics", "my.py:FIGURE", "klom"])
    assert "sure forget samples %" in " ".join(capsys.readouterr().out.split())
    figures = json.loads((mine / "audit.json").read_text())["audit"]["figures"]["ours"]
    assert set(figures) == {"sure", "klom", "klom_95"}
    assert 0 < figures["sure"]["value"] < 100
    main(["report"])
    page = (mine / "report.html").read_text()
    assert "sure forget samples %" in " ".join(page.split())
    line = refused(capsys, [*told, "--metrics", "my.py:FIGURES", "--overwrite"])
    assert "unknown name in my.py 'FIGURES'; did you mean 'FIGURE'" in line


def test_the_help_lists_choices_and_no_type_of_python(boxes):
    for command in ("split", "train", "unlearn", "audit", "ensemble"):
        _, text = boxes(command)
        assert not re.search(r"\{None\}\|", text), command
        assert "(default: None)" not in text
        assert "(default: False)" not in text
        assert "--config PATH" in text
        assert "{digits,cifar10,cifar100,fashion_mnist,svhn_cropped,NAME," in text
    text = boxes("split")[1]
    assert "--kind {random,class,long_tailed,worst,hard}" in text
    assert "--classes [INT [INT ...]] numbers of the classes to forget" in text
    assert "(default: split.json)" in text
    assert "--kind {logits,probabilities}" in boxes("audit")[1]
    assert "--how {auto,vmap,map,loop}" in boxes("ensemble")[1]
