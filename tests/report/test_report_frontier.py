"""The figure of the frontier."""

import pytest
from made_results import made_results

from jax_unlearn import report
from jax_unlearn.errors import InputError
from jax_unlearn.lab import Unlearning
from jax_unlearn.report import draw
from jax_unlearn.report.draw.frontier import frontier as drawn


def test_the_figure_says_its_numbers():
    methods = {
        "FT": Unlearning.of(method="finetune"),
        "RL": Unlearning.of(method="random_label"),
    }
    found = {share: made_results(methods=methods) for share in (0.1, 0.2)}
    rows = found[0.2]["rows"]
    key = next(key for key, one in rows.items() if one["label"] == "FT")
    drawing = drawn(found, {"FT": key})
    gap = rows[key]["avg_gap"]["mean"]
    assert f"FT at 20 %: {gap:.2f} and " in drawing.svg
    assert "1 other methods" in drawing.svg
    with pytest.raises(InputError, match="is no row; leave it out"):
        drawn(found, {"GA": "no"})
    with pytest.raises(InputError, match="a share is positive"):
        drawn({0.0: found[0.1]}, {"FT": key})


def test_the_best_of_a_named_row_is_in_sight(monkeypatch):
    monkeypatch.setattr(draw, "drawing_of", lambda figure, **_: figure)
    methods = {"FT": Unlearning.of(method="finetune")}
    found = {share: made_results(methods=methods) for share in (0.1, 0.2)}
    (key,) = (k for k, row in found[0.1]["rows"].items() if row["label"] == "FT")
    nothing = found[0.2]["rows"]["original"]["avg_gap"]["mean"]
    for times, top in ((0.5, 1.35 * nothing), (4.0, 4.4 * nothing)):
        for budget, far in ((0.1, 9.0), (0.2, times)):  # 9 times: cut off
            found[budget]["rows"][key]["avg_gap"]["mean"] = far * nothing
        axes = drawn(found, {"FT": key}).axes
        tops = [one.get_ylim()[1] for one in axes if "Gap" in one.get_ylabel()]
        assert tops == [pytest.approx(top)]


@pytest.mark.parametrize(
    ("gap", "share", "said"),
    [
        (0.0, 0.2, "FT is nearer to Retrain for no more"),
        (0.0, 0.4, "no method is nearer to Retrain for no more"),
        (99.0, 0.2, "no method is nearer to Retrain for no more"),
    ],
)
def test_the_page_says_what_the_same_time_buys(gap, share, said):
    methods = {
        "Short Retrain": Unlearning.of(method="short_retrain"),
        "FT": Unlearning.of(method="finetune"),
    }
    results = made_results(seeds=2, methods=methods)
    rows = {row["label"]: row for row in results["rows"].values()}
    for label, cost in {"Short Retrain": 0.3, "FT": share}.items():
        spread = {"mean": cost, "std": 0.0, "per_seed": [cost, cost]}
        rows[label]["cost"] = {"counted": spread}
    rows["FT"]["avg_gap"]["mean"] = gap
    text = " ".join(report.render(results).split())
    assert "training anew cut short" in text
    assert said in text
    del rows["Short Retrain"]["cost"]
    assert "What computing time buys" not in report.render(results)
