"""The sections of the page of results: a table, or some, for each kind of study."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from jax_unlearn.audit import KINDS
from jax_unlearn.lab import Unlearning
from jax_unlearn.lab.plan import slug
from jax_unlearn.recipes.claims import Claim, judge, p_text
from jax_unlearn.recipes.published import Printed
from jax_unlearn.recipes.tables import found_settings
from jax_unlearn.report import studies

if TYPE_CHECKING:
    from jax_unlearn.report.svg import Drawing

SWEPT = ("FT", "RL", "SalUn", "RL + FaLW (exact)", "RL + FaLW (anchored)")
REFERENCES = ("retrain", "null", "original")


def claimed(claims: Sequence[Claim], results: Mapping[str, Any]) -> str:
    """Return what the results of a study say of each claim."""
    rows = []
    for claim in claims:
        verdict = judge(claim, results)
        told = "<br>".join(verdict.detail).replace("|", "\\|")
        count = f"{verdict.clear}, {verdict.against} of {len(verdict.detail)}"
        word = f"**{verdict.word}**"
        rows.append([claim.text, claim.source, word, count, told])
    heads = ["claim", "whose", "here", "clearly so, clearly not", "pair, difference, p"]
    return _table(heads, rows)


def made(recipe: str, parts: Mapping[str, Any]) -> str:
    """Return how the tables of a recipe were made."""
    first = next(iter(parts.values()))
    training, dataset = first["plan"]["training"], first["dataset"]
    seconds = [
        sum(s["mean"] for s in first["rows"][key]["seconds"].values())
        for key in ("original", "retrain")
    ]
    environment = first["environment"]
    given = "" if dataset["name"] == "digits" else " --data FILE.npz"
    return (
        f"`jax-unlearn recipe {recipe}{given}`: {dataset['name']}, "
        f"{dataset['train']:,} training samples, {first['plan']['unseen']:,} of them "
        f"held out, {dataset['test']:,} test samples; {training['network']}, width "
        f"{training['width'] or 'as usual'}, {training['epochs']} epochs; original and "
        f"Retrain took {sum(seconds):.0f} s a seed ({environment['device']}, "
        f"{environment['cores']} cores).\n"
    )


def request(
    results: Mapping[str, Any],
    search: Mapping[str, Any],
    printed: Printed = ({}, ""),
) -> str:
    """Return the table of a request.

    Args:
      results: of it.
      search: where its settings come from.
      printed: what a paper says of it.
    """
    paper, source = printed
    rows = []
    for key, row in results["rows"].items():
        metrics = row["metrics"]
        line = [row["label"]]
        line += [_spread(metrics[name], 1) for name in ("ua", "ra", "ta", "mia")]
        line += [_spread(row["avg_gap"], 2), _tested(row)]
        line += [_spread(row["deviation"], 3), f"{row['tow']['mean']:.3f}"]
        times = {n: s["per_seed"] for n, s in row["seconds"].items()}
        line.append(f"{median(times['prepare']) + median(times['run']):.1f}")
        if paper:
            label = row["label"]
            line.append(f"{paper[label]:.2f}" if label in paper else "")
        rows.append(line if key not in REFERENCES else [f"*{line[0]}*", *line[1:]])
    heads = ["", "UA", "RA", "TA", "MIA", "Avg. Gap", "p", "\\|p − p*\\|", "ToW", "s"]
    heads += ["paper"] if paper else []
    done = len(results["rows"]["retrain"]["avg_gap"]["per_seed"])
    seeds = ", ".join(map(str, results["plan"]["seeds"][:done]))
    note = f"Seeds {seeds}. {results['plan']['note']}"
    shown = results["plan"]["methods"]
    if edge := [label for label in at_the_edge(search) if label in shown]:
        note += f" Best at the edge of the rates that were tried: {', '.join(edge)}."
    if source:
        note += f" Paper: {source}."
    return f"{note}\n\n{_table(heads, rows)}"


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
        best = Unlearning.of(**found["settings"][label]).learning_rate
        if len(rates) > 1 and best in (rates[0], rates[-1]):
            edge.append(label)
    return edge


def by_gamma(swept: Mapping[float, Mapping[str, Any]]) -> str:
    """Return the deviation of head, mid and tail by γ."""
    rows = []
    for gamma in sorted(swept):
        for key, row in swept[gamma]["rows"].items():
            if row.get("groups") and key != "retrain":
                groups = [_spread(row["groups"][g], 3) for g in ("head", "mid", "tail")]
                rows.append([f"{gamma:g}", row["label"], *groups])
    what = "### Deviation p − p* by group\n\nPositive: under-forgotten.\n\n"
    return what + _table(["γ", "", "head", "mid", "tail"], rows)


def gamma_figure(swept: Mapping[float, Mapping[str, Any]]) -> "Drawing":
    """Draw Avg. Gap and deviation by γ."""
    keys = {label: slug(label) for label in (*SWEPT, "Endpoint transport")}
    return studies.gamma_sweep(swept, keys)


def proxies(found: Mapping[str, Any], name: str) -> list[str]:
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


def attacked(found: Mapping[str, Any], name: str) -> str:
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
    told, used = found_settings(name)["random10"]["settings"], found["plan"]["methods"]
    other = [
        method
        for method in found["audit"]["figures"]
        if method in used
        and Unlearning.of(**used[method]) != Unlearning.of(**told[method])
    ]
    if not other:
        return "settings as above"
    return f"settings as above, of a shorter search for {', '.join(other)}"


def learned(found: Mapping[str, Any], name: str) -> str:
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
