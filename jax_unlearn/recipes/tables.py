"""The tables of the three papers on real data: one study, at three sizes.

Fashion-MNIST at 14 x 14 and a subset of CIFAR-10 with a small ResNet are for a CPU;
CIFAR-10 at full size, ResNet-18 and VGG-16, is for an accelerator. A part is one
request: random, a class, long-tailed at several γ, near or far. Every method of a part
has six trials on seeds kept for the search; parts without a search of their own take
the settings of the part they vary. All parts share the original models.
"""

import dataclasses
import importlib.resources
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jax_unlearn.data import Dataset, from_npz, read_json, shrink, subset
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.pipeline import Plan, Training, Unlearning
from jax_unlearn.recipes.search import Grids, search

LOREUN = {"weighting": "loreun", "relative": True}
STATIC = {"weighting": "loreun_static", "relative": True}
TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0)
BASES = ("GA", "RL", "SalUn", "SFRon", "SCRUB")  # LoReUn is laid on each of them

FIXED: dict[str, dict[str, Any]] = {
    "FT": {"method": "finetune"},
    "RL": {"method": "random_label"},
    "GA": {"method": "gradient_ascent"},
    "IU": {"method": "influence"},
    "BE": {"method": "boundary_expand"},
    "BS": {"method": "boundary_shrink"},
    "l1-sparse": {"method": "l1_sparse"},
    "SalUn": {"method": "salun"},
    "NegGrad+": {"method": "neggrad_plus"},
    "SFRon": {"method": "sfron", "clip": 7.0, "weighting": "uniform"},
    "SCRUB": {"method": "scrub"},
    "Bad Teacher": {"method": "bad_teacher", "optimizer": "adam", "rho": 0.3},
    "SSD": {"method": "ssd"},
    "LTU": {
        "method": "ltu",
        "rho": 0.3,
        "query_size": 32,
        "clip": 30.0,  # the second-order term can explode
        "allow_weak": True,
    },
    "RL + FaLW (exact)": {"weighting": "falw"},
    "RL + FaLW (every 8)": {"weighting": "falw", "estimator": "every", "every": 8},
    "RL + FaLW (streaming)": {"weighting": "falw", "estimator": "streaming"},
    "RL + FaLW (anchored)": {"weighting": "falw", "estimator": "anchored"},
    "Endpoint transport": {"method": "endpoint_transport"},
    "Transport, no decay": {"method": "endpoint_transport", "weight_decay": 0.0},
}
"""What each method is told before its search."""

_RELABEL = {"learning_rate": (0.001, 0.003, 0.01), "epochs": (2, 5)}
_DESCEND = {"learning_rate": (0.03, 0.1, 0.2), "epochs": (3, 8)}

TRIED: dict[str, dict[str, Sequence[Any]]] = {
    "FT": _DESCEND,
    "RL": _RELABEL,
    "GA": {"learning_rate": (0.0001, 0.0003, 0.001), "epochs": (3, 8)},
    "IU": {"strength": (1.0, 10.0, 100.0), "form": ("published", "exact")},
    "BE": {"learning_rate": (0.0001, 0.0003, 0.001), "epochs": (3, 8)},
    "BS": {"learning_rate": (0.0001, 0.0003, 0.001), "epochs": (3, 8)},
    "l1-sparse": {
        "learning_rate": (0.03, 0.1, 0.2),
        "penalty": (1e-4, 1e-3),
        "epochs": (5,),
    },
    "SalUn": _RELABEL,
    "NegGrad+": {
        "learning_rate": (0.003, 0.01, 0.03),
        "alpha": (0.95, 0.99),
        "epochs": (3,),
    },
    "SFRon": {"learning_rate": (0.01, 0.03, 0.1), "peak": (5.0, 25.0), "epochs": (3,)},
    "SCRUB": {
        "learning_rate": (0.003, 0.01, 0.03),
        "forget_epochs": (1, 2),
        "epochs": (3,),
    },
    "Bad Teacher": {"learning_rate": (1e-4, 3e-4, 1e-3), "epochs": (1, 3)},
    "SSD": {"selection": (1.0, 3.0, 10.0), "dampening": (0.3, 1.0)},
    "LTU": {"learning_rate": (0.0003, 0.001, 0.003), "epochs": (2, 5)},
    "Endpoint transport": _DESCEND,
    "Transport, no decay": _DESCEND,
}
"""Six trials each; weighted methods and estimators have those of random labels."""


