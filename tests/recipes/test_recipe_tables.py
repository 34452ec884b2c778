"""The papers' tables: equal searches, plans of every part, verdicts, the pages."""

import json
import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from jax_unlearn.cli.recipe import recipe
from jax_unlearn.errors import InputError
from jax_unlearn.recipes import RECIPES, chooser, frontier, ltu, pages, tables
from jax_unlearn.recipes.pages import FIGURES, Claim, claims_of, judge
from jax_unlearn.recipes.recipe import HERE
from jax_unlearn.recipes.search import told, trials
from jax_unlearn.recipes.study import Study

STUDIES = [one.study for one in RECIPES if one.page == "tables"]
PARTS = pytest.mark.parametrize(
    ("study", "part"),
    [(study, part) for study in STUDIES for part in study.parts],
    ids=lambda value: value.name if isinstance(value, Study) else value,
)
STORED = [one for one in RECIPES if pages.stored(one.stem)]


def write_settings(study, folder):
    """Write settings of every row: those found, else the first of its grid."""
    found = study.kept(None) or {}
    for name, part in study.parts.items():
        if part.grid:
            first = {k: told(next(trials(grid))) for k, grid in part.grid.items()}
            own = found.get(name, {"trials": 0, "search_seeds": []})
            found[name] = {**own, "settings": first | own.get("settings", {})}
    (folder / "settings.json").write_text(json.dumps(found))


@PARTS
def test_every_method_has_a_grid_of_six_trials(study, part):
    asked = study.parts[part]
    labels = asked.methods or tuple(asked.grid)
    assert labels
    for label in labels:
        assert len(list(trials(tables.METHODS[label]))) == 6
    for label, grid in asked.grid.items():
        assert grid == tables.METHODS[label]


@PARTS
def test_every_part_has_a_plan(study, part, tmp_path):
    if study.unsearched((part,), None):  # its settings are searched where it runs
        with pytest.raises(InputError, match=f"recipe {study.name} --tune"):
            study.plan(part)
    write_settings(study, tmp_path)
    plan = study.plan(part, folder=tmp_path)
    assert not set(plan.seeds) & set(study.search_seeds)
    asked = study.parts[part]
    assert set(asked.methods or asked.grid) <= set(plan.methods)
    for label in asked.methods or asked.grid:
        values = plan.methods[label].flat()
        for option, value in tables.METHODS[label].items():
            if not isinstance(value, tuple):
                assert values[option] == value


def test_strange_names_are_refused():
    with pytest.raises(InputError, match="did you mean 'tables-cifar10'"):
        recipe("tables-cifar")
    with pytest.raises(InputError, match="random10"):
        tables.FASHION.study.plan("random")
    with pytest.raises(InputError, match="needs --data"):
        recipe("tables-fashion")


def results(**gaps):
    rows = {key: {"avg_gap": {"per_seed": values}} for key, values in gaps.items()}
    return {"part": {"rows": rows}}


NEAR, FAR = [1.0, 1.4, 0.8], [3.0, 3.5, 2.9]


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        ([("near", "far")], "holds"),
        ([("far", "near")], "does not hold"),
        ([("near", "far"), ("far", "near")], "holds partly"),
        ([("near", "noisy")], "does not hold"),  # smaller, not clearly
        ([("noisy", "near")], "does not hold"),
        ([("near", "missing")], "not tested"),
    ],
)
def test_verdicts(pairs, word):
    found = results(near=NEAR, far=FAR, noisy=[0.5, 9.0, 0.9])
    claim = Claim("", "", "gap", tuple(("part", *pair) for pair in pairs))
    assert judge(claim, found).word == word


def test_p_is_that_of_the_paired_t_test():
    claim = Claim("", "", "gap", (("part", "near", "far"),))
    far = [2.0, 1.9, 3.1]
    (detail,) = judge(claim, results(near=NEAR, far=far)).detail
    told = float(detail.rpartition(" ")[2])
    assert told == pytest.approx(stats.ttest_rel(NEAR, far).pvalue, abs=6e-4)
    assert f"{np.mean(NEAR) - np.mean(far):+.3g}" in detail


@pytest.mark.parametrize("tested", [tables.FASHION, ltu.LTU_DIGITS], ids=["t", "ltu"])
def test_every_claim_names_rows_that_some_part_has(tested, tmp_path):
    study = tested.study
    write_settings(study, tmp_path)
    plans = {part: study.plan(part, folder=tmp_path) for part in study.parts}
    claims = claims_of(tested.page)
    assert len(claims) > 8
    for claim in claims:
        for part, *labels in claim.pairs:
            assert part in plans
            if claim.figure != "groups":
                assert set(labels) <= set(plans[part].methods)


