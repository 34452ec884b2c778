"""The tables of the three papers (LoReUn, FaLW, LTU) on real data.

Fashion-MNIST at 14 x 14 and a subset of CIFAR-10 with a small ResNet are for a CPU, the
papers' own sizes for an accelerator. A part is one request: random, a class,
long-tailed with several γ, near or far. Every method of a part has the same number of
trials, on seeds kept for the search: six of a grid, and two around its best in each
round. If there is a final, the best few are tried on more seeds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax_unlearn.lab import Plan
from jax_unlearn.lab.catalog import METHODS as CARDS
from jax_unlearn.lab.plan import slug
from jax_unlearn.recipes.recipe import Asked, Drawings, Recipe, Results, declared
from jax_unlearn.recipes.search import Grids
from jax_unlearn.recipes.study import Part, Settings, Study, studied

__all__ = ["CIFAR10", "CIFAR10_FULL", "CIFAR10_VGG", "CIFAR100_FULL", "FASHION"]
__all__ += ["FIELD", "METHODS", "TINY_IMAGENET_FULL", "beside", "by_gamma", "figures"]
__all__ += ["look", "ranked", "referenced", "temperatures", "unbalanced"]

TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0)

_STANDARD = (
    *("finetune", "random_label", "gradient_ascent", "influence", "boundary_expand"),
    *("boundary_shrink", "l1_sparse", "salun", "neggrad_plus", "sfron", "scrub"),
    *("bad_teacher", "ssd", "ltu"),
    *("ct", "msg", "delete", "regun", "short_retrain", "partial_reset"),
    *("amun", "lotus", "fcs", "orthograd", "certified", "rum", "rewind"),
)
_FIXED: dict[str, dict[str, Any]] = {
    # as much training as the longest of the others
    "rewind": {"rewind_to": (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)},
    "short_retrain": {"share": 0.3, "rate": (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)},
    "partial_reset": {"share": 0.3, "shrink": (0.3, 0.4, 0.6), "rate": (1.0, 2.0)},
    "bad_teacher": {"optimizer": "adam", "rho": 0.3},
    # clipped, for the second-order term can explode
    "ltu": {"rho": 0.3, "query_size": 32, "clip": 30.0, "allow_weak": True},
}
FIELD: Grids = {
    CARDS[name].label: {"method": name, **CARDS[name].search, **_FIXED.get(name, {})}
    for name in _STANDARD
}
"""The standard table, its neighbours and LTU: the six trials that their cards name."""

_WITH_LOREUN: Grids = {
    f"{base} + LoReUn ({how})": {**FIELD[base], "weighting": name, "relative": True}
    for base in ("GA", "RL", "SalUn", "SFRon", "SCRUB")
    for how, name in (("static", "loreun_static"), ("dynamic", "loreun"))
}
_WITH_FALW: Grids = {
    f"RL + FaLW ({how})": {**FIELD["RL"], "weighting": "falw", **values}
    for how, values in {
        "exact": {},
        "every 8": {"estimator": "every", "every": 8},
        "streaming": {"estimator": "streaming"},
        "anchored": {"estimator": "anchored"},
    }.items()
}
_ENDPOINT = {**FIELD["FT"], "method": "endpoint_transport"}
_TRANSPORT: Grids = {
    "Endpoint transport": _ENDPOINT,
    "Transport, no decay": {**_ENDPOINT, "weight_decay": 0.0},
}
_DUAL = {"dual": True, "dual_rate": (1e-4, 1e-3)}
_TWO: Grids = {
    "RL + MUNBa": {
        **FIELD["RL"],
        **{"harmonizer": "bargain", "schedule": "zipped", "clip": 1.0},
    },
    "SalUn + DualOptim": {**FIELD["SalUn"], "epochs": 5, **_DUAL},
    "SFRon + DualOptim": {**FIELD["SFRon"], "peak": 25.0, **_DUAL},
}
METHODS: Grids = {**FIELD, **_TWO, **_WITH_LOREUN, **_WITH_FALW, **_TRANSPORT}
"""All methods of the tables."""


def temperatures(settings: Settings) -> Settings:
    """Add LoReUn at other temperatures and unnormalised, rate and length kept."""
    base = settings["RL + LoReUn (dynamic)"]
    return settings | {
        f"LoReUn, {word}, τ {tau:g}": base.but(temperature=tau, normalize=how)
        for word, how in (("mean one", "mean_one"), ("raw", "none"))
        for tau in TEMPERATURES
    }


def unbalanced(settings: Settings) -> Settings:
    """Add FaLW without its class balance: B = 1."""
    base = settings["RL + FaLW (exact)"]
    return {**settings, "RL + FaLW, no balance": base.but(tau=0.0)}


def ranked(settings: Settings) -> Settings:
    """Add endpoint transport with other ranks of difficulty."""
    base, bare = (settings[label] for label in _TRANSPORT)
    return {
        **settings,
        "Transport by el2n": base.but(ranking="el2n"),
        "Transport by gradient_norm": base.but(ranking="gradient_norm"),
        "Transport by neighbours": base.but(ranking="neighbours"),
        "Transport by neighbours, no decay": bare.but(ranking="neighbours"),
    }


def referenced(settings: Settings) -> Settings:
    """Add transport to targets that a model without forget samples helps find."""
    found = settings["Transport, no decay"].but(ranking="reference")
    return {**settings, "Transport by reference, no decay": found}


def _grid(*methods: str) -> Grids:
    return {label: METHODS[label] for label in methods}


def _gammas(
    methods: Sequence[str], *gammas: float, fraction: float = 0.1, printed: str
) -> dict[str, Part]:
    """Return the long-tailed parts, all with the settings of the first γ."""
    always = (unbalanced,) if "RL + FaLW (exact)" in methods else ()
    own = f"gamma-{gammas[0]:g}"
    main = Part(
        "", "long_tailed", fraction, grid=_grid(*methods), more=(*always, ranked)
    )
    parts = {}
    for gamma in gammas:
        title = f"long-tailed {100 * fraction:g} %, γ = {gamma:g}"
        part = main.but(printed=printed)
        if parts:
            told = {"printed": f"sweep-{gamma:g}", "seeds": FEW, "more": always}
            part = main.like(own, methods, **told)
        parts[f"gamma-{gamma:g}"] = part.but(title=title, gamma=gamma)
    return parts


def _fresh(part: Part, methods: Sequence[str], own: str, *more: Any) -> Part:
    """Return a part on seeds that no choice has seen, with transport by a reference."""
    return part.like(
        own,
        methods,
        title=f"{part.title}, fresh seeds",
        more=(*more, referenced),
        seeds=(10, 11, 12, 13, 14),
    )


FEW = (0, 1, 2)  # seeds of the tables that are not the first of their kind
_TWO_FALW = ("RL + FaLW (every 8)", "RL + FaLW (anchored)")
_TAIL = ("FT", "RL", "SalUn", *_WITH_FALW, *_TRANSPORT)
_FRESH = ("FT", "RL", "SalUn", "NegGrad+", "Transport, no decay")
_FEWER = (
    *("FT", "RL", "SalUn", "LTU", *_TWO_FALW, *_TRANSPORT),
    *("RL + LoReUn (dynamic)", "SalUn + LoReUn (dynamic)"),
)

_RANDOM = Part(
    *("10 % at random", "random", 0.1),
    grid=_grid(*FIELD, *_TWO, *_WITH_LOREUN, *_TWO_FALW, *_TRANSPORT),
    more=(temperatures, ranked),
    printed="salun-10",
)
_CLASS = _grid(
    *("FT", "l1-sparse", "NegGrad+", "SSD"),
    *("GA", "RL", "SalUn", "SFRon", "SCRUB", *_WITH_LOREUN),
    *("CT", "MSG", "DELETE", "Short Retrain", "Partial reset", *_TWO),
)
_NEAR, _FAR = (
    _RANDOM.like("random10", _FEWER, title=f"a {k} forget set", kind=k, seeds=FEW)
    for k in ("near", "far")
)
_SWEPT = _gammas(_TAIL, 1, 0, 0.5, 1.5, 2, printed="falw-10")
_ALL = {
    "random10": _RANDOM,
    **_SWEPT,
    "random50": _RANDOM.but(
        title="50 % at random", fraction=0.5, more=(), seeds=FEW, printed="salun-50"
    ),
    "class": Part("a class", "class", 1.0, grid=_CLASS, seeds=FEW),
    "near": _NEAR,
    "far": _FAR,
}


def by_gamma(found: Results) -> dict[float, Any]:
    """Return the results of long-tailed parts by γ, the first part of each."""
    swept: dict[float, Any] = {}
    for results in found.values():
        if results["plan"]["kind"] == "long_tailed":
            swept.setdefault(results["plan"]["gamma"], results)
    return swept


def figures(found: Results) -> Drawings:
    """Draw Avg. Gap and deviation by γ, where there is more than one."""
    from jax_unlearn.report.draw import studies

    swept = by_gamma(found)
    labels = ("FT", "RL", "SalUn", "RL + FaLW (exact)", "RL + FaLW (anchored)")
    keys = {label: slug(label) for label in (*labels, "Endpoint transport")}
    return {"gamma": studies.gamma_sweep(swept, keys)} if len(swept) > 1 else {}


FASHION = studied(
    "tables-fashion",
    {
        **_ALL,
        "fresh-random10": _fresh(_RANDOM, _FRESH, "random10"),
        "fresh-gamma-1": _fresh(_SWEPT["gamma-1"], _TAIL, "gamma-1", unbalanced),
        "fresh-near": _fresh(_NEAR, _FRESH, "random10"),
        "fresh-far": _fresh(_FAR, _FRESH, "random10"),
    },
    figures=figures,
)
_FEWER_FRESH = [label for label in _FRESH if label != "NegGrad+"]
CIFAR10 = studied(
    "tables-cifar10",
    {
        "random10": _RANDOM,
        **_gammas(("FT", "RL", "SalUn", *_TWO_FALW, *_TRANSPORT), 1, printed="falw-10"),
        "fresh-random10": _fresh(_RANDOM, _FEWER_FRESH, "random10"),
        # the same seeds: what another machine's rounding makes of a table
        "again-random10": _RANDOM.like(
            *("random10", _FEWER),
            title="10 % at random, on another machine",
            more=(ranked,),
        ),
    },
    figures=figures,
)
CIFAR10_FULL = studied("tables-cifar10-full", _ALL, figures=figures)
CIFAR10_VGG = studied("tables-cifar10-vgg", _SWEPT, figures=figures)
CIFAR100_FULL = studied(
    "tables-cifar100-full",
    _gammas(_TAIL, 1, 0, 0.25, 1 / 3, 0.5, 1.5, 2, fraction=0.3, printed="sweep-1"),
    figures=figures,
)
TINY_IMAGENET_FULL = studied(
    "tables-tiny-imagenet-full",
    _gammas(_TAIL, 0.5, fraction=0.4, printed="falw-tiny"),
    figures=figures,
)


def look(name: str, tables: Recipe, start: Any) -> Recipe:
    """Return a recipe that looks closer at the models of tables."""
    return declared(name, start, study=tables, data=tables.data)


def beside(recipe: Recipe, asked: Asked, folder: Path) -> tuple[Plan, Path]:
    """Return plan and folder of the part that a recipe looks at: the first one."""
    study: Study = recipe.study.study
    part = next(iter(study.parts))
    told = {"seeds": asked.seeds, "folder": folder, "whole": False}
    return study.plan(part, **told), folder / part
