"""What README and the rooms' pages show is true: snippets run, links lead somewhere."""

import doctest
import json
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import jax
import pytest

import jax_unlearn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGES = [
    path
    for folder in (".", "jax_unlearn", "tests", "notebooks")
    for path in sorted((ROOT / folder).glob("*.md" if folder == "." else "**/*.md"))
    if "templates" not in path.parts
]


URLS = PROJECT["urls"]


def numbers(line):
    """Return the numbers of a row that is printed."""
    return [float(text) for text in re.findall(r"\d+\.\d+", line)]


def test_the_snippet_prints_what_is_shown(capsys):
    """Its network is trained, and forgets a class: nearer to Retrain than before."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
    snippet = "\n".join(text for kind, text in blocks if kind == "python")
    (shown,) = (text for kind, text in blocks if text.startswith("model "))
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # as users have it; optax's schedules
        exec(compile(snippet, "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    row = re.compile(r"\s{2,}")  # cells; their numbers differ between machines
    for line, told in zip(shown.splitlines(), printed, strict=False):
        ours, theirs = row.split(line.strip()), row.split(told.strip())
        assert ours[0] == theirs[0] or set(told) == {"─"}
        assert len(ours) == len(theirs)
        for own, one in zip(*map(numbers, (line, told)), strict=True):
            assert abs(own - one) <= 4, (line, told)  # of a hundred
    assert row.split(printed[0]) == row.split(shown.splitlines()[0])
    figures = names["table"].figures
    before, after = figures["Original"], figures["partial reset"]
    assert before["ua"].value < 5  # the network was trained
    assert before["ta"].value > 90
    assert after["avg_gap"].value < 2 < 25 < before["avg_gap"].value
    assert after["ua"].verdict == after["avg_gap"].verdict == "inside"


def test_the_two_commands_are_shown():
    assert "pip install -e . && jax-unlearn\n" in README
    assert 'pip install -e ".[test]" && pytest\n' in README


def test_the_numbers_are_those_of_the_stored_results():
    """Those of the picture and of the chooser: tests/recipes."""
    stored = ROOT / "jax_unlearn/recipes/results"
    plan = json.loads((stored / "demo_digits.json").read_text())["demo"]["plan"]
    text = " ".join(README.split())
    assert len(plan["methods"]) == 12
    assert "makes it forget by twelve methods" in text
    assert len(plan["seeds"]) == 5
    assert "compares each with retraining over five seeds" in text
    frontier = json.loads((stored / "frontier_digits.json").read_text())
    shown = frontier["random10-20"]
    assert (shown["plan"]["kind"], shown["plan"]["fraction"]) == ("random", 0.1)
    assert "*10 % of the digits, drawn at random" in text
    assert re.search(r" of 6 trials .*on search seeds", shown["plan"]["note"])
    assert "the best of six trials at each budget" in text
    assert "shrink=0.3" in README
    assert "# keeps 30 % of each weight" in README


def test_it_is_short():
    assert len(README.splitlines()) <= 155
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    code = [line for line in snippet.splitlines()[1:] if line]
    assert len(code) <= 10  # behind the import


def test_extras_and_versions_are_those_of_the_project():
    extras = set(re.findall(r"`\"\.\[(\w+)\]\"`", README))
    assert extras == set(PROJECT["optional-dependencies"]) - {"test", "dev"}
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f"python-{oldest}%2B-blue" in README
    (cited,) = re.findall(r"@software\{jax_unlearn, (.*?)\n```", README, re.DOTALL)
    assert f"version = {{{jax_unlearn.__version__}}}" in cited
    assert f"url = {{{URLS['Source']}}}" in cited
    (author,) = PROJECT["authors"]
    assert f"author = {{{{{author['name']}}}}}" in cited


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_addresses_of_the_project_are_those_of_its_urls(page):
    """Where the repository is stands in one place: `[project.urls]`."""
    owner = urlsplit(URLS["Source"]).path.strip("/").partition("/")[0]
    text = page.read_text("utf-8")
    for link in re.findall(rf"[\w+:/.]*github(?:\.com)?/{owner}[^\s)\"`]*", text):
        place = link.partition("github.com/")[2] or link.partition("/github/")[2]
        assert f"https://github.com/{place}".startswith(URLS["Source"]), link
        _, _, file = place.partition("/blob/main/")
        assert not file or (ROOT / file).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, place = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / file if file else page
        assert target.exists(), link
        if not place:
            continue
        heads = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
        places = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads]
        assert place in places, link


@pytest.mark.parametrize(
    "page", [p for p in PAGES if ">>> " in p.read_text()], ids=lambda path: path.name
)
def test_examples_of_pages_show_what_they_print(page):
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted > 5
    assert not found.failed
