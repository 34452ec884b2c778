"""Models of one request side by side: beside Retrain, the null and doing nothing."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_unlearn import _validate
from jax_unlearn.audit import Audit, Figure, FigureCard, audit
from jax_unlearn.audit.evidence import FEWEST, Evidence
from jax_unlearn.audit.figures import FIGURES, GROUPS, KINDS
from jax_unlearn.audit.records import SIGN, visible
from jax_unlearn.candidates import Candidates, examples_of, parts_of
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.types import Model

__all__ = ["SideBySide", "compare"]

SHOWN = ("ua", "ra", "ta", "mia", "avg_gap", "deviation")
RETRAIN, NULL, ORIGINAL = "Retrain (target)", "Null (another Retrain)", "Original"
REFERENCES = (RETRAIN, NULL, ORIGINAL)
INTERVAL = "Retrains lie in"
COST = "share of the cost of training Retrain"
NAMED = 4  # figures that a sentence lists
SHORT = {"mia": "MIA %"}  # headings where the figure's label is long
STYLE = (  # inherits the colours of the notebook, light or dark
    "<style>.ju-compare table{border-collapse:collapse}"
    ".ju-compare th,.ju-compare td{padding:.2em .7em;text-align:right;"
    "white-space:nowrap}.ju-compare th:first-child,.ju-compare td:first-child"
    "{text-align:left}.ju-compare thead th{border-bottom:1px solid}"
    ".ju-compare .reference{font-style:italic}.ju-compare .outside{color:#b35c00}"
    ".ju-compare .inside{color:#2a8a3e}.ju-compare p{margin:.3em 0;max-width:48em}"
    "</style>"
)


@dataclass(frozen=True)
class SideBySide:
    """A table of models: printed as text, shown as HTML in a notebook.

    Attributes:
      figures: by model, references first, then by key of the figure; a model lacks a
        figure that is none of it.
      cards: of the figures, by key.
      cost: share of Retrain's cost, by model; empty where none was given.
      reading: what the table says, a sentence each.
      audit: what `ju.audit` found; None without a Retrain.
    """

    figures: Mapping[str, Mapping[str, Figure]]
    cards: Mapping[str, FigureCard]
    cost: Mapping[str, float]
    reading: Sequence[str]
    audit: Audit | None

    @property
    def columns(self) -> list[str]:
        """The headings."""
        heads = ["model", *map(_label, self.cards.values())]
        return heads + ["cost %"] * bool(self.cost)

    @property
    def rows(self) -> list[list[str]]:
        """The cells as text, a row a model, and one for the intervals of the null."""
        digits = self._digits.items()
        rows = [[name, *self._cells(name)] for name in self.figures]
        ends = {
            tuple(own[k].interval(n) if k in own else "" for k, n in digits)
            for name, own in self.figures.items()
            if name not in REFERENCES
        }
        if len(ends) == 1 and any(*ends):  # others where models are more or fewer
            rows.insert(1, [INTERVAL, *ends.pop()] + [""] * bool(self.cost))
        return rows

    @property
    def _digits(self) -> dict[str, int]:
        """The digits of each column: as many as show that what is outside is."""
        return {
            key: max(
                visible(own[key], card.digits)
                for own in self.figures.values()
                if key in own
            )
            for key, card in self.cards.items()
        }

    def _cells(self, name: str) -> list[str]:
        own, digits = self.figures[name], self._digits.items()
        cells = [_text(own[k], n) if k in own else "" for k, n in digits]
        if self.cost:
            share = self.cost.get(name)
            cells.append("" if share is None else f"{100 * share:.3g}")
        return cells

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.rjust(width) if number else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        text.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([*text, "", *self.reading])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table as HTML, as notebooks show it."""
        body = []
        for name, *cells in self.rows:
            own = self.figures.get(name, {})
            method = name in self.figures and name not in REFERENCES
            line = ""
            for key, cell in zip([*self.cards, ""], cells, strict=False):
                mark = own[key].verdict if key in own else ""
                line += f'<td class="{mark}">{html.escape(cell)}</td>'
            kind = "model" if method else "reference"
            body.append(f'<tr class="{kind}"><td>{html.escape(name)}</td>{line}</tr>')
        meanings = ["", *(card.meaning for card in self.cards.values()), COST]
        heads = "".join(
            f'<th title="{html.escape(meaning)}">{html.escape(head)}</th>'
            for head, meaning in zip(self.columns, meanings, strict=False)
        )
        words = "".join(f"<p>{html.escape(line)}</p>" for line in self.reading)
        return (
            f'{STYLE}<div class="ju-compare"><table><thead><tr>{heads}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table>{words}</div>"
        )


