"""The page of results: each stored table beside the paper's, each claim with a word.

Written by `jax-unlearn recipe --table`; no number of it is typed by hand.
"""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from jax_unlearn.audit import KINDS
from jax_unlearn.data import write_atomic
from jax_unlearn.pipeline.plan import slug
from jax_unlearn.recipes.claims import CLAIMS, judge, p_text
from jax_unlearn.recipes.published import published
from jax_unlearn.recipes.studies import STUDIES
from jax_unlearn.recipes.tables import found_settings

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

SWEPT = ("FT", "RL", "SalUn", "RL + FaLW (exact)", "RL + FaLW (anchored)")
HERE = importlib.resources.files("jax_unlearn.recipes")
REFERENCES = ("retrain", "null", "original")


def write(out: Path) -> list[Path]:
    """Write the page and the figures beside it; return their paths.

    Args:
      out: the page to write.
    """
    pieces, written = [HEAD], []
    found = {
        name: stored(f"tables_{name}") for name in STUDIES if has(f"tables_{name}")
    }
    pieces.append(CLAIMS_HEAD)
    for name, parts in found.items():
        pieces += [f"### {STUDIES[name].title}\n", _claims(name, parts)]
    for name, parts in found.items():
        pieces.append(f"## {STUDIES[name].title}\n")
        pieces.append(_made(name, parts))
        pieces += [_part(name, part, results) for part, results in parts.items()]
        swept = {
            float(part.removeprefix("gamma-")): results
            for part, results in parts.items()
            if part.startswith("gamma-")
        }
        if len(swept) > 1:
            path = out.parent / f"tables_{name}_gamma.svg"
            written.append(write_atomic(path, _gamma_figure(swept), overwrite=True))
            pieces += [_gamma(swept), f"![Avg. Gap and deviation by γ]({path.name})\n"]
        if has(f"proxies_{name}"):
            pieces += _proxies(stored(f"proxies_{name}"), name)
        if has(f"lira_{name}"):
            pieces.append(_attacked(stored(f"lira_{name}"), name))
        if has(f"learned_{name}"):
            pieces.append(_learned(stored(f"learned_{name}"), name))
    text = "\n".join(pieces)
    return [write_atomic(out, text, overwrite=True), *written]


def has(name: str) -> bool:
    """Return whether results of that name are stored."""
    return _file(name).is_file()


def stored(name: str) -> dict[str, Any]:
    """Return stored results."""
    return json.loads(_file(name).read_text())


def _file(name: str) -> Any:
    return HERE.joinpath("results", f"{name}.json")


def _claims(name: str, parts: dict[str, Any]) -> str:
    """Return what the results of a study say of each claim."""
    results = dict(parts)
    for kind in ("proxies", "learned"):
        if has(f"{kind}_{name}"):
            results[kind] = stored(f"{kind}_{name}")
    rows = []
    for claim in CLAIMS:
        verdict = judge(claim, results)
        told = "<br>".join(verdict.detail).replace("|", "\\|")
        count = f"{verdict.clear}, {verdict.against} of {len(verdict.detail)}"
        word = f"**{verdict.word}**"
        rows.append([claim.text, claim.source, word, count, told])
    heads = ["claim", "whose", "here", "clearly so, clearly not", "pair, difference, p"]
    return _table(heads, rows)


def _made(name: str, parts: dict[str, Any]) -> str:
    """Return how the tables were made."""
    first = next(iter(parts.values()))
    training, dataset = first["plan"]["training"], first["dataset"]
    seconds = [
        sum(s["mean"] for s in first["rows"][key]["seconds"].values())
        for key in ("original", "retrain")
    ]
    environment = first["environment"]
    return (
        f"`jax-unlearn recipe tables-{name} --data FILE.npz`: {dataset['name']}, "
        f"{dataset['train']:,} training samples, {first['plan']['unseen']:,} of them "
        f"held out, {dataset['test']:,} test samples; {training['network']}, width "
        f"{training['width'] or 'as usual'}, {training['epochs']} epochs; original and "
        f"Retrain took {sum(seconds):.0f} s a seed ({environment['device']}, "
        f"{environment['cores']} cores).\n"
    )


