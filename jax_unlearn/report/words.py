"""What the page says in words, computed from the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax_unlearn.report.settings import show
from jax_unlearn.report.table import (
    PERCENTAGES,
    REFERENCES,
    direction,
    gap_test,
    number,
)

SPACE = "\N{NO-BREAK SPACE}"


class _Facts:
    """What several sentences need."""

    def __init__(self, results: Mapping[str, Any]):
        self.rows = results["rows"]
        self.plan = results.get("plan") or {}
        self.dataset = results.get("dataset") or {}
        self.methods = [key for key in self.rows if key not in REFERENCES]
        any_row = next(iter(self.rows.values()))
        self.seeds = len(any_row["metrics"]["ua"]["per_seed"])
        sets = any_row["histograms"]
        self.forgotten = round(sum(sets["forget"]) / self.seeds)
        self.retained = round(sum(sets["retain"]) / self.seeds)

    def label(self, key: str) -> str:
        return self.rows[key]["label"]

    def percent(self, key: str, name: str) -> str:
        value = self.rows[key]["metrics"][name]["mean"]
        return f"{number(value, 1)}{SPACE}%"


def summary(results: Mapping[str, Any]) -> list[str]:
    """Return the summary, a paragraph an entry: request, target, outcome.

    Args:
      results: checked results.

    Returns:
      Plain text.
    """
    facts = _Facts(results)
    paragraphs = [_request(facts), _target(facts)]
    if "retrain" in facts.rows and facts.methods:
        paragraphs += _outcome(facts)
    return paragraphs


def _request(facts: _Facts) -> str:
    total = facts.forgotten + facts.retained
    share = 100 * facts.forgotten / total
    name = facts.dataset.get("name")
    text = (
        f"Of the {total:,} samples{f' of {name}' if name else ''} that the original "
        f"model was trained on, {facts.forgotten:,} ({share:.1f}{SPACE}%) were to be "
        f"forgotten{_kind(facts.plan)}."
    )
    if facts.seeds > 1:
        return (
            f"{text} Everything was repeated with {facts.seeds} seeds; figures are "
            "means ± sample standard deviations over them."
        )
    return f"{text} There is one seed: no spread is known, and nothing was tested."


def _kind(plan: Mapping[str, Any]) -> str:
    kind = plan.get("kind")
    if kind == "random":
        return ", drawn at random from all classes"
    if kind == "class":
        return ", drawn from whole classes"
    if kind == "long_tailed":
        gamma = plan.get("gamma")
        return (
            f", drawn long-tailed over the classes (γ = {gamma}): many samples of the "
            "head, few of the tail"
        )
    if kind in ("near", "far"):
        nearest = "nearest to" if kind == "near" else "farthest from"
        return (
            f", of each class those whose features under the original model lie "
            f"{nearest} their nearest other training samples"
        )
    if kind == "given":
        counts = plan.get("forget_counts")
        if isinstance(counts, list) and counts:
            touched = sum(1 for count in counts if count)
            return f", a given list that touches {touched} of {len(counts)} classes"
        return ", a given list"
    return ""


def _target(facts: _Facts) -> str:
    rows, percent = facts.rows, facts.percent
    if "retrain" not in rows:
        return (
            "There is no target: no Retrain is among these results, a model trained in "
            "the same way without the forgotten samples. The figures describe the "
            "models; they cannot say whether one has forgotten."
        )
    text = (
        "The target is Retrain: the same training without those samples. It gets "
        f"{percent('retrain', 'ua')} of them wrong (UA), the membership attack calls "
        f"{percent('retrain', 'mia')} of them unseen (MIA), and its test accuracy (TA) "
        f"is {percent('retrain', 'ta')}."
    )
    if "original" in rows:
        text += (
            f" For the original model the three are {percent('original', 'ua')}, "
            f"{percent('original', 'mia')} and {percent('original', 'ta')}."
        )
    gaps = []
    if "original" in rows:
        gaps.append(f"doing nothing leaves an Avg. Gap of {_gap(facts, 'original')}")
    if "null" in rows:
        gaps.append(
            f"another honest Retrain, of another seed, has one of {_gap(facts, 'null')}"
        )
    if gaps:
        joined = "; ".join(gaps)
        text += f" {joined[0].upper()}{joined[1:]}."
    if "null" not in rows:
        text += (
            " There is no second Retrain (the null), so that it is unknown which "
            "distances are only the noise of a seed."
        )
    return text


def _outcome(facts: _Facts) -> list[str]:
    rows, methods = facts.rows, facts.methods
    best = min(methods, key=lambda key: rows[key]["avg_gap"]["mean"])
    gap = rows[best]["avg_gap"]["mean"]
    nearest = f"with an Avg. Gap of {_gap(facts, best)}"
    if "null" in rows and rows["null"]["avg_gap"]["mean"] > 0:
        ratio = gap / rows["null"]["avg_gap"]["mean"]
        nearest += f", {ratio:.1f} times the null's"
    text = f"{facts.label(best)} came nearest to Retrain, {nearest}."
    if len(methods) == 1:
        text = f"{facts.label(best)} ends {nearest}."
    tests = {key: gap_test(rows[key]) for key in methods}
    if not any(tests.values()):
        return [text]
    within = [
        key
        for key in methods
        if rows[key].get("comparison")
        and all(
            rows[key]["comparison"]["metrics"][name]["verdict"] == "inside"
            for name in PERCENTAGES
        )
    ]
    told = _names([facts.label(key) for key in within]) or "No method"
    verb = "lie" if len(within) > 1 else "lies"
    text += f" {told} {verb} inside the null's interval in all of UA, RA, TA and MIA."
    paragraphs = [text, f"By Avg. Gap, {_verdicts(facts, tests)}."]
    by_sample = {key: rows[key].get("deviation_test") for key in methods}
    if any(by_sample.values()):
        paragraphs.append(
            f"Sample by sample, by |p − p*|, {_verdicts(facts, by_sample)}."
        )
    return paragraphs


def _verdicts(facts: _Facts, tests: Mapping[str, Any]) -> str:
    groups: dict[str, list[str]] = {"nearer": [], "farther": [], "unclear": []}
    for key, test in tests.items():
        if test is not None:
            groups[direction(test)].append(facts.label(key))
    nearer, farther, unclear = groups.values()
    if not nearer and not farther:
        return "no method ends clearly nearer to Retrain than doing nothing, or farther"
    all_of_them = len(facts.methods) > 2 and len(nearer) == len(facts.methods)
    who = "every method" if all_of_them else _names(nearer) or "no method"
    parts = [f"{who} came clearly nearer to Retrain than doing nothing"]
    if farther:
        parts.append(f"{_names(farther)} did harm, ending clearly farther from it")
    if unclear:
        who = _names(unclear) if len(unclear) < 3 else "the others"
        parts.append(f"for {who} no difference is clear")
    return "; ".join(parts)


def _gap(facts: _Facts, key: str) -> str:
    return number(facts.rows[key]["avg_gap"]["mean"], 2)


def _names(labels: Sequence[str]) -> str:
    """Join labels as a sentence does.

    >>> _names(["FT", "GA", "RL"])
    'FT, GA and RL'
    """
    if len(labels) < 2:
        return "".join(labels)
    return f"{', '.join(labels[:-1])} and {labels[-1]}"


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return where the numbers come from: data, training, machine, as pairs of text.

    Args:
      results: checked results.

    Returns:
      Names and values, in order.
    """
    plan = results.get("plan") or {}
    dataset = results.get("dataset") or {}
    machine = results.get("environment") or {}
    found = {
        "Data": _sentence(
            dataset.get("name"),
            _count(dataset.get("train"), "training samples"),
            _count(dataset.get("test"), "test samples"),
            _count(dataset.get("classes"), "classes"),
            _count(plan.get("unseen"), "held out of all training"),
        ),
        "SHA-256 of the data": str(dataset.get("fingerprint") or ""),
        "SHA-256 of the forgotten ids": str(plan.get("forgotten_sha256") or ""),
        "Seeds": ", ".join(str(seed) for seed in plan.get("seeds") or []),
        "Original and Retrain": ", ".join(
            f"{name} {show(value)}".replace("_", " ")
            for name, value in (plan.get("training") or {}).items()
            if not (name == "width" and value == 0)
        ),
        "Machine": _sentence(
            machine.get("device"), _count(machine.get("cores"), "CPU cores")
        ),
        "Versions": ", ".join(
            f"{name} {version}"
            for name, version in (
                {"python": machine.get("python")} | (machine.get("versions") or {})
            ).items()
            if version
        ),
    }
    return [(name, text) for name, text in found.items() if text]


def _sentence(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)


def _count(value: Any, what: str) -> str:
    """Return a number of things, of a number or of a list of them.

    >>> _count([3, 4], "classes"), _count(1000, "samples"), _count(None, "x")
    ('2 classes', '1,000 samples', '')
    """
    if isinstance(value, list):
        value = len(value)
    return f"{value:,} {what}" if isinstance(value, int) and value else ""
