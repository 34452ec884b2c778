"""The small functions of the recipes, each on a case that can be checked by hand."""

from jax_unlearn.lab import Unlearning
from jax_unlearn.recipes import ltu
from jax_unlearn.recipes.cells import attacks
from jax_unlearn.recipes.digits import chain_plan, digits_plan
from jax_unlearn.recipes.generation import GENERATION_DIGITS, planned
from jax_unlearn.recipes.pages import (
    Claim,
    Verdict,
    at_the_edge,
    claims_of,
    judge,
    p_text,
)
from jax_unlearn.recipes.recipe import declared, packaged, spreads
from jax_unlearn.recipes.search import around, grid_of, told, trials


def test_plans():
    assert len(digits_plan().methods) == 12
    methods = ["FT", "RL", "RL + LoReUn (dynamic)", "SalUn"]
    assert sorted(chain_plan().methods) == methods
    assert planned(GENERATION_DIGITS).classes == (0, 3, 7)


def test_what_files_of_the_package_say():
    assert packaged("grids/digits.toml")["demo"]["FT"]["epochs"] == (5, 10, 20)
    assert declared("chain-digits", None).cpu == "2 min"
    assert claims_of("ltu")[0].pairs[0] == ("main", "LTU", "FT")


def test_numbers_of_several_seeds_are_spread():
    found = spreads([{"RL": {"gap": 1.0}}, {"RL": {"gap": 3.0}}])
    assert found["RL"]["gap"]["mean"] == 2.0


def test_ltu():
    assert len(ltu.variants({"LTU": Unlearning.of(method="ltu")})) == 9
    finetune = Unlearning.of(method="finetune")
    assert ltu.steps_per_epoch(600, 180, finetune) == 7  # 420/64


def test_a_verdict_counts_and_tells_its_pairs():
    rows = {"ft": {"avg_gap": {"per_seed": [3.0, 3.1, 2.9]}}}
    rows["rl"] = {"avg_gap": {"per_seed": [1.0, 1.2, 0.9]}}
    claim = Claim("RL is nearer", "us", "gap", (("class", "RL", "FT"),))
    detail = ("class, RL less FT: -1.97, p < 0.001",)
    verdict = judge(claim, {"class": {"rows": rows}})
    assert verdict == Verdict("holds", 1, 0, detail)
    assert (p_text(0.0004), p_text(0.0412)) == ("< 0.001", "0.041")


def test_a_best_rate_at_the_edge_is_named():
    table = {"FT": [{"learning_rate": rate} for rate in (0.1, 0.2, 0.3)]}
    found = {"settings": {"FT": {"learning_rate": 0.3}}, "table": table}
    assert at_the_edge(found) == ["FT"]


def test_the_headlines_of_an_audit_stand_before_the_rest_unless_all_are_few():
    def keys(*names):
        one = {name: {"value": 1.0} for name in names}
        found = attacks({"figures": {"FT": one, "RL": {**one, "epsilon": {}}}})
        return [[kind.key for kind, _ in part] for part in found]

    many = "klom", "mia_loss", "tow", "tow_mia", "lira_auc", "ua", "deviation"
    first, behind = keys(*many)
    assert first == ["ua", "deviation", "lira_auc"]
    assert behind == ["mia_loss", "tow", "tow_mia", "klom"]
    assert keys("ua", "klom") == [["ua", "klom"], []]


def test_what_a_search_tries():
    grid = grid_of(Unlearning.of(method="finetune", epochs=1, momentum=0.5))
    fixed = {"method": "finetune", "weighting": "uniform", "epochs": 1, "momentum": 0.5}
    assert grid == {"learning_rate": (0.03, 0.1, 0.2), **fixed}
    settings = trials({"method": "salun", "epochs": (2, 4)})
    assert [setting.epochs for setting in settings] == [2, 4]
    short = {"method": "salun", "weighting": "uniform", "epochs": 4}
    assert told(Unlearning.of(method="salun", epochs=4)) == short
    assert around([0.001, 0.003, 0.01], 0.003) == (0.0017, 0.0055)
    assert around([0.001, 0.003, 0.01], 0.01) == (0.0055, 0.033)
    assert around([0.3, 0.7], 0.7, 1.0) == (0.46, 0.84)  # a share of the original
