"""R2D: go back to an earlier state of the original's training, and on without D_f."""

import dataclasses
from typing import Any

from jax_unlearn.cards import Card, Job, Lab, NotNegative, Options
from jax_unlearn.errors import InputError

__all__ = ["REWIND", "Rewinding"]


@dataclasses.dataclass(frozen=True)
class Rewinding(Options):
    """Options of R2D.

    Attributes:
      rewind_to: where the training is taken up again: a share of it below 1 (the kept
        state nearest to it), or an epoch; 0 is Retrain with the original's seed.
      earlier: path of the earlier state: a checkpoint of `train --keep-every`, or of an
        earlier moment, or parameters of another program, as `import` reads them. By
        default that of the original.
    """

    rewind_to: NotNegative = 0.5
    earlier: str = ""

    def costs(self, epochs: float) -> dict[str, float]:
        """Return what of a training of so many epochs is left, for the cost."""
        done = self.rewind_to / (1 if self.rewind_to < 1 else epochs)
        return {"left": max(1 - done, 0.0)}


def _rewind(lab: Lab, options: Rewinding) -> Job:
    return lab.rewound("retain", options.rewind_to, options.earlier)


def _check(setting: Any) -> None:
    if setting.trainable:
        raise InputError(
            f"trainable={setting.trainable!r}: rewind restores the whole network; "
            "leave it out"
        )


REWIND = (
    Card.of(_rewind, "R2D", "R2D (rewind)", "arXiv 2409.09778")
    .but(reads=("retain", "training"), cost="left·T·R", kind="training", weighs=False)
    .but(step_reads=("length",), check=_check)
    .but(
        suits="Good where states of the training were kept (train --keep-every): it "
        "goes on from one without the forget set; what was memorised before that state "
        "stays, so rewind far for samples learned early."
    )
    .tries(rewind_to=(0.25, 0.5, 0.7, 0.8, 0.9, 0.95))
)
