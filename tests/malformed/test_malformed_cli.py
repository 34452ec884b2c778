"""Malformed input through every command: one clear line, status 2, nothing written."""

from pathlib import Path
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

import pytest
from bad_files import (
    BAD_IDS,
    bad_data,
    bad_outputs,
    generator_changes,
    record_changes,
    write_bad,
)

from jax_unlearn.cli import main
from jax_unlearn.cli.messages import spoken
from jax_unlearn.lab import Training, Unlearning
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.modalities import MODALITIES
from jax_unlearn.lab.modalities.diffusion.settings import (
    Denoising,
    DiffusionTraining,
    Sampling,
)

LONGEST = 400  # characters of a message
FREE = {"earlier", "replace", "trainable"}  # text that is checked against the model

BASES = {
    "demo": "",
    "split": "split --data {data}",
    "train": "train --data {data} --network mlp --width 4 --epochs 1",
    "unlearn": "unlearn --data {data} --checkpoint {model} --forget {ids} --epochs 1",
    "audit": "audit --data {data} --original {model} --forget {ids} "
    "--unlearned {model}",
    "arrays": "audit --arrays {arrays}",
    "report": "report --results {results}",
    "recipe": "recipe",
    "ensemble": "ensemble",
    "tune": "tune",
    "methods": "methods",
    "generate": "generate",
    "generate train": "generate train --data {data} --widths 4 --attention 0",
    "generate unlearn": "generate unlearn --data {data} --checkpoint {generator} "
    "--forget 1 --steps 1",
    "generate sample": "generate sample --checkpoint {generator} --sampling-steps 2",
    "generate audit": "generate audit --data {data} --original {generator} "
    "--forget 1 --network mlp --per-class 2",
}


class Case(NamedTuple):
    """A command with options added, and what its message must name."""

    base: str
    options: str
    words: str

    @property
    def arguments(self) -> str:
        return f"{BASES[self.base]} {self.options}".strip()


def numbers(base: str, setting: type, before: str = "") -> list[Case]:
    """Return a case for each number and name of a setting that is out of range."""
    cases = []
    for name, kind in get_type_hints(setting).items():
        option, words = f"--{name.replace('_', '-')}", f"{name}="
        kinds = {kind} if get_origin(kind) is tuple else {kind, *get_args(kind)}
        if float in kinds:
            values = ["-1", "nan", "inf"]
        elif int in kinds:
            values = ["-1"]
        elif get_origin(kind) is Literal or (kind is str and name not in FREE):
            values, words = ["nonsense"], f"{name} 'nonsense'"
        else:
            continue
        for value in values:
            cases.append(Case(base, f"{before} {option} {value}".strip(), words))
    return cases


def of_cards(base: str, modality: str) -> list[Case]:
    """Return such cases of all options that methods and weightings have there."""
    roles = next(kind.roles for kind in MODALITIES if kind.name == modality)
    cases = []
    for card in METHODS.values():
        if set(card.roles) <= roles:
            cases += numbers(base, card.options, f"--method {card.name}")
    for card in WEIGHTINGS.values():
        if card.reads in ("losses", *roles):
            cases += numbers(base, card.options, f"--weighting {card.name}")
    return cases


def of(base: str, table: dict[str, str]) -> list[Case]:
    """Return the cases of one command."""
    return [Case(base, options, words) for options, words in table.items()]


# All but the numbers that a sampler checks elsewhere.
SETTINGS = [
    *numbers("train", Training),
    *numbers("unlearn", Unlearning),
    *of_cards("unlearn", "classification"),
    *numbers("generate train", DiffusionTraining),
    *numbers("generate unlearn", Unlearning),
    *numbers("generate unlearn", Denoising),
    *of_cards("generate unlearn", "diffusion"),
    *[c for c in numbers("generate sample", Sampling) if "scale -1" not in c[1]],
]

LOADS = {
    "": "give --dataset NAME or",
    "--dataset digits --data {data}": "give --dataset NAME or",
    "--data nowhere.npz": "path=nowhere.npz",
    "--data {model}": "path={model}",
    "--dataset ../x": "name='../x'",
    "--dataset cifr10 --data-dir .": "unknown TFDS data set 'cifr10'",
}
SOURCES = [
    Case(base, options, words)
    for base in ("bare split", "bare train", "bare generate train")
    for options, words in LOADS.items()
]
BASES |= {f"bare {name}": name for name in ("split", "train", "generate train")}

