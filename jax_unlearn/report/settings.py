"""Settings of the methods in words: what each one reads, and what several share."""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax_unlearn.errors import InputError
from jax_unlearn.lab.catalog import METHODS, WEIGHTINGS
from jax_unlearn.lab.settings import Unlearning

__all__ = ["COMMON", "OPTIONS", "OWN", "about", "is_known", "pairs", "settings_table"]
__all__ += ["shared_settings", "show", "told"]

COMMON = ("method", "weighting", "epochs", "batch_size", "learning_rate")  # columns
APART = 5  # settings of its own, from which on a method is told apart from the others


def settings_table(rows: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines: what rows read that `shared_settings` do not say."""
    read, groups = _read(rows)
    labels = [row.label for row in rows.values() if row.setting]
    lines = []
    for n, (label, own) in enumerate(zip(labels, read, strict=True)):
        said = [(g.same | g.usual).items() for g in groups if n in g.of]
        rest = {k: v for k, v in own.items() if k not in COMMON}
        rest = {k: v for k, v in rest.items() if not any((k, v) in of for of in said)}
        lines.append(
            [label, *(show(own.get(k)) for k in COMMON), ", ".join(pairs(rest)) or "–"]
        )
    heads = ["Model", *(name.replace("_", " ") for name in COMMON), "also"]
    return heads, lines


def shared_settings(rows: Mapping[str, Any]) -> list[str]:
    """Return sentences on what all methods, then groups of them, have in common."""
    _, groups = _read(rows)
    said = {f"The same for {group.name}": group.same for group in groups}
    for group in groups:
        rows_of = group.name.removeprefix("all ")
        said[f"In rows {rows_of} that do not say otherwise"] = group.usual
    return [f"{of}: {', '.join(pairs(own))}." for of, own in said.items() if own]


def show(value: Any) -> str:
    """Return a setting as text."""
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        counts = collections.Counter(map(show, value)).items()
        return " + ".join(text if n == 1 else f"{n} × {text}" for text, n in counts)
    return str(value).replace("_", " ")


class _Group(NamedTuple):
    """Methods that have settings in common."""

    name: str
    of: Sequence[int]  # which rows
    same: dict[str, Any]  # what all of them read alike
    usual: dict[str, Any]  # what all of them read, and most alike


def _read(rows: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[_Group]]:
    """Return what each method reads of its settings, and what groups of them share."""
    settings = [row.setting for row in rows.values() if row.setting]
    read = [told(setting) for setting in settings]
    if all(own.get("rho", 1) == 1 for own in read):
        read = [{k: v for k, v in own.items() if k != "rho"} for own in read]
    names = [setting["method"] for setting in settings]
    apart = [m for m in dict.fromkeys(names) if len(OWN.get(m, ())) >= APART]
    parts = {"all methods": {*names}}
    if apart and len(set(names)) > 1:
        parts[f"all but {' and '.join(apart)}"] = {*names} - {*apart}
        parts |= {f"all of {method}": {method} for method in apart}
    groups: list[_Group] = []
    for name, methods in parts.items():
        of = [n for n, method in enumerate(names) if method in methods]
        # options of a method or a weighting are told only where it is one method
        own = OWN.get(names[of[0]], ()) if len(methods) == 1 else ()
        skip = {*COMMON, *OPTIONS.difference(own), *(groups[0].same if groups else ())}
        group = _Group(name, of, {}, {})
        for key in read[of[0]] if len(of) > 1 else ():
            values = [read[n][key] for n in of if key in read[n]]
            if key in skip or len(values) < len(of):
                continue
            value = max(values, key=values.count)
            if values.count(value) == len(values):
                group.same[key] = value
            elif own and 2 < len(values) < 2 * values.count(value):
                group.usual[key] = value
        groups.append(group)
    return read, groups


def pairs(settings: Mapping[str, Any]) -> list[str]:
    """Return names and values in words."""
    return [f"{k} {show(v)}".replace("_", " ") for k, v in settings.items()]


def _fields(card: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(card.options) if f.type is not bool]


OWN = {name: _fields(card) for name, card in METHODS.items()}
"""Settings that only this method, and few others, read."""
OPTIONS = {"keep", *itertools.chain(*OWN.values(), *map(_fields, WEIGHTINGS.values()))}
"""Settings that belong to a method or a weighting; "keep" to all that mask weights."""


def told(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is read of a setting, by name."""
    setting = _setting(record)
    if setting is None:  # of a foreign card: what the record says, side by side
        values = {name: record[name] for name in COMMON if name in record}
        for group in ("weighting_options", "options"):
            options = record.get(group)
            values |= options if isinstance(options, Mapping) else {}
        return values
    read = {"method": setting.method}
    if setting.card.kind == "steps":
        read |= {name: getattr(setting, name) for name in COMMON}
    read |= setting.told()
    return {k: list(v) if isinstance(v, tuple) else v for k, v in read.items()}


def about(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what is to be known of a setting's method: title, reads, cost, source."""
    setting = _setting(record)
    if setting is None:
        own = "a card of its own, which is not at hand"
        return {"title": record["method"], "reads": "–", "cost": "–", "source": own}
    card = setting.card
    values = card.title, ", ".join(card.reads), card.cost, card.source
    return dict(zip(("title", "reads", "cost", "source"), values, strict=True))


def is_known(record: Mapping[str, Any]) -> bool:
    """Whether a setting is of a method of the library, or says itself what it reads."""
    method = record["method"]
    own = isinstance(method, str) and ".py:" in method
    return own or bool(record.get("own")) or method in (*METHODS,)


def _setting(record: Mapping[str, Any]) -> Unlearning | None:
    """Return the setting of a record; None where its card is not at hand."""
    try:
        setting = Unlearning.read(record)
        setting.told()
        return setting
    except (InputError, TypeError):  # of another version, or of a card not at hand
        return None
