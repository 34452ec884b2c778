"""Diffusion models: noise schedules, samplers, conditions, denoising errors.

A diffusion model is a `Model` whose inputs are (x_t, t, condition): images NHWC of
about [−1, 1], timesteps `i32[B]`, class ids `i32[B]` or whatever the network reads.
What is minimised is in `jax_unlearn.objectives`. Where no source is named, the choice
is ours.
"""

from jax_unlearn.averages import EmaState as EmaState
from jax_unlearn.averages import ema_of as ema_of
from jax_unlearn.averages import ema_params as ema_params
from jax_unlearn.diffusion.captions import Vocabulary as Vocabulary
from jax_unlearn.diffusion.captions import all_words as all_words
from jax_unlearn.diffusion.captions import caption as caption
from jax_unlearn.diffusion.captions import captions_of as captions_of
from jax_unlearn.diffusion.captions import detokenize as detokenize
from jax_unlearn.diffusion.captions import mentions as mentions
from jax_unlearn.diffusion.captions import null_tokens as null_tokens
from jax_unlearn.diffusion.captions import replace_word as replace_word
from jax_unlearn.diffusion.captions import thresholds as thresholds
from jax_unlearn.diffusion.captions import tokenize as tokenize
from jax_unlearn.diffusion.captions import vocabulary as vocabulary
from jax_unlearn.diffusion.captions import word_of as word_of
from jax_unlearn.diffusion.conditions import Replace as Replace
from jax_unlearn.diffusion.conditions import anchor as anchor
from jax_unlearn.diffusion.conditions import by_label as by_label
from jax_unlearn.diffusion.conditions import check_classes as check_classes
from jax_unlearn.diffusion.conditions import conditioned as conditioned
from jax_unlearn.diffusion.conditions import drop_condition as drop_condition
from jax_unlearn.diffusion.conditions import next_class as next_class
from jax_unlearn.diffusion.conditions import random_other as random_other
from jax_unlearn.diffusion.denoising import ErrorTable as ErrorTable
from jax_unlearn.diffusion.denoising import Noised as Noised
from jax_unlearn.diffusion.denoising import denoising_errors as denoising_errors
from jax_unlearn.diffusion.denoising import noised as noised
from jax_unlearn.diffusion.denoising import scaled as scaled
from jax_unlearn.diffusion.denoising import squared_error as squared_error
from jax_unlearn.diffusion.denoising import timestep_scale as timestep_scale
from jax_unlearn.diffusion.process import Process as Process
from jax_unlearn.diffusion.process import add_noise as add_noise
from jax_unlearn.diffusion.process import check_timesteps as check_timesteps
from jax_unlearn.diffusion.process import cosine as cosine
from jax_unlearn.diffusion.process import from_betas as from_betas
from jax_unlearn.diffusion.process import linear as linear
from jax_unlearn.diffusion.process import target as target
from jax_unlearn.diffusion.process import to_epsilon as to_epsilon
from jax_unlearn.diffusion.process import to_image as to_image
from jax_unlearn.diffusion.process import to_model_range as to_model_range
from jax_unlearn.diffusion.process import to_pixels as to_pixels
from jax_unlearn.diffusion.samplers import Sampler as Sampler
from jax_unlearn.diffusion.samplers import ddim as ddim
from jax_unlearn.diffusion.samplers import ddpm as ddpm
from jax_unlearn.diffusion.samplers import generate as generate
from jax_unlearn.diffusion.samplers import guided as guided
from jax_unlearn.diffusion.samplers import returned as returned
from jax_unlearn.diffusion.samplers import reverse_step as reverse_step

__all__ = ["EmaState", "ErrorTable", "Noised", "Process", "Replace", "Sampler"]
__all__ += ["Vocabulary", "add_noise", "all_words", "anchor", "by_label", "caption"]
__all__ += ["captions_of", "check_classes", "check_timesteps", "conditioned", "cosine"]
__all__ += ["ddim", "ddpm", "denoising_errors", "detokenize", "drop_condition"]
__all__ += ["ema_of", "ema_params", "from_betas", "generate", "guided", "linear"]
__all__ += ["mentions", "next_class", "noised", "null_tokens", "random_other"]
__all__ += ["replace_word", "returned", "reverse_step", "scaled", "squared_error"]
__all__ += ["target", "thresholds", "timestep_scale", "to_epsilon", "to_image"]
__all__ += ["to_model_range", "to_pixels", "tokenize", "vocabulary", "word_of"]
