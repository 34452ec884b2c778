"""What the README shows is true: its snippet runs, its commands exist."""

import doctest
import re
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [
    path
    for folder in (".", "jax_unlearn", "tests")
    for path in sorted((ROOT / folder).glob("*.md" if folder == "." else "**/*.md"))
    if "templates" not in path.parts
]


def test_the_snippet_runs_as_written_and_changes_the_model():
    (snippet,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(snippet, "README.md", "exec"), names)
    state, params = names["state"], names["params"]
    assert int(state.step) == len(names["batches"])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, params)
    assert all(value > 0 for value in jax.tree.leaves(moved))


def test_the_two_commands_are_shown():
    assert "pip install -e . && jax-unlearn\n" in README
    assert 'pip install -e ".[test]" && pytest\n' in README


def test_it_is_short():
    assert len(README.splitlines()) <= 250


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, place = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / file if file else page
        assert target.exists(), link
        heads = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.MULTILINE)
        places = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in heads]
        assert not place or place in places, link


@pytest.mark.parametrize(
    "page", [p for p in PAGES if ">>> " in p.read_text()], ids=lambda path: path.name
)
def test_examples_of_pages_show_what_they_print(page):
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted > 5
    assert not found.failed
