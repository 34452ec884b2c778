"""The main table says what the results say, cell by cell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import made_results

from jax_unlearn.lab import Unlearning
from jax_unlearn.report import Cell, check_results, main_table, render
from jax_unlearn.report.reading import PairedTest, Spread
from jax_unlearn.report.table import direction, gap_test, number, spread

COMPARED = [
    "Model",
    "UA %",
    "RA %",
    "TA %",
    "MIA %",
    "Avg. Gap",
    "Gap vs. nothing",
    "|p − p*|",
    "|p − p*| vs. nothing",
    "ToW",
    "Cost %",
    "RTE s",
]


@pytest.fixture(scope="module")
def results():
    return made_results(
        methods={"FT": Unlearning.of(method="finetune"), "RL": Unlearning.of()}
    )


def plain(text):
    return float(text.replace("−", "-").removeprefix("Δ "))


def test_references_come_first(results):
    rows = results["rows"]
    shuffled = results | {"rows": dict(reversed(rows.items()))}
    table = main_table(shuffled)
    assert table.keys == ["retrain", "null", "original", "m1", "m0"]
    assert table.columns == COMPARED
    assert [row[0].value for row in table.rows[-2:]] == ["RL", "FT"]
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_percentages_carry_their_distance_and_verdict(results):
    table = main_table(results)
    target = results["rows"]["retrain"]["metrics"]
    outside = 0
    for key, row in zip(table.keys, table.rows, strict=True):
        for cell, name in zip(row[1:5], ("ua", "ra", "ta", "mia"), strict=True):
            figure = results["rows"][key]["metrics"][name]
            assert cell.value == f"{figure['mean']:.1f} ± {figure['std']:.1f}"
            if key == "retrain":
                assert cell[1:] == ("", "")
                continue
            difference = figure["mean"] - target[name]["mean"]
            assert plain(cell.detail.split(" (")[0]) == pytest.approx(
                difference, abs=0.0501
            )
            if key == "null":
                assert cell.mark == ""
                continue
            compared = results["rows"][key]["comparison"]["metrics"][name]
            assert cell.mark == compared["verdict"]
            outside += cell.mark == "outside"
            half = compared["null_high"]
            assert (
                f"(±{half:.1f})"
                in table.rows[1][1 + COMPARED[1:5].index(f"{name.upper()} %")].detail
            )
    assert outside > 0


def test_distances_and_tests(results):
    table = main_table(results)
    null = results["rows"]["null"]
    for key in ("original", "m0", "m1"):
        row = results["rows"][key]
        cells = dict(zip(table.columns, table.rows[table.keys.index(key)], strict=True))
        for column, name, digits in (
            ("Avg. Gap", "avg_gap", 2),
            ("|p − p*|", "deviation", 3),
        ):
            figure = row[name]
            assert cells[column].value == (
                f"{figure['mean']:.{digits}f} ± {figure['std']:.{digits}f}"
            )
            ratio = figure["mean"] / null[name]["mean"]
            assert cells[column].detail == f"{ratio:.1f} × null"
        assert cells["ToW"].value.startswith(f"{row['tow']['mean']:.3f} ±")
        if key == "original":
            assert cells["Gap vs. nothing"] == Cell("–")
            continue
        for column, test in (
            ("Gap vs. nothing", row["comparison"]["against_nothing"]),
            ("|p − p*| vs. nothing", row["deviation_test"]),
        ):
            assert plain(cells[column].value) == pytest.approx(
                test["mean_difference"], abs=0.00501
            )
            said = cells[column].detail
            assert said.endswith(", nearer") == (
                test["t_p"] < 0.05 and test["mean_difference"] < 0
            )
            assert said.startswith(
                "p < 0.001" if test["t_p"] < 0.001 else f"p {test['t_p']:.3f}"
            )


def test_retrain_is_at_no_distance_from_itself(results):
    cells = dict(zip(COMPARED, main_table(results).rows[0], strict=True))
    assert cells["Model"] == Cell("Retrain", "target")
    assert cells["Avg. Gap"] == Cell("0.00")
    assert cells["|p − p*|"] == Cell("0.000")
    assert cells["ToW"] == Cell("1.000")


def test_time_counts_compilation_once(results):
    table = main_table(results)
    assert table.rows[table.keys.index("m0")][-1].detail == "compile 3.00, prepare 0.50"
    assert table.rows[table.keys.index("original")][-1] == Cell("–")


def test_one_seed_has_no_spread_and_no_tests():
    table = main_table(made_results(seeds=1))
    assert table.columns == [c for c in COMPARED if "nothing" not in c]
    cells = [cell for row in table.rows for cell in row[1:]]
    assert not any("±" in cell.value + cell.detail or cell.mark for cell in cells)
    assert table.rows[-1][1].detail.startswith("Δ ")


def test_without_null_nothing_is_inside_or_outside():
    table = main_table(made_results(seeds=2, null=False))
    assert table.columns == [c for c in COMPARED if "nothing" not in c]
    assert not any(cell.mark for row in table.rows for cell in row)
    assert not any("null" in cell.detail for row in table.rows for cell in row)


def test_without_retrain_there_are_no_distances():
    table = main_table(made_results(seeds=1, retrain=False, null=False))
    assert table.columns == [*COMPARED[:5], "RTE s"]
    assert all(not cell.detail for row in table.rows for cell in row[:-1])


@pytest.mark.parametrize(
    ("difference", "p", "said"),
    [
        (-1.0, 0.049, "nearer"),
        (1.0, 0.049, "farther"),
        (-1.0, 0.05, "unclear"),
        (0.0, 0.01, "unclear"),
    ],
)
def test_direction(difference, p, said):
    assert direction(PairedTest(difference, permutation_p=0.9, t_p=p)) == said
    assert direction(PairedTest(difference, permutation_p=p, t_p=None)) == said
    assert direction(None) == ""


def test_original_is_not_tested_against_itself(results):
    assert gap_test(check_results(results).rows["original"]) is None


@given(st.floats(-1e6, 1e6), st.integers(0, 4))
def test_numbers_are_rounded_and_never_minus_nothing(value, digits):
    for sign in (False, True):
        text = number(value, digits, sign=sign)
        assert "-" not in text
        assert abs(plain(text) - value) <= 0.5000001 * 10.0**-digits
        if plain(text) == 0:
            assert not set(text) & set("+−")


def test_spread_of_one_value_is_its_mean():
    assert spread(Spread(-1.25, None, (-1.25,)), 2) == "−1.25"


def test_the_page_says_what_every_column_is():
    results = made_results(seeds=2)
    page = render(results)
    glossary = page[page.index('<dl class="glossary">') :]
    glossary = glossary[: glossary.index("</dl>")]
    for column in main_table(results).columns[1:]:
        word = column.removesuffix(" %").removesuffix(" s").partition(" vs.")[0]
        assert word in glossary, column
