"""The forms of the results of diffusion models, which a page is made from."""

import base64
import binascii
from typing import Annotated, Literal

from msgspec import Meta, Struct, field, structs

from jax_unlearn.lab import schema
from jax_unlearn.lab.schema import FieldError, Finite, NotNegative
from jax_unlearn.report.forms import (
    Data,
    Gapped,
    Machine,
    Plan,
    check_complete,
    require,
)

__all__ = ["Amount", "GenerationRow", "Judge", "RunAttack", "RunDetails", "RunRow"]
__all__ += ["GenerationResults", "GenerationRun"]

PNG = b"\x89PNG\r\n\x1a\n"


class Amount(Struct, frozen=True):
    """A figure that cannot be negative, in the mean over the runs."""

    mean: NotNegative
    std: NotNegative | None = None


class Judge(Struct, frozen=True):
    """The classifier that says what is in the images, on real ones."""

    accuracy: schema.Percent
    by_class: tuple[Finite, ...] | None = None


class GenerationRow(Struct, frozen=True):
    """One diffusion model, in the mean over the runs."""

    frechet: Amount
    forget_error: Amount
    retain_error: Amount
    seconds: Amount
    retained_accuracy: Amount | None = None  # where a class was asked for
    ua: Amount | None = None  # of a class
    fid: Amount | None = None
    unseen_error: Amount | None = None
    returned: Amount | None = None  # of single images
    unseen_returned: Amount | None = None
    nearer: Amount | None = None

    def __post_init__(self):
        require((self.ua, self.returned) != (None, None), "ua is missing")

    @property
    def figures(self) -> dict[str, Amount]:
        """The figures that it has, by name."""
        return {k: v for k, v in structs.asdict(self).items() if v is not None}


class RunAttack(Struct, frozen=True):
    """The held-out quality of a membership attack on denoising errors."""

    auc: schema.Share
    standard_error: NotNegative
    better_than_chance: bool


class RunDetails(Struct, frozen=True):
    """What a method noted in one run."""

    attacks: dict[str, RunAttack] | None = None


class RunRow(Struct, frozen=True):
    """One diffusion model in one run."""

    frechet: NotNegative
    by_class: Gapped
    retained_accuracy: schema.Percent | None = None
    ua: schema.Percent | None = None
    fid: NotNegative | None = None
    forget_error: NotNegative | None = None
    unseen_error: NotNegative | None = None
    retain_error: NotNegative | None = None
    returned: NotNegative | None = None
    unseen_returned: NotNegative | None = None
    nearer: schema.Percent | None = None
    seconds: dict[str, NotNegative] | None = None
    details: RunDetails | None = None

    def __post_init__(self):
        require((self.ua, self.returned) != (None, None), "ua is missing")
        asked = any(share is not None for share in self.by_class)
        told = not asked or self.retained_accuracy is not None
        require(told, "retained_accuracy is missing")

    @property
    def figures(self) -> dict[str, Amount]:
        """The figures that it has, by name; the time is without compiling."""
        times = self.seconds or {}
        own = {k: v for k, v in structs.asdict(self).items() if isinstance(v, float)}
        own["seconds"] = times.get("prepare", 0.0) + times.get("run", 0.0)
        return {name: Amount(mean=value) for name, value in own.items()}


class GenerationRun(Struct, frozen=True):
    """One forgotten class of one seed; or images, and no class."""

    seed: Finite
    forgotten: schema.Whole | None = field(name="class")
    rows: dict[str, RunRow]
    grids: dict[str, str] | None = None
    forget_images: schema.Whole | None = None


class GenerationResults(Struct, frozen=True):
    """The results of an experiment with diffusion models."""

    kind: Literal["generation"]
    format: Literal[1]
    plan: Plan
    dataset: Data
    judge: Judge
    floor: dict[str, NotNegative]
    environment: Machine
    rows: Annotated[dict[str, GenerationRow], Meta(min_length=1)]
    runs: Annotated[tuple[GenerationRun, ...], Meta(min_length=1)]
    advice: tuple[str, ...] = ()

    def __post_init__(self):
        check_complete(self, floor=("frechet",))
        classes = len(self.dataset.classes or ())
        require(bool(self.plan.title), "plan.title is missing")
        require(classes > 0, "dataset.classes is missing")
        for key, row in self.rows.items():
            told = "fid" not in self.floor or row.fid is not None
            require(told, f"rows.{key}.fid is missing")
        for n, run in enumerate(self.runs):
            outside = f"class={run.forgotten} lies outside [0, {classes - 1}]"
            require((run.forgotten or 0) < classes, f"runs[{n}].{outside}")
            same = set(run.rows) == set(self.rows)
            require(same, f"runs[{n}].rows has other rows than rows")
            for key, row in run.rows.items():
                said = f"runs[{n}].rows.{key}.by_class has not one share a class"
                require(len(row.by_class) == classes, said)
                none = row.retained_accuracy is None
                same = none == (self.rows[key].retained_accuracy is None)
                require(same, f"rows.{key}.retained_accuracy is missing")
            for key, text in (run.grids or {}).items():
                _check_png(text, f"runs[{n}].grids.{key}")


def _check_png(text: str, at: str) -> None:
    try:
        start = base64.b64decode(text, validate=True)[: len(PNG)]
    except (binascii.Error, ValueError) as error:
        raise FieldError(f"{at} is no base64") from error
    require(start == PNG, f"{at} is no PNG")
