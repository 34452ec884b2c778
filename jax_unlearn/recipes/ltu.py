"""LTU under scrutiny: a third of the retain data, what each part is good for, and ρ.

One study, at two sizes: scikit-learn's digits, and a subset of CIFAR-10 with a small
ResNet. Each has a table in which every method may read only ρ = 0.3 of the retain set;
LTU without each of its parts, at LTU's own settings; ρ from 0.05 to 1; and forget sets
near to or far from the other samples. Settings are searched on seeds of their own.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jax_unlearn.data import Dataset, digits, subset
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import Plan, Training, Unlearning
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.settings import ATTACKS
from jax_unlearn.recipes.inputs import read_file, study_named
from jax_unlearn.recipes.search import Grids, search, stored

if TYPE_CHECKING:
    from jax_unlearn.report.svg import Drawing

RHO = 0.3
RHOS = (0.05, 0.1, 0.3, 0.5, 1.0)
PARTS = ("main", "near", "far")
COMPARED = ("FT", "RL", "SalUn", "RL + LoReUn", "RL + FaLW", "LTU")


@dataclasses.dataclass(frozen=True)
class Study:
    """One size of the study.

    Attributes:
      title: of its tables.
      train, test: samples taken of the data set; 0 takes all.
      unseen: of these, held out of all training.
      kind, fraction: of the forget request.
      training: how original and Retrain are trained.
      grids: what the search tries.
      seeds, search_seeds: of the tables, of the search.
    """

    title: str
    train: int
    test: int
    unseen: int
    kind: str
    fraction: float
    training: Training
    grids: Grids
    seeds: tuple[int, ...]
    search_seeds: tuple[int, ...]


def _grids(
    rates: Mapping[str, Sequence[float]],
    epochs: Mapping[str, Sequence[int]],
    *,
    batch_size: int,
    estimator: str,
) -> Grids:
    """Return the same number of trials for each method: its rates times lengths."""
    fixed: dict[str, dict[str, Any]] = {
        "FT": {"method": "finetune"},
        "RL": {"method": "random_label"},
        "SalUn": {"method": "salun"},
        "RL + LoReUn": {"weighting": "loreun", "relative": True},
        "RL + FaLW": {"weighting": "falw", "estimator": estimator},
        "LTU": {
            "method": "ltu",
            "query_size": 16,
            "batch_size": batch_size,
            "clip": 30.0,  # the second-order term can explode
            "allow_weak": True,  # at small ρ no attack can be told from chance
        },
    }
    grids = {}
    for label, chosen in fixed.items():
        own = label if label in rates else "RL"  # what else relabels has RL's
        tried = {"learning_rate": rates[own], "epochs": epochs[own]}
        grids[label] = ({**chosen, "rho": RHO}, tried)
    return grids


STUDIES = {
    "digits": Study(
        title="LTU on digits",
        train=0,
        test=0,
        unseen=400,
        kind="long_tailed",
        fraction=0.3,
        training=Training(network="small_cnn", width=8, epochs=40, learning_rate=0.1),
        grids=_grids(
            {
                "FT": (0.1, 0.3, 0.5, 1.0),
                "RL": (0.0003, 0.0006, 0.001, 0.003),
                "LTU": (0.00003, 0.00006, 0.0001, 0.0003),
            },
            {"FT": (10, 20, 40), "RL": (2, 4, 8), "LTU": (5, 10, 20)},
            batch_size=64,
            estimator="exact",
        ),
        seeds=(0, 1, 2, 3, 4),
        search_seeds=(100, 101, 102),
    ),
    "cifar10": Study(
        title="LTU on a CIFAR-10 subset",
        train=2500,
        test=2000,
        unseen=1000,
        kind="random",
        fraction=0.1,
        training=Training(network="resnet8", width=8, epochs=40, learning_rate=0.1),
        grids=_grids(
            {
                "FT": (0.03, 0.1, 0.2),
                "RL": (0.003, 0.01, 0.03),
                "LTU": (0.0001, 0.0003, 0.001),
            },
            {"FT": (10, 20), "RL": (3, 8), "LTU": (3, 8)},
            batch_size=32,
            estimator="streaming",  # exact reads the whole unseen set every step
        ),
        seeds=(0, 1, 2),
        search_seeds=(100, 101),
    ),
}


def load(name: str, data: Path | None) -> Dataset:
    """Return the data of a study.

    Args:
      name: of the study.
      data: .npz file of the data set; None takes digits.

    Raises:
      InputError: no such study; it needs a file and has none, or the other way round.
    """
    study = study_named(name, STUDIES)
    if study.train == 0:
        if data is not None:
            raise InputError(f"data={data}: {study.title!r} brings its own data")
        return digits()
    dataset = read_file(data, study.title)
    return subset(dataset, train=study.train, test=study.test)


def search_ltu(
    name: str,
    dataset: Dataset,
    say: Callable[[str], None],
    *,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Search the settings of the compared methods; see `search`.

    Args:
      name: of the study.
      dataset: its data.
      say: told a line for each trial.
      folder: where trained models are kept.
    """
    study = study_named(name, STUDIES)
    plan = _plan(study, "main", {}, study.search_seeds)
    return search(plan, dataset, study.grids, say, folder=folder)