COMMANDS = [
    *of(
        "demo",
        {
            "--seeds": "seeds=[]",
            "--seeds 1": "seeds=[1]",
            "--seeds 1 1": "seeds=[1, 1]",
            "--seeds -1 0": "seed=-1",
            "--seeds 0 99999999999999999999": "seed=99999999999999999999",
            "--out {folder}": "out={folder}",
            "--out {data}": "out={data}",
            "--out {folder} --overwrite": "no config.json",
        },
    ),
    *of(
        "split",
        {
            "--kind radnom": "'radnom'; did you mean 'random'",
            "--fraction 0": "fraction=0.0",
            "--fraction 1": "fraction=1.0",
            "--fraction -0.1": "fraction=-0.1",
            "--fraction nan": "fraction=nan",
            "--fraction inf": "fraction=inf",
            "--unseen-fraction=-0.1": "fraction=-0.1",
            "--unseen-fraction 1": "fraction=1.0",
            "--unseen-fraction nan": "fraction=nan",
            "--unseen-fraction 0.001": "fraction=0.001",
            "--seed -1": "seed=-1",
            "--seed 99999999999999999999": "seed=99999999999999999999",
            "--classes 1": "classes=(1,)",
            "--kind class --classes 7": "class 7",
            "--kind class --classes -1": "class -1",
            "--kind class --classes": "classes=()",
            "--kind class --classes 0 1 2": "fraction=1.0",
            "--kind long_tailed --gamma -1": "gamma=-1.0",
            "--kind long_tailed --gamma nan": "gamma=nan",
            "--kind long_tailed --gamma inf": "gamma=inf",
            "--kind long_tailed --fraction 0.99": "0.8888",
            "--out {split}": "path={split}",
            "--out {data}/x/split.json": "path={data}/x/split.json",
            "--out .": "path=.",
        },
    ),
    *of(
        "train",
        {
            "--network resnet9": "did you mean 'resnet8'",
            "--width 1000000000": "width=1000000000",
            "--epochs 0": "epochs=0",
            "--learning-rate 1e400": "learning_rate=inf",
            "--retrain": "give --split",
            "--unseen-fraction 2": "fraction=2.0",
            "--seed -1": "seed=-1",
            "--split {split} --seed -1": "seed=-1",
            "--seed 4294967296": "seed=4294967296",
            "--split nowhere.json": "path=nowhere.json",
            "--split .": "path=.",
            "--out {model}": "out={model}",
            "--out {data}/model": "path={data}/model",
        },
    ),
    *of(
        "unlearn",
        {
            "--trainable nonsense": "--trainable='nonsense' leaves none",
            "--method rewind --earlier nonsense": "--earlier=nonsense",
            "--method salum": "did you mean 'salun'",
            "--weighting lorun": "did you mean 'loreun'",
            "--keep 1.1": "keep=1.1",
            "--rho 0.0001": "rho=0.0001",
            "--method finetune --weighting loreun": "weighting='loreun'",
            "--harmonizer one_way": "harmonizer='one_way'",
            "--method influence --salient": "salient=True",
            "--method deltagrad --rho 0.5": "rho=0.5",
            "--method ltu --strategies": "strategies=()",
            "--method ltu --strategies unifrom": "did you mean 'uniform'",
            "--method ltu --attacks logistic": "attacks=('logistic',)",
            "--method ltu --attacks a b": "unknown attacks 'a'",
            "--method ltu --batch-size 1": "batch_size=1",
            "--seed -1": "seed=-1",
            "--out {model}": "out={model}",
            "--out {data}/x": "path={data}/x",
            "--checkpoint nowhere": "nowhere does not exist",
            "--checkpoint {data}": "{data} is there, but is no checkpoint of",
            "--checkpoint {generator}": "every class is to be forgotten",
            "--checkpoint {generator} --modality classification": "{generator} holds "
            "a diffusion model",
            "--forget nowhere.csv": "path=nowhere.csv",
            "--forget .": "path=.",
            "--data {arrays}": "missing x_train",
        },
    ),
    *of(
        "audit",
        {
            "--metrics mia": "metrics=['mia']",
            "--null {model}": "null={model}",
            "--retrained {model}": "{model} is no retraining",
            "--probes relaern": "did you mean 'relearn'",
            "--original nowhere": "nowhere does not exist",
            "--unlearned nowhere": "nowhere does not exist",
            "--unlearned {generator}": "{generator} holds a diffusion model",
            "--forget nowhere.json": "path=nowhere.json",
            "--seed -1": "seed=-1",
            "--out {data}": "out={data}",
            "--out .": "out=.",
            "--out . --overwrite": "out=. is a folder",
            "--out {data}/x.json": "path={data}/x.json",
            "--unlearned": "unlearned=[]",
            "--arrays {arrays}": "give one or the other",
        },
    ),
    *of(
        "arrays",
        {
            "--kind logit": "kind='logit'",
            "--kind probabilities": "no probabilities",
            "--metrics": "metrics=[]",
            "--metrics mai": "did you mean 'mia'",
            "--metrics u_lira": "metrics='u_lira'",
            "--resamples 1": "resamples=1",
            "--seed -1": "seed=-1",
            "--arrays nowhere.npz": "path=nowhere.npz",
            "--arrays {data}": "'x_train'",
            "--arrays {model}": "path={model}",
        },
    ),
    *of(
        "report",
        {
            "--results nowhere.json": "path=nowhere.json",
            "--results .": "path=.",
            "--out {data}": "path={data}",
            "--out .": "path=.",
            "--out {data}/page.html": "path={data}/page.html",
        },
    ),
    *of(
        "recipe",
        {
            "field-digts": "did you mean 'field-digits'",
            "field-digits --data {data}": "data={data}",
            "field-digits --classes 1": "classes=(1,)",
            "field-digits --parts feild": "did you mean 'field'",
            "field-digits --parts": "parts=()",
            "field-digits --parts field field": "parts=('field', 'field')",
            "field-digits --seeds": "seeds=[]",
            "field-digits --seeds -1 0": "seed=-1",
            "field-digits --tune --out {data}": "path={data}/settings.json",
            "field-digits --out {data}": "path={data}/settings.json",
            "ltu-digits --parts x": "unknown part 'x'",
            "ltu-digits --seeds": "seeds=[]",
            "ltu-digits --tune --seeds 1": "seeds=(1,)",
            "ltu-cifar10": "data=None",
            "ltu-cifar10 --data {data}": "has 60",
            "ltu-cifar10 --data nowhere.npz": "path=nowhere.npz",
            "generation-digits --classes 11": "class 11",
            "generation-digits --classes": "classes=()",
            "generation-digits --seeds -1": "seed=-1",
            "generation-digits --parts x": "parts=('x',)",
            "generation-digits --tune": "tune=True",
            "generation-digits --data {data}": "data={data}",
            "generation-digits --out {data}": "path={data}/results.json",
            "generation-fashion": "data=None",
            "generation-fashion --data nowhere": "path=nowhere",
        },
    ),
    *of("tune", {"--out {data}": "out={data}", "--trials 0": "trials=0"}),
    *of(
        "ensemble",
        {
            "--models 0": "count=0",
            "--chunk 0": "chunk=0",
            "--how fast": "unknown how 'fast'",
            "--resamples 1": "resamples=1",
            "--methods": "methods=()",
            "--methods x": "unknown method 'x'",
            "--run nowhere": "path=nowhere/config.json",
            "--data {data}": "run=None",
            "--out {data}": "path={data}/outputs.npz",
        },
    ),
    *of("generate", {"smple": "did you mean 'sample'"}),
    *of(
        "generate train",
        {
            "--timesteps 1000000000000": "--timesteps=1000000000000",
            "--ema 1": "ema=1.0",
            "--widths": "no --widths",
            "--widths 3": "--widths 3",
            "--widths 4 6": "attention=(False,)",
            "--attention 2": "attention=2 must lie",
            "--forget 9": "unknown class '9'",
            "--forget 0 1 2": "nothing is left",
            "--reduce 0": "factor=0",
            "--reduce 3": "factor=3",
            "--seed -1": "seed=-1",
            "--out {model}": "out={model}",
            "--out {data}/x": "path={data}/x",
        },
    ),
    *of(
        "generate unlearn",
        {
            "--trainable nonsense": "--trainable='nonsense' leaves none",
            "--forget cat": "unknown class 'cat'",
            "--replace nonsense": "unknown replace 'nonsense'",
            "--checkpoint nowhere": "nowhere does not exist",
            "--checkpoint {model}": "{model} holds a classification model",
            "--keep 0": "keep=0.0",
            "--seed -1": "seed=-1",
            "--out {model}": "out={model}",
        },
    ),
    *of(
        "generate sample",
        {
            "--sampling-steps 31": "sampling_steps=31",
            "--classes cat": "unknown class 'cat'",
            "--classes -1": "unknown class '-1'",
            "--prompts cat": "prompts=('cat',)",
            "--count 0": "count=0",
            "--out x.jpg": "out=x.jpg",
            "--out {data}/x.png": "path={data}/x.png",
            "--checkpoint nowhere": "nowhere does not exist",
            "--seed -1": "seed=-1",
        },
    ),
    *of(
        "generate audit",
        {
            "--forget 9": "unknown class '9'",
            "--unlearned {model}": "{model} holds a classification model",
            "--unlearned {generator} {generator}": "'generator' is taken",
            "--null {generator}": "null={generator}",
            "--inception nowhere.npz": "nowhere.npz: no such file",
            "--inception x.bin": "x.bin",
            "--per-class 0": "per_class=0",
            "--network rsnet8": "did you mean 'resnet8'",
            "--out .": "out=.",
            "--out page.html": "out=page.html",
        },
    ),
]

