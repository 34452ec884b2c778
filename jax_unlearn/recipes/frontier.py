"""The frontier: which method is nearest to Retrain at each share of its cost.

A budget fixes the length of every method, so that all rows of a table cost the same
share of one Retrain. A part of the study is one request at one budget. Every method has
six trials of its own at every budget, on seeds that no table uses. Requests without a
search of their own (near, far) take the settings of 10 % at random at the same budget.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax_unlearn.audit import paired_test
from jax_unlearn.lab.plan import slug
from jax_unlearn.lab.results import LABELS
from jax_unlearn.recipes.recipe import Drawings, Results, packaged, shortened
from jax_unlearn.recipes.study import Part, studied

__all__ = ["BUDGETS", "CIFAR10", "CONVEX", "DIGITS", "FASHION", "OURS", "RETRAINING"]
__all__ += ["TRANSPORT", "by_request", "crossing", "figures", "parts", "reached"]
__all__ += ["rows_of", "title_of"]

BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
CONVEX = "Partial reset (convex)"
"""Of κ = 1 − λ: between the original's parameters and new ones."""
TRANSPORT = "Reset transport"

GRID = {
    **packaged("grids/frontier.toml"),
    CONVEX: {
        "method": "partial_reset",
        "perturb": None,
        "shrink": (0.2, 0.4, 0.6, 0.75, 0.9, 0.97),
    },
    TRANSPORT: {
        "method": "reset_transport",
        "learning_rate": 0.02,
        "shrink": (0.25, 0.5, 0.75),
        "sharpen": (None, 1.0),
    },
}
RETRAINING = ("Short Retrain", "Partial reset", CONVEX)
"""What a budget buys as plain training on the retain set."""
OURS = (*RETRAINING, TRANSPORT)
"""These, and what learns from one of them; the rest is the field."""

LEVEL = 0.05
DIGITS_OF = {"avg_gap": 2, "deviation": 3}
SHOWN = (*OURS, "CT", "FT", "SalUn", "RL + FaLW (exact)", "RL + FaLW (anchored)")
_REQUESTS = {
    "random10": Part("10 % at random", "random", 0.1, grid=GRID),
    "gamma-1": Part("30 %, long-tailed, γ = 1", "long_tailed", 0.3, grid=GRID),
    "class": Part("a class", "class", 1.0, grid=GRID),
    "random50": Part("50 % at random", "random", 0.5, grid=GRID),
    "near": Part("10 %, near", "near", 0.1),
    "far": Part("10 %, far", "far", 0.1),
}


def parts() -> dict[str, Part]:
    """Return a part for each request and budget, "random10-20" for 20 %."""
    found = {}
    for request, part in _REQUESTS.items():
        for budget in BUDGETS:
            percent = f"{100 * budget:g}"
            title = f"{part.title}, {percent} % of Retrain's cost"
            grid = {
                label: {**own, "budget": budget} for label, own in part.grid.items()
            }
            made = part.but(title=title, grid=grid)
            if not grid:
                made = made.like(f"random10-{percent}", tuple(GRID))
            found[f"{request}-{percent}"] = made
    return found


def by_request(found: Results) -> dict[str, dict[float, Any]]:
    """Return results by request and budget, in the order of the study."""
    names: dict[str, dict[float, Any]] = {}
    for name, results in found.items():
        request = name.rpartition("-")[0]
        names.setdefault(request, {})[budget_of(name)] = results
    return names


def budget_of(part: str) -> float:
    """Return the budget of a part, a share of Retrain's cost."""
    return float(part.rpartition("-")[2]) / 100


def title_of(request: str) -> str:
    """Return what a request is called."""
    return _REQUESTS[request].title


def crossing(found: Mapping[float, Any], figure: str = "avg_gap") -> dict[float, Any]:
    """Return by budget the best of the field beside ours.

    "field": label, mean; by the label of each of `OURS`: mean; None where a row is
    missing. `figure` is "avg_gap" or "deviation".
    """
    told: dict[float, Any] = {}
    for budget, results in sorted(found.items()):
        rows = means_of(results, figure)
        field = {label: mean for label, mean in rows.items() if label not in OURS}
        best = min(field, key=lambda label: field[label]) if field else None
        own = {label: rows.get(label) for label in OURS}
        told[budget] = {"field": (best, field[best]) if best else None, **own}
    return told


def means_of(results: Mapping[str, Any], figure: str) -> dict[str, float]:
    """Return a distance of every method, by its label."""
    return {
        row["label"]: row[figure]["mean"]
        for key, row in results["rows"].items()
        if key not in LABELS
    }


def limit_of(results: Mapping[str, Any], figure: str) -> float:
    """Return the largest distance inside the null: mean and one standard deviation."""
    null = results["rows"]["null"][figure]
    return null["mean"] + (null["std"] or 0.0)


