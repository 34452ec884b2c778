"""The benchmarks run, at sizes whose times mean nothing."""

import importlib
import json

import numpy as np
import pytest

SMALL = {
    "bench_driver": {
        "batch": 4,
        "steps": 2,
        "repeats": 1,
        "networks": ["MLP"],
        "compiles": False,
    },
    "bench_costs": {"batch": 24, "unseen": 40, "width": 4, "steps": 1, "repeats": 1},
    "bench_sweep": {
        "temperatures": 3,
        "batch": 8,
        "steps": 2,
        "repeats": 1,
        "networks": ["MLP"],
    },
    "bench_compile": {"batch": 4, "grid": ((4, 8),), "repeats": 1},
    "bench_growth": {"sizes": (8, 16), "widths": (2, 4), "batch": 8, "repeats": 1},
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "bench_costs" else ())
        for name in SMALL
    ],
)
def test_it_runs(name):
    found = importlib.import_module(name).measure(**SMALL[name])
    assert f"bench_{found['benchmark']}" == name
    text = json.dumps(found, default=float)
    assert "NaN" not in text
    if name == "bench_sweep":
        assert found["sweeps"][0]["largest_difference"] < 1e-5


def test_a_slope_is_the_exponent():
    measuring = importlib.import_module("measuring")
    sizes = np.array([1.0, 2.0, 8.0])
    assert measuring.slope(sizes, 3 * sizes**1.5) == pytest.approx(1.5)


def test_torch_computes_the_same():
    pytest.importorskip("torch")
    found = importlib.import_module("bench_torch").measure(
        batch=8,
        steps=1,
        unseen=8,
        width=8,
        repeats=1,
        networks=["ResNet-18"],
        methods=["RL + FaLW"],
        compiled=False,
    )
    assert found["agrees"]
