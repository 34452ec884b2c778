"""What generation is told: how to train, to sample, and to forget.

Plain frozen dataclasses of numbers and names, as for classification.
"""

import dataclasses

from jax_unlearn.errors import InputError, unknown_name

METHODS = ("retain", "ascent", "relabel", "esd", "sfron", "ltu")
WEIGHTINGS = ("auto", "uniform", "loreun", "loreun_static", "falw", "sfron")
HARMONIZERS = ("add", "one_way", "two_way")
NOISES = ("cosine", "linear")
CONDITIONS = ("class", "text")
SAMPLERS = ("ddim", "ddpm")
PREDICTIONS = ("epsilon", "v_prediction")
DTYPES = ("float32", "bfloat16")
TIMES = ("bins", "draws", "raw")


@dataclasses.dataclass(frozen=True)
class GeneratorTraining:
    """How a diffusion model is trained: Adam, clipped gradients, a moving average.

    Attributes:
      condition: "class", or "text": captions made of class names and attributes.
      widths: channels of the UNet's levels.
      layers: residual blocks a level.
      attention: whether each level attends, one 0 or 1 a level; none: the last.
      dtype: of the computation; parameters are float32.
      timesteps: T of the noise schedule.
      noise: "cosine" or "linear".
      prediction: "epsilon" or "v_prediction".
      steps: of training.
      batch_size: images a step.
      learning_rate: the peak, falling to 0 along a cosine.
      clip: largest norm of the gradient.
      ema: decay of the moving average of the parameters, which is the model.
      drop: share of images that see the null condition; 0: no guidance later.

    >>> GeneratorTraining(steps=0)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: steps=0 must be at least 1
    """

    condition: str = "class"
    widths: tuple[int, ...] = (32, 64)
    layers: int = 1
    attention: tuple[int, ...] = ()
    dtype: str = "float32"
    timesteps: int = 1000
    noise: str = "cosine"
    prediction: str = "epsilon"
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    clip: float = 1.0
    ema: float = 0.995
    drop: float = 0.1

    def __post_init__(self):
        _known("condition", self.condition, CONDITIONS)
        _known("noise", self.noise, NOISES)
        _known("prediction", self.prediction, PREDICTIONS)
        _known("dtype", self.dtype, DTYPES)
        for name in ("timesteps", "steps", "batch_size", "layers"):
            _at_least(name, getattr(self, name), 1)
        _positive("learning_rate", self.learning_rate)
        _positive("clip", self.clip)
        for name in ("ema", "drop"):
            _share(name, getattr(self, name))
        if not set(self.attention) <= {0, 1}:
            raise InputError(
                f"attention={self.attention} must be 0 or 1 for each level"
            )


@dataclasses.dataclass(frozen=True)
class GeneratorUnlearning:
    """How a diffusion model forgets a class (or a word of its captions).

    Attributes:
      method: "retain" (fine-tuning), "ascent", "relabel" (the class is to mean another
        one), "esd" (negative guidance), "sfron", or "ltu".
      replace: for relabel and ltu: "random" another class each time, "next", or the
        name or number of a class (for captions: the word) that takes its place.
      keep: share of the weights that may move, the most salient ones; 1: all (with
        relabel, 0.5 is SalUn).
      weighting: of the forget images; "auto": sfron's own for sfron, else uniform.
      temperature: τ of LoReUn.
      relative: τ in standard deviations of the losses.
      time: what of the loss the weights see, which depends on the timestep first:
        "bins" divides it by the mean of its timestep's bin under the original model,
        "draws" averages it over several timesteps, "raw" does neither.
      bins: number of bins.
      draws: timesteps an image and step ("draws", and what attacks of ltu look at).
      harmonizer: how the two gradients are joined; "one_way" is LTU's.
      forget_strength: factor of the forget gradient ("add" alone).
      guidance: η of esd.
      forget_rate: learning rate of sfron's ascent.
      forget_every: sfron climbs once in so many steps.
      peak: strength of sfron's first ascent.
      inner_rate: learning rate of ltu's virtual step.
      query_size: retain images of each of ltu's queries.
      steps: of unlearning.
      batch_size: forget, and retain, images a step.
      learning_rate: of Adam.
      clip: largest norm of the gradient.
      rho: share of the retain images that may be read.
    """

    method: str = "relabel"
    replace: str = "random"
    keep: float = 1.0
    weighting: str = "auto"
    temperature: float = 1.0
    relative: bool = False
    time: str = "bins"
    bins: int = 10
    draws: int = 4
    harmonizer: str = "add"
    forget_strength: float = 1.0
    guidance: float = 1.0
    forget_rate: float = 0.01
    forget_every: int = 5
    peak: float = 1.0
    inner_rate: float = 0.003
    query_size: int = 32
    steps: int = 150
    batch_size: int = 64
    learning_rate: float = 1e-3
    clip: float = 1.0
    rho: float = 1.0

    def __post_init__(self):
        _known("method", self.method, METHODS)
        _known("weighting", self.weighting, WEIGHTINGS)
        _known("time", self.time, TIMES)
        _known("harmonizer", self.harmonizer, HARMONIZERS)
        for name in ("steps", "batch_size", "bins", "draws", "forget_every"):
            _at_least(name, getattr(self, name), 1)
        _at_least("query_size", self.query_size, 1)
        for name in ("temperature", "learning_rate", "clip", "forget_rate", "peak"):
            _positive(name, getattr(self, name))
        for name in ("forget_strength", "guidance", "inner_rate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(
                    f"{name}={getattr(self, name)} must not be negative or infinite"
                )
        for name in ("keep", "rho"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)} must lie in (0, 1]")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How images are drawn.

    Attributes:
      sampler: "ddim", or "ddpm" (one step a timestep of training).
      sampling_steps: of ddim.
      eta: of ddim; 0 draws no noise on the way.
      guidance_scale: 1 is the plain condition, as in diffusers.
      sample_batch: images at a time.
    """

    sampler: str = "ddim"
    sampling_steps: int = 25
    eta: float = 0.0
    guidance_scale: float = 2.0
    sample_batch: int = 256

    def __post_init__(self):
        _known("sampler", self.sampler, SAMPLERS)
        _at_least("sampling_steps", self.sampling_steps, 1)
        _at_least("sample_batch", self.sample_batch, 1)
        if not abs(self.guidance_scale) < float("inf"):
            raise InputError(
                f"guidance_scale={self.guidance_scale} must be finite; 1 does not guide"
            )


def _known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown_name(name, value, known)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name}={value} must be at least {least}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InputError(f"{name}={value} must be positive and finite")


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{name}={value} must lie in [0, 1)")