def found_settings(name: str) -> dict[str, Any]:
    """Return what the stored search of a study found."""
    return stored(f"ltu_{name}")["main"]


def variants(base: Unlearning) -> dict[str, Unlearning]:
    """Return LTU without, or with another form of, each of its parts.

    >>> len(variants(Unlearning.of(method="ltu")))
    8
    """

    def changed(**parts: Any) -> Unlearning:
        return base.but(**parts)

    return {
        "LTU, no meta-test": changed(inner_rate=0.0),
        "LTU, first order": changed(first_order=True),
        "LTU, not harmonized": changed(harmonizer="none"),
        **{f"LTU, only {name}": changed(attacks=(name, name)) for name in ATTACKS},
        "LTU, uniform queries": changed(strategies=("uniform",) * 5),
    }


def at_rho(study: Study, settings: Mapping[str, Unlearning]) -> dict[str, Unlearning]:
    """Return FT, RL and LTU at every ρ but the one of the table.

    The number of steps is that at ρ = 0.3, to a whole number of epochs: what changes is
    the data, not the effort.
    """
    made = {}
    for rho in RHOS:
        if rho != RHO:
            for label in ("FT", "RL", "LTU"):
                base = settings[label]
                other = base.but(rho=rho)
                steps = base.epochs * steps_per_epoch(study, base)
                epochs = max(round(steps / steps_per_epoch(study, other)), 1)
                made[_at(label, rho)] = other.but(epochs=epochs)
    return made


def steps_per_epoch(study: Study, setting: Unlearning) -> int:
    """Return how many steps a method takes through what it may read.

    >>> steps_per_epoch(STUDIES["digits"], Unlearning.of(method="finetune"))  # 420/64
    7
    """
    trained = (study.train or len(digits().train.labels)) - study.unseen
    forget = round(study.fraction * trained)
    retain = round(setting.rho * (trained - forget))
    if setting.method == "ltu":
        told = setting.flat()
        return -(-retain // (len(told["strategies"]) * told["query_size"]))
    if setting.method == "finetune":
        return -(-retain // min(setting.batch_size, retain))
    share = round(setting.batch_size * forget / (forget + retain))
    return -(-retain // (setting.batch_size - share))


def _at(label: str, rho: float) -> str:
    """Return the label of a method at a ρ."""
    return label if rho == RHO else f"{label}, rho {rho:g}"


def ltu_plan(name: str, part: str, *, seeds: Sequence[int] | None = None) -> Plan:
    """Return one of the plans of a study.

    Args:
      name: "digits" or "cifar10".
      part: "main" (table, ablations, ρ), "near" or "far".
      seeds: default those of the study.

    Raises:
      InputError: no such study or part.
    """
    study = study_named(name, STUDIES)
    if part not in PARTS:
        raise unknown_name("part", part, PARTS)
    found = found_settings(name)
    chosen = {k: Unlearning.of(**found["settings"][k]) for k in COMPARED}
    methods = dict(chosen)
    if part == "main":
        methods |= variants(chosen["LTU"]) | at_rho(study, chosen)
    note = (
        f"Settings chosen by the smallest mean Avg. Gap of {found['trials']} trials a "
        f"method on search seeds {found['search_seeds']} (jax-unlearn recipe "
        f"ltu-{name} --tune); the variants of LTU have LTU's."
    )
    return _plan(
        study, part, methods, study.seeds if seeds is None else tuple(seeds), note
    )


def figures(found: Mapping[str, dict[str, Any]]) -> "dict[str, Drawing]":
    """Draw a study: the ρ sweep, the ablations, near against far.

    Args:
      found: results by part; what a missing part is needed for is left out.

    Returns:
      Drawings by name.
    """
    from jax_unlearn.report import studies

    drawn = {}
    if "main" in found:
        drawn |= _main_figures(found["main"])
    if "near" in found and "far" in found:
        compared = {label: slug(label) for label in COMPARED}
        drawn["near_far"] = studies.near_far(found["near"], found["far"], compared)
    return drawn


def _main_figures(main: Mapping[str, Any]) -> "dict[str, Drawing]":
    from jax_unlearn.report import studies

    base = Unlearning.of(method="ltu")
    ablations = {label: slug(label) for label in ("RL", "LTU", *variants(base))}
    sweep = {
        label: {rho: slug(_at(label, rho)) for rho in RHOS}
        for label in ("FT", "RL", "LTU")
    }
    return {
        "rho": studies.rho_sweep(main, sweep),
        "ablations": studies.ablation_bars(main, ablations),
    }


def _plan(
    study: Study,
    part: str,
    methods: dict[str, Unlearning],
    seeds: tuple[int, ...],
    note: str = "",
) -> Plan:
    words = {"main": "", "near": ", a near forget set", "far": ", a far forget set"}
    return Plan(
        title=study.title + words[part],
        kind=study.kind if part == "main" else part,
        fraction=study.fraction,
        gamma=1.0,
        unseen=study.unseen,
        training=study.training,
        methods=methods,
        seeds=seeds,
        note=note,
    )