MODELS = 32  # of each kind, for attacks that need many
ATTACKED = (
    "FT",
    "RL",
    "SalUn",
    "RL + LoReUn (dynamic)",
    "SalUn + LoReUn (dynamic)",
    "RL + FaLW (every 8)",
    "NegGrad+",
    "Transport, no decay",
)
"""Methods that are attacked so."""


class Part(NamedTuple):
    """One request, and what is asked of it.

    Attributes:
      title: what its table is called.
      kind, fraction, gamma: of the request, as in `Plan`.
      methods: labels of its rows.
      settings: the part whose search its settings come from.
      headline: whether it has all seeds of the study, or the first three.
      seeds: its own, which no choice has seen; it then also has transport with
        `ranking="reference"`, which was thought of after a look at the other seeds.
    """

    title: str
    kind: str
    fraction: float
    gamma: float
    methods: tuple[str, ...]
    settings: str
    headline: bool = False
    seeds: tuple[int, ...] = ()


def weighted(label: str, weighting: str) -> str:
    """Return the label of a method with LoReUn.

    >>> weighted("RL", "static")
    'RL + LoReUn (static)'
    """
    return f"{label} + LoReUn ({weighting})"


_FIELD = (*FIXED,)[:13]  # the standard table and its neighbours, LTU apart
_LOREUN = tuple(weighted(base, how) for base in BASES for how in ("static", "dynamic"))
_FALW = tuple(label for label in FIXED if "FaLW" in label)
_TRANSPORT = ("Endpoint transport", "Transport, no decay")
_ONE_FALW = ("RL + FaLW (every 8)", "RL + FaLW (anchored)")
_STANDARD = ("FT", "RL", "GA", "IU", "BE", "BS", "l1-sparse", "SalUn")
_DYNAMIC = (weighted("RL", "dynamic"), weighted("SalUn", "dynamic"))
_TAIL = ("FT", "RL", "SalUn", *_FALW, *_TRANSPORT)
_FRESH = ("FT", "RL", "SalUn", "NegGrad+", "Transport, no decay")
_FEW = ("FT", "RL", "SalUn", *_DYNAMIC, "LTU", *_ONE_FALW, *_TRANSPORT)


def _fresh(part: Part, settings: str, methods: Sequence[str], count: int) -> Part:
    """Return a part on seeds of its own."""
    return part._replace(
        title=f"{part.title}, fresh seeds",
        methods=tuple(methods),
        settings=settings,
        headline=False,
        seeds=tuple(range(10, 10 + count)),
    )


def _gammas(methods: Sequence[str], gammas: Sequence[float]) -> dict[str, Part]:
    """Return the long-tailed parts, all with the settings of γ = 1."""
    return {
        f"gamma-{gamma:g}": Part(
            f"long-tailed 10 %, γ = {gamma:g}",
            "long_tailed",
            0.1,
            gamma,
            tuple(methods),
            "gamma-1",
            headline=gamma == 1,
        )
        for gamma in gammas
    }


class Study(NamedTuple):
    """One size of the study.

    Attributes:
      title: of its tables.
      train, test: samples taken of the data set; 0 takes all.
      shrink: how many times smaller the images are made.
      unseen: of the training samples, held out of all training.
      training: how original and Retrain are trained.
      parts: by name, the first one first.
      seeds, search_seeds: of the tables, of the searches.
    """

    title: str
    train: int
    test: int
    shrink: int
    unseen: int
    training: Training
    parts: Mapping[str, Part]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    search_seeds: tuple[int, ...] = (100, 101)


_SMALL = Training(network="resnet8", width=8, epochs=25, learning_rate=0.1)
_RANDOM10 = Part(
    "10 % at random",
    "random",
    0.1,
    1.0,
    (*_FIELD, "LTU", *_LOREUN, *_ONE_FALW, *_TRANSPORT),
    "random10",
    headline=True,
)
_RANDOM50 = Part(
    "50 % at random",
    "random",
    0.5,
    1.0,
    (*_STANDARD, *_DYNAMIC, "RL + FaLW (anchored)", *_TRANSPORT),
    "random50",
)
_CLASS = Part(
    "a class",
    "class",
    1.0,
    1.0,
    ("FT", "RL", "SalUn", "SCRUB", *_DYNAMIC, weighted("SCRUB", "dynamic"), "SSD"),
    "class",
)
_NEAR = Part("a near forget set", "near", 0.1, 1.0, _FEW, "random10")
_FAR = Part("a far forget set", "far", 0.1, 1.0, _FEW, "random10")
_GAMMA1 = _gammas(_TAIL, (1,))["gamma-1"]
_FULL = {
    "random10": _RANDOM10,
    "random50": _RANDOM50,
    **_gammas(_TAIL, (1, 0, 0.5, 1.5, 2)),
}
_STEPS = Training(
    network="resnet18",
    epochs=182,
    batch_size=256,
    learning_rate=0.1,
    augment="flip_crop",
    dtype="bfloat16",
)

