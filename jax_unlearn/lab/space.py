"""What a search of settings tries: cards name values, which span ranges."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from jax_unlearn.errors import InputError
from jax_unlearn.lab.catalog import weighting_card
from jax_unlearn.lab.refusals import LENGTHS
from jax_unlearn.lab.settings import Unlearning

__all__ = ["Range", "Space", "grid_of", "told"]

BEYOND = 3.0  # no range is chosen so well that its best never lies outside


class Range(NamedTuple):
    """Numbers from `low` to `high`; on a logarithmic scale, or whole ones."""

    low: float
    high: float
    whole: bool = False


def grid_of(setting: Unlearning) -> dict[str, Any]:
    """Return what a search tries: what cards name of options left at their default."""
    values, usual = setting.flat(), _usual(setting)
    search = {**setting.card.search, **weighting_card(setting.weighting).search}
    if setting.steps or setting.budget:  # they say the length, whatever the epochs
        search.pop("epochs", None)
    if setting.budget:
        search = {k: v for k, v in search.items() if k not in LENGTHS}
    tried = {k: tuple(v) for k, v in search.items() if values[k] == usual[k]}
    if not tried:
        raise InputError(
            f"method={setting.method!r}: you gave every option that a search would "
            "try; give fewer options"
        )
    fixed = told(setting).items()
    return tried | {k: (v,) if isinstance(v, tuple) else v for k, v in fixed}


class Space(NamedTuple):
    """A method's settings to be searched.

    Attributes:
      base: the setting with all that is fixed.
      ranges: of numbers that a compiled step serves all of, by option.
      choices: values of all other options: each may be a program of its own.
      first: the values to begin with, those in the middle of what the cards name.
    """

    base: Unlearning
    ranges: dict[str, Range]
    choices: dict[str, tuple[Any, ...]]
    first: dict[str, Any]

    @classmethod
    def of(cls, setting: Unlearning) -> "Space":
        """Return the space of a setting, of the options that it leaves alone.

        >>> space = Space.of(Unlearning.of(method="finetune"))
        >>> space.ranges["learning_rate"], space.ranges["epochs"]
        (Range(low=0.01, high=0.6, whole=False), Range(low=3, high=8, whole=True))
        >>> space.first
        {'learning_rate': 0.1, 'epochs': 8}
        >>> Space.of(Unlearning.of(method="salun", epochs=1, keep=0.3)).base.epochs
        1
        """
        grid = grid_of(setting)
        tried = {k: v for k, v in grid.items() if isinstance(v, tuple)}
        once = {k: v[0] for k, v in tried.items() if len(v) == 1}
        fixed = {k: v for k, v in grid.items() if k not in tried}
        base = Unlearning.of(**{**fixed, **once})
        several = {k: v for k, v in tried.items() if len(v) > 1}
        if not several:
            raise InputError(
                f"method={setting.method!r}: with these options only one setting is "
                "left to try; give fewer options"
            )
        ranges, choices = {}, {}
        for name, values in several.items():
            span = _span(base, name, values)
            if span is None:
                choices[name] = values
            else:
                ranges[name] = span
        first = {k: v[len(v) // 2] for k, v in several.items()}
        return cls(base, ranges, choices, first)

    def setting(self, values: Mapping[str, Any]) -> Unlearning:
        """Return the setting of some values, rounded as one writes them."""
        return self.base.but(**{k: self.rounded(k, v) for k, v in values.items()})

    def rounded(self, name: str, value: Any) -> Any:
        """Return a value with three digits, where it is one of a range."""
        span = self.ranges.get(name)
        return value if span is None or span.whole else float(f"{value:.3g}")

    def every(self) -> list[dict[str, Any]] | None:
        """Return all there is to try, the first first; None where it is not finite."""
        values = dict(self.choices)
        for name, span in self.ranges.items():
            if not span.whole:
                return None
            values[name] = tuple(range(int(span.low), int(span.high) + 1))
        rows = (dict(zip(values, r, strict=True)) for r in product(*values.values()))
        return sorted(rows, key=lambda row: row != self.first)  # stable

    def record(self) -> dict[str, Any]:
        """Return what JSON holds of it."""
        found = self._asdict() | {"base": self.base.record()}
        return found | {"ranges": {k: tuple(v) for k, v in self.ranges.items()}}


def _span(base: Unlearning, name: str, values: Sequence[Any]) -> Range | None:
    """Return the range of values that cost no program each, if they span one."""
    reads = base.card.step_reads or ()
    if name == "epochs" and all(type(value) is int for value in values):
        return Range(min(values), max(values), whole=True)
    if not all(isinstance(v, float) and v > 0 for v in values):
        return None
    if name == "learning_rate" and name not in reads:
        return Range(float(f"{min(values) / BEYOND:.2g}"), max(values) * BEYOND)
    # a one-shot method is a function of arrays; its strengths are among them
    return Range(min(values), max(values)) if base.card.kind == "one-shot" else None


def told(setting: Unlearning) -> dict[str, Any]:
    """Return what has to be said of a setting: the rest has its default."""
    usual = _usual(setting) | {"modality": Unlearning.modality}
    always = ("method", "weighting")
    return {k: v for k, v in setting.flat().items() if k in always or usual[k] != v}


def _usual(setting: Unlearning) -> dict[str, Any]:
    """Return the defaults of its method, weighting and kind of model."""
    names = ("method", "weighting", "modality")
    return Unlearning.of(**{name: getattr(setting, name) for name in names}).flat()
