"""Write the page of the benchmarks from their json: no number is typed by hand.

`python tests/benchmarks/render.py FOLDER` reads overhead.json, driver.json, costs.json,
sweep.json, growth.json, kills.json, parts.json and torch_*.json in FOLDER, where there
are any, and prints markdown.
"""

import json
import sys
from pathlib import Path


def table(heads, rows):
    """Return a markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def spread(found, digits=2):
    """Return median and quartiles."""
    low, middle, high = (found[name] for name in ("low", "median", "high"))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def torch(found):
    """Return samples a second, and how many times as fast as PyTorch."""
    rows = []
    for cell in found["cells"]:
        speeds, ratios = cell["samples_per_second"], cell["times_as_fast"]
        kinds = [kind for kind in speeds if kind != "jax_unlearn"]
        rows.append(
            [
                cell["network"],
                cell["method"],
                "included" if cell["pipeline"] else "excluded",
                f"{speeds['jax_unlearn']['median']:.1f}",
                *(f"{speeds[kind]['median']:.1f}" for kind in kinds),
                *(spread(ratios[kind]) for kind in kinds),
            ]
        )
    heads = ["network", "method", "pipeline", "jax_unlearn, samples/s", *kinds]
    return table(heads + [f"times {kind}" for kind in kinds], rows)


def driver(found):
    """Return what `run` adds, and compilation."""
    rows = [[r["network"], spread(r["run_to_bare"], 3)] for r in found["overhead"]]
    text = table(["network", "`ju.run` to the bare loop"], rows)
    kinds = ("no cache", "empty cache", "cached")
    rows = [
        [r["network"], *(f"{r['first_step_seconds'][kind]:.1f}" for kind in kinds)]
        for r in found["compilation"]
    ]
    return text + "\n" + table(["first step, seconds", *kinds], rows)


def costs(found):
    """Return each weighting's step relative to plain RL."""
    rows = [[name, spread(one)] for name, one in found["relative_to_rl"].items()]
    return table(["step", "to a step of RL"], rows)


def sweep(found):
    """Return a vectorised sweep against runs one by one."""
    rows = [
        [
            one["network"],
            spread(one["one_by_one_to_vectorised"]),
            *(f"{seconds:.1f}" for seconds in one["compile_seconds"].values()),
            f"{one['largest_difference']:.1e}",
        ]
        for one in found["sweeps"]
    ]
    compiled = [f"compile s, {kind}" for kind in found["sweeps"][0]["compile_seconds"]]
    heads = ["network", "one by one / vectorised", *compiled, "largest difference"]
    return table(heads, rows)


def growth(found):
    """Return the slopes."""
    rows = [
        [f"seconds of {name} by forget samples", f"{one['slope']:.2f}"]
        for name, one in found["by_forget_set"].items()
    ]
    model = found["by_model"]
    rows += [
        [f"seconds a step by {name}", f"{model[f'slope_by_{name}']:.2f}"]
        for name in ("parameters", "operations")
    ]
    return table(["log-log", "slope"], rows)


def kills(found):
    """Return how many killed runs ended in the same bits."""
    rows = [
        [name, *(row[field] for field in ("kills", "resumed", "identical"))]
        for name, row in found["phases"].items()
    ]
    heads = ["phase", "killed", "went on from a saved state", "identical"]
    return table(heads, rows)


def overhead(found):
    """Return what weights add to a step."""
    rows = [
        [task["task"], task["forward"], task["batch_size"], name, f"{ratio:.3f}"]
        for task in found["tasks"]
        for name, ratio in task["median_ratio"].items()
    ]
    return table(["network", "passes", "batch", "weights", "to none"], rows)


def parts(found):
    """Return seconds by kind of operation, and under each set of flags."""
    kinds = list(next(iter(found["sums"].values())))
    rows = [
        [name, *(f"{seconds[kind]:.3f}" for kind in kinds)]
        for name, seconds in found["sums"].items()
    ]
    text = table(["seconds of a step", *kinds], rows)
    rows = [[name, spread(one)] for name, one in found["flags"].items()]
    return text + "\n" + table(["XLA flags", "seconds of a whole step"], rows)


PARTS = {
    "overhead": ("What weights add", overhead),
    "torch": ("Methods beside PyTorch", torch),
    "parts": ("Where the time of a ResNet-18 step goes", parts),
    "driver": ("Driver and compilation", driver),
    "costs": ("Weights and look-ahead", costs),
    "sweep": ("Sixteen temperatures", sweep),
    "growth": ("Growth", growth),
    "kills": ("Killed and resumed", kills),
}


def page(folder):
    """Return the markdown of the results in a folder."""
    texts = []
    for name, (title, part) in PARTS.items():
        files = sorted(Path(folder).glob(f"{name}*.json"))
        for file in files:
            found = json.loads(file.read_text())
            where = f"`{found.get('command', file.name)}`"
            if "processor" in found:
                where += f"; {found['processor']}, {found['threads']} threads, float32"
            texts.append(f"### {title}\n\n{where}\n\n{part(found)}")
    return "\n".join(texts)


if __name__ == "__main__":
    print(page(sys.argv[1]))