def _part(name: str, part: str, results: Mapping[str, Any]) -> str:
    """Return the table of a part."""
    printed, source = published(name, part)
    rows = []
    for key, row in results["rows"].items():
        metrics = row["metrics"]
        line = [row["label"]]
        line += [_spread(metrics[name], 1) for name in ("ua", "ra", "ta", "mia")]
        line += [_spread(row["avg_gap"], 2), _tested(row)]
        line += [_spread(row["deviation"], 3), f"{row['tow']['mean']:.3f}"]
        times = {n: s["per_seed"] for n, s in row["seconds"].items()}
        line.append(f"{median(times['prepare']) + median(times['run']):.1f}")
        if printed:
            label = row["label"]
            line.append(f"{printed[label]:.2f}" if label in printed else "")
        rows.append(line if key not in REFERENCES else [f"*{line[0]}*", *line[1:]])
    heads = ["", "UA", "RA", "TA", "MIA", "Avg. Gap", "p", "\\|p − p*\\|", "ToW", "s"]
    heads += ["paper"] if printed else []
    title = results["plan"]["title"].partition(": ")[2]
    done = len(results["rows"]["retrain"]["avg_gap"]["per_seed"])
    seeds = ", ".join(map(str, results["plan"]["seeds"][:done]))
    note = f"Seeds {seeds}. {results['plan']['note']}"
    if edge := at_the_edge(found_settings(name)[STUDIES[name].parts[part].settings]):
        note += f" Best at the edge of the rates that were tried: {', '.join(edge)}."
    if source:
        note += f" Paper: {source}."
    return f"### {title}\n\n{note}\n\n{_table(heads, rows)}"


def at_the_edge(found: Mapping[str, Any]) -> list[str]:
    """Return the methods whose best rate a wider search might better.

    Args:
      found: of a search: "settings" and "table" by method.

    >>> table = {"FT": [{"learning_rate": rate} for rate in (0.1, 0.2, 0.3)]}
    >>> at_the_edge({"settings": {"FT": {"learning_rate": 0.3}}, "table": table})
    ['FT']
    """
    edge = []
    for label, rows in found["table"].items():
        rates = sorted({row.get("learning_rate", 0.0) for row in rows})
        best = found["settings"][label]["learning_rate"]
        if len(rates) > 1 and best in (rates[0], rates[-1]):
            edge.append(label)
    return edge


def _gamma(swept: Mapping[float, Mapping[str, Any]]) -> str:
    """Return the deviation of head, mid and tail by γ."""
    rows = []
    for gamma in sorted(swept):
        for key, row in swept[gamma]["rows"].items():
            if row.get("groups") and key != "retrain":
                groups = [_spread(row["groups"][g], 3) for g in ("head", "mid", "tail")]
                rows.append([f"{gamma:g}", row["label"], *groups])
    what = "### Deviation p − p* by group\n\nPositive: under-forgotten.\n\n"
    return what + _table(["γ", "", "head", "mid", "tail"], rows)


def _gamma_figure(swept: Mapping[float, Mapping[str, Any]]) -> str:
    from jax_unlearn import report as reports
    from jax_unlearn.report import studies

    keys = {label: slug(label) for label in (*SWEPT, "Endpoint transport")}
    return reports.standalone(studies.gamma_sweep(swept, keys))


def _proxies(found: Mapping[str, Any], name: str) -> list[str]:
    """Return the tables of what was found of proxies, and of robustness."""
    others = list(next(iter(found["correlation"].values())))
    rows = [
        [score.replace("_", " "), *(_spread(row[other], 2) for other in others)]
        for score, row in found["correlation"].items()
    ]
    heads = ["score of the original", *(o.replace("|", "\\|") for o in others)]
    what = (
        "### Is the loss a proxy of difficulty?\n\n"
        f"`jax-unlearn recipe proxies-{name} --data FILE.npz`. Spearman's ρ over "
        "the forget samples (10 % at random) of a score, larger is easier, with "
        "what Retrain says, p*, and with what a model leaves. The confidence ranks "
        'as LoReUn\'s loss does, reversed; "null" is the confidence of another '
        "Retrain: what can be known of p* at all.\n\n"
    )
    pieces = [what + _table(heads, rows)]
    rows = [
        [score.replace("_", " "), _spread(row, 3)]
        for score, row in found["targets"].items()
    ]
    what = (
        "### What endpoint transport can reach\n\nMean |t − p*| of its targets, by "
        "the score that ranks the samples: the deviation that is left where every "
        'target is reached. "Retrain" ranks by p* itself.\n\n'
    )
    pieces.append(what + _table(["ranked by", "\\|t − p*\\|"], rows))
    attack, robust = found["attack"], found["robust"]
    names = [key.rpartition(", ")[0] for key in robust]
    rows = [
        [
            label,
            *(_spread(robust[f"{label}, {bound}"], 1) for bound in attack["bounds"]),
        ]
        for label in dict.fromkeys(names)
    ]
    what = (
        f"### Accuracy under PGD, percent\n\n{attack['steps']} steps, "
        f"{attack['images']} test images.\n\n"
    )
    heads = ["", *(f"ε = {bound}" for bound in attack["bounds"])]
    return [*pieces, what + _table(heads, rows)]