STUDIES = {
    "fashion": Study(
        "Fashion-MNIST subset, 14 x 14",
        train=5000,
        test=2000,
        shrink=2,
        unseen=1000,
        training=_SMALL,
        parts={
            "random10": _RANDOM10,
            **_gammas(_TAIL, (1, 0, 0.5, 1.5, 2)),
            "random50": _RANDOM50,
            "class": _CLASS,
            "near": _NEAR,
            "far": _FAR,
            "fresh-random10": _fresh(_RANDOM10, "random10", _FRESH, 5),
            "fresh-gamma-1": _fresh(_GAMMA1, "gamma-1", _TAIL, 5),
            "fresh-near": _fresh(_NEAR, "random10", _FRESH, 5),
            "fresh-far": _fresh(_FAR, "random10", _FRESH, 5),
        },
    ),
    "cifar10": Study(
        "CIFAR-10 subset",
        train=4000,
        test=2000,
        shrink=1,
        unseen=1000,
        training=_SMALL,
        parts={
            "random10": _RANDOM10._replace(methods=_FEW),
            **_gammas(
                ("FT", "RL", "SalUn", *_ONE_FALW, *_TRANSPORT),
                (1,),
            ),
            "fresh-random10": _fresh(
                _RANDOM10,
                "random10",
                [label for label in _FRESH if label in _FEW],
                5,
            ),
        },
    ),
    "cifar10-full": Study(
        "CIFAR-10, ResNet-18", 0, 0, 1, 5000, _STEPS, _FULL, seeds=(0, 1, 2)
    ),
    "cifar10-vgg": Study(
        "CIFAR-10, VGG-16",
        0,
        0,
        1,
        5000,
        dataclasses.replace(_STEPS, network="vgg16"),
        _gammas(_TAIL, (1, 0, 0.5, 1.5, 2)),
        seeds=(0, 1, 2),
    ),
}


def study_named(name: str) -> Study:
    """Return a study.

    Raises:
      InputError: there is none of that name.
    """
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    return STUDIES[name]


def load(study: Study, data: Path | None) -> Dataset:
    """Return the data of a study, subset and size of images as it says.

    Args:
      study: which.
      data: .npz file of the data set.

    Raises:
      InputError: no file.
    """
    if data is None:
        raise InputError(
            f"data=None: {study.title!r} needs --data FILE.npz with x_train, y_train, "
            "x_test, y_test"
        )
    dataset = from_npz(data)
    if study.train:
        dataset = subset(dataset, train=study.train, test=study.test)
    return shrink(dataset, study.shrink)


def grids(part: Part) -> Grids:
    """Return what the search of a part tries, six trials a method.

    >>> found = grids(STUDIES["cifar10"].parts["gamma-1"])
    >>> found["RL + FaLW (anchored)"][1]["epochs"]
    (2, 5)
    """
    made = {}
    for label in part.methods:
        base, _, how = label.partition(" + LoReUn ")
        weights = {"(static)": STATIC, "(dynamic)": LOREUN, "": {}}[how]
        made[label] = ({**FIXED[base], **weights}, TRIED.get(base, _RELABEL))
    return made