FOLDERS = {
    "data": ("bare split", "--data {bad}/data/", ".npz"),
    "ids": ("unlearn", "--forget {bad}/ids/", ""),
    "splits": ("train", "--split {bad}/splits/", ".json"),
    "results": ("bare report", "--results {bad}/results/", ".json"),
    "outputs": ("bare audit", "--arrays {bad}/outputs/", ".npz"),
    "models": ("unlearn", "--checkpoint {bad}/models/", ""),
}
BASES |= {"bare report": "report", "bare audit": "audit"}

PARSED = [
    ("train --epochs many", "many"),
    ("train --epochs 1.5", "1.5"),
    ("train --epchs 3", "--epchs"),
    ("train --learning-rate", "--learning-rate"),
    ("split --kind", "--kind"),
    ("split --overwrite maybe", "maybe"),
    ("unlearn", "--checkpoint"),
    ("recipe a b", "b"),
    ("methods x", "x"),
    ("report --resultes x", "--resultes"),
    ("audit --seed one", "one"),
    ("generate audit", "--original"),
    ("generate sample --count two --checkpoint x", "two"),
]


def files_of(folder: Path) -> dict[str, int]:
    """Return every path below a folder, with when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def message_of(arguments: list[str], capsys) -> str:
    """Run a command that must be refused; return what it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


