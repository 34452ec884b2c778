"""Settings of the methods in words: what each one reads, and what several share."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax_unlearn.lab.catalog import CATALOG

COMMON = ("method", "weighting", "epochs", "batch_size", "learning_rate")
GUARDS = ("guard_utility", "guard_endpoint")
# of the flags, those of any method
EVERYWHERE = ("salient", "microbatch", "remat", *GUARDS)
# told only where they are set
FLAGS = ("per_leaf", "rewind", "first_order", "allow_weak", *EVERYWHERE)
LTU = tuple(name for name in CATALOG["ltu"].options if name not in FLAGS)
OPTIONS = {name for entry in CATALOG.values() for name in entry.options}
_LOSS_BASED = ("loreun", "loreun_static")
MATTERS = {
    "temperature": ("weighting", (*_LOSS_BASED, "el2n", "margin")),
    "relative": ("weighting", (*_LOSS_BASED, "el2n", "margin")),
    "normalize": ("weighting", _LOSS_BASED),
    "power": ("weighting", ("sfron",)),
    "tau": ("weighting", ("falw",)),
    "estimator": ("weighting", ("falw",)),
    "every": ("estimator", ("every",)),
    "decay": ("estimator", ("streaming",)),
}
"""Settings that are read only if another one has one of these values."""
_PUBLISHED = ("keep", "threshold", "penalty", "alpha")  # told of every method anew


def settings_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the methods' settings.

    The last column holds the rest that the method reads, without what it shares with
    others and `shared_settings` names.

    Args:
      results: checked results.

    Returns:
      Headings, and as many strings a method.
    """
    rows = _with_settings(results)
    read = _read(rows)
    groups, usual = _groups(rows, read), _usual(rows, read)
    lines = []
    for number, row in enumerate(rows):
        told = {k for group in groups if number in group.of for k in group.same}
        if _is_ltu(row["setting"]):
            told |= {k for k, v in usual.items() if read[number].get(k) == v}
        rest = {k: v for k, v in read[number].items() if k not in told}
        line = [row["label"], *(_common(name, row["setting"]) for name in COMMON)]
        lines.append([*line, _joined(rest) or "–"])
    heads = ["Model", *(name.replace("_", " ") for name in COMMON), "also"]
    return heads, lines


def shared_settings(results: Mapping[str, Any]) -> list[str]:
    """Return what all methods have in common, then all but ltu, then all of ltu.

    What most of several runs of ltu read alike is told once too: studies vary it.

    Args:
      results: checked results.

    Returns:
      Sentences, without those that would be empty.
    """
    rows = _with_settings(results)
    read = _read(rows)
    groups, usual = _groups(rows, read), _usual(rows, read)
    said = [f"The same for {g.name}: {_joined(g.same)}." for g in groups if g.same]
    if usual:
        said.append(f"In rows of ltu that do not say otherwise: {_joined(usual)}.")
    return said


def show(value: Any) -> str:
    """Return a setting as text.

    >>> show(0.0005), show(False), show("random_label")
    ('0.0005', 'no', 'random label')
    >>> show(["uniform", "hard", "hard"])
    'uniform + 2 × hard'
    """
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        counts: dict[str, int] = {}
        for text in map(show, value):
            counts[text] = counts.get(text, 0) + 1
        return " + ".join(t if n == 1 else f"{n} × {t}" for t, n in counts.items())
    return str(value).replace("_", " ")


def _common(name: str, setting: Mapping[str, Any]) -> str:
    """Return a setting that most methods read, a dash for one that does not."""
    stepwise = CATALOG[setting["method"]].kind == "steps"
    if stepwise or name == "method":
        return show(setting.get(name))
    return "–"


class _Group(NamedTuple):
    """Methods that have settings in common."""

    name: str
    of: list[int]  # which rows
    same: dict[str, Any]


def _groups(
    rows: Sequence[Mapping[str, Any]], read: Sequence[dict[str, Any]]
) -> list[_Group]:
    """Return all methods and, where there are both, ltu's and the others."""
    everything = list(range(len(rows)))
    of_ltu = [n for n in everything if _is_ltu(rows[n]["setting"])]
    others = [n for n in everything if n not in of_ltu]
    groups = [_Group("all methods", everything, _same(read))]
    if of_ltu and others:
        for name, part in (("all but ltu", others), ("all of ltu", of_ltu)):
            same = _same([read[n] for n in part])
            rest = {k: v for k, v in same.items() if k not in groups[0].same}
            groups.append(_Group(name, part, rest))
    return groups


def _usual(
    rows: Sequence[Mapping[str, Any]], read: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the settings that most, but not all, of three or more runs of ltu read."""
    of_ltu = [
        told for row, told in zip(rows, read, strict=True) if _is_ltu(row["setting"])
    ]
    found = {}
    for name in ("harmonizer", *LTU):
        values = [told.get(name) for told in of_ltu]
        for value in values:
            if 2 < len(values) < 2 * values.count(value) < 2 * len(values):
                found[name] = value
    return found


def _same(read: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what all of several methods read, and alike."""
    if len(read) < 2:
        return {}
    return {
        name: value
        for name, value in read[0].items()
        if name not in (*MATTERS, *_PUBLISHED)
        and all(name in other and other[name] == value for other in read)
    }


def _with_settings(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in results["rows"].values() if row.get("setting")]


def _read(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what each method reads of its settings, without what has a column."""
    settings = [_resolved(row["setting"]) for row in rows]
    whole = all(setting.get("rho", 1) == 1 for setting in settings)
    return [
        {
            name: value
            for name, value in setting.items()
            if name not in COMMON
            and _matters(name, setting)
            and not (name == "rho" and whole)
        }
        for setting in settings
    ]


def _resolved(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return a setting with what its method makes of it.

    >>> _resolved({"method": "ltu", "harmonizer": "auto"})["harmonizer"]
    'one_way'
    """
    resolved = dict(setting)
    ltu = _is_ltu(setting)
    if setting.get("harmonizer") == "auto":
        resolved["harmonizer"] = "one_way" if ltu else "none"
    if ltu and "freeze_statistics" in setting:
        resolved["freeze_statistics"] = True
    return resolved


def _matters(name: str, setting: Mapping[str, Any]) -> bool:
    """Whether a setting is read by the method it is given to, and worth telling."""
    entry = CATALOG[setting["method"]]
    if name in FLAGS:
        joined = setting.get("harmonizer") in ("one_way", "two_way")
        anyhow = {"per_leaf": joined} | dict.fromkeys(EVERYWHERE, True)
        return anyhow.get(name, name in entry.options) and bool(setting[name])
    if name.startswith("guard_"):
        return any(setting.get(guard) for guard in GUARDS)
    if name in OPTIONS:
        salient = name == "keep" and bool(setting.get("salient"))
        return (name in entry.options or salient) and setting[name] is not None
    if entry.kind != "steps":
        return name == "rho"
    if name == "schedule":
        return entry.schedule or not {"forget", "retain"} <= set(entry.reads)
    if name == "momentum":
        return setting.get("optimizer", "sgd") == "sgd"
    if name == "optimizer":
        return setting[name] != "sgd"
    if name not in MATTERS:
        return True
    switch, values = MATTERS[name]
    return setting.get(switch) in values and (
        switch != "estimator" or setting.get("weighting") == "falw"
    )


def _is_ltu(setting: Mapping[str, Any]) -> bool:
    return setting.get("method") == "ltu"


def _joined(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {show(v)}".replace("_", " ") for k, v in settings.items())
