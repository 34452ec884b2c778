"""LTU in detail: with a third of the retain data, without each of its parts, and by ρ.

The study is run at two sizes: scikit-learn's digits, and a subset of CIFAR-10 with a
small ResNet. Each has a table in which every method may read only ρ = 0.3 of the retain
set; LTU without each of its parts, at LTU's own settings; ρ from 0.05 to 1; and forget
sets near to and far from the other samples.
"""

from collections.abc import Callable

from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.plan import slug
from jax_unlearn.methods.ltu import ATTACKS
from jax_unlearn.recipes.recipe import Drawings, Recipe, Results, packaged
from jax_unlearn.recipes.study import Part, Settings, studied

__all__ = ["LTU_CIFAR10", "LTU_DIGITS", "RHO", "RHOS", "at_rho", "figures"]
__all__ += ["steps_per_epoch", "variants"]

RHO = 0.3
RHOS = (0.05, 0.1, 0.3, 0.5, 1.0)
SWEPT = ("FT", "RL", "LTU")


def variants(settings: Settings) -> Settings:
    """Add LTU without, or with another form of, each of its parts."""
    base = settings["LTU"]
    return {
        **settings,
        "LTU, no meta-test": base.but(inner_rate=0.0),
        "LTU, first order": base.but(first_order=True),
        "LTU, not harmonized": base.but(harmonizer="none"),
        **{f"LTU, only {name}": base.but(attacks=(name, name)) for name in ATTACKS},
        "LTU, uniform queries": base.but(strategies=("uniform",) * 5),
    }


def at_rho(trained: int, forget: int) -> Callable[[Settings], Settings]:
    """Return what adds FT, RL and LTU at every other ρ, in whole epochs."""

    def swept(settings: Settings) -> Settings:
        made = dict(settings)
        for rho in RHOS:
            for label in SWEPT if rho != RHO else ():
                base = settings[label]
                other = base.but(rho=rho)
                # as many steps: what changes is the data, not the effort
                steps = base.epochs * steps_per_epoch(trained, forget, base)
                epochs = round(steps / steps_per_epoch(trained, forget, other))
                made[_at(label, rho)] = other.but(epochs=max(epochs, 1))
        return made

    return swept


def steps_per_epoch(trained: int, forget: int, setting: Unlearning) -> int:
    """Return how many steps a method takes through what it may read."""
    retain, batch = round(setting.rho * (trained - forget)), setting.batch_size
    if setting.method == "ltu":
        values = setting.flat()
        return -(-retain // (len(values["strategies"]) * values["query_size"]))
    if setting.method == "finetune":
        return -(-retain // min(batch, retain))
    share = round(batch * forget / (forget + retain))
    return -(-retain // (batch - share))


def _at(label: str, rho: float) -> str:
    return label if rho == RHO else f"{label}, rho {rho:g}"


def figures(found: Results) -> Drawings:
    """Draw what the parts that were run show: the ρ sweep, ablations, near and far."""
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
        keys = {label: slug(label) for label in found["near"]["plan"]["methods"]}
        drawn["near_far"] = studies.near_far(found["near"], found["far"], keys)
    return drawn


def _recipe(name: str, kind: str, fraction: float, trained: int) -> Recipe:
    """Return the recipe: main table with ablations and ρ, near and far forget sets."""
    main = Part("", kind, fraction, grid=packaged("grids/ltu.toml")[name])
    parts = {
        "main": main.but(more=(variants, at_rho(trained, round(fraction * trained))))
    }
    for kind in ("near", "far"):
        changes = {"title": f"a {kind} forget set", "kind": kind}
        parts[kind] = main.like("main", tuple(main.grid), **changes)
    return studied(name, parts, figures=figures)


LTU_DIGITS = _recipe("ltu-digits", "long_tailed", 0.3, trained=600)
LTU_CIFAR10 = _recipe("ltu-cifar10", "random", 0.1, trained=1500)
