"""Whatever is printed, on an output that can only do ASCII: help, lists and tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli_audit import arrays_file

TESTS = Path(__file__).parents[1]
RUN = """
import sys
from made_generation import made_generation
from made_results import made_results
from jax_unlearn.cli import console, main

def run(*words):
    print("$", *words)
    try:
        main(words)
    except SystemExit as end:
        if end.code:
            raise

run("--help")
for name in (
    *("demo", "split", "train", "unlearn", "chain", "sample", "audit", "ensemble"),
    *("methods", "report", "recipe", "tune"),
):
    run(name, "--help")
for name in ("train", "unlearn", "audit"):
    run(name, "--modality", "diffusion", "--help")
run("unlearn", "scrub", "--weighting", "falw", "--help")
run("methods")
run("recipe")
asked = ("--resamples", "2", "--all-figures")
run("audit", "--arrays", sys.argv[1], "--out", sys.argv[2], *asked)
shown = console.open_console()
console.print_results(shown, made_results())
console.print_legend(shown, made_results())
console.print_generation(shown, made_generation())
print("r\\xe9sum\\xe9 \\u6728 \\udcc3\\udca9")
print("main: \\u03c1", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "says",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}],
    ids=["encoding", "locale"],
)
def test_everything_is_printed_in_plain_signs(tmp_path, says):
    folders = (TESTS.parent, TESTS, TESTS / "report")
    path = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG"))}
    arrays = arrays_file(tmp_path / "outputs.npz")
    done = subprocess.run(
        [sys.executable, "-c", RUN, arrays, tmp_path / "audit.json"],
        env={**kept, "PYTHONPATH": path, "COLUMNS": "120", **says},
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    printed, _, last = done.stdout.rstrip().rpartition(b"\n")
    words = " ".join(printed.decode("ascii").split())  # refuses any other sign
    assert last == b"resume ? \xc3\xa9"  # the bytes of a file's name stay
    assert done.stderr.rstrip().endswith(b"main: rho")
    for part in (
        *("E*(R + F)", "Frechet: distance", "arXiv 2302.09880", "generation-digits"),
        *("UA: share of the forget samples", "KLoM (mean)", "D -", "2.0 +- 0.2"),
        *(" * ", " o "),
    ):
        assert part in words, part
    assert "?" not in words, words[words.index("?") - 80 : words.index("?") + 40]