def compare(
    model: Model,
    models: Mapping[str, Any],
    data: Any,
    split: Any,
    *,
    retrain: Any = None,
    null: Any = None,
    original: Any = None,
    cost: Mapping[str, float] | None = None,
    metrics: Sequence[str | FigureCard] = SHOWN,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 512,
) -> SideBySide:
    """Compare unlearned classifiers with Retrain, the null, and doing nothing.

    The outputs of every model on the forget, retain, test and unseen samples go through
    `ju.audit`, which says how each figure is made and when it has a verdict. Training
    samples that are in neither part of the split count as unseen.

    Args:
      model: the network of all models.
      models: parameters by name; of each a state of `ju.run`, parameters, the pair
        (params, model_state), a trained module, or a list of these: one a seed.
      data: a `ju.data.Dataset`, or arrays as the model reads them: (x_train, y_train,
        x_test, y_test), ((x_train, y_train), (x_test, y_test)), or a mapping of these
        four names, such as an open npz file.
      split: a `ju.data.Split` of the training samples, or the ids to forget.
      retrain: one model or several that never saw the forget samples; three or more, of
        different seeds, make a verdict. Without one no figure has a target.
      null: further Retrains of other seeds, shown as a row of their own; of two
        Retrains the second is taken.
      original: the model before unlearning, one or one for each seed: doing nothing.
      cost: share of Retrain's cost, by name.
      metrics: keys of figures (`ju.audit.KINDS`), groups (`ju.audit.GROUPS`), or cards.
      level: of the null's intervals, in (0, 1).
      seed: of the attacks and divisions.
      batch_size: samples of a forward pass.

    Raises:
      InputError: what does not fit together, or cannot be had; says what to give.

    >>> import jax, optax
    >>> import jax_unlearn as ju
    >>> data = ju.data.digits()
    >>> split = ju.data.forget_split(data.train.labels, fraction=0.1)
    >>> model = ju.from_nnx(lambda rngs: ju.zoo.MLP(10, in_features=64, rngs=rngs))
    >>> model = ju.data.with_preprocessing(model, mean=[0.3], std=[0.4])
    >>> one, other = (model.init(jax.random.key(i), data.test.inputs) for i in (0, 1))
    >>> table = compare(
    ...     model, {"ours": one}, data, split, retrain=other, metrics=["ua"]
    ... )
    >>> print(str(table).splitlines()[2].split()[:2])
    ['Retrain', '(target)']
    >>> table.figures["ours"]["ua"].target == table.figures["Retrain (target)"][
    ...     "ua"
    ... ].value
    True
    """
    if not isinstance(models, Mapping) or not models:
        raise InputError(
            f"models={str(models)[:40]!r} must be parameters by name, such as "
            "{'ours': params}"
        )
    for name in set(map(str, models)) & {*REFERENCES, INTERVAL}:
        raise InputError(f"models: the name {name!r} is taken; rename that model")
    train, test = examples_of(data)
    parts = parts_of(split, train)
    reads = Candidates(model, train, test, parts, batch_size)
    given = {"retrain": retrain, "null": null, "original": original}
    known = {name: reads(name, one) for name, one in given.items() if one is not None}
    goals, others = known.get("retrain"), known.get("null")
    if goals is not None and others is None and len(goals) == 2:
        goals, others = goals[:1], goals[1:]
    if goals is None and others is not None:
        raise InputError("null is given and retrain=None; give one of them as retrain=")
    rows = {} if others is None else {NULL: others}
    rows |= {ORIGINAL: known["original"]} if "original" in known else {}
    rows |= {str(name): reads(f"models[{name!r}]", v) for name, v in models.items()}
    rows = {name: reads.evidence(name, outputs) for name, outputs in rows.items()}
    cards = _cards(metrics)
    shares = _shares(cost, models, others is not None, original is not None)
    if goals is None:
        figures = _levels(rows, cards, seed)
        return SideBySide(figures, _had(cards, figures), shares, [_TARGETLESS], None)
    found = audit(
        rows,
        reads.evidence("retrain", goals),
        reads.labels,
        metrics=list(cards.values()),
        figures=tuple(cards.values()),
        originals=ORIGINAL if original is not None else None,
        level=level,
        seed=seed,
    )
    first = next(iter(found.figures.values()))
    own = {
        key: Figure(goal, None, goal, None, None, "")
        for key, figure in first.items()
        if (goal := _own(cards[key], figure)) is not None
    }
    figures = {RETRAIN: own, **found.figures}
    told = _reading(found, figures, cards)
    return SideBySide(figures, _had(cards, figures), shares, told, found)


_TARGETLESS = (
    "No target: the figures of a model that never saw the forget samples are missing, "
    "and without them none of these says whether a model forgot. Train one on the "
    "retain set (split.retain) as the original was trained, and give it as retrain=."
)


def _cards(metrics: Sequence[str | FigureCard]) -> dict[str, FigureCard]:
    """Return the cards asked for, by key."""
    if isinstance(metrics, str) or not metrics:
        raise InputError(f"metrics={metrics!r}: give a list such as {list(SHOWN[:2])}")
    cards: dict[str, FigureCard] = {}
    for asked in metrics:
        if isinstance(asked, FigureCard):
            cards[asked.key] = asked
        elif asked in KINDS:
            cards[asked] = KINDS[asked]
        elif asked in GROUPS:
            cards |= {card.key: card for card in FIGURES if card.group == asked}
        else:
            raise unknown_name("metric", str(asked), (*KINDS, *GROUPS))
    return cards