def search_tables(
    name: str,
    dataset: Dataset,
    say: Callable[[str], None],
    *,
    folder: Path | None = None,
    parts: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Search the settings of a study, part by part; see `search`.

    Args:
      name: of the study.
      dataset: its data.
      say: told a line for each trial.
      folder: where trained models and finished trials are kept.
      parts: those to search; default all that have settings of their own.

    Raises:
      InputError: no such study, or a part without a search.
    """
    study = study_named(name)
    own = [part for part, asked in study.parts.items() if asked.settings == part]
    for part in parts or ():
        if part not in own:
            raise unknown_name("part with a search", part, own)
    found = {}
    for part in parts or own:
        found[part] = search(
            _plan(study, part, {}, study.search_seeds),
            dataset,
            grids(study.parts[part]),
            say,
            folder=None if folder is None else folder / part,
        )
        jax.clear_caches()  # a program takes memory mappings, of which few are granted
    return found


def has_settings(name: str, folder: Path) -> bool:
    """Return whether `found_settings` finds some."""
    return (folder / "settings.json").exists() or _packaged(name).is_file()


def _packaged(name: str) -> Any:
    kept = importlib.resources.files("jax_unlearn.recipes")
    return kept.joinpath(f"tables_{name}_settings.json")


def found_settings(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Return what the searches of a study found, by part.

    Args:
      name: of the study.
      folder: of a run; what a search wrote to `settings.json` there comes first.

    Raises:
      InputError: nothing was searched, there or when the package was made.
    """
    own = None if folder is None else folder / "settings.json"
    if own is not None and own.exists():
        return read_json(own)
    stored = _packaged(name)
    if not stored.is_file():
        raise InputError(
            f"tables-{name} has no settings yet; search them first: "
            f"jax-unlearn recipe tables-{name} --tune"
        )
    return json.loads(stored.read_text())


def variants(settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return LoReUn at other temperatures and unnormalised, rate and length kept.

    >>> sorted(variants({"RL + LoReUn (dynamic)": Unlearning(**LOREUN)}))[0]
    'LoReUn, mean one, τ 0.1'
    """
    base = settings[weighted("RL", "dynamic")]
    made = {}
    for word, how in (("mean one", "mean_one"), ("raw", "none")):
        for tau in TEMPERATURES:
            made[f"LoReUn, {word}, τ {tau:g}"] = dataclasses.replace(
                base, temperature=tau, normalize=how
            )
    return made


def unbalanced(settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return FaLW without its class balance: B = 1."""
    base = settings["RL + FaLW (exact)"]
    return {"RL + FaLW, no balance": dataclasses.replace(base, tau=0.0)}


def ranked(settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return endpoint transport with other ranks of difficulty."""
    base, bare = settings["Endpoint transport"], settings["Transport, no decay"]
    made = {
        f"Transport by {ranking}": dataclasses.replace(base, ranking=ranking)
        for ranking in ("el2n", "gradient_norm", "neighbours")
    }
    both = dataclasses.replace(bare, ranking="neighbours")
    return {**made, "Transport by neighbours, no decay": both}


def referenced(settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return transport to targets that a model without forget samples helps find."""
    bare = settings["Transport, no decay"]
    found = dataclasses.replace(bare, ranking="reference")
    return {"Transport by reference, no decay": found}


def tables_plan(
    name: str,
    part: str,
    *,
    seeds: Sequence[int] | None = None,
    folder: Path | None = None,
) -> Plan:
    """Return one of the plans of a study.

    Args:
      name: of the study.
      part: of it.
      seeds: default those of the part.
      folder: of a run, as in `found_settings`.

    Raises:
      InputError: no such study or part, or no settings for it.
    """
    study = study_named(name)
    if part not in study.parts:
        raise unknown_name("part", part, study.parts)
    asked = study.parts[part]
    found = found_settings(name, folder)[asked.settings]
    methods = {label: Unlearning(**found["settings"][label]) for label in asked.methods}
    if part == "random10" and set(_LOREUN) <= set(methods):
        methods |= variants(methods)
    if "RL + FaLW (exact)" in methods:
        methods |= unbalanced(methods)
    if asked.headline:
        methods |= ranked(methods)
    if asked.seeds:
        methods |= referenced(methods)
    own = "" if asked.settings == part else f" of {asked.settings}"
    note = (
        f"Settings{own} chosen by the smallest mean Avg. Gap of {found['trials']} "
        f"trials a method on search seeds {found['search_seeds']}."
    )
    usual = study.seeds if asked.headline else asked.seeds or study.seeds[:3]
    return _plan(study, part, methods, usual if seeds is None else tuple(seeds), note)


def _plan(
    study: Study,
    part: str,
    methods: dict[str, Unlearning],
    seeds: tuple[int, ...],
    note: str = "",
) -> Plan:
    asked = study.parts[part]
    return Plan(
        title=f"{study.title}: {asked.title}",
        kind=asked.kind,
        fraction=asked.fraction,
        gamma=asked.gamma,
        unseen=study.unseen,
        training=study.training,
        methods=methods,
        seeds=seeds,
        note=note,
    )