def inside_both(results: Mapping[str, Any]) -> list[str]:
    """Return the methods that both distances say are as near as another Retrain."""
    rows = {figure: means_of(results, figure) for figure in DIGITS_OF}
    return [
        label
        for label in rows["avg_gap"]
        if all(own[label] <= limit_of(results, f) for f, own in rows.items())
    ]


def from_on(found: Mapping[float, Any], label: str, figure: str) -> float | None:
    """Return the least budget from which on a row is nearer than all of the field."""
    first = None
    for budget, told in sorted(crossing(found, figure).items(), reverse=True):
        own, field = told[label], told["field"]
        if own is None or (field and field[1] <= own):
            break
        first = budget
    return first


def reached(found: Mapping[float, Any], figure: str = "avg_gap") -> dict[float, str]:
    """Return how near the goal ours are, by budget.

    "ahead": one of them is nearer than all of the field, "inside": and inside the null;
    "inside, behind"; or "behind".
    """
    told = {}
    for budget, one in crossing(found, figure).items():
        own = [one[label] for label in OURS if one[label] is not None]
        inside = min(own) <= limit_of(found[budget], figure)
        ahead = one["field"] is None or min(own) < one["field"][1]
        words = {(True, True): "inside", (True, False): "inside, behind"}
        told[budget] = words.get((inside, ahead), "ahead" if ahead else "behind")
    return told


class Winner(NamedTuple):
    """The nearest of all rows, and who else is not clearly farther."""

    label: str
    mean: float
    inside: bool  # the null: its mean and one standard deviation
    beside: tuple[str, ...]  # p >= 0.05, paired over the seeds


def winners(found: Mapping[float, Any], figure: str = "avg_gap") -> dict[float, Winner]:
    """Return the nearest row at each budget."""
    told = {}
    for budget, results in sorted(found.items()):
        rows = {
            row["label"]: row[figure]
            for key, row in results["rows"].items()
            if key not in LABELS
        }
        best = min(rows, key=lambda label: rows[label]["mean"])
        close = []
        for label, row in rows.items():
            if label != best:
                test = paired_test(row["per_seed"], rows[best]["per_seed"])
                if test.p >= LEVEL:
                    close.append((row["mean"], label))
        inside = rows[best]["mean"] <= limit_of(results, figure)
        others = tuple(label for _, label in sorted(close))
        told[budget] = Winner(best, rows[best]["mean"], inside, others)
    return told


def rows_of(found: Mapping[float, Any]) -> list[tuple[str, list[str]]]:
    """Return rows of a page: label, and "gap / deviation" at each budget."""
    budgets = sorted(found)
    labels: dict[str, str] = {}
    for budget in budgets:
        for key, row in found[budget]["rows"].items():
            labels.setdefault(key, row["label"])
        for label in found[budget].get("diverged", ()):
            labels.setdefault(slug(label), label)
    least = {
        (budget, figure): min(
            row[figure]["mean"]
            for key, row in found[budget]["rows"].items()
            if key not in LABELS
        )
        for budget in budgets
        for figure in DIGITS_OF
    }

    def cell(budget: float, key: str) -> str:
        rows = found[budget]["rows"]
        if key not in rows:
            return (
                "diverged" if labels[key] in found[budget].get("diverged", ()) else ""
            )
        words = []
        for figure, digits in DIGITS_OF.items():
            mean = rows[key][figure]["mean"]
            word = f"{mean:.{digits}f}"
            if key not in LABELS:
                if mean == least[budget, figure]:
                    word = f"**{word}**"
                if mean <= limit_of(found[budget], figure):
                    word += " ●"
            words.append(word)
        return " / ".join(words)

    order = [key for key in LABELS if key in labels and key != "retrain"]
    order += [key for key in labels if key not in LABELS]
    return [(labels[key], [cell(budget, key) for budget in budgets]) for key in order]


def figures(found: Results) -> Drawings:
    """Draw each request's frontier."""
    from jax_unlearn.report.draw.frontier import frontier

    drawn = {}
    for request, budgets in by_request(found).items():
        keys = {
            row["label"] for one in budgets.values() for row in one["rows"].values()
        }
        shown = {label: slug(label) for label in SHOWN if label in keys}
        if len(budgets) > 1 and shown:
            drawn[request] = frontier(budgets, shown, name=f"frontier-{request}")
    return drawn


def stored(value: Any) -> Any:
    """Return results as they are kept: 42 tables in six digits, without their tests."""
    if isinstance(value, Mapping):
        return {
            name: stored(one)
            for name, one in shortened(value).items()
            if name not in _UNREAD
        }
    if isinstance(value, list):
        return [stored(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


_UNREAD = {"comparison", "conflict", "deviation_test", "groups", "by_rank", "setting"}

DIGITS, FASHION, CIFAR10 = (
    studied(f"frontier-{data}", parts(), figures=figures, stored=stored)
    for data in ("digits", "fashion", "cifar10")
)