def _attacked(found: Mapping[str, Any], name: str) -> str:
    """Return the table of the audit of many models."""
    audit = found["audit"]
    figures = audit["figures"]

    def target(figure: Mapping[str, Any], digits: int) -> str:
        value = f"{figure['target']:.{digits}f}"
        low, high = figure["null_low"], figure["null_high"]
        return (
            value if low is None else f"{value} [{low:.{digits}f}, {high:.{digits}f}]"
        )

    rows = []
    for key, kind in KINDS.items():
        told = [figures[method].get(key) for method in figures]
        if None not in told:
            cells = [
                f"{one['value']:.{kind.digits}f}"
                + (" ●" if one["verdict"] == "inside" else "")
                for one in told
            ]
            label = kind.label.replace("|", "\\|")
            rows.append([label, target(told[0], kind.digits), *cells])
    what = (
        f"### Attacks with {audit['retrained']} models of each kind\n\n"
        f"`jax-unlearn recipe lira-{name} --data FILE.npz`. The request of seed "
        f"{found['plan']['seeds'][0]}; {_settings(found, name)}. The target is "
        "Retrain's value, for a distance that between two sets of Retrains, with the "
        f"interval of {100 * audit['level']:.0f} % of the divisions of the Retrains; "
        "● is inside.\n\n"
    )
    return what + _table(["", "target", *figures], rows)


def _settings(found: Mapping[str, Any], name: str) -> str:
    """Return whether the attacked methods have the settings of the tables."""
    told = found_settings(name)["random10"]["settings"]
    used = found["plan"]["methods"]
    other = [m for m in found["audit"]["figures"] if m in used and used[m] != told[m]]
    if not other:
        return "settings as above"
    return f"settings as above, of a shorter search for {', '.join(other)}"


def _learned(found: Mapping[str, Any], name: str) -> str:
    """Return the table of learned temperatures and weights."""

    def told(row: Mapping[str, Any], key: str, digits: int) -> str:
        return _spread(row[key], digits) if key in row else ""

    digits = {"avg_gap": 2, "deviation": 3, "objective": 4, "temperature": 2}
    rows = [
        [label, *(told(row, *pair) for pair in digits.items()), told(row, "seconds", 0)]
        for label, row in found["rows"].items()
    ]
    rates = {f"{v:g}" for v in found["rows"]["RL"]["learning_rate"]["per_seed"]}
    what = (
        "### Learned temperature and weights\n\n"
        f"`jax-unlearn recipe learned-{name} --data FILE.npz`. Seeds "
        f"{', '.join(str(seed) for seed in found['seeds'])}. Random labels, "
        f"{found['steps']} steps, the last {found['through']} differentiated; "
        f"{found['updates']} updates against {len(found['grid'])} temperatures, "
        "the same number of passes. J is what is descended and chosen by: the mean "
        "square between forget confidences and those of unseen samples of their rank, "
        "and what unseen samples lost; it knows nothing of Retrain. All rows of a seed "
        "share the learning rate at which RL's J is smallest: "
        f"{', '.join(sorted(rates))}.\n\n"
    )
    heads = ["", "Avg. Gap", "\\|p − p*\\|", "J", "τ", "s"]
    return what + _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _spread(found: Mapping[str, Any], digits: int) -> str:
    mean, std = found["mean"], found["std"]
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def _tested(row: Mapping[str, Any]) -> str:
    test = (row.get("comparison") or {}).get("against_nothing")
    if not test:
        return ""
    return p_text(test["permutation_p"] if test["t_p"] is None else test["t_p"])
