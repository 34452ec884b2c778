"""The pages of results: each stored table, each claim with a verdict, and a text.

`jax-unlearn recipe --table` writes them from the stored results and `templates/`; no
table is typed by hand. A claim says that one row has a smaller figure than another. It
holds if this is so in every pair with p < 0.05 (paired over the seeds, not corrected
for the number of pairs), and holds partly if it is so in some pair.
"""

import fnmatch
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import jinja2

from jax_unlearn import audit
from jax_unlearn import report as reports
from jax_unlearn.audit.evidence import FEWEST
from jax_unlearn.data import write_atomic
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.plan import slug
from jax_unlearn.recipes import (
    cells,
    choice,
    chooser,
    frontier,
    frontier_ensembles,
    ideas,
    language_more,
)
from jax_unlearn.recipes.cells import MISSING as MISSING
from jax_unlearn.recipes.recipe import HERE, Recipe, Results, packaged, stored
from jax_unlearn.recipes.study import Study
from jax_unlearn.recipes.tables import by_gamma

__all__ = ["FIGURES", "MISSING", "RESULTS", "Claim", "Page", "Verdict", "at_the_edge"]
__all__ += ["claims_of", "judge", "p_text", "page_of", "stored", "write"]

LEVEL = 0.05
LARGE = 1e5  # perplexities of models that broke: their size alone is told
RESULTS = HERE.joinpath("results")


class Claim(NamedTuple):
    """What someone says of one of the `FIGURES`."""

    text: str
    source: str
    figure: str
    pairs: tuple[tuple[str, str, str], ...]  # part, row of the smaller figure, other


class Verdict(NamedTuple):
    """What the results say of a claim."""

    word: str  # "holds", "holds partly", "does not hold" or "not tested"
    clear: int  # in how many pairs it is clearly so
    against: int  # and clearly not so
    detail: tuple[str, ...]  # each pair, with its difference and p


def _row(found: Results, label: str, figure: str) -> Sequence[float]:
    rows = found["rows"]
    return rows[label if label in rows else slug(label)][figure]["per_seed"]


def _of_group(found: Results, label: str) -> Sequence[float]:
    method, _, group = label.partition(": ")
    return found["rows"][slug(method)]["groups"][group]["per_seed"]


def _unrelated(found: Results, label: str) -> Sequence[float]:
    if label == "none":
        return [0.0] * len(found["seeds"])
    score, _, other = label.partition(": ")
    return [-v for v in found["correlation"][score][other]["per_seed"]]


FIGURES: dict[str, Callable[[Results, str], Sequence[float]]] = {
    "gap": lambda found, label: _row(found, label, "avg_gap"),
    "deviation": lambda found, label: _row(found, label, "deviation"),
    # of "METHOD: GROUP", p - p*
    "groups": _of_group,
    "tail": lambda found, label: [abs(v) for v in _of_group(found, f"{label}: tail")],
    # minus the accuracy under attack: larger is claimed
    "robust": lambda found, label: [-v for v in found["robust"][label]["per_seed"]],
    # minus a rank correlation, of "SCORE: WITH WHAT", or of nothing with anything
    "unrelated": _unrelated,
}
"""`(results of a part, label) -> one value a seed`; KeyError where there is none."""


def claims_of(page: str) -> tuple[Claim, ...]:
    """Return the claims that the pages of a template judge."""
    claims = []
    for told in packaged("templates/claims.toml").get(page, ()):
        pairs = [
            (part, *pair.split(" < "))
            for where in told["where"]
            for part, pair in itertools.product(where["parts"], where["pairs"])
        ]
        claims.append(Claim(told["text"], told["source"], told["figure"], tuple(pairs)))
    return tuple(claims)


def judge(claim: Claim, results: Results) -> Verdict:
    """Return what results, by part, say of a claim; pairs they lack are left out.

    "*" stands for any part, or for the end of its name, and for every other method.
    """
    signs, detail = [], []
    for part, smaller, larger in _matched(claim.pairs, results):
        try:
            both = [FIGURES[claim.figure](results[part], x) for x in (smaller, larger)]
        except KeyError:
            continue
        test = audit.paired_test(*both)
        difference = test.mean_difference
        signs.append(0 if test.p >= LEVEL else 1 if difference < 0 else -1)
        names = f"{part}, {smaller} less {larger}"
        detail.append(f"{names}: {difference:+.3g}, p {p_text(test.p)}")
    if not signs:
        return Verdict("not tested", 0, 0, ())
    clear, against = signs.count(1), signs.count(-1)
    partly = "holds partly" if clear else "does not hold"
    word = "holds" if clear == len(signs) else partly
    return Verdict(word, clear, against, tuple(detail))


def _matched(pairs: Iterable[Sequence[str]], results: Results) -> Iterator[Any]:
    """Yield pairs with parts and rows of the results where they say "*"."""
    for part, smaller, larger in pairs:
        own = fnmatch.filter(results, part) if "*" in part else [part]
        for name in own:
            others = [larger]
            if larger == "*":
                rows = [*frontier.means_of(results[name], "avg_gap")]
                others = [row for row in rows if row not in (smaller, *frontier.OURS)]
            yield from ((name, smaller, other) for other in others)


