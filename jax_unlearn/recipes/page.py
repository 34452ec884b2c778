"""The page of results: each stored table beside the paper's, each claim with a word.

Written by `jax-unlearn recipe --table`; no number of it is typed by hand.
"""

import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jax_unlearn import report as reports
from jax_unlearn.data import write_atomic
from jax_unlearn.recipes import ltu, sections
from jax_unlearn.recipes.claims import CLAIMS, LTU_CLAIMS
from jax_unlearn.recipes.published import published
from jax_unlearn.recipes.studies import STUDIES
from jax_unlearn.recipes.tables import found_settings

if TYPE_CHECKING:
    from jax_unlearn.report.svg import Drawing

HEAD = """# The papers' tables, here

Written by `jax-unlearn recipe --table`; made by `jax-unlearn recipe NAME` with the
names below. Read every figure against Retrain's, its target, and against the null,
another Retrain: what is nearer than the null is near by chance. p: paired t-test
against doing nothing. Settings were searched on other seeds (`--tune`), as many
trials for every method of a table. "Paper": the Avg. Gap printed there, with a larger
network and all of the data; the order of the methods is what can be compared.
"""

CLAIMS_HEAD = """## The claims

A claim says that one figure is smaller than another. It holds where that is so in every
pair with p < 0.05 over the seeds; partly, in some pair; else it does not hold, or these
seeds do not show it. p is not corrected for the number of pairs. Not tested at
the papers' scale: their networks, data and lengths need an accelerator
(`jax-unlearn recipe tables-cifar10-full`, `tables-cifar10-vgg`,
`tables-cifar100-full`, `tables-tiny-imagenet-full`).
"""

HERE = importlib.resources.files("jax_unlearn.recipes")
ALONE = "LTU and others on 30 % of the retain set, LTU without its parts, other ρ"
Results = Mapping[str, dict[str, Any]]
"""Of a study, by part."""
Section = tuple[list[str], "dict[str, Drawing]"]
BESIDE = ("proxies", "learned")  # claims are judged by these results too


def write(out: Path) -> list[Path]:
    """Write the page and the figures beside it; return their paths.

    Args:
      out: the page to write.
    """
    tables = {name: found for name in STUDIES if (found := stored(f"tables_{name}"))}
    thirds = {name: found for name in ltu.STUDIES if (found := stored(f"ltu_{name}"))}
    pieces, figures = [HEAD, CLAIMS_HEAD], {}
    for name, parts in tables.items():
        beside = {k: found for k in BESIDE if (found := stored(f"{k}_{name}"))}
        told = sections.claimed(CLAIMS, parts | beside)
        pieces.append(f"### {STUDIES[name].title}\n\n{told}")
    for name, parts in thirds.items():
        told = sections.claimed(LTU_CLAIMS, parts)
        pieces.append(f"### {ltu.STUDIES[name].title}\n\n{told}")
    sections_of = [_tables(*item) for item in tables.items()]
    sections_of += [_thirds(*item) for item in thirds.items()]
    for told, drawn in sections_of:
        pieces += told
        figures |= drawn
    written = [write_atomic(out, "\n".join(pieces), overwrite=True)]
    for file, drawing in figures.items():
        text = reports.standalone(drawing)
        written.append(write_atomic(out.parent / file, text, overwrite=True))
    return written


def stored(name: str) -> dict[str, Any]:
    """Return stored results, empty if there are none of that name."""
    file = HERE.joinpath("results", f"{name}.json")
    return json.loads(file.read_text()) if file.is_file() else {}


def _tables(name: str, parts: Results) -> Section:
    """Return the section of a study of tables, and its figures."""
    study, searched = STUDIES[name], found_settings(name)
    pieces = [f"## {study.title}\n", sections.made(f"tables-{name}", parts)]
    for part, results in parts.items():
        title = results["plan"]["title"].partition(": ")[2]
        search = searched[study.parts[part].settings]
        told = sections.request(results, search, published(name, part))
        pieces.append(f"### {title}\n\n{told}")
    figures = {}
    swept = {
        float(part.removeprefix("gamma-")): results
        for part, results in parts.items()
        if part.startswith("gamma-")
    }
    if len(swept) > 1:
        file = f"tables_{name}_gamma.svg"
        figures[file] = sections.gamma_figure(swept)
        pieces += [
            sections.by_gamma(swept),
            f"![Avg. Gap and deviation by γ]({file})\n",
        ]
    if found := stored(f"proxies_{name}"):
        pieces += sections.proxies(found, name)
    if found := stored(f"lira_{name}"):
        pieces.append(sections.attacked(found, name))
    if found := stored(f"learned_{name}"):
        pieces.append(sections.learned(found, name))
    return pieces, figures


def _thirds(name: str, parts: Results) -> Section:
    """Return the section of LTU on 30 % of the retain set, and its figures."""
    study, search = ltu.STUDIES[name], ltu.found_settings(name)
    pieces = [f"## {study.title}\n", sections.made(f"ltu-{name}", parts)]
    for part, results in parts.items():
        told = sections.request(results, search)
        title = results["plan"]["title"] if part in ("near", "far") else ALONE
        pieces.append(f"### {title}\n\n{told}")
    figures = {}
    for kind, drawing in ltu.figures(parts).items():
        file = f"ltu_{name}_{kind}.svg"
        figures[file] = drawing
        pieces.append(f"![LTU, {kind.replace('_', ' and ')}]({file})\n")
    return pieces, figures
