"""The benchmarks run, at sizes whose times mean nothing."""

import importlib
import json

import jax
import numpy as np
import pytest

import jax_unlearn as ju

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


def one_block(width):
    """Return a ResNet of one block, which stands for the benchmarks' ResNet-8."""
    return ju.from_nnx(
        lambda rngs: ju.zoo.ResNet(
            10, stage_sizes=(1,), width=width, in_channels=3, rngs=rngs
        )
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "bench_costs" else ())
        for name in SMALL
    ],
)
def test_it_runs(name, monkeypatch):
    bench = importlib.import_module(name)
    if hasattr(bench, "resnet8"):
        monkeypatch.setattr(bench, "resnet8", one_block)
    found = bench.measure(**SMALL[name])
    assert f"bench_{found['benchmark']}" == name
    text = json.dumps(found, default=float)
    assert "NaN" not in text
    if name == "bench_sweep":
        assert found["sweeps"][0]["largest_difference"] < 1e-5


def test_a_slope_is_the_exponent():
    measuring = importlib.import_module("measuring")
    sizes = np.array([1.0, 2.0, 8.0])
    assert measuring.slope(sizes, 3 * sizes**1.5) == pytest.approx(1.5)


TINY = {
    "ResNet-18": {"stage_sizes": (1, 2), "width": 4},
    "VGG-16": {"width": 2},
    "digits CNN": {"width": 4},
}


@pytest.fixture
def tiny(monkeypatch):
    """Return the benchmark of steps, its networks tiny."""
    pytest.importorskip("torch")
    bench = importlib.import_module("bench_steps")
    small = {
        name: bench.SETTINGS[name]._replace(options=own, side=32 if "V" in name else 8)
        for name, own in TINY.items()
    }
    monkeypatch.setattr(bench, "SETTINGS", small)
    return bench


@pytest.mark.parametrize("name", TINY)
def test_the_twins_of_steps_are_the_same_networks(tiny, name):
    import torch  # pyright: ignore[reportMissingImports]

    setting = tiny.SETTINGS[name]
    model, _ = tiny.ours(setting)
    start = model.init(jax.random.key(0), None)
    net = importlib.import_module("torch_side").load(
        tiny.twin_of(setting), jax.device_get(start[0])
    )
    images, _ = tiny.given(setting, 4)
    with torch.no_grad():
        theirs = net.train()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    outputs, _ = model.apply(*start, images, train=True)
    np.testing.assert_allclose(outputs, theirs, rtol=1e-3, atol=1e-4)


def test_steps_are_measured_and_written_between_the_marks(tiny, tmp_path):
    name = "digits CNN"
    ways = {way: tiny.TOGETHER[way] for way in ("vmap, in parts", "one by one")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "TOGETHER", ways)
        patch.setattr(tiny, "OURS", ("rule", "rule, BatchNorm folded"))
        found = tiny.measure(
            batch=4,
            models=2,
            repeats=1,
            networks=[name],
            ensembles=[name],
            parts=[],
            norms=[(3, 2)],
        )
        found |= {"command": "bench", "processor": "P", "threads": 2}
        page = tmp_path / "README.md"
        page.write_text(f"before\n{tiny.BEGIN}old{tiny.END}\nafter\n")
        for _ in range(2):
            tiny.write(found, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("| digits CNN |") == 2
    assert "old" not in text
    assert not found["steps"][0]["wide"]
    assert max(found["norms"][0]["apart"].values()) < 1e-5
    page.write_text("no marks")
    with pytest.raises(ValueError, match="add both lines"):
        tiny.write(found, page)


def test_the_parts_of_steps_are_named_and_summed(tiny, monkeypatch):
    parts = importlib.import_module("bench_parts")
    assert sum(parts.shapes(64, "VGG-16").values()) == 13
    assert sum(parts.shapes(64).values()) == 20
    one = parts.Shape(4, 2, 3, 3, 2)
    monkeypatch.setattr(parts, "shapes", lambda *_: {one: 2})
    found = parts.parts_of("ResNet-18", batch=2, width=2, repeats=1)
    assert [each["kind"] for each in found["parts"][:3]] == [
        f"convolution, {name}" for name in parts.PASSES
    ]
    seconds = {"xla": 4.0, "in parts": 1.0, "torch": 3.0, "torch channels-last": 2.0}
    for each in found["parts"]:
        each["seconds"] = {k: {"median": v} for k, v in seconds.items()}
    cells = " | ".join(["1000.0 / 2000.0"] * 3 + ["3000.0 / 6000.0"])
    text = tiny.parts_table(found)
    assert f"3 x 3, 2 to 3, side 4, stride 2 | 2 | {cells} |" in text
    assert f"| all: convolution |  | {cells} |" in text
    assert "| all: update |  |  |  |  | 1000.0 / 2000.0 |" in text


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
