"""LTU under scrutiny: a third of the retain data, what each part is good for, and ρ.

One study, at two sizes: scikit-learn's digits, and a subset of CIFAR-10 with a small
ResNet. Each has a table in which every method may read only ρ = 0.3 of the retain set;
LTU without each of its parts, at LTU's own settings; ρ from 0.05 to 1; and forget sets
near to or far from the other samples. Settings are searched on seeds of their own.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jax_unlearn.lab import Training, Unlearning
from jax_unlearn.lab.plan import slug
from jax_unlearn.methods.ltu import ATTACKS
from jax_unlearn.recipes.recipe import Data
from jax_unlearn.recipes.search import Grids, tried
from jax_unlearn.recipes.study import Part, Settings, Study

if TYPE_CHECKING:
    from jax_unlearn.report import Drawing

RHO = 0.3
RHOS = (0.05, 0.1, 0.3, 0.5, 1.0)
SWEPT = ("FT", "RL", "LTU")


def _grid(
    rates: Mapping[str, tuple[float, ...]],
    epochs: Mapping[str, tuple[int, ...]],
    *,
    batch_size: int,
    estimator: str,
) -> Grids:
    """Return the same number of trials for each method: its rates times lengths."""
    ft, rl, ltu = ((rates[name], epochs[name]) for name in SWEPT)
    grids: Grids = {
        "FT": tried("finetune", *ft),
        "RL": tried("random_label", *rl),
        "SalUn": tried("salun", *rl),
        "RL + LoReUn": tried("random_label", *rl, weighting="loreun", relative=True),
        "RL + FaLW": tried("random_label", *rl, weighting="falw", estimator=estimator),
        "LTU": tried(
            "ltu",
            *ltu,
            query_size=16,
            batch_size=batch_size,
            clip=30.0,  # the second-order term can explode
            allow_weak=True,  # at small ρ no attack can be told from chance
        ),
    }
    return {label: {**grid, "rho": RHO} for label, grid in grids.items()}


def variants(settings: Settings) -> Settings:
    """Add LTU without, or with another form of, each of its parts.

    >>> len(variants({"LTU": Unlearning.of(method="ltu")}))
    9
    """
    base = settings["LTU"]
    return {
        **settings,
        "LTU, no meta-test": base.but(inner_rate=0.0),
        "LTU, first order": base.but(first_order=True),
        "LTU, not harmonized": base.but(harmonizer="none"),
        **{f"LTU, only {name}": base.but(attacks=(name, name)) for name in ATTACKS},
        "LTU, uniform queries": base.but(strategies=("uniform",) * 5),
    }


def at_rho(trained: int, forget: int) -> Any:
    """Return what adds FT, RL and LTU at every ρ but the one of the table.

    The number of steps is that at ρ = 0.3, to a whole number of epochs: what changes is
    the data, not the effort.

    Args:
      trained: samples that the original was trained on.
      forget: of these, in the forget set.
    """

    def swept(settings: Settings) -> Settings:
        made = dict(settings)
        for rho in RHOS:
            for label in SWEPT if rho != RHO else ():
                base = settings[label]
                other = base.but(rho=rho)
                steps = base.epochs * steps_per_epoch(trained, forget, base)
                epochs = round(steps / steps_per_epoch(trained, forget, other))
                made[_at(label, rho)] = other.but(epochs=max(epochs, 1))
        return made

    return swept


def steps_per_epoch(trained: int, forget: int, setting: Unlearning) -> int:
    """Return how many steps a method takes through what it may read.

    >>> steps_per_epoch(600, 180, Unlearning.of(method="finetune"))  # 420/64
    7
    """
    retain, batch = round(setting.rho * (trained - forget)), setting.batch_size
    if setting.method == "ltu":
        values = setting.flat()
        return -(-retain // (len(values["strategies"]) * values["query_size"]))
    if setting.method == "finetune":
        return -(-retain // min(batch, retain))
    share = round(batch * forget / (forget + retain))
    return -(-retain // (batch - share))


def _at(label: str, rho: float) -> str:
    """Return the label of a method at a ρ."""
    return label if rho == RHO else f"{label}, rho {rho:g}"


def _study(main: Part, trained: int, **values: Any) -> Study:
    """Return the study: main table with ablations and ρ, near and far forget sets."""
    beside = main.but(grid={}, settings="main", methods=tuple(main.grid))
    forget = round(main.fraction * trained)
    return Study(
        parts={
            "main": main.but(more=(variants, at_rho(trained, forget))),
            "near": beside.but(title="a near forget set", kind="near"),
            "far": beside.but(title="a far forget set", kind="far"),
        },
        note="; the variants of LTU have LTU's",
        **values,
    )


def figures(found: Mapping[str, Any]) -> "dict[str, Drawing]":
    """Draw a study: the ρ sweep, the ablations, near against far.

    Args:
      found: results by part; what a missing part is needed for is left out.

    Returns:
      Drawings by name.
    """
    from jax_unlearn.report.draw import studies

    drawn = {}
    if "main" in found:
        bare: Settings = {"LTU": Unlearning.of(method="ltu")}
        labels = ("RL", *variants(bare))
        sweep = {label: {r: slug(_at(label, r)) for r in RHOS} for label in SWEPT}
        drawn["rho"] = studies.rho_sweep(found["main"], sweep)
        drawn["ablations"] = studies.ablation_bars(
            found["main"], {label: slug(label) for label in labels}
        )
    if "near" in found and "far" in found:
        methods = found["near"]["plan"]["methods"]
        keys = {label: slug(label) for label in methods}
        drawn["near_far"] = studies.near_far(found["near"], found["far"], keys)
    return drawn


_MAIN = Part("", "long_tailed", 0.3)

LTU_DIGITS = _study(
    _MAIN.but(
        grid=_grid(
            {
                "FT": (0.1, 0.3, 0.5, 1.0),
                "RL": (0.0003, 0.0006, 0.001, 0.003),
                "LTU": (0.00003, 0.00006, 0.0001, 0.0003),
            },
            {"FT": (10, 20, 40), "RL": (2, 4, 8), "LTU": (5, 10, 20)},
            batch_size=64,
            estimator="exact",
        )
    ),
    trained=600,
    name="ltu-digits",
    title="LTU on digits",
    unseen=400,
    training=Training(network="small_cnn", width=8, epochs=40, learning_rate=0.1),
    search_seeds=(100, 101, 102),
).recipe(
    "LTU: table, ablations, ρ sweep, near and far",
    "30 min",
    figures=figures,
    page="ltu",
)

LTU_CIFAR10 = _study(
    _MAIN.but(
        kind="random",
        fraction=0.1,
        grid=_grid(
            {
                "FT": (0.03, 0.1, 0.2),
                "RL": (0.003, 0.01, 0.03),
                "LTU": (0.0001, 0.0003, 0.001),
            },
            {"FT": (10, 20), "RL": (3, 8), "LTU": (3, 8)},
            batch_size=32,
            estimator="streaming",  # exact reads the whole unseen set every step
        ),
    ),
    trained=1500,
    name="ltu-cifar10",
    title="LTU on a CIFAR-10 subset",
    unseen=1000,
    training=Training(network="resnet8", width=8, epochs=40, learning_rate=0.1),
    seeds=(0, 1, 2),
).recipe(
    "the same on 2,500 images of CIFAR-10, small ResNet",
    "2 h",
    data=Data(train=2500, test=2000),
    figures=figures,
    page="ltu",
)