@pytest.mark.parametrize("tested", STORED, ids=lambda one: one.name)
def test_every_claim_is_of_a_known_figure_and_can_be_judged_somewhere(tested):
    found = pages.stored(tested.stem)
    parts = found if "format" not in found else {tested.page: found}
    claims = claims_of(tested.page)
    assert {claim.figure for claim in claims} <= set(FIGURES)
    verdicts = [judge(claim, parts).word for claim in claims]
    assert verdicts.count("not tested") < max(len(verdicts), 1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("pages")
    recipe(table=True, out=out)
    return out


@pytest.mark.parametrize("tested", STORED, ids=lambda one: one.name)
def test_a_page_says_what_the_results_hold(written, tested):
    text = (written / f"{tested.stem}.md").read_text()
    assert pages.MISSING not in text
    for claim in claims_of(tested.page):
        assert text.count(f"| {claim.text} |") == 1
    assert f"({tested.stem}.md)" in (written / "README.md").read_text()
    for path in written.glob(f"{tested.stem}_*.svg"):
        assert path.read_text().startswith("<?xml") or "<svg" in path.read_text()
        assert path.name in text
    found = pages.stored(tested.stem)
    if "format" in found and tested.page != "chain":
        return  # other kinds of tables; their figures are in the stored page
    if tested.page == "choice":
        check_choice(text, found)
        return
    if tested.page == "frontier_ensembles":
        for one in found.values():
            for role, row in one["attacked"].items():
                cells = f" {row['forget']:.3f} | {row['unseen']:.3f} |"
                assert (
                    cells in text
                    or role in ("null", "doing nothing")
                    or (
                        role.startswith(
                            "Short Retrain,"
                        )  # at every budget, some are shown
                    )
                ), role
        return
    tables = list(found.values()) if "format" not in found else [found]
    if tested.page == "full":  # whose other parts are speeds, attacks and trials
        tables = [part for part in tables if "plan" in part and "rows" in part]
        assert len(tables) == 3
    for results in tables:
        title = results["plan"]["title"].partition(": ")[2]
        sections = [text, *text.split("\n## ")]
        own = next((s for s in sections if s.startswith(f"{title}\n")), text)
        if tested.page == "frontier":  # a column a budget, a section a request
            check_frontier(text, results)
            continue
        for key, row in results["rows"].items():
            starts = f"| {row['label']} |", f"| *{row['label']}* |"
            lines = [line for line in own.splitlines() if line.startswith(starts)]
            if tested.page == "language":
                names = ("forget_probability", "auc_gap")
                cells = [f"{row['figures'][name]['mean']:.3f}" for name in names]
            else:
                ua, gap = row["metrics"]["ua"]["mean"], row["avg_gap"]["mean"]
                cells = [f"{ua:.1f}", f"{gap:.2f}"]
            assert any(all(f"| {c}" in line for c in cells) for line in lines), key


def check_frontier(text, results):
    """Find both distances of every row in the table of its request."""
    title = results["plan"]["title"].partition(": ")[2].rpartition(", ")[0]
    own = next(s for s in text.split("\n## ") if s.lower().startswith(title.lower()))
    for key, row in results["rows"].items():
        if key == "retrain":  # the target, 0 / 0
            continue
        lines = [x for x in own.splitlines() if x.startswith(f"| {row['label']} |")]
        cells = lines[0].replace("*", "").replace(" ●", "").split(" | ")
        gap, deviation = (row[name]["mean"] for name in ("avg_gap", "deviation"))
        assert f"{gap:.2f} / {deviation:.3f}" in [c.strip(" |") for c in cells], key


def check_choice(text, found):
    """Find both distances of every rule, in a row of its budget."""
    asked = [part for part in found.values() if "rules" in part]
    assert len(asked) == 2
    for name, own in found["kinds"].items():
        right = f"{own['taken'].count(name)} of {len(own['taken'])}"
        assert f"| {frontier.title_of(name)} | {right} |" in text
    for part in asked:
        for budget, rules in part["rules"].items():
            start = f"| {100 * float(budget):g} % |"
            lines = [x for x in text.splitlines() if x.startswith(start)]
            for row in rules.values():
                cells = (
                    f"{row['avg_gap']['mean']:.2f}",
                    f"{row['deviation']['mean']:.3f}",
                )
                assert any(all(f"| {c}" in x for c in cells) for x in lines), budget


def test_the_stored_pages_are_those_that_are_written(written):
    packaged = written / chooser.FILE
    assert packaged.read_text() == HERE.joinpath(chooser.FILE).read_text()
    packaged.unlink()
    for path in written.iterdir():
        stored = pages.RESULTS.joinpath(path.name)
        assert stored.is_file(), f"{path.name} is not stored"
        if path.suffix == ".md":
            assert path.read_text() == stored.read_text(), path.name
    pictures = (".md", ".svg")
    kept = {f.name for f in pages.RESULTS.iterdir() if f.name.endswith(pictures)}
    assert kept == {path.name for path in written.iterdir()}


def test_a_wheel_without_results_says_where_they_are(monkeypatch, tmp_path):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "jax_unlearn/recipes/results" in wheel["exclude"]
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "none")
    with pytest.raises(InputError, match="not installed with the package; give the"):
        recipe(table=True, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_every_recipe_once(capsys):
    recipe(show=True)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == [one.name for one in RECIPES]
    assert len(set(names)) == len(names)


def test_studies_are_of_the_size_that_they_say():
    for one in (tables.FASHION, tables.CIFAR10):
        assert one.data.train > one.study.unseen > 0
        assert math.log2(one.data.shrink).is_integer()
