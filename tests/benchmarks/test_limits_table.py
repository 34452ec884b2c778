"""The table of limits at small size: rows of the recipe's steps, and what they say."""

import importlib

from jax_unlearn.recipes.recipe import packaged

TRAINED = {"network": "small_cnn", "width": 4, "batch_size": 8}


def test_limits_at_small_size(capsys):
    bench = importlib.import_module("bench_limits")
    size = {"unseen": 24, **dict.fromkeys(("large", "deep", "little"), TRAINED)}
    names = "training, large", "RL", "RL + FaLW (exact)"
    rows = bench.measure(size=size, names=names)
    train, plain, exact = (rows[name] for name in names)
    assert plain["samples"] == 2 * train["samples"] == 16
    assert plain["flops"] == 2 * train["flops"]
    # forward passes of the unseen samples, a third of a step each
    assert exact["flops"] > plain["flops"] + 24 / 16 * plain["flops"] / 3
    told = rows["RL"]["devices"]["NVIDIA H200"]
    assert told["operations"] == plain["flops"] / 989e12
    least = max(told["operations"], told["bytes"])
    assert told["samples_per_second"] == 16 / least
    assert bench.table(rows).count("\n") == 1 + len(names)


def test_without_libtpu_one_line_says_so(capsys, monkeypatch):
    bench = importlib.import_module("bench_limits")
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert bench.measure(size=None, topology="v5e:2x2", names=()) == {}
    assert "libtpu is not installed" in capsys.readouterr().err


def test_the_page_has_the_rows_of_the_recipe():
    bench = importlib.import_module("bench_limits")
    page = (bench.Path(bench.__file__).parent / "ACCELERATOR.md").read_text()
    parts = packaged("grids/full.toml")["parts"]
    for label in {**parts["speed"]["given"], **parts["speed-ltu"]["given"]}:
        assert f"| {label} | resnet18 | 512 |" in page
