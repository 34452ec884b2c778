"""The papers' tables: equal searches, plans of every part, verdicts, the page."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from jax_unlearn.errors import InputError
from jax_unlearn.recipes import claims, compared, ltu, page, studies, tables
from jax_unlearn.recipes.claims import CLAIMS, LTU_CLAIMS, Claim, Pair, gap, judge
from jax_unlearn.recipes.search import trials

PARTS = [(name, part) for name, s in studies.STUDIES.items() for part in s.parts]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_method_has_a_grid_of_six_trials(name, part):
    asked = studies.STUDIES[name].parts[part]
    grids = compared.grids(asked.methods)
    assert list(grids) == list(asked.methods)
    for fixed, tried in grids.values():
        assert len(list(trials(fixed, tried))) == 6


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_part_has_a_plan(name, part, tmp_path):
    if name.endswith(("-full", "-vgg")):  # its settings are searched where it runs
        with pytest.raises(InputError, match=f"recipe tables-{name} --tune"):
            tables.tables_plan(name, part, folder=tmp_path)
        found = tables.found_settings("fashion")
        found["gamma-0.5"] = found["gamma-1"]  # Tiny-ImageNet's first
        (tmp_path / "settings.json").write_text(json.dumps(found))
    plan = tables.tables_plan(name, part, folder=tmp_path)
    study = studies.STUDIES[name]
    assert not set(plan.seeds) & set(study.search_seeds)
    assert set(study.parts[part].methods) <= set(plan.methods)
    for label, setting in plan.methods.items():
        base = label.partition(" + LoReUn ")[0]
        fixed = compared.FIXED.get(base, {})
        weights = {"weighting", "relative"} if "LoReUn" in label else set()
        for option, value in fixed.items():
            if option not in weights:
                assert setting.flat()[option] == value


def test_strange_names_are_refused():
    with pytest.raises(InputError, match="known: cifar10, "):
        studies.load("cifar", None)
    with pytest.raises(InputError, match="random10"):
        tables.tables_plan("fashion", "random")
    with pytest.raises(InputError, match="needs --data"):
        studies.load("fashion", None)
    with pytest.raises(InputError, match="gamma-1"):
        tables.search_tables("fashion", None, print, parts=["gamma-2"])


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
    claim = Claim("", "", gap, tuple(Pair("part", *pair) for pair in pairs))
    assert judge(claim, found).word == word


def test_p_is_that_of_the_paired_t_test():
    claim = Claim("", "", gap, (Pair("part", "near", "far"),))
    far = [2.0, 1.9, 3.1]
    (detail,) = judge(claim, results(near=NEAR, far=far)).detail
    told = float(detail.rpartition(" ")[2])
    assert told == pytest.approx(stats.ttest_rel(NEAR, far).pvalue, abs=6e-4)
    assert f"{np.mean(NEAR) - np.mean(far):+.3g}" in detail


@pytest.mark.parametrize(
    ("claimed", "plans"),
    [
        (
            CLAIMS,
            {
                p: tables.tables_plan("fashion", p)
                for p in studies.STUDIES["fashion"].parts
            },
        ),
        (LTU_CLAIMS, {part: ltu.ltu_plan("digits", part) for part in ltu.PARTS}),
    ],
    ids=["tables", "ltu"],
)
def test_every_claim_names_rows_that_some_part_has(claimed, plans):
    for claim in claimed:
        for pair in claim.pairs:
            if pair.part in plans and claim.figure is not claims.groups:
                assert {pair.smaller, pair.larger} <= set(plans[pair.part].methods)


def test_the_page_says_what_the_results_hold(tmp_path):
    written = page.write(tmp_path / "results.md")
    text = written[0].read_text()
    told = {f"tables_{name}": study.title for name, study in studies.STUDIES.items()}
    told |= {f"ltu_{name}": study.title for name, study in ltu.STUDIES.items()}
    told = {name: title for name, title in told.items() if page.stored(name)}
    assert len(told) > 2
    for name, study in told.items():
        own = text.partition(f"\n## {study}\n")[2].partition("\n## ")[0]
        for part, found in page.stored(name).items():
            title = found["plan"]["title"].partition(": ")[2] or found["plan"]["title"]
            title = page.ALONE if part == "main" else title
            lines = own.partition(f"\n### {title}\n")[2].splitlines()
            for key, row in found["rows"].items():
                label = row["label"]
                starts = f"| {label} |", f"| *{label}* |"
                line = next(line for line in lines if line.startswith(starts))
                mean = row["metrics"]["ua"]["mean"]
                assert f"| {mean:.1f}" in line, (part, key)
    for kind, claimed in (("tables", CLAIMS), ("ltu", LTU_CLAIMS)):
        studied = sum(name.startswith(kind) for name in told)
        for claim in claimed:
            assert text.count(f"| {claim.text} |") == studied
    for path in written[1:]:
        assert path.read_text().startswith("<?xml") or "<svg" in path.read_text()
        assert path.name in text


def test_the_stored_page_is_the_one_that_is_written(tmp_path):
    made = page.write(tmp_path / "README.md")[0].read_text()
    stored = page.HERE.joinpath("results", "README.md").read_text()
    assert made == stored


def test_studies_are_of_the_size_that_they_say():
    for name in ("fashion", "cifar10"):
        study = studies.STUDIES[name]
        assert study.train > study.unseen > 0
        assert math.log2(study.shrink).is_integer()