def _shares(
    cost: Mapping[str, float] | None,
    models: Mapping[str, Any],
    null: bool,
    before: bool,
) -> dict[str, float]:
    """Return the costs by row, those of the references among them."""
    if cost is None:
        return {}
    for name, value in cost.items():
        if name not in models:
            raise unknown_name("model in cost", str(name), map(str, models))
        _validate.not_negative(f"cost[{name!r}]", value, "Retrain's is 1")
    usual = {RETRAIN: 1.0} | ({NULL: 1.0} if null else {})
    usual |= {ORIGINAL: 0.0} if before else {}
    return {**usual, **{str(name): float(value) for name, value in cost.items()}}


def _levels(
    rows: Mapping[str, Evidence], cards: Mapping[str, FigureCard], seed: int
) -> dict[str, dict[str, Figure]]:
    """Return what each model has without any other beside it."""
    figures: dict[str, dict[str, Figure]] = {name: {} for name in rows}
    for name, models in rows.items():
        for key, card in cards.items():
            if card.alone is None or not {*card.reads} <= {*models.sizes}:
                continue
            values = np.asarray(card.alone(models, seed), np.float64)
            std = float(values.std(ddof=1)) if len(values) > 1 else None
            own = float(values.mean())
            figures[name][key] = Figure(own, std, np.nan, None, None, "")
    if not any(figures.values()):
        raise InputError(
            f"metrics={list(cards)} are distances from Retrain; give retrain="
        )
    return figures


def _own(card: FigureCard, figure: Figure) -> float | None:
    """Return Retrain's own value of a figure; None where one of an ensemble."""
    if card.each:
        return figure.target
    if card.models > 1 or card.kind == "level":
        return None
    return float(card.kind == "closeness")


def _had(
    cards: Mapping[str, FigureCard], figures: Mapping[str, Mapping[str, Figure]]
) -> dict[str, FigureCard]:
    """Return the cards that some model has a figure of."""
    known = {key for own in figures.values() for key in own}
    return {key: card for key, card in cards.items() if key in known}


def _label(card: FigureCard) -> str:
    """Return a heading."""
    return SHORT.get(card.key, card.label)


def _text(figure: Figure, digits: int) -> str:
    """Return a figure with the sign of its verdict."""
    sign = SIGN.get(figure.verdict, "")
    return f"{figure.text(digits)} {sign}".rstrip()


def _reading(
    found: Audit,
    figures: Mapping[str, Mapping[str, Figure]],
    cards: Mapping[str, FigureCard],
) -> list[str]:
    """Return what the table says, a sentence each."""
    said = [
        "Retrain's value is the target of every figure: none is better for being "
        "higher or lower. Differences smaller than the null are noise."
    ]
    count = found.retrained
    for name, own in found.figures.items():
        if name in (NULL, ORIGINAL):
            continue
        verdicts = [(k, f.verdict) for k, f in own.items() if f.verdict]
        outside = [
            _label(cards[key]) for key, verdict in verdicts if verdict == "outside"
        ]
        told = _beside_nothing(own, figures.get(ORIGINAL, {}), cards)
        if outside:
            rest = len(outside) - NAMED
            listed = ", ".join(outside[:NAMED]) + f" and {rest} more" * (rest > 0)
            told = [
                f"{count} Retrains tell it from another Retrain by {listed} "
                f"({len(outside)} of {len(verdicts)} figures)",
                *told,
            ]
        elif verdicts:
            told = [
                f"{count} Retrains do not tell it from another Retrain, in any of "
                f"{len(verdicts)} figures",
                *told,
            ]
        if told:
            said.append(f"{name}: {'; '.join(told)}.")
    if count < FEWEST:
        said.append(
            f"No verdict: {count} Retrain given; {FEWEST} or more, of different seeds, "
            "make one (retrain=[...])."
        )
    signs = {f.verdict for own in found.figures.values() for f in own.values()}
    if signs - {""}:
        named = " and ".join(f"{SIGN[v]} {v}" for v in SIGN if v in signs)
        said.append(f"{named} the interval in which as many Retrains lie.")
    return said


def _beside_nothing(
    own: Mapping[str, Figure],
    nothing: Mapping[str, Figure],
    cards: Mapping[str, FigureCard],
) -> list[str]:
    """Say whether a model is nearer to Retrain than doing nothing, by each distance."""
    told: dict[str, list[str]] = {}
    for key in nothing:
        card = cards[key]
        if card.kind == "level":
            continue
        value, before = (round(f[key].value, card.digits) for f in (own, nothing))
        nearer = (value < before) == (card.kind == "distance")
        word = (
            "as far as" if value == before else ("farther than", "nearer than")[nearer]
        )
        ends = f"{value:.{card.digits}f} against {before:.{card.digits}f}"
        told.setdefault(word, []).append(f"{card.label} ({ends})")
    return [f"{word} doing nothing by {', '.join(by)}" for word, by in told.items()]
