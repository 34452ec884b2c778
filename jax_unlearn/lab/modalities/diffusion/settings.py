"""What diffusion models are told: how to train, to forget, to sample, to be judged."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from jax_unlearn import _validate
from jax_unlearn.cards import Count, NotNegative, Options, Positive, Share
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.classification.networks import Training
from jax_unlearn.lab.modality import Dtype

__all__ = ["COLUMNS", "DEFAULTS", "Condition", "Denoising", "DiffusionTraining"]
__all__ += ["Judging", "Noise", "Prediction", "Sampling"]

COLUMNS = 8  # images of each class in a report

Condition = Literal["class", "text", "none"]
Noise = Literal["cosine", "linear"]
Prediction = Literal["epsilon", "v_prediction"]
Flag = Annotated[int, functools.partial(_validate.within, interval="[0, 1]")]


@dataclasses.dataclass(frozen=True)
class DiffusionTraining(Options):
    """How a diffusion model is trained: Adam, clipped gradients, a moving average.

    Attributes:
      condition: what an image is drawn for: "class"; "text", captions made of class
        names and attributes; or "none", as in the published models of SISS.
      widths: channels at each level of the UNet.
      layers: residual blocks at each level.
      attention: levels with attention, a 0 or 1 for each level; none given: the last.
      dtype: number type of the computation; parameters are float32.
      timesteps: number of timesteps of the noise schedule, T.
      noise: noise schedule.
      prediction: what the network predicts.
      steps: number of training steps.
      batch_size: images in a step.
      learning_rate: largest learning rate; it falls to 0 along a cosine.
      clip: largest L2 norm of the gradient.
      ema: decay of the moving average of the parameters; the average is the model.
      drop: share of the images that are trained without condition. With 0 no guidance
        is possible later.
    """

    condition: Condition = "class"
    widths: tuple[int, ...] = (32, 64)
    layers: Count = 1
    attention: tuple[Flag, ...] = ()
    dtype: Dtype = "float32"
    timesteps: Count = 1000
    noise: Noise = "cosine"
    prediction: Prediction = "epsilon"
    steps: Count = 2000
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    clip: Positive = 1.0
    ema: Share = 0.995
    drop: Share = 0.1


@dataclasses.dataclass(frozen=True)
class Denoising(Options):
    """What an unlearning of a diffusion model is told beside its method.

    Attributes:
      replace: what takes the place of the class, for methods that relabel: "random",
        another class each time; "next"; or the name or number of a class (for captions
        a word).
      time: how weights are made independent of the timestep: "bins" divides the loss by
        its mean in the timestep's bin under the original model, "draws" averages it
        over several timesteps, "raw" does neither.
      bins: number of bins of timesteps.
      draws: timesteps drawn for each image and step (for "draws", and for attacks).
      forget_strength: factor of the forget gradient, before the two are joined.
      retain_strength: factor of the retain gradient, before the two are joined.
      retain_unit: unit of --retain-strength: "mean", the loss as it is here, a mean
        over pixels; or "sum", as in SalUn's code for DDPM, whose forget loss is a mean:
        its 1e-3 at 32 x 32 x 3 is 1e-3·3072 = 3.07 of "mean".
    """

    replace: str = "random"
    time: Literal["bins", "draws", "raw"] = "bins"
    bins: Count = 10
    draws: Count = 4
    forget_strength: NotNegative = 1.0
    retain_strength: NotNegative = 1.0
    retain_unit: Literal["mean", "sum"] = "mean"

    def factors(self, image_shape: Sequence[int]) -> dict[str, float]:
        """Return the factors of forget and retain gradient, for means over pixels.

        >>> Denoising(retain_strength=1e-3, retain_unit="sum").factors((32, 32, 3))
        {'forget': 1.0, 'retain': 3.072}
        """
        unit = math.prod(image_shape) if self.retain_unit == "sum" else 1
        return {"forget": self.forget_strength, "retain": self.retain_strength * unit}


DEFAULTS: dict[str, Any] = {
    "steps": 150,
    "schedule": "zipped",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "clip": 1.0,
    "estimator": "streaming",  # a pass over all unseen images at every step is too much
    "strategies": ("uniform", "class_skewed"),  # the others look at features
    "attacks": ("logistic", "entropy_mlp", "gaussian_ratio"),
    # SFRon's, as published but for the clip, which there is of a sum over pixels
    "forget_every": 1,
    "peak": 10.0,
    "ascent_clip": 1.0,
    "constant_rate": True,
}
"""Where the defaults of diffusion models are others."""


@dataclasses.dataclass(frozen=True)
class Sampling(Options):
    """How images are drawn.

    Attributes:
      sampler: sampler: "ddim", or "ddpm" with one step for each timestep of the
        training.
      sampling_steps: number of steps of ddim.
      eta: noise added in the steps of ddim; 0 adds none.
      guidance_scale: strength of the guidance; 1 is the plain condition, as in
        diffusers. The w of papers and of SalUn's code, (1 + w) ε_c − w ε, is one less:
        their 2.0 is 3.0 here.
      sample_batch: number of images drawn at a time.
    """

    sampler: Literal["ddim", "ddpm"] = "ddim"
    sampling_steps: Count = 25
    eta: float = 0.0
    guidance_scale: float = 2.0
    sample_batch: Count = 256

    def __post_init__(self):
        super().__post_init__()
        if not abs(self.guidance_scale) < float("inf"):
            raise InputError(
                f"guidance_scale={self.guidance_scale} must be finite; 1 does not guide"
            )


@dataclasses.dataclass(frozen=True)
class Judging:
    """How images of diffusion models are drawn and judged.

    Attributes:
      judge: how the classifier that looks at them is trained.
      sampling: how images are drawn, of all models alike.
      per_class: images drawn of each class, from each model.
      forget_images: images drawn of the forgotten class.
    """

    judge: Training = dataclasses.field(default_factory=Training)
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    per_class: int = 50
    forget_images: int = 100

    def __post_init__(self):
        # a distance needs a spread, and a row of the grid as many images as the others
        alike = self.per_class == self.forget_images
        for name in ("per_class", "forget_images"):
            low = 2 if alike else COLUMNS
            _validate.at_least(name, getattr(self, name), low, "try 50")