def _by_budget(claim: Claim, results: Results) -> dict[float, Verdict]:
    """Return what results say of a claim at each budget of the frontier."""
    budgets = sorted({b for one in frontier.by_request(results).values() for b in one})
    told = {}
    for budget in budgets:
        names = [name for name in results if frontier.budget_of(name) == budget]
        told[budget] = judge(claim, {name: results[name] for name in names})
    return told


def p_text(p: float) -> str:
    """Return a p-value as the pages tell it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def at_the_edge(found: Mapping[str, Any]) -> list[str]:
    """Return the methods of a search whose best rate a wider one might better."""
    edge = []
    for label, rows in found["table"].items():
        rates = sorted({row.get("learning_rate", 0.0) for row in rows})
        best = Unlearning.of(**found["settings"][label]).learning_rate
        if len(rates) > 1 and best in (rates[0], rates[-1]):
            edge.append(label)
    return edge


class Page(NamedTuple):
    """What is written of one recipe."""

    recipe: Recipe
    text: str  # in Markdown
    figures: dict[str, str]  # SVG by the name of the file
    verdicts: list[Verdict]  # of each claim


def page_of(recipe: Recipe, found: Results) -> Page:
    """Return the page of what a file of a recipe's results holds."""
    parts = found if "format" not in found else {recipe.page: found}
    claims = [(claim, judge(claim, parts)) for claim in claims_of(recipe.page)]
    drawn = recipe.figures(found)
    files = {name: f"{recipe.stem}_{name}.svg" for name in drawn}
    given = {"recipe": recipe, "found": found, "claims": claims, "figures": files}
    if isinstance(recipe.study, Study):
        given["searched"] = recipe.study.found()
    elif (file := HERE.joinpath("settings", f"{recipe.stem}.json")).is_file():
        given["searched"] = json.loads(file.read_text("utf-8"))
    return Page(
        recipe,
        cells.explained(
            _environment().get_template(f"{recipe.page}.md").render(**given),
            images=recipe.page in ("generation", "images"),
        ),
        {files[name]: reports.standalone(one) for name, one in drawn.items()},
        [verdict for _, verdict in claims],
    )


def _counted(pages: Iterable[Page], page: str, source: str) -> Verdict:
    """Return all pairs of a source's claims together, over the pages of a template."""
    own = [
        verdict
        for one in pages
        if one.recipe.page == page
        for claim, verdict in zip(claims_of(page), one.verdicts, strict=True)
        if claim.source == source
    ]
    clear, against = (sum(getattr(v, n) for v in own) for n in ("clear", "against"))
    return Verdict("", clear, against, tuple(pair for v in own for pair in v.detail))


def write(recipes: Iterable[Recipe], out: Path) -> list[Path]:
    """Write the pages of all stored results, their figures, and their list."""
    if not RESULTS.is_dir():
        raise InputError(
            "the stored results are not installed with the package; give the command "
            "in a copy of its repository, after `pip install -e .` there"
        )
    pages = [page_of(one, found) for one in recipes if (found := stored(one.stem))]
    index = _environment().get_template("README.md").render(pages=pages)
    texts = {"README.md": cells.explained(index)}
    for page in pages:
        texts |= {f"{page.recipe.stem}.md": page.text, **page.figures}
    if any(page.recipe.page == "frontier" for page in pages):
        texts["frontier.md"] = whole_frontier(pages)
    rows = chooser.rows_of({stem: stored(stem) for stem in chooser.SOURCES})
    heading = "# What to run: the nearest to Retrain by budget, request and data"
    texts["chooser.md"] = cells.explained(f"{heading}\n\n{chooser.markdown(rows)}")
    placed = {out / file: text for file, text in texts.items()}
    own, readme = Path(str(RESULTS)), Path(str(HERE)).parents[1] / "README.md"
    inside = out.resolve() == own.resolve()  # the repository's own, with its README
    placed[(own.parent if inside else out) / chooser.FILE] = chooser.text_of(rows)
    if inside and readme.is_file():
        placed[readme] = chooser.between(readme.read_text("utf-8"), rows)
    return [
        write_atomic(path, text, overwrite=True)
        for path, text in placed.items()
        if not (path == readme and text == readme.read_text("utf-8"))
    ]


