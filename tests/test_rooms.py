"""What the pages of rooms list is what the code knows; run as a script, it writes them.

A table between `<!-- NAME -->` and `<!-- end of NAME -->` is made here from cards and
docstrings, and compared with the page.
"""

import inspect
import json
import re
from pathlib import Path

import pytest

from jax_unlearn import weights
from jax_unlearn.audit import FIGURES
from jax_unlearn.audit.vulnerable import LEAST
from jax_unlearn.cli import COMMANDS
from jax_unlearn.lab.catalog import METHODS
from jax_unlearn.lab.modalities import MODALITIES

ROOT = Path(__file__).parent.parent


def table(heads, rows):
    """Return a table in Markdown; bars in cells are escaped."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [heads, ["---"] * len(heads), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def linked(source):
    """Return where something is published, as a link where there is an address."""
    return re.sub(r"arXiv (\S+)", r"[arXiv \1](https://arxiv.org/abs/\1)", source)


def methods():
    """Return what every method reads, costs, and works on."""
    rows = [
        (
            f"`{name}`: {card.title}",
            ", ".join(card.reads),
            "yes" if card.weighs else "",
            ", ".join(m.name for m in MODALITIES if set(card.roles) <= m.roles),
            f"{card.cost}",
            linked(card.source),
        )
        for name, card in METHODS.items()
    ]
    return table(["method", "reads", "weights", "models", "cost", "source"], rows)


def suits():
    """Return what every method is good for."""
    rows = [(f"`{name}`", card.suits) for name, card in METHODS.items()]
    return table(["method", "what it is good for, and what to expect"], rows)


def weightings():
    """Return what every weighting weighs by."""
    rows = [
        (
            f"`{card.name}`: {card.label}",
            card.title,
            {"logits": "outputs"}.get(card.reads, card.reads)
            + (", unseen samples of every forgotten class" if card.compares else ""),
            linked(card.source),
        )
        for card in weights.CARDS
    ]
    return table(["weighting", "weighs", "reads", "source"], rows)


TARGETS = {
    "level": "Retrain's value",
    "distance": "the distance between two sets of Retrains",
    "closeness": "the closeness of two sets of Retrains",
}


def needed(card):
    """Return how many models a figure needs."""
    half = max(card.models // 2, 1)
    if card.within:
        both = LEAST + (half if card.models > 1 else 1)
        return f"{both} originals and unlearned, {LEAST + max(card.models, 2)} Retrains"
    if card.models > 1:
        return f"{half} unlearned, {card.models} Retrains"
    return "1, beside 1 Retrain"


def figures():
    """Return every figure with its target."""
    rows = []
    for card in FIGURES:
        reads = ", ".join(card.reads)
        target = TARGETS[card.kind]
        if card.models == 1 and card.kind != "level":
            target = {"distance": "0", "closeness": "1"}[card.kind]
        rows.append(
            (f"{card.label}", card.meaning, target, needed(card), reads, card.group)
        )
    heads = [
        "figure",
        "what it is",
        "target",
        "models it needs",
        "beside",
        "`--metrics`",
    ]
    return table(heads, rows)


def commands():
    """Return what every command does."""
    from jax_unlearn.cli import _commands

    _, known, _ = _commands(["demo"], [])
    said = {
        name: (inspect.getdoc(one) or "").split("\n\n")[0]
        for name, one in known.items()
    }
    assert set(said) == set(COMMANDS)
    rows = [(f"`{name}`", " ".join(text.split())) for name, text in said.items()]
    return table(["command", "what it does"], rows)


def machines():
    """Return what each stored benchmark ran on."""
    rows = []
    for path in sorted((ROOT / "tests/benchmarks/results").glob("*.json")):
        found = json.loads(path.read_text("utf-8"))
        versions = found.get("versions", {"jax": found.get("jax", "")})
        told = ", ".join(f"{k} {v}" for k, v in versions.items() if k in SHOWN and v)
        processor = found.get("processor", "none: counted")
        link = f"[{path.name}](results/{path.name})"
        rows.append((link, processor, found.get("threads", ""), told))
    return table(["result", "processor", "threads", "versions"], rows)


SHOWN = ("jax", "torch")
TABLES = {
    "methods": (methods, "jax_unlearn/methods"),
    "suits": (suits, "jax_unlearn/methods"),
    "weightings": (weightings, "jax_unlearn/weights"),
    "figures": (figures, "jax_unlearn/audit"),
    "commands": (commands, "jax_unlearn/cli"),
    "machines": (machines, "tests/benchmarks"),
}


def page_with(name):
    """Return a page, and what it is with the table as the code makes it."""
    make, room = TABLES[name]
    page = ROOT / room / "README.md"
    text = page.read_text("utf-8")
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    assert text.count(first) == text.count(last) == 1, f"{page} lacks {first} or {last}"
    before, after = text.partition(first)[0], text.partition(last)[2]
    return page, text, f"{before}{first}\n\n{make()}\n\n{last}{after}"


@pytest.mark.parametrize("name", TABLES)
def test_a_table_lists_what_the_code_knows(name):
    page, text, made = page_with(name)
    assert text == made, f"{page.parent.name}/README.md: run python tests/test_rooms.py"


if __name__ == "__main__":
    for each in TABLES:
        path, _, whole = page_with(each)
        path.write_text(whole, "utf-8")
