"""Options of the methods for language models: published factors and constants."""

import dataclasses
import functools
from typing import Annotated, Literal

from jax_unlearn import _validate
from jax_unlearn.cards import NotNegative, Options, Positive

__all__ = ["Halves", "Powered", "Preferred", "Saturated", "Shares", "Sharp", "Simple"]
__all__ += ["Skipping", "Steered", "Undone"]

Number = Annotated[int, functools.partial(_validate.at_least, low=0)]


@dataclasses.dataclass(frozen=True)
class Shares(Options):
    """Options of GradDiff and KL-min.

    Attributes:
      forget_share: γ, factor of the forget loss.
      retain_share: α, factor of the retain loss; 0 reads no retain texts.
    """

    forget_share: NotNegative = 1.0
    retain_share: NotNegative = 1.0


@dataclasses.dataclass(frozen=True)
class Halves(Shares):
    """Options of IdkNLL, whose mean is over forget and retain texts together."""

    forget_share: NotNegative = 0.5
    retain_share: NotNegative = 0.5


@dataclasses.dataclass(frozen=True)
class Sharp(Shares):
    """Options of NPO.

    Attributes:
      beta: β; as it nears 0, the method becomes ascent.
    """

    beta: Positive = 0.1


Source = Literal["column", "refusals", "generated"]


@dataclasses.dataclass(frozen=True)
class Preferred(Sharp):
    """Options of DPO.

    Attributes:
      beta: β; as it nears 0, the loss becomes a difference of losses.
      alternatives: answers to be preferred: of the data's column alternative_answer or
        perturbed_answer ("column"), refusals of the library ("refusals"), or drawn from
        the original at temperature 1, five a question ("generated").
    """

    alternatives: Source = "column"


@dataclasses.dataclass(frozen=True)
class Simple(Shares):
    """Options of SimNPO.

    Attributes:
      beta: β, published 2.5 to 4.5.
      delta: δ, the loss by token at which the pull is half gone: the paper's γ/β.
    """

    forget_share: NotNegative = 0.125
    beta: Positive = 4.5
    delta: NotNegative = 0.0


@dataclasses.dataclass(frozen=True)
class Powered(Shares):
    """Options of WGA.

    Attributes:
      beta: β, the power of a token's probability.
    """

    beta: Positive = 1.0


@dataclasses.dataclass(frozen=True)
class Saturated(Shares):
    """Options of SatImp.

    Attributes:
      forget_share: γ, factor of the forget loss: 0.1 in the published configuration,
        whose class says 1 and 0.1 the other way round.
      saturation: β₁, the power of p.
      importance: β₂, the power of 1 − p.
    """

    forget_share: NotNegative = 0.1
    saturation: NotNegative = 5.0
    importance: NotNegative = 1.0


@dataclasses.dataclass(frozen=True)
class Skipping(Shares):
    """Options of CE-U.

    Attributes:
      skip: number of tokens left out at the start of an answer.
    """

    skip: Number = 1


@dataclasses.dataclass(frozen=True)
class Undone(Shares):
    """Options of UNDIAL.

    Attributes:
      retain_share: α, factor of the retain loss, published 0: no retain texts are read.
      strength: β, how far the true token's logit is lowered.
    """

    retain_share: NotNegative = 0.0
    strength: NotNegative = 10.0


@dataclasses.dataclass(frozen=True)
class Steered(Shares):
    """Options of RMU.

    Attributes:
      retain_share: α, factor of the retain loss; WMDP: 1200.
      layer: layer whose hidden states are changed, from 0; a model with fewer layers
        uses its last.
      coefficient: c, length of the direction; WMDP: 6.5.
      only: parameters that change, a regular expression such as "layers/[567]/" for
        WMDP; empty: all.
    """

    layer: Number = 7
    coefficient: Positive = 2.0
    only: str = ""