def whole_frontier(pages: Iterable[Page]) -> str:
    """Return the one page of the frontier, over all data sets that have results."""
    own = [page for page in pages if page.recipe.page == "frontier"]
    runs = [(page.recipe, stored(page.recipe.stem), page.figures) for page in own]
    verdicts = zip(*(page.verdicts for page in own), strict=True)
    claims = list(zip(claims_of("frontier"), verdicts, strict=True))
    page = _environment().get_template("frontier_whole.md")
    return cells.explained(page.render(runs=runs, claims=claims))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jax_unlearn.recipes", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "counted": _counted,
        "spread": _spread,
        "bars": lambda text: text.replace("|", "\\|"),
        "p": lambda test: p_text(audit.PairedTest(**test).p) if test else "",
        "inside": _inside,
        "ordered": cells.ordered,
        "attacks": cells.attacks,
        "target": cells.target,
        "seconds": cells.seconds,
        "cost": cells.cost,
        "versus": _versus,
        "apart": _apart,
        "chosen": _chosen,
        "combined": lambda rows, more: {**rows, **more},
        "told_p": p_text,
        "percent": lambda share: f"{100 * share:g} %",
        "short": "{:g}".format,
        "thousands": "{:,}".format,
        "total": lambda seconds: sum(one["mean"] for one in seconds.values()),
    }
    environment.globals |= {
        "at_the_edge": at_the_edge,
        "answer_of": language_more.answer,
        "asked": language_more.ASKED,
        "inside_of": language_more.inside,
        "pairs_of": language_more.pairs_of,
        "attack": _attack,
        "figure": _figure,
        "mean_gap": _mean_gap,
        "by_gamma": by_gamma,
        "choice_rules": choice.RULES,
        "by_request": frontier.by_request,
        "crossing": frontier.crossing,
        "frontier_rows": frontier.rows_of,
        "inside_both": frontier.inside_both,
        "title_of": frontier.title_of,
        "trial": cells.trial,
        "winners": frontier.winners,
        "by_budget": _by_budget,
        "traces": frontier_ensembles.traces,
        "role_of": frontier_ensembles.named,
        "probes": frontier_ensembles.PROBES,
        "ensembles": frontier_ensembles.ENSEMBLES,
        "tried": ideas.tried,
        "confirmed": ideas.confirmed,
        "from_on": frontier.from_on,
        "ours": frontier.OURS,
        "reached": frontier.reached,
        "mean": mean,
        "otherwise_set": cells.otherwise_set,
        "printed": packaged("templates/published.toml"),
        "stored": stored,
    }
    return environment


def _spread(found: Mapping[str, Any] | None, digits: int) -> str:
    if found is None:
        return ""
    mean, std = found["mean"], found["std"]
    form = f".{digits}f" if abs(mean) < LARGE else ".0e"
    return f"{mean:{form}}" + ("" if std is None else f" ± {std:{form}}")


def _figure(
    found: Results, label: str, name: str, digits: int, *, spread: bool = False
) -> str:
    """Return a row's figure as a reading tells it: no number there is typed by hand."""
    rows = found["rows"].items()
    row = next((row for k, row in rows if label in (k, row.get("label"))), None)
    if row is None:  # other results than those that were read
        return MISSING
    own = {"gap": "avg_gap"}.get(name, name)
    more = row.get("metrics", row.get("figures", {}))  # of classifiers, of texts
    one = row[own] if own in row else more[own]
    return _spread(one, digits) if spread else f"{one['mean']:.{digits}f}"


def _attack(audit: Results, label: str, name: str, digits: int) -> str:
    if label not in audit["figures"]:
        return MISSING
    return f"{audit['figures'][label][name]['value']:.{digits}f}"


def _mean_gap(parts: Iterable[Results], label: str) -> str:
    gaps = [found["rows"][slug(label)]["avg_gap"]["mean"] for found in parts]
    return f"{sum(gaps) / len(gaps):.1f}"


def _inside(row: Mapping[str, Any]) -> str:
    """Return how many of UA, RA, TA and MIA lie in the null's interval."""
    if "comparison" not in row or row["comparison"]["seeds"] < FEWEST:
        return ""
    metrics = row["comparison"]["metrics"]
    count = sum(metrics[k]["verdict"] == "inside" for k in ("ua", "ra", "ta", "mia"))
    return f"{count} of 4"


def _apart(rows: Results, key: str, name: str, digits: int) -> str:
    """Return the mean distance of a figure from Retrain's, seed by seed."""
    sides = (rows[one]["figures"][name]["per_seed"] for one in (key, "retrain"))
    return f"{mean(abs(a - b) for a, b in zip(*sides, strict=True)):.{digits}f}"


def _chosen(setting: Mapping[str, Any]) -> str:
    """Return what a search of language models chooses of a setting."""
    own = Unlearning.read(setting).flat()
    if own["budget"]:  # trained as the original was
        words = {"shrink": "λ", "rate": "rate times"}
        return ", ".join(f"{word} {own[k]:g}" for k, word in words.items() if k in own)
    return f"rate {own['learning_rate']:g}"


def _versus(rows: Mapping[str, Any], one: str, other: str, figure: str) -> str:
    """Return p of a paired test of two rows, as pages tell it; "" without one."""
    if one not in rows or other not in rows:
        return MISSING
    pair = [rows[key][figure]["per_seed"] for key in (one, other)]
    return p_text(audit.paired_test(*pair).p)