class Every:
    """A set of all names."""

    def __contains__(self, name: object) -> bool:
        return True


def check_line(said: str, words: str) -> None:
    """Assert that a message is one clear line, in the words of the command line."""
    assert said.count("\n") == 1
    assert said.startswith("jax-unlearn: ")
    option = spoken(words, Every())  # what a Python value is called there
    assert option in said or (words in said and f"--{words}" not in said)
    assert len(said.replace(words, "")) < LONGEST
    assert len(said.split()) > 4  # a value alone is no message


@pytest.fixture(scope="module")
def bad(good, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_bad(folder, good)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "case", [*COMMANDS, *SOURCES, *SETTINGS], ids=lambda c: f"{c.base} {c.options}"
)
def test_options(case, good, here, capsys):
    before = files_of(good.folder)
    paths = {name: str(path) for name, path in good._asdict().items()}
    said = message_of(case.arguments.format(**paths).split(), capsys)
    check_line(said, case.words.format(**paths))
    assert list(here.iterdir()) == []
    assert files_of(good.folder) == before


@pytest.mark.parametrize("kind", FOLDERS)
def test_files(kind, good, bad, here, capsys):
    base, option, suffix = FOLDERS[kind]
    paths = {name: str(path) for name, path in good._asdict().items()}
    names = sorted(path.name for path in (bad / kind).iterdir())
    assert len(names) >= 19
    before = files_of(bad)
    for name in names:
        if name.startswith("generator-"):
            using = f"{BASES['generate unlearn']} --checkpoint {{bad}}/models/{name}"
        else:
            using = f"{BASES[base]} {option}{name}"
        assert name.endswith(suffix)
        said = message_of(using.format(bad=bad, **paths).split(), capsys)
        check_line(said, "")
    assert list(here.iterdir()) == []
    assert files_of(bad) == before


@pytest.mark.parametrize(("arguments", "words"), PARSED)
def test_options_that_do_not_parse(arguments, words, here, capsys):
    said = message_of(arguments.split(), capsys)
    assert words in said
    assert list(here.iterdir()) == []


def test_commands_that_do_not_exist(here, capsys):
    for arguments, words in (
        (["splt"], "did you mean 'split'"),
        (["generte"], "did you mean 'generate'"),
        ([""], "unknown command ''"),
    ):
        check_line(message_of(arguments, capsys), words)
    assert list(here.iterdir()) == []


def test_there_are_over_200_different_inputs():
    distinct = {case.arguments for case in [*COMMANDS, *SOURCES, *SETTINGS]}
    assert len(distinct) == len([*COMMANDS, *SOURCES, *SETTINGS])
    assert len(distinct) > 200
    files = (bad_data(), bad_outputs(), BAD_IDS, record_changes(), generator_changes())
    assert sum(map(len, files)) > 100
